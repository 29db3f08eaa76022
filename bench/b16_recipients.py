"""B16: SMTP in, queue, SMTP out, 10 KB messages to 50 recipients of one domain each."""

import statistics

from bench.compare import compare
from bench.report import Result
from bench.run import Run
from bench.source import Load

TARGET = 2.0
RECIPIENTS = 50


def run(run: Run) -> list[Result]:
    """Measure both."""
    load = Load(messages=run.size(800, 100), per_message=RECIPIENTS)
    found = compare(run, load)
    ours, theirs = (statistics.median(rates) * RECIPIENTS for rates in (found.ours, found.theirs))
    return [
        Result(
            code="B16",
            what="10 KB to 50 recipients of one domain, SMTP in, queue, SMTP out",
            relay=f"{ours:.0f} recipients/s ({found.ratio:.2f} x)",
            postfix=f"{theirs:.0f} recipients/s",
            target=f">= {TARGET:g} x Postfix",
            met=found.ratio >= TARGET,
            cpu=found.cpu,
            notes=found.notes,
        )
    ]
