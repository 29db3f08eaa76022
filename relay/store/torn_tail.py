"""Starts Redis after it cut off what a loss of power left unfinished in its append-only file.

A script's changes stand there as one transaction (MULTI … EXEC). Of a file that ends within one,
Redis (7.0 to 8.2 at least; Valkey before 9.2) drops the last command only: what follows is written
behind an open MULTI, and the next start carries out half a script. A file that ends behind an
asterisk, or in zeros, it refuses. So the file is cut before the MULTI, where Redis itself would
have cut it had it ended between two commands.

    python torn_tail.py FOLDER SERVER OPTIONS…         of the standard library alone
"""

import os
import re
import subprocess
import sys
from pathlib import Path

_MULTI = b"*1\r\n$5\r\nMULTI\r\n"
_EXEC = b"*1\r\n$4\r\nEXEC\r\n"
#: The end of a file that is looked at before all of it is read; few messages are longer.
_TAIL_OCTETS = 1024 * 1024
#: The check is the server under another name. A server that knew neither would stop at once: what
#: it is given for a configuration begins with an asterisk.
_CHECK = "redis-check-aof or valkey-check-aof"
_COUNT = re.compile(rb"([*$])(\d{1,9})\r\n")
_SOUND_UP_TO = re.compile(r"ok_up_to=(\d+)")
_FAULT_AT = re.compile(r"^0x\s*([0-9a-f]+):", re.MULTILINE)
#: What Redis' own check says where a file ends within an argument or a transaction …
_ENDS_EARLY = re.compile(r"Expected to read \d+ bytes|Reached EOF")
#: … and what is left where it ends within a count.
_BEGUN = re.compile(rb"([*$]\d*\r?\n?)?")


def mend(folder: Path, server: str) -> int:
    """Cut the unfinished end off the newest append-only file below a folder; octets cut off.

    What is damaged in another way is left as it is: Redis refuses it and says so.
    """
    files = sorted((folder / "appendonlydir").glob("*.incr.aof"), key=_number)
    if not files or ends_well(files[-1]):
        return 0
    file = files[-1]
    length = file.stat().st_size
    whole = _without_blanks(file)
    os.truncate(file, whole)
    sound = _sound_octets(file, server) if whole else 0
    # Zeros behind another damage are put back.
    os.truncate(file, length if sound is None else sound)
    return 0 if sound is None else length - sound


def _without_blanks(file: Path) -> int:
    """The length without what a disk leaves of octets that it did not get: zeros at the end."""
    with file.open("rb") as opened:
        length = opened.seek(0, os.SEEK_END)
        while length > 0:
            start = max(0, length - _TAIL_OCTETS)
            opened.seek(start)
            kept = opened.read(length - start).rstrip(b"\0")
            if kept:
                return start + len(kept)
            length = start
    return 0


def _number(file: Path) -> int:
    return int(file.name.split(".")[-3])


def ends_well(file: Path) -> bool:
    """Whether the last transaction is whole, and so is each command behind it."""
    with file.open("rb") as opened:
        length = opened.seek(0, os.SEEK_END)
        opened.seek(max(0, length - _TAIL_OCTETS))
        tail = opened.read()
    position, is_open = tail.rfind(_MULTI), False
    while 0 <= position < len(tail):
        if tail.startswith((_MULTI, _EXEC), position):
            is_open = tail.startswith(_MULTI, position)
        position = _after_command(tail, position)
    return position == len(tail) and not is_open


def _after_command(data: bytes, position: int) -> int:
    """Where the command that begins here ends; -1 where none begins."""
    head = _COUNT.match(data, position)
    if head is None or head[1] != b"*":
        return -1
    position = head.end()
    for _ in range(int(head[2])):
        argument = _COUNT.match(data, position)
        if argument is None or argument[1] != b"$":
            return -1
        position = argument.end() + int(argument[2]) + 2
    return position


def _sound_octets(file: Path, server: str) -> int | None:
    """How much of the file is to be kept, by Redis' own check; None: it is not for us to say."""
    checked = subprocess.run(
        [_CHECK, str(file)], executable=server, capture_output=True, text=True, check=False
    )
    found = _SOUND_UP_TO.search(checked.stdout)
    if found is None:
        return None
    sound = int(found[1])
    if sound == file.stat().st_size or _ENDS_EARLY.search(checked.stdout):
        return sound
    fault = _FAULT_AT.search(checked.stdout)
    with file.open("rb") as opened:
        opened.seek(int(fault[1], 16) if fault is not None else sound)
        is_torn = _BEGUN.fullmatch(opened.read(20)) is not None
    return sound if is_torn else None


def main() -> None:
    """Mend, then become the server."""
    folder, server, *options = sys.argv[1:]
    try:
        if cut := mend(Path(folder), server):
            print(f"append-only file: {cut} octets of an unfinished write cut off", flush=True)
    except OSError as error:
        print(f"append-only file: its end could not be looked at: {error}", flush=True)
    os.execv(server, [server, *options])


if __name__ == "__main__":
    main()
