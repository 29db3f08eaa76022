"""DKIM at delivery: keys from files and variables, kept fresh, and the signatures that they make.

A message gets its signatures when it is claimed, so the queue holds what was accepted, programs
that submit by Python need no key, and mail that waited for days is signed by the key of today.
"""

import asyncio
import os
import stat
import time
from collections import OrderedDict
from collections.abc import Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import msgspec
import structlog

from relay.model.errors import ConfigError
from relay.model.message import ClaimedMessage
from relay.policy.signing import SigningTable, author_domain
from relay.settings.loader import load_settings
from relay.settings.schema import DkimKey as KeySettings
from relay.settings.schema import Settings
from relay.smtp.dkim import NEVER_SIGNED, Canonicalization, SigningRules, sign
from relay.smtp.dkim_key import ADVISED_BITS, DkimKey, read_key

#: Files are looked at for changes so often.
LOOK_EVERY_S = 5.0
#: Signatures kept, because a message with recipients in many domains is claimed once for each.
KEPT, KEPT_S = 1024, 300.0
#: Octets of content above which a signature is made in a thread. A small one takes 0.3 ms, and the
#: way to a thread and back 0.1 ms more, besides waiting for the interpreter while the loop is busy.
LARGE = 128 * 1024
_THREADS = 2
#: Servers keep mail for minutes (greylisting) to days before they look at a signature.
SHORTEST_S = 3600.0
_LARGEST_FILE = 64 * 1024

_log = structlog.get_logger("relay.dkim")

Table = SigningTable[DkimKey]


class Signer:
    """Signs messages with the keys of the settings; one for a process, all on its loop."""

    def __init__(self, settings: Settings, environ: Mapping[str, str] = os.environ) -> None:
        """ConfigError where a key cannot be used.

        Where RELAY_CONFIG names a file, its tables of DKIM are read again when it changes.
        """
        self._config = environ.get("RELAY_CONFIG", "")
        self._settings = settings  # as they were read last, usable or not
        self._environ = environ
        self._rules = signing_rules(settings)
        self._seen = self._fingerprints()
        self._table, doubts = load_keys(settings, environ)
        #: Whether there is a key at all.
        self.has_keys = bool(settings.dkim_keys)
        self._kept: OrderedDict[tuple[str, bool], tuple[float, bytes]] = OrderedDict()
        self._threads = ThreadPoolExecutor(_THREADS, thread_name_prefix="dkim")
        for doubt in doubts:
            _log.warning("dkim.key_doubtful", text=doubt)

    async def sign(self, messages: Sequence[ClaimedMessage]) -> dict[str, ClaimedMessage]:
        """Those of the messages that are signed, by queue-id, with their signatures on top."""
        signed: dict[str, ClaimedMessage] = {}
        for message in messages:
            form = (message.queue_id, message.is_8bit)  # converted content is not what it was
            kept = self._kept.get(form)
            if kept is not None and kept[0] > time.monotonic() - KEPT_S:
                fields = kept[1]
            else:
                fields = await self._make(message)
                self._keep(form, fields)
            if fields:
                signed[message.queue_id] = _with_fields(message, fields)
        return signed

    async def _make(self, message: ClaimedMessage) -> bytes:
        """The signature fields of a message; others get their turn between two messages."""
        keys = self._table.keys_for(author_domain(message.content), message.tenant)
        if not keys:
            return b""
        if len(message.content) > LARGE:
            loop = asyncio.get_running_loop()
            return await loop.run_in_executor(self._threads, self._sign, message.content, keys)
        fields = self._sign(message.content, keys)
        await asyncio.sleep(0)
        return fields

    def _sign(self, content: bytes, keys: tuple[DkimKey, ...]) -> bytes:
        return sign(content, keys, self._rules, now=time.time())

    def _keep(self, form: tuple[str, bool], fields: bytes) -> None:
        kept = self._kept
        kept[form] = (time.monotonic(), fields)
        if len(kept) > KEPT:
            kept.popitem(last=False)

    async def watch(self) -> None:
        """Take up keys that have changed or are new; keys that cannot be used change nothing."""
        while True:
            await asyncio.sleep(LOOK_EVERY_S)
            await asyncio.to_thread(self.look)

    def look(self) -> None:
        """Look at the files once."""
        found = self._fingerprints()
        if found == self._seen:
            return
        seen, self._seen = self._seen, found
        try:
            is_new = found[0] != seen[0] and self._read_tables()
            if not is_new and found[1:] == seen[1:]:
                return
            rules = signing_rules(self._settings)
            table, doubts = load_keys(self._settings, self._environ)
        except ConfigError as error:
            _log.error("dkim.keys_refused", text=f"{error}; the keys read before go on signing")
            return
        self._rules, self._table = rules, table
        self._kept = OrderedDict()  # another one: this is a thread, and the loop uses that one
        self.has_keys = bool(self._settings.dkim_keys)
        _log.info("dkim.keys_changed", keys=len(self._settings.dkim_keys))
        for doubt in doubts:
            _log.warning("dkim.key_doubtful", text=doubt)

    def _read_tables(self) -> bool:
        """Read the configuration file again; whether what it says of keys is something else."""
        read = load_settings(environ=self._environ)
        old = self._settings
        self._settings = msgspec.structs.replace(old, dkim=read.dkim, dkim_keys=read.dkim_keys)
        self._seen = self._fingerprints()
        return self._settings != old

    def _fingerprints(self) -> list[tuple[int, int, int] | None]:
        """What tells a changed configuration file, and changed files of keys; None: not there."""
        files = [self._config, *(table.file for table in self._settings.dkim_keys)]
        return [_fingerprint(path) if path else None for path in files]

    def close(self) -> None:
        """End the threads."""
        self._threads.shutdown(wait=False, cancel_futures=True)


