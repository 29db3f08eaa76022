"""`python -m tests.chaos [--short] [f06 f08 …]`: scenarios and their figures."""

import argparse
import asyncio
import importlib
import sys
import tempfile
from pathlib import Path

SCENARIOS = {
    path.stem[:3]: path.stem for path in sorted(Path(__file__).parent.glob("f[0-9][0-9]_*.py"))
}


def main() -> None:
    """Read the arguments and run; exit 1 where a scenario failed."""
    parser = argparse.ArgumentParser(prog="python -m tests.chaos", description=__doc__)
    parser.add_argument("scenarios", nargs="*", metavar="scenario", choices=[[], *SCENARIOS])
    parser.add_argument("--short", action="store_true", help="the sizes of make test")
    given = parser.parse_args()
    failed = [name for name in given.scenarios or SCENARIOS if not _run(name, short=given.short)]
    sys.exit(f"failed: {', '.join(failed)}" if failed else 0)


def _run(name: str, *, short: bool) -> bool:
    scenario = importlib.import_module(f"tests.chaos.{SCENARIOS[name]}")
    with tempfile.TemporaryDirectory() as folder:
        try:
            print(
                asyncio.run(scenario.run(Path(folder), scenario.SHORT if short else scenario.LONG))
            )
        except AssertionError as error:
            print(f"{name.upper()} failed: {error}", file=sys.stderr)
            return False
    return True


main()
