"""Kinds of settings whose text means more than its type: durations, sizes, addresses, secrets.

A field of the schema names its kind in its annotation; the loader reads and describes it by the
table below. Other modules take the parsed forms of addresses from here (`parse_listen`).
"""

import ipaddress
import re
from collections.abc import Callable
from typing import Annotated, Any
from urllib.parse import urlsplit

import msgspec

from relay.model.address import normalize_domain, parse_address
from relay.model.errors import SubmissionRefused
from relay.model.units import parse_duration_s, parse_size_octets
from relay.settings.presets import find_preset
from relay.settings.sentinel import is_sentinel_url, parse_sentinel_url


class ListenAddress(msgspec.Struct, frozen=True):
    """An IP address and a port to listen on; port 0 lets the system choose."""

    host: str
    port: int

    def __str__(self) -> str:
        return f"[{self.host}]:{self.port}" if ":" in self.host else f"{self.host}:{self.port}"

    @property
    def is_loopback(self) -> bool:
        return ipaddress.ip_address(self.host).is_loopback


class Kind(msgspec.Struct, frozen=True):
    """How a text becomes a value, and what a reader is told to write."""

    read: Callable[[str], Any]
    expected: str
    shown: Callable[[str], str] | None = None  # of a secret, that part which is none


#: RFC 5322 §2.2.
_FIELD_NAME = re.compile(r"[!-9;-~]{1,77}")
_HOST_AND_PORT = re.compile(r"(?:\[([0-9a-fA-F:.]+)\]|([^:\[\]\s]+)):(\d{1,5})")


def parse_listen(text: str) -> ListenAddress:
    """The address of `127.0.0.1:2525`, `[::1]:2525` or `localhost:2525`; ValueError otherwise."""
    match = _HOST_AND_PORT.fullmatch(text.strip())
    if match is None or int(match[3]) > 65535:
        raise ValueError("it has not the form address:port")
    host = match[1] or match[2]
    if host == "localhost":
        host = "127.0.0.1"
    return ListenAddress(str(ipaddress.ip_address(host)), int(match[3]))


def _read_listen(text: str) -> str:
    return str(parse_listen(text))


def _read_optional_listen(text: str) -> str:
    return _read_listen(text) if text.strip() else ""


def _read_nameserver(text: str) -> str:
    try:
        return str(ipaddress.ip_address(text.strip()))
    except ValueError:
        return str(parse_listen(text))


def _read_network(text: str) -> str:
    return str(ipaddress.ip_network(text.strip(), strict=False))


def _read_source_address(text: str) -> str:
    return str(ipaddress.ip_address(text.strip())) if text.strip() else ""


def _read_optional_address(text: str) -> str:
    try:
        return str(parse_address(text)) if text.strip() else ""
    except SubmissionRefused as error:
        raise ValueError(str(error)) from None


def _read_schedule(text: str) -> str:
    delays = text.split()
    if not delays or any("*" in delay for delay in delays[:-1]):
        raise ValueError("only the last delay may repeat (*)")
    for delay in delays:
        if parse_duration_s(delay.removesuffix("*")) <= 0:
            raise ValueError("a delay of zero would retry without end")
    return " ".join(delays)


def _url_reader(*schemes: str) -> Callable[[str], str]:
    def read(text: str) -> str:
        if not text:
            return text
        parts = urlsplit(text)
        if parts.scheme not in schemes or not (parts.netloc or parts.scheme == "unix"):
            raise ValueError("unknown scheme or no host")
        _ = parts.port  # ValueError where the port is none
        return text

    return read


_read_smarthost_url = _url_reader("smtp", "smtps", "lmtp")


def _read_smarthost(text: str) -> str:
    if text.strip().lower().startswith("lmtp:///"):
        return text.strip()
    return text if find_preset(text) is not None else _read_smarthost_url(text)


