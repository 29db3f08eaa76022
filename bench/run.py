"""One run of the benchmarks: where it works, how long it takes, what it has measured so far."""

from pathlib import Path

import msgspec


class Run(msgspec.Struct, kw_only=True):
    """`cache` outlives the run (packages, loaded stores), `base` does not."""

    cache: Path
    base: Path
    is_quick: bool = False
    folders: int = 0

    @property
    def rounds(self) -> int:
        """Alternating rounds; the median counts."""
        return 1 if self.is_quick else 3

    def size(self, full: int, quick: int) -> int:
        """How much to do."""
        return quick if self.is_quick else full

    def folder(self, name: str) -> Path:
        """A fresh folder."""
        self.folders += 1
        path = self.base / f"{name}{self.folders}"
        path.mkdir()
        return path
