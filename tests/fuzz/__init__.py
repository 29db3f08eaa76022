"""Hostile input, made from a seed: one file a target, `campaign` runs them.

`make test` feeds each target some thousand inputs; `python -m tests.fuzz --inputs 1000000` is the
long form, a process a target, its memory limited by the kernel.
"""