def redacted(url: str) -> str:
    """The URL without what stands before its last `@`, control characters escaped."""
    shown = re.sub(r"(?<=//).*@|^[^/]*@", "***@", url, flags=re.DOTALL)
    return shown.encode("unicode_escape").decode("ascii")


_read_server_url = _url_reader("redis", "rediss", "unix")


def _read_redis_url(text: str) -> str:
    if not is_sentinel_url(text):
        return _read_server_url(text)
    parse_sentinel_url(text)
    return text


def _read_field_name(text: str) -> str:
    name = text.strip().lower()
    if _FIELD_NAME.fullmatch(name) is None:
        raise ValueError("not the name of a header field")
    return name


def _read_domain(text: str) -> str:
    return normalize_domain(text.strip()) if text.strip() else ""


KINDS: dict[str, Kind] = {
    "duration": Kind(parse_duration_s, 'a duration such as "5m" or "1h 30m"'),
    "size": Kind(parse_size_octets, 'a size such as "25 MiB"'),
    "listen": Kind(_read_listen, 'an address and a port such as "127.0.0.1:2525" or "[::1]:2525"'),
    "optional_listen": Kind(
        _read_optional_listen, 'nothing, or an address and a port such as "127.0.0.1:2525"'
    ),
    "nameserver": Kind(_read_nameserver, 'the address of a resolver such as "127.0.0.53:53"'),
    "network": Kind(_read_network, 'a network such as "192.0.2.0/24"'),
    "source": Kind(_read_source_address, 'an address of this machine such as "192.0.2.1"'),
    "address": Kind(_read_optional_address, 'a mail address such as "ann@example.org"'),
    "schedule": Kind(_read_schedule, 'delays such as "5m 15m 1h 4h*", the last repeated by *'),
    "redis_url": Kind(
        _read_redis_url,
        'a URL such as "redis://127.0.0.1:6379/0", "unix:///run/redis.sock" or '
        '"redis+sentinel://host:26379,host:26379/mymaster"',
    ),
    "field_name": Kind(_read_field_name, 'the name of a header field such as "list-id"'),
    "domain": Kind(_read_domain, 'a domain such as "example.org"'),
    "smarthost": Kind(
        _read_smarthost,
        'a URL such as "smtp://host:587", "smtps://user:password@host:465" or "lmtp:///socket", '
        'or a name such as "gmail"',
        shown=redacted,
    ),
}


def _kind(name: str, *, secret: bool = False) -> msgspec.Meta:
    return msgspec.Meta(extra={"kind": name, "secret": secret})


Duration = Annotated[float, msgspec.Meta(ge=0), _kind("duration")]
PositiveDuration = Annotated[float, msgspec.Meta(gt=0), _kind("duration")]
#: Redis may be silent for so long: a connection is broken off after more (store/wire.py).
ShortDuration = Annotated[float, msgspec.Meta(gt=0, le=20), _kind("duration")]
Size = Annotated[int, msgspec.Meta(ge=0), _kind("size")]
PositiveSize = Annotated[int, msgspec.Meta(gt=0), _kind("size")]
Share = Annotated[float, msgspec.Meta(ge=0, le=1)]
Count = Annotated[int, msgspec.Meta(ge=0)]
PositiveCount = Annotated[int, msgspec.Meta(ge=1)]
Port = Annotated[int, msgspec.Meta(ge=1, le=65535)]
Listen = Annotated[str, _kind("listen")]
OptionalListen = Annotated[str, _kind("optional_listen")]
Nameserver = Annotated[str, _kind("nameserver")]
Network = Annotated[str, _kind("network")]
OptionalAddress = Annotated[str, _kind("address")]
SourceAddress = Annotated[str, _kind("source")]
Schedule = Annotated[str, _kind("schedule")]
RedisUrl = Annotated[str, _kind("redis_url", secret=True)]
SmarthostUrl = Annotated[str, _kind("smarthost", secret=True)]
FieldName = Annotated[str, _kind("field_name")]
DomainName = Annotated[str, _kind("domain")]
Secret = Annotated[str, _kind("secret", secret=True)]
