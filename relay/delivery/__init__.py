"""The story of an attempt: plan, session, outcome."""
