"""The source of an input: random choices, all made from one seed, and mutations of octets."""

from collections.abc import Sequence
from random import Random
from typing import TypeVar

Item = TypeVar("Item")

#: Octets that mean something to somebody.
_TELLING = b"\r\n\0.-: \t<>@\"\\'{}[]=,;%#\x7f\x80\xc0\xc3\xed\xff"


class Source(Random):
    """Random choices for one input; equal seeds make equal inputs."""

    def below(self, bound: int) -> int:
        """A number from 0 to `bound` - 1; cheaper than `randrange`."""
        return int(self.random() * bound)

    def one(self, items: Sequence[Item]) -> Item:
        """One of the items."""
        return items[int(self.random() * len(items))]

    def chance(self, share: float) -> bool:
        """True in that share of cases."""
        return self.random() < share

    def size(self, most: int) -> int:
        """A length from 0 to `most`, mostly small ones."""
        return int(most ** self.random()) if self.chance(0.9) else self.below(most + 1)

    def octets(self, most: int) -> bytes:
        """Any octets."""
        return self.randbytes(self.size(most))

    def telling(self, most: int) -> bytes:
        """Octets of which most are delimiters somewhere."""
        return bytes(self.one(_TELLING) for _ in range(self.size(most)))

    def text(self, most: int) -> str:
        """Any characters, of which some are controls, surrogates or of other planes."""
        return "".join(self.character() for _ in range(self.size(most)))

    def character(self) -> str:
        kind = self.random()
        if kind < 0.6:
            return chr(0x20 + self.below(0x5F))
        if kind < 0.75:
            return chr(self.below(0x20))
        if kind < 0.95:
            return chr(0x7F + self.below(0xFFFF - 0x7F))
        return chr(0x10000 + self.below(0x100000))

    def mutated(self, octets: bytes, words: Sequence[bytes] = (), most: int = 4) -> bytes:
        """The octets after up to `most` changes; `words` are what may be put in."""
        changed = bytearray(octets)
        for _ in range(1 + self.below(most)):
            self._mutate(changed, words)
        return bytes(changed)

    def _mutate(self, octets: bytearray, words: Sequence[bytes]) -> None:
        kind, at = self.below(7), self.below(len(octets) + 1)
        length = self.size(16)
        if kind == 0 and at < len(octets):
            octets[at] ^= 1 << self.below(8)
        elif kind == 1 and at < len(octets):
            octets[at] = self.below(256)
        elif kind == 2:
            octets[at:at] = self.one(words) if words else self.telling(4)
        elif kind == 3:
            octets[at:at] = self.telling(4)
        elif kind == 4:
            del octets[at : at + length]
        elif kind == 5:
            octets[at:at] = octets[at : at + length] * (1 + self.below(3))
        elif self.chance(0.3):
            del octets[at:]

    def cut(self, octets: bytes, most: int = 6) -> list[bytes]:
        """The octets in segments, none of them empty."""
        if len(octets) < 2 or self.chance(0.3):
            return [octets] if octets else []
        if self.chance(0.05):
            return [octets[at : at + 1] for at in range(len(octets))]
        places = sorted({1 + self.below(len(octets) - 1) for _ in range(self.below(most) + 1)})
        return [octets[a:b] for a, b in zip([0, *places], [*places, len(octets)], strict=True)]
