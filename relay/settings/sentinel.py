"""The URL of a Redis whose master is found through sentinels.

    redis+sentinel://[user:password@]host:26379,host:26379,host:26379/mymaster[/db]

`rediss+sentinel://` speaks TLS with the sentinels and with Redis. After `?` may stand
`sentinel_username`, `sentinel_password` (where the sentinels want a login, too) and `ssl_ca_certs`.
"""

import re
from typing import Final
from urllib.parse import parse_qsl, unquote

import msgspec

FORM: Final = "redis+sentinel://[user:password@]host:26379,host:26379/mymaster[/db]"
DEFAULT_PORT: Final = 26379

_URL = re.compile(
    r"(?P<scheme>rediss?)\+sentinel://(?:(?P<login>[^@/]*)@)?(?P<hosts>[^/?@]+)"
    r"/(?P<master>[^/?]+)(?:/(?P<db>\d*))?/?(?:\?(?P<query>.*))?"
)
_HOST = re.compile(r"(?:\[([0-9a-fA-F:.]+)\]|([^:\[\]\s]+))(?::(\d{1,5}))?")
_OPTIONS = ("sentinel_username", "sentinel_password", "ssl_ca_certs")


class Login(msgspec.Struct, frozen=True):
    """A user ("": the default one) and a password ("": none is asked for)."""

    user: str = ""
    password: str = ""


class SentinelUrl(msgspec.Struct, frozen=True):
    """What such a URL says; `sentinels` are hosts and ports in the order of the URL."""

    sentinels: tuple[tuple[str, int], ...]
    master: str
    login: Login
    sentinel_login: Login
    db: int = 0
    is_tls: bool = False
    ca_file: str = ""


def is_sentinel_url(text: str) -> bool:
    """Whether the text is meant to be such a URL."""
    return text.partition(":")[0] in ("redis+sentinel", "rediss+sentinel")


def parse_sentinel_url(text: str) -> SentinelUrl:
    """Read such a URL; ValueError, which never contains the password, says what is wrong."""
    match = _URL.fullmatch(text.strip())
    if match is None:
        raise ValueError(f"it has not the form {FORM}")
    options = dict(parse_qsl(match["query"] or "", keep_blank_values=True))
    if unknown := sorted(options.keys() - set(_OPTIONS)):
        raise ValueError(f"unknown option {unknown[0]}; known are {', '.join(_OPTIONS)}")
    user, _, password = (match["login"] or "").partition(":")
    return SentinelUrl(
        sentinels=tuple(_host_and_port(item) for item in match["hosts"].split(",")),
        master=unquote(match["master"]),
        login=Login(unquote(user), unquote(password)),
        sentinel_login=Login(
            options.get("sentinel_username", ""), options.get("sentinel_password", "")
        ),
        db=int(match["db"] or 0),
        is_tls=match["scheme"] == "rediss",
        ca_file=options.get("ssl_ca_certs", ""),
    )


def _host_and_port(text: str) -> tuple[str, int]:
    match = _HOST.fullmatch(text.strip())
    port = int(match[3] or DEFAULT_PORT) if match else 0
    if match is None or not 0 < port < 65536:
        raise ValueError(f"{text!r} is not the host and port of a sentinel")
    return match[1] or match[2], port
