"""The Lua scripts as one library of Redis functions.

A library is compiled once and its shared pieces (`lua/_*.lua`) are made once: as single scripts
they were made anew in every call, three quarters of what a call cost. Its name carries a digest of
its text, so that two versions of relay never share code; old ones are small and stay.
"""

import asyncio
import copy
import hashlib
import re
import time
from importlib import resources
from typing import Any

from relay.model.errors import ScriptMismatch, StoreError
from relay.store.codec import pack
from relay.store.keys import SCHEMA, broker_prefix, prefix
from relay.store.wire import Copies, NoScript, Wire
from relay.telemetry.meter import Meter

_SHEBANG = re.compile(r"\A#!lua flags=(\S+)\n")
_PIECES = ("common", "wake", "queue", "state", "suppress", "accept", "slots", "claims")

NAMES = (
    "accept",
    "commit",
    "route",
    "hand_out",
    "take",
    "release",
    "report",
    "claim",
    "mark",
    "settle",
    "tick",
    "lease",
    "forgo",
    "deadline",
    "verb",
    "suspend",
    "meter",
    "tell",
    "suppress",
    "suppressions",
)


def _function(name: str, body: str) -> str:
    """A script's text as a function of the library; flags stand in its first line."""
    shebang = _SHEBANG.match(body)
    flags = f", flags = {{ '{shebang[1]}' }}" if shebang else ""
    return (
        f"redis.register_function{{ function_name = '%LIBRARY%_{name}'{flags},\n"
        "callback = function(KEYS, ARGV)\n"
        "local fault = begin(KEYS, ARGV)\nif fault then return fault end\n"
        f"{_SHEBANG.sub('', body)}\nend }}\n"
    )


def library(mode: str) -> tuple[str, str]:
    """Name and text of the library of a mode."""
    folder = resources.files("relay.store") / "lua"
    pieces = [(folder / f"_{piece}.lua").read_text(encoding="utf-8") for piece in _PIECES]
    functions = [
        _function(name, (folder / f"{name}.lua").read_text(encoding="utf-8")) for name in NAMES
    ]
    text = "\n".join([*pieces, *functions]).replace("%MQ%", broker_prefix(mode))
    # The digest is a name, not a protection.
    digest = hashlib.sha1(text.encode(), usedforsecurity=False).hexdigest()[:12]
    name = f"relay_{mode}_{digest}"
    return name, f"#!lua name={name}\n" + text.replace("%LIBRARY%", name)


#: What must not be lost with a server, once it is answered: mail, outcomes, marks that are waited
#: for, orders.
_COPIED = frozenset(
    ("accept", "commit", "settle", "mark", "deadline", "verb", "suspend", "tell", "suppress")
)


class Scripts:
    """The scripts of one mode over one wire: `await scripts.call("claim", request)`."""

    def __init__(self, wire: Wire, mode: str, meter: Meter, copies: Copies) -> None:
        self._wire = wire
        self._copies = copies
        self._copied = _COPIED if copies.replicas else frozenset()
        self._meter = meter
        self._meta = prefix(mode) + "meta"
        self._library, self._text = library(mode)

    def over(self, wire: Wire) -> "Scripts":
        """The same scripts over another wire to the same store."""
        other = copy.copy(self)
        other._wire = wire
        return other

    async def load(self) -> None:
        """Give the library to the server, unless it has it."""
        known = await self._wire.call("FUNCTION", "LIST", "LIBRARYNAME", self._library)
        if not known:
            await self._wire.call("FUNCTION", "LOAD", "REPLACE", self._text)

    async def call(self, name: str, request: dict[str, Any], *blobs: bytes) -> Any:
        """Run a script; its reply; ScriptMismatch where the store has another schema."""
        if name in self._copied:
            request = {**request, "copied": True}
        packed = pack({"schema": SCHEMA, **request})
        began = time.perf_counter()
        try:
            return await self._run(name, packed, blobs)
        except StoreError as error:
            if str(error).startswith("MISMATCH"):
                raise ScriptMismatch(str(error).removeprefix("MISMATCH ")) from None
            raise
        finally:
            self._meter.observe("script", time.perf_counter() - began, name)

    async def post(self, name: str, request: dict[str, Any]) -> "asyncio.Future[Any]":
        """Run a script; returns its reply to come, once the request has left us."""
        packed = pack({"schema": SCHEMA, **request})
        return await self._wire.post("FCALL", f"{self._library}_{name}", 1, self._meta, packed)

    async def _run(self, name: str, packed: bytes, blobs: tuple[bytes, ...]) -> Any:
        command = ("FCALL", f"{self._library}_{name}", 1, self._meta, packed, *blobs)
        if name in self._copied:
            return await self._run_copied(command)
        try:
            return await self._wire.call(*command)
        except NoScript:
            # The server lost its functions (FLUSHALL, no persistence): nothing was run, so running
            # it now is no second time.
            await self.load()
            return await self._wire.call(*command)

    async def _run_copied(self, command: tuple[Any, ...]) -> Any:
        try:
            return await self._wire.call_copied(self._copies, *command)
        except NoScript:
            await self.load()
            return await self._wire.call_copied(self._copies, *command)
