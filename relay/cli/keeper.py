"""The keeper: kills what a supervisor started when the supervisor itself was killed.

A process of its own, of the standard library alone. Its standard input is a pipe that only the
supervisor holds: `+<group>` and `-<group>` lines say which process groups live; its end means that
the supervisor is gone, and then every group left is killed. Signals do not stop it.
"""

import os
import signal
import sys


def main() -> None:
    """Read until the supervisor is gone, then kill what it left."""
    for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP, signal.SIGQUIT):
        signal.signal(number, signal.SIG_IGN)
    groups: set[int] = set()
    for line in sys.stdin:
        group = int(line[1:])
        if line.startswith("+"):
            groups.add(group)
        else:
            groups.discard(group)
    for group in groups:
        try:
            os.killpg(group, signal.SIGKILL)
        except (ProcessLookupError, PermissionError):
            pass


if __name__ == "__main__":
    main()
