"""Each script of the store says at its head what it takes, gives, keeps and costs."""

import re
from pathlib import Path

import pytest

from relay.store.scripts import NAMES

FOLDER = Path(__file__).parents[2] / "relay" / "store" / "lua"
SCRIPTS = sorted(path for path in FOLDER.glob("*.lua") if not path.name.startswith("_"))
#: A script's promises, in this order; each may take several lines.
PARTS = ("KEYS:", "ARGV:", "Returns", "Invariants:", "Bound:")


def _header(path: Path) -> str:
    """The comment that a script begins with, its flags left out."""
    text = re.sub(r"\A#!.*\n", "", path.read_text(encoding="utf-8"))
    lines = re.match(r"(?:--.*\n)+", text)
    return lines[0] if lines else ""


@pytest.mark.parametrize("path", SCRIPTS, ids=lambda path: path.stem)
def test_script_header_names_keys_arguments_returns_invariants_and_bound(path: Path) -> None:
    header = _header(path)
    first = header.partition("\n")[0].removeprefix("-- ")
    assert re.match(r"[A-Z].*[.,;:\w]$", first), f"{path.name} does not begin with a sentence"
    for part in PARTS:
        assert re.search(rf"\b{part}", header, re.IGNORECASE), f"{path.name}: no {part} {header}"


def test_every_script_is_in_the_library() -> None:
    assert sorted(NAMES) == [path.stem for path in SCRIPTS]
