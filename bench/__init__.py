"""Benchmarks: one file each, Postfix measured beside relay in the same run (`make bench`)."""
