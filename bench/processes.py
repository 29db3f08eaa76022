"""What processes of this machine use: CPU seconds and memory, with all that descends from them."""

import contextlib
import os
import socket
import time
from collections.abc import Callable, Iterator
from pathlib import Path

_TICKS = os.sysconf("SC_CLK_TCK")
_PAGE = os.sysconf("SC_PAGE_SIZE")


def cpu_seconds(pid: int) -> float:
    """User and system seconds of a process and its descendants, ended ones included."""
    return sum(sum(map(int, fields[11:15])) for fields in _family(pid)) / _TICKS


def own_cpu_seconds(pid: int) -> float:
    """User and system seconds of a process without its children."""
    fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    return (int(fields[11]) + int(fields[12])) / _TICKS


def main_thread_cpu_seconds(pid: int) -> float:
    """User and system seconds of the first thread of a process: in a worker, Celery's loop."""
    fields = Path(f"/proc/{pid}/task/{pid}/stat").read_text().rpartition(")")[2].split()
    return (int(fields[11]) + int(fields[12])) / _TICKS


def resident_octets(pid: int) -> int:
    """Memory that a process and its descendants have in RAM."""
    return sum(int(fields[21]) for fields in _family(pid)) * _PAGE


def arguments_of_children(pid: int) -> dict[int, str]:
    """The living children of a process with their command lines."""
    found = {}
    for child, fields in _all().items():
        if int(fields[1]) == pid:
            with contextlib.suppress(OSError):
                found[child] = Path(f"/proc/{child}/cmdline").read_text().replace("\0", " ")
    return found


def _all() -> dict[int, list[str]]:
    """The fields of every /proc/PID/stat behind the name."""
    found = {}
    for entry in Path("/proc").iterdir():
        if entry.name.isdigit():
            with contextlib.suppress(OSError):
                found[int(entry.name)] = (entry / "stat").read_text().rpartition(")")[2].split()
    return found


def _family(pid: int) -> Iterator[list[str]]:
    processes = _all()
    for number, fields in processes.items():
        ancestor = number
        while ancestor not in (pid, 0, 1) and ancestor in processes:
            ancestor = int(processes[ancestor][1])
        if ancestor == pid:
            yield fields


def free_port() -> int:
    """A TCP port of 127.0.0.1 that is free now."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


def wait_for_listener(address: str, port: int, still_runs: Callable[[], bool]) -> None:
    """Until something listens there; RuntimeError when it ends or takes 30 s."""
    deadline = time.monotonic() + 30
    while time.monotonic() < deadline and still_runs():
        with contextlib.suppress(OSError), socket.create_connection((address, port), 1):
            return
        time.sleep(0.05)
    raise RuntimeError(f"nothing listens on {address}:{port}")
