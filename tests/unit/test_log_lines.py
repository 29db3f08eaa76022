"""Lines that are gathered before they are written."""

import os
import threading

from relay.telemetry.lines import SHARED_BLOCK, Lines


class Stream:
    """Remembers each write."""

    def __init__(self) -> None:
        self.writes: list[bytes] = []
        self.written = threading.Event()

    def write(self, block: bytes, /) -> None:
        self.writes.append(block)
        self.written.set()

    def flush(self) -> None:
        pass

    def isatty(self) -> bool:
        return False


def test_lines_that_are_not_gathered_are_written_one_by_one() -> None:
    stream = Stream()
    lines = Lines(stream)
    lines.add(b"one\n", at_once=False)
    lines.add(b"two\n", at_once=False)
    assert stream.writes == [b"one\n", b"two\n"]


def test_gathered_lines_leave_by_themselves_in_one_write() -> None:
    stream = Stream()
    lines = Lines(stream, block=SHARED_BLOCK)
    lines.add(b"one\n", at_once=False)
    lines.add(b"two\n", at_once=False)
    assert stream.written.wait(30)
    assert b"".join(stream.writes) == b"one\ntwo\n"


def test_warning_leaves_at_once_behind_what_was_gathered() -> None:
    stream = Stream()
    lines = Lines(stream, block=SHARED_BLOCK)
    lines.add(b"info\n", at_once=False)
    lines.add(b"warning\n", at_once=True)
    assert b"".join(stream.writes) == b"info\nwarning\n"


def test_blocks_are_whole_lines_that_a_pipe_takes_in_one_piece() -> None:
    stream = Stream()
    lines = Lines(stream, block=SHARED_BLOCK)
    written = [b"%04d" % number + b"x" * (number % 900) + b"\n" for number in range(200)]
    for line in written:
        lines.add(line, at_once=False)
    lines.flush()
    assert b"".join(stream.writes) == b"".join(written)
    assert all(len(block) <= SHARED_BLOCK and block.endswith(b"\n") for block in stream.writes)
    assert len(stream.writes) < len(written) / 3


def test_forked_child_leaves_the_lines_of_its_parent_to_it() -> None:
    ours, theirs = os.pipe()
    with os.fdopen(theirs, "wb") as stream:
        lines = Lines(stream, block=SHARED_BLOCK)
        lines.add(b"parent\n", at_once=False)
        child = os.fork()
        if child == 0:
            lines.add(b"child\n", at_once=True)
            os._exit(0)
        os.waitpid(child, 0)
        lines.flush()
    with os.fdopen(ours, "rb") as reader:
        assert sorted(reader.read().splitlines()) == [b"child", b"parent"]


def test_stream_that_is_gone_raises_nothing() -> None:
    ours, theirs = os.pipe()
    os.close(ours)
    with os.fdopen(theirs, "wb", buffering=0) as stream:
        lines = Lines(stream, block=SHARED_BLOCK)
        lines.add(b"nobody reads\n", at_once=True)
