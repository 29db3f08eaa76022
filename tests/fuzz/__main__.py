"""The long form: `python -m tests.fuzz [target …] --inputs 1000000 --seed 7`.

Each target runs in a process of its own whose memory the kernel limits; without --seed a random one
is taken. The seed is printed; `--only N` runs one input again.
"""

import argparse
import os

from tests.fuzz.processes import fuzz_all, fuzz_here
from tests.fuzz.targets import TARGETS


def main() -> None:
    """Read the arguments and run."""
    parser = argparse.ArgumentParser(prog="python -m tests.fuzz", description=__doc__)
    parser.add_argument("targets", nargs="*", choices=[[], *TARGETS], metavar="target")
    parser.add_argument("--inputs", type=int, default=1_000_000)
    parser.add_argument("--seed", type=int, default=int.from_bytes(os.urandom(4), "big"))
    parser.add_argument("--only", type=int, help="run the input with this number alone")
    parser.add_argument("--inline", action="store_true", help=argparse.SUPPRESS)
    given = parser.parse_args()
    names = given.targets or list(TARGETS)
    if given.only is not None or given.inline:
        numbers = range(given.inputs)
        if given.only is not None:
            numbers = range(given.only, given.only + 1)
        fuzz_here(names[0], given.seed, numbers)
        return
    print(f"fuzzing {', '.join(names)}: {given.inputs:,} inputs each, seed {given.seed}")
    try:
        for line in fuzz_all(names, inputs=given.inputs, seed=given.seed):
            print(line, flush=True)
    except AssertionError as error:
        raise SystemExit(f"found:\n{error}") from None


main()
