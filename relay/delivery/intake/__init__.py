"""Incoming reports: what others tell of mail that had left us (DSN, complaint, prose)."""
