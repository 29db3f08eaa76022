"""`python -m tests.chaos [--short] [f06 f08 …]`: scenarios, and a table of what they came to."""

import argparse
import asyncio
import importlib
import re
import sys
import tempfile
import time
import traceback
from pathlib import Path

from bench.report import circumstances

#: F2's second half is f02b.
SCENARIOS = {
    path.stem.partition("_")[0]: path.stem
    for path in sorted(Path(__file__).parent.glob("f[0-9][0-9]*_*.py"))
}


def main() -> None:
    """Read the arguments, run one after another, print the table; exit 1 where one failed."""
    parser = argparse.ArgumentParser(prog="python -m tests.chaos", description=__doc__)
    parser.add_argument("scenarios", nargs="*", metavar="scenario", choices=[[], *SCENARIOS])
    parser.add_argument("--short", action="store_true", help="the sizes of make test")
    given = parser.parse_args()
    arguments = " ".join([*(["--short"] if given.short else []), *given.scenarios])
    about = circumstances(f'make chaos ARGS="{arguments}"' if arguments else "make chaos")
    rows = [_run(name, short=given.short) for name in given.scenarios or SCENARIOS]
    print("\n" + "\n".join([*about, "", *rows]))
    sys.exit(1 if any(" FAILED " in row for row in rows) else 0)


def _run(name: str, *, short: bool) -> str:
    """Run one; its row: the scenario, how it ended, how long it took, what it told."""
    scenario = importlib.import_module(f"tests.chaos.{SCENARIOS[name]}")
    print(f"{name} …", file=sys.stderr, flush=True)
    began = time.monotonic()
    with tempfile.TemporaryDirectory() as folder:
        try:
            size = scenario.SHORT if short else scenario.LONG
            word, told = "ok", asyncio.run(scenario.run(Path(folder), size))
        except Exception as error:
            traceback.print_exc()
            word, told = "FAILED", f"{type(error).__name__}: {error}"
    print(told, flush=True)
    lines = re.sub(r"(?m)^F\d+ +", "", told).splitlines()
    head = f"{name.upper():4}  {word:6} {time.monotonic() - began:5.0f} s  "
    return head + f"\n{' ' * len(head)}".join(lines)


main()
