"""`python -m bench [b1 b7 …]`: run the named benchmarks, or all; print one table."""

import os
import platform
import subprocess
import sys
import tempfile
from collections.abc import Callable
from pathlib import Path

from bench import b1_smtp_in_out, b7_latency

BENCHMARKS: dict[str, Callable[[Path, Path], list[str]]] = {
    "b1": b1_smtp_in_out.run,
    "b7": b7_latency.run,
}


def main() -> int:
    """Run and print; the exit status."""
    names = sys.argv[1:] or list(BENCHMARKS)
    unknown = [name for name in names if name not in BENCHMARKS]
    if unknown:
        print(f"no benchmark {', '.join(unknown)}; there are {', '.join(BENCHMARKS)}")
        return 64
    home = Path(os.environ.get("XDG_CACHE_HOME", Path.home() / ".cache"))
    commit = subprocess.run(
        ["git", "rev-parse", "--short", "HEAD"], capture_output=True, text=True, check=False
    ).stdout.strip()
    print(f"{os.cpu_count()} cores, Python {platform.python_version()}, commit {commit}")
    for name in names:
        with tempfile.TemporaryDirectory(prefix="relay-bench-") as base:
            for line in BENCHMARKS[name](home / "relay-bench", Path(base)):
                print(line, flush=True)
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
