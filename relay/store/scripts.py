"""Load and call the Lua scripts.

A script names the shared pieces it needs in its header (`-- include: common wake queue`); they
are put before its body. Each version of relay has its own digests, so two versions never share
code.
"""

import hashlib
import re
from importlib import resources
from typing import Any

from relay.model.errors import ScriptMismatch, StoreError
from relay.store.codec import pack
from relay.store.keys import SCHEMA, broker_prefix, prefix
from relay.store.wire import NoScript, Wire

_INCLUDE = re.compile(r"^-- include: (.+)$", re.MULTILINE)
_SHEBANG = re.compile(r"\A#!lua[^\n]*\n")

NAMES = (
    "accept",
    "commit",
    "route",
    "take",
    "release",
    "report",
    "claim",
    "settle",
    "tick",
    "lease",
    "deadline",
    "verb",
    "suspend",
)


def source(name: str, mode: str) -> str:
    """The whole text of a script as Redis gets it."""
    folder = resources.files("relay.store") / "lua"
    body = (folder / f"{name}.lua").read_text(encoding="utf-8")
    shebang = _SHEBANG.match(body)
    # Redis runs a script without flags in a mode that lets it write over maxmemory.
    first = shebang[0] if shebang else "#!lua\n"
    include = _INCLUDE.search(body)
    pieces = include[1].split() if include else []
    parts = [(folder / f"_{piece}.lua").read_text(encoding="utf-8") for piece in pieces]
    text = first + "\n".join([*parts, _SHEBANG.sub("", body)])
    return text.replace("%MQ%", broker_prefix(mode))


class Scripts:
    """The scripts of one mode over one wire: `await scripts.call("claim", request)`."""

    def __init__(self, wire: Wire, mode: str) -> None:
        self._wire = wire
        self._meta = prefix(mode) + "meta"
        self._sources = {name: source(name, mode).encode() for name in NAMES}
        # The digest is Redis' name of a script, not a protection.
        self._digests = {
            name: hashlib.sha1(text, usedforsecurity=False).hexdigest()
            for name, text in self._sources.items()
        }

    async def load(self) -> None:
        """Give every script to the server."""
        for text in self._sources.values():
            await self._wire.call("SCRIPT", "LOAD", text)

    async def call(self, name: str, request: dict[str, Any], *blobs: bytes) -> Any:
        """Run a script; its reply; ScriptMismatch where the store has another schema."""
        packed = pack({"schema": SCHEMA, **request})
        try:
            return await self._run(name, packed, blobs)
        except StoreError as error:
            if str(error).startswith("MISMATCH"):
                raise ScriptMismatch(str(error).removeprefix("MISMATCH ")) from None
            raise

    async def _run(self, name: str, packed: bytes, blobs: tuple[bytes, ...]) -> Any:
        digest = self._digests[name]
        try:
            return await self._wire.call("EVALSHA", digest, 1, self._meta, packed, *blobs)
        except NoScript:
            # The server restarted: nothing was run, so running it now is no second time.
            return await self._wire.call("EVAL", self._sources[name], 1, self._meta, packed, *blobs)
