"""What a benchmark found, and the table of it.

`python -m bench.report FILE…` prints records (`make bench ARGS="--record FILE"`) as Markdown.
"""

import os
import platform
import subprocess
import sys
from datetime import UTC, datetime
from pathlib import Path

import msgspec


class Result(msgspec.Struct, frozen=True, kw_only=True):
    """One row: figures in words, `met` None where there is no target.

    `cpu`: microseconds of CPU a message by process. `notes`: what stands below the row.
    """

    code: str
    what: str
    relay: str
    target: str
    met: bool | None
    postfix: str = "-"
    cpu: dict[str, float] = {}
    notes: tuple[str, ...] = ()


_HEAD = ("", "what", "relay", "Postfix", "target", "met")


def lines_of(result: Result) -> list[str]:
    """A result by itself, as it is printed when its benchmark ends."""
    verdict = {True: f"{result.target}: met", False: f"{result.target}: NOT met", None: "no target"}
    peer = "" if result.postfix == "-" else f"; Postfix {result.postfix}"
    lines = [f"{result.code}  {result.what}: {result.relay}{peer} ({verdict[result.met]})"]
    if result.cpu:
        shares = "  ".join(f"{name} {used:.0f}" for name, used in result.cpu.items() if used >= 0.5)
        lines.append(f"    CPU us/message: {shares}")
        ours = sum(used for name, used in result.cpu.items() if name != "Postfix")
        allowed = (os.cpu_count() or 1) * 1e6 / ours
        lines.append(
            f"    all but Postfix {ours:.0f}: {os.cpu_count()} cores allow {allowed:.0f}/s"
        )
    return lines + [f"    {note}" for note in result.notes]


def table(results: list[Result]) -> list[str]:
    """All results, one row each."""
    words = {True: "yes", False: "no", None: "-"}
    rows = [_HEAD] + [
        (item.code, item.what, item.relay, item.postfix, item.target, words[item.met])
        for item in results
    ]
    widths = [max(len(row[column]) for row in rows) for column in range(len(_HEAD))]
    return [
        "  ".join(text.ljust(width) for text, width in zip(row, widths, strict=True)).rstrip()
        for row in rows
    ]


def circumstances(command: str) -> list[str]:
    """Machine, versions, commit and command of a run."""
    memory = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES") / 2**30
    kernel = f"{platform.system()} {platform.release()}"
    return [
        f"machine  {os.cpu_count()} cores {_processor()}, {memory:.0f} GiB, {kernel},"
        f" load {os.getloadavg()[0]:.1f} before we began",
        f"commit   {_output('git', 'describe', '--always', '--dirty', '--abbrev=10')}"
        f"  Python {platform.python_version()}  {_output('redis-server', '--version')[:24]}",
        f"command  {command}   {datetime.now(UTC):%Y-%m-%d %H:%M} UTC",
    ]


def _processor() -> str:
    for line in Path("/proc/cpuinfo").read_text().splitlines():
        if line.startswith("model name"):
            return line.partition(":")[2].strip()
    return platform.machine()


def _output(*command: str) -> str:
    try:
        return subprocess.run(command, capture_output=True, text=True, check=True).stdout.strip()
    except (OSError, subprocess.CalledProcessError):
        return f"no {command[0]}"


class Record(msgspec.Struct, frozen=True):
    """A run as it is kept."""

    circumstances: list[str]
    results: list[Result]


def record(path: Path, run: Record) -> None:
    """Keep a run as JSON."""
    path.write_bytes(msgspec.json.format(msgspec.json.encode(run)) + b"\n")


def markdown(run: Record) -> list[str]:
    """A run as a table for a document, with the CPU of each process."""
    lines = [*(f"    {line}" for line in run.circumstances), ""]
    lines += ["| | what | relay | Postfix | target | met | CPU µs a message |", "|---" * 7 + "|"]
    for item in run.results:
        shares = ", ".join(f"{name} {used:.0f}" for name, used in item.cpu.items() if used >= 0.5)
        met = {True: "yes", False: "**no**", None: ""}[item.met]
        row = (item.code, item.what, item.relay, item.postfix, item.target, met, shares)
        lines.append(f"| {' | '.join(row)} |")
    return lines


def rounds(rates: list[float]) -> str:
    """The rates of all rounds."""
    return " ".join(f"{value:.0f}" for value in rates)


def say(text: str) -> None:
    """Progress, on standard error."""
    print(text, file=sys.stderr, flush=True)


if __name__ == "__main__":
    for _name in sys.argv[1:]:
        _run = msgspec.json.decode(Path(_name).read_bytes(), type=Record)
        print("\n".join(markdown(_run)))
