"""Decisions as pure functions of (facts, now, random): no I/O, no clock, no settings of its own."""
