"""Imports go one way (docs: rooms): no room imports one above it or beside it."""

import ast
import tomllib
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
#: Each room with its floor; a room may import rooms of lower floors and itself.
FLOORS = {
    "model": 0,
    "settings": 1,
    "smtp": 2,
    "policy": 2,
    "batch": 2,
    "telemetry": 3,
    "store": 4,
    "net": 4,
    "delivery": 5,
    "mailer": 5,
    "ingress": 6,
    "console": 7,
    "cli": 7,
    "workers": 8,
}
#: The simulated internet stands apart: it knows the protocol, nothing of the queue.
SIM_MAY_IMPORT = {"model", "settings", "smtp", "net"}
#: Only the command line starts it.
MAY_IMPORT_SIM = {"cli"}
#: Foreign packages that one room keeps for itself.
KEPT = {
    "redis": {"store"},
    "hiredis": {"store"},
    "dns": {"net", "sim"},
    "celery": {"workers"},
    "kombu": {"workers"},
    "aiosmtpd": {"ingress"},
    "fastapi": {"ingress", "console"},
    "typer": {"cli"},
    "rich": {"cli"},
}


def sources() -> list[Path]:
    return sorted([*(ROOT / "relay").rglob("*.py"), *(ROOT / "workers").rglob("*.py")])


def room_of(path: Path) -> str:
    parts = path.relative_to(ROOT).parts
    return parts[0] if parts[0] == "workers" else parts[1].removesuffix(".py")


def imported_modules(path: Path) -> set[str]:
    names: set[str] = set()
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.Import):
            names |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"{path}: relative import"
            names.add(node.module or "")
            if node.module in ("relay", "workers"):
                names |= {f"{node.module}.{alias.name}" for alias in node.names}
    return names


def imported_rooms(path: Path) -> set[str]:
    rooms = set()
    for name in imported_modules(path):
        first, _, rest = name.partition(".")
        if first == "workers":
            rooms.add("workers")
        elif first == "relay" and rest:
            rooms.add(rest.split(".")[0])
    return rooms & {*FLOORS, "sim"}


@pytest.mark.parametrize("path", sources(), ids=lambda path: str(path.relative_to(ROOT)))
def test_module_imports_only_rooms_below(path: Path) -> None:
    room = room_of(path)
    if room == "__init__":
        return
    rooms = imported_rooms(path) - {room}
    if room == "sim":
        assert rooms <= SIM_MAY_IMPORT
        return
    assert room in FLOORS, f"{room} is no room of the house"
    assert "sim" not in rooms or room in MAY_IMPORT_SIM
    wrong = {other for other in rooms - {"sim"} if FLOORS[other] >= FLOORS[room]}
    if room == "cli":
        # `relay worker` starts Celery, by exec: even the command line does not import it.
        assert "workers" not in rooms
    assert not wrong, f"{room} imports {', '.join(sorted(wrong))}"


@pytest.mark.parametrize("path", sources(), ids=lambda path: str(path.relative_to(ROOT)))
def test_module_leaves_foreign_packages_to_their_room(path: Path) -> None:
    room = room_of(path)
    for name in imported_modules(path):
        rooms = KEPT.get(name.partition(".")[0])
        assert rooms is None or room in rooms, f"{room} imports {name}"


def test_wheel_holds_relay_and_workers_alone_and_the_data_files() -> None:
    build = tomllib.loads((ROOT / "pyproject.toml").read_text())["tool"]["hatch"]["build"]
    wheel = build["targets"]["wheel"]
    assert wheel["packages"] == ["relay", "workers"]
    assert wheel["force-include"] == {"config": "relay/settings/defaults"}
