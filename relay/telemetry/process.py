"""What this process is and uses: its host, its number, its memory, its CPU time."""

import os
import socket
import time
from pathlib import Path
from typing import Any

_PAGE_OCTETS = os.sysconf("SC_PAGE_SIZE")
_BEGAN = time.time()


def describe_process(role: str) -> dict[str, Any]:
    """Role, host, pid, since (epoch s), rss (octets), cpu_s (user and system), open_files."""
    return {
        "role": role,
        "host": socket.gethostname(),
        "pid": os.getpid(),
        "since": _BEGAN,
        "rss": _resident_octets(),
        "cpu_s": time.process_time(),
        "open_files": _open_files(),
    }


def _resident_octets() -> int:
    try:
        return int(Path("/proc/self/statm").read_text().split()[1]) * _PAGE_OCTETS
    except OSError:
        return 0


def _open_files() -> int:
    try:
        return sum(1 for _ in Path("/proc/self/fd").iterdir())
    except OSError:
        return 0