def signer_of(settings: Settings) -> Signer | None:
    """The signer of the settings; None where there is no key, and none can come.

    Without a configuration file there are no keys.
    """
    return Signer(settings) if settings.dkim_keys or os.environ.get("RELAY_CONFIG") else None


def signing_rules(settings: Settings) -> SigningRules:
    """What signatures cover; ConfigError where that would be no valid signature."""
    dkim = settings.dkim
    for key, names in (("oversign", dkim.oversign), ("sign", dkim.sign)):
        if wrong := sorted(NEVER_SIGNED.intersection(names)):
            raise ConfigError(
                f"dkim.{key}: {wrong[0]} changes on the way, so signing it breaks the signature "
                "(RFC 6376 §5.4.1); leave it out"
            )
    if 0 < dkim.lifetime < SHORTEST_S:
        raise ConfigError(
            "dkim.lifetime: is under an hour, and mail on its way would be taken for forged; "
            "give a week, or 0 for ever"
        )
    if "from" not in (*dkim.oversign, *dkim.sign):
        raise ConfigError("dkim.oversign: from is missing, and must be signed (RFC 6376 §5.4)")
    return SigningRules(
        oversigned=dkim.oversign,
        signed=dkim.sign,
        canonicalization=Canonicalization.parse(dkim.canonicalization),
        lifetime_s=dkim.lifetime,
    )


def load_keys(
    settings: Settings, environ: Mapping[str, str] = os.environ
) -> tuple[Table, list[str]]:
    """All keys as a table, and what is doubtful about them; ConfigError as `read_keys`."""
    keys, doubts = read_keys(settings, environ)
    tables = settings.dkim_keys
    default = settings.dkim.default_domain
    if default and not any(table.domain == default for table in tables):
        raise ConfigError(
            f"dkim.default_domain: {default} has no key; add a [[dkim_keys]] table for it"
        )
    found = [(table.domain, table.tenant, key) for table, key in zip(tables, keys, strict=True)]
    return SigningTable(found, default), doubts


def read_keys(
    settings: Settings, environ: Mapping[str, str] = os.environ
) -> tuple[list[DkimKey], list[str]]:
    """The key of each [[dkim_keys]] table; ConfigError names table, file, fault and fix."""
    doubts: list[str] = []
    keys = [
        _load(table, f"dkim_keys[{number}]", environ, doubts)
        for number, table in enumerate(settings.dkim_keys, 1)
    ]
    _refuse_twins(settings.dkim_keys)
    return keys, doubts


def _load(table: KeySettings, where: str, environ: Mapping[str, str], doubts: list[str]) -> DkimKey:
    if bool(table.file) == bool(table.variable):
        raise ConfigError(f"{where}: give the private key as file or as variable, one of the two")
    if table.variable:
        place, pem = f"{where}.variable: {table.variable}", _from_variable(table, where, environ)
    else:
        place, pem = f"{where}.file: {table.file}", _from_file(table.file, where, doubts)
    try:
        key = read_key(pem, table.domain, table.selector)
    except ValueError as error:
        raise ConfigError(f"{place}: {error}") from None
    if key.kind == "rsa" and key.bits < ADVISED_BITS:
        doubts.append(f"{place}: has {key.bits} bits; receivers advise {ADVISED_BITS} (RFC 8301)")
    return key


def _from_variable(table: KeySettings, where: str, environ: Mapping[str, str]) -> bytes:
    name = table.variable
    if name.startswith("RELAY_"):
        raise ConfigError(
            f"{where}.variable: {name} would be taken for a setting; choose a name without RELAY_"
        )
    if not environ.get(name):
        raise ConfigError(f"{where}.variable: {name} is not set; set it to the PEM text of the key")
    # Files of variables hold one line each: there \n stands for the end of one.
    return environ[name].replace("\\n", "\n").encode()


def _from_file(path: str, where: str, doubts: list[str]) -> bytes:
    try:
        with Path(path).open("rb") as file:
            mode = os.fstat(file.fileno()).st_mode
            pem = file.read(_LARGEST_FILE + 1)
    except (OSError, ValueError) as error:
        reason = getattr(error, "strerror", None) or "no such file"
        raise ConfigError(f"{where}.file: {path[:200]} cannot be read: {reason}") from None
    if len(pem) > _LARGEST_FILE:
        raise ConfigError(
            f"{where}.file: {path[:200]} is no key: it has over {_LARGEST_FILE} octets"
        )
    if mode & (stat.S_IRWXO | stat.S_IWGRP):
        doubts.append(
            f"{where}.file: {path} may be read or changed by others (mode {stat.S_IMODE(mode):o}); "
            f"chmod 600 {path}"
        )
    return pem


def _refuse_twins(tables: Sequence[KeySettings]) -> None:
    seen: dict[tuple[str, str, str], int] = {}
    for number, table in enumerate(tables, 1):
        name = (table.domain, table.selector, table.tenant)
        if name in seen:
            raise ConfigError(
                f"dkim_keys[{number}].selector: {table.selector} of {table.domain} stands in "
                f"dkim_keys[{seen[name]}] already; give each key a selector of its own"
            )
        seen[name] = number


def _fingerprint(path: str) -> tuple[int, int, int] | None:
    try:
        found = Path(path).stat()
    except (OSError, ValueError):
        return None
    return found.st_mtime_ns, found.st_ino, found.st_size


def _with_fields(message: ClaimedMessage, fields: bytes) -> ClaimedMessage:
    return msgspec.structs.replace(
        message, content=fields + message.content, size=message.size + len(fields)
    )
