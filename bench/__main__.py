"""`python -m bench [b1 b7 …] [--quick] [--record FILE]`: run the named benchmarks, or all."""

import argparse
import os
import tempfile
from collections.abc import Callable
from importlib import import_module
from pathlib import Path

from bench.report import Record, Result, circumstances, lines_of, record, say, table
from bench.run import Run

MODULES = {
    "b1": "b1_smtp_in_out",
    "b2": "b2_newsletter",
    "b3": "b3_signed",
    "b4": "b4_domains",
    "b5": "b5_deferred",
    "b6": "b6_bad_neighbours",
    "b7": "b7_latency",
    "b8": "b8_large",
    "b9": "b9_tls",
    "b10": "b10_distance",
    "b11": "b11_transactional",
    "b12": "b12_killed",
    "b16": "b16_recipients",
    "g": "guarantees",
}


def main() -> int:
    """Run and print; the exit status."""
    parser = argparse.ArgumentParser(prog="bench", description="The benchmarks of relay.")
    parser.add_argument("names", nargs="*", metavar="NAME", help=f"of {', '.join(MODULES)}")
    parser.add_argument("--quick", action="store_true", help="a short form, to try it")
    parser.add_argument("--record", type=Path, metavar="FILE", help="keep the figures as JSON")
    chosen = parser.parse_args()
    unknown = [name for name in chosen.names if name.lower() not in MODULES]
    if unknown:
        parser.error(f"no benchmark {', '.join(unknown)}; there are {', '.join(MODULES)}")
    names = [name.lower() for name in chosen.names] or list(MODULES)
    arguments = " ".join([*chosen.names, *(["--quick"] if chosen.quick else [])])
    about = circumstances(f'make bench ARGS="{arguments}"' if arguments else "make bench")
    print("\n".join(about), flush=True)
    results = _run_all(names, quick=chosen.quick)
    print("\n" + "\n".join(table(results)))
    if chosen.record:
        record(chosen.record, Record(about, results))
    return 0


def _run_all(names: list[str], *, quick: bool) -> list[Result]:
    home = Path(os.environ.get("XDG_CACHE_HOME", Path.home() / ".cache"))
    results: list[Result] = []
    for name in names:
        say(f"{name} …")
        measure: Callable[[Run], list[Result]] = import_module(f"bench.{MODULES[name]}").run
        with tempfile.TemporaryDirectory(prefix="relay-bench-") as base:
            run = Run(cache=home / "relay-bench", base=Path(base), is_quick=quick)
            found = measure(run)
        for result in found:
            print("\n".join(lines_of(result)), flush=True)
        results += found
    return results


if __name__ == "__main__":
    raise SystemExit(main())
