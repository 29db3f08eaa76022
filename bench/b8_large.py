"""B8: SMTP in, queue, SMTP out, 100 KB messages, 50 domains."""

import statistics

from bench.compare import compare
from bench.report import Result
from bench.run import Run
from bench.source import Load

TARGET = 2.0


def run(run: Run) -> list[Result]:
    """Measure both."""
    found = compare(run, Load(messages=run.size(2000, 400), octets=100_000))
    return [
        Result(
            code="B8",
            what="SMTP in, queue, SMTP out, 100 KB",
            relay=f"{statistics.median(found.ours):.0f}/s ({found.ratio:.2f} x)",
            postfix=f"{statistics.median(found.theirs):.0f}/s",
            target=f">= {TARGET:g} x Postfix",
            met=found.ratio >= TARGET,
            cpu=found.cpu,
            notes=found.notes,
        )
    ]
