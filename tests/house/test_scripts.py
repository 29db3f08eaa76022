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


@pytest.mark.parametrize("path", sorted(FOLDER.glob("*.lua")), ids=lambda path: path.stem)
def test_no_script_walks_all_keys_or_searches_a_list(path: Path) -> None:
    """What is removed from a list goes stale there, and is dropped when it is met."""
    text = path.read_text(encoding="utf-8")
    assert not re.search(r"'(KEYS|[HSZ]?SCAN|LREM|LPOS|LINSERT)'", text, re.IGNORECASE)


def test_only_what_takes_mail_in_needs_memory() -> None:
    """Draining never does: all other scripts run when Redis is full."""
    refused = [path.stem for path in SCRIPTS if "allow-oom" not in path.read_text().split("\n")[0]]
    assert refused == ["accept"]
