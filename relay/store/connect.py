"""Opening a store: what the server must be, the schema stamp, and noticing that it restarted."""

import re
from typing import Any

from relay.model.errors import ConfigError, ScriptMismatch, StoreUnavailable
from relay.store.keys import SCHEMA, prefix
from relay.store.wire import Copies, Wire
from relay.telemetry.log import get_logger

_log = get_logger()
_OLDEST = {"redis": (7, 0), "valkey": (7, 2)}


def _fields(info: bytes) -> dict[str, str]:
    lines = info.decode("utf-8", "replace").splitlines()
    return dict(line.split(":", 1) for line in lines if ":" in line)


def check_server(info: dict[str, str], where: str) -> None:
    """ConfigError where the server cannot hold a queue safely."""
    kind = "valkey" if "valkey_version" in info else "redis"
    text = info.get(f"{kind}_version", "0")
    version = tuple(int(part) for part in re.findall(r"\d+", text)[:2])
    if version < _OLDEST[kind]:
        oldest = ".".join(map(str, _OLDEST[kind]))
        raise ConfigError(
            f"redis.url: {kind} {text} at {where} is too old; relay needs {oldest} or newer"
        )
    policy = info.get("maxmemory_policy", "noeviction")
    if policy != "noeviction":
        raise ConfigError(
            f"redis.url: the server at {where} has maxmemory-policy {policy}, which deletes queued "
            "mail when memory is full; set maxmemory-policy noeviction"
        )
    if info.get("maxmemory", "0") == "0":
        raise ConfigError(
            f"redis.url: the server at {where} has no memory limit, so a full queue would end it; "
            "set maxmemory (half of the machine's memory is a good start)"
        )


def warn_if_volatile(info: dict[str, str], where: str) -> None:
    """Say that accepted mail will not survive the server, where it keeps no append-only file."""
    if info.get("aof_enabled") == "0":
        text = (
            "redis.url: this server keeps no append-only file, so mail that was accepted is lost "
            "when it ends; set appendonly yes, and appendfsync always to survive power loss"
        )
        _log.warning("store.not_durable", where=where, text=text)


def warn_if_unguarded(info: dict[str, str], copies: Copies, where: str) -> None:
    """Say what is amiss where accepted mail is to be on replicas before it counts."""
    following = int(info.get("connected_slaves", "0"))
    if following < copies.replicas:
        text = (
            f"redis.replicas: is {copies.replicas}, and the master has {following} now: "
            "nothing is accepted until there are enough"
        )
        _log.warning("store.replicas_missing", where=where, text=text)
    # The field is there only where the server has the setting.
    if "min_slaves_good_slaves" not in info:
        text = (
            "redis.replicas: this server has no min-replicas-to-write, so a master that was cut "
            "off goes on handing out mail which the new one hands out, too; set "
            f"min-replicas-to-write {copies.replicas} on all servers"
        )
        _log.warning("store.not_guarded", where=where, text=text)


async def server_info(
    wire: Wire, *sections: str, default: tuple[str, ...] = ("server", "memory", "persistence")
) -> dict[str, str]:
    """Sections of INFO, those that matter for opening a store unless others are named."""
    fields: dict[str, str] = {}
    for section in sections or default:
        fields |= _fields(await wire.call("INFO", section))
    if fields.get("loading") == "1":
        raise StoreUnavailable("Redis is loading its data")
    return fields


async def stamp(wire: Wire, mode: str) -> None:
    """Create the meta record at first use; ScriptMismatch where another schema lies there."""
    meta = prefix(mode) + "meta"
    known: list[Any] = await wire.call("HMGET", meta, "schema", "mode")
    if None in known:  # nothing is written otherwise: a full store can be opened, and drained
        await wire.call("HSETNX", meta, "schema", SCHEMA)
        await wire.call("HSETNX", meta, "mode", mode)
        await wire.call("HSETNX", meta, "created", await server_time_ms(wire))
        known = await wire.call("HMGET", meta, "schema", "mode")
    _check_schema(known[0])
    if known[1] != mode.encode():
        raise ConfigError(f"delivery.mode: the store is stamped {known[1].decode()}, not {mode}")


async def check_store(url: str, mode: str) -> None:
    """ConfigError or ScriptMismatch where the store is not for us; nothing in it is touched.

    A server that is absent is no fault: daemons wait for it.
    """
    wire = Wire(url, client_name="relay-check")
    try:
        check_server(await server_info(wire), wire.where)
        await check_schema(wire, mode)
    except StoreUnavailable:
        pass
    finally:
        await wire.close()


async def check_schema(wire: Wire, mode: str) -> None:
    """ScriptMismatch where another version has taken the store over."""
    known = await wire.call("HGET", prefix(mode) + "meta", "schema")
    if known is not None:
        _check_schema(known)


def _check_schema(known: bytes) -> None:
    if known != SCHEMA.encode():
        raise ScriptMismatch(
            f"the store has schema {known.decode()}, this relay speaks {SCHEMA}; "
            "run the version that wrote it, or drain it first"
        )


async def server_time_ms(wire: Wire) -> int:
    """Redis' clock in milliseconds."""
    seconds, micros = await wire.call("TIME")
    return int(seconds) * 1000 + int(micros) // 1000
