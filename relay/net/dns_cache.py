"""What DNS said, and the memory of it: bounded, by TTL, in process; its wire form for a shared one.

Times in process are the event loop's clock; a shared entry carries the epoch second at which it
ends, so that a reader never keeps it longer than its first reader would have.
"""

from collections import OrderedDict
from enum import IntEnum
from typing import Protocol

import msgspec


class Status(IntEnum):
    """How a question ended."""

    FOUND = 1
    NO_DATA = 2  # the name exists, without records of this type
    NO_NAME = 3  # NXDOMAIN
    FAILED = 4  # no usable answer; nothing is known of the name


class Answer(msgspec.Struct, frozen=True, array_like=True):
    """The end of one question: records as (preference, host) or (0, address), TTL, what failed.

    `authentic`: a resolver that we trust says that DNSSEC vouches for it. `target`: whose records
    these are, where the name is an alias (CNAME).
    """

    status: Status
    records: tuple[tuple[int, str], ...] = ()
    ttl_s: float = 0.0
    text: str = ""
    authentic: bool = False
    target: str = ""


class DnsCache(Protocol):
    """A second-level cache shared by processes; may forget at will and may raise at will."""

    async def get(self, key: str) -> bytes | None: ...

    async def put(self, key: str, value: bytes, ttl_s: float) -> None: ...


class _Shared(msgspec.Struct, frozen=True, array_like=True):
    answer: Answer
    ends: float


_decoder = msgspec.msgpack.Decoder(_Shared)
_encoder = msgspec.msgpack.Encoder()


def encode_shared(answer: Answer, *, now: float) -> bytes:
    """The wire form of an answer that holds from `now` (epoch seconds)."""
    return _encoder.encode(_Shared(answer, now + answer.ttl_s))


def decode_shared(value: bytes, *, now: float) -> Answer | None:
    """The answer with what is left of its TTL at `now`; None where it ended or is unreadable."""
    try:
        shared = _decoder.decode(value)
    except (msgspec.DecodeError, ValueError):
        return None
    left_s = min(shared.ends - now, shared.answer.ttl_s)
    return msgspec.structs.replace(shared.answer, ttl_s=left_s) if left_s > 0 else None


class MemoryCache:
    """At most `size` answers, each for its TTL; the oldest leaves first."""

    def __init__(self, size: int) -> None:
        self._size = size
        self._entries: OrderedDict[tuple[str, int], tuple[float, Answer]] = OrderedDict()

    def __len__(self) -> int:
        return len(self._entries)

    def get(self, key: tuple[str, int], *, now: float) -> Answer | None:
        """The answer kept under the key, unless its TTL has passed."""
        entry = self._entries.get(key)
        if entry is None:
            return None
        if entry[0] <= now:
            del self._entries[key]
            return None
        return entry[1]

    def put(self, key: tuple[str, int], answer: Answer, *, now: float) -> None:
        """Keep an answer for its TTL from `now`."""
        self._entries.pop(key, None)
        if len(self._entries) >= self._size:
            self._entries.popitem(last=False)
        self._entries[key] = (now + answer.ttl_s, answer)

    def ttl_left(self, key: tuple[str, int], *, now: float) -> float:
        """Seconds that the answer under the key still holds; 0 where there is none."""
        entry = self._entries.get(key)
        if entry is None:
            return 0.0
        return min(max(0.0, entry[0] - now), entry[1].ttl_s)

    def clear(self) -> None:
        """Forget everything."""
        self._entries.clear()
