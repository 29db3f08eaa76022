"""Smarthosts: `smtp://host:port`, `smtps://user:password@host`, `lmtp://host`, `lmtp:///socket`, or
the name of a well-known one.

Errors never show what stands before the `@`.
"""

import ipaddress
import re
from urllib.parse import unquote, urlsplit

import msgspec

from relay.model.address import normalize_domain
from relay.model.credentials import Credentials
from relay.model.errors import ConfigError
from relay.settings.kinds import redacted
from relay.settings.presets import Preset, find_preset

#: scheme → port without and with credentials (RFC 5321, RFC 6409 §3.1, RFC 8314 §3.3). LMTP has
#: none of its own, only not 25 (RFC 2033 §5); 24 is what its servers listen on.
_PORTS = {"smtp": (25, 587), "smtps": (465, 465), "lmtp": (24, 24)}
#: What a socket's path may not have: it stands in lanes and keys.
_NOT_IN_PATHS = re.compile(r"[\s|:%?#@\x00-\x1f\x7f-\x9f]")
_PATH_OCTETS = 107
_SPECIAL = "write special characters of the password as %XX (%40 for @, %2F for /)"
_EXAMPLE = "write for example 'smtp://user:password@mail.example.net:587'"


class Smarthost(msgspec.Struct, frozen=True):
    """A fixed next hop; its repr hides the password. `preset`: what it was named by."""

    scheme: str
    host: str
    port: int
    credentials: Credentials | None = None
    preset: Preset | None = None

    @property
    def implicit_tls(self) -> bool:
        return self.scheme == "smtps"

    @property
    def is_loopback(self) -> bool:
        return is_loopback(self.host)

    @property
    def is_socket(self) -> bool:
        """Whether `host` is the path of a Unix socket."""
        return self.host.startswith("/")


def is_loopback(host: str) -> bool:
    """Whether a host, by name or address, is this machine: a password may go there in clear."""
    if host == "localhost" or host.startswith("/"):
        return True
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return False


def parse_smarthost(url: str, *, key: str = "smarthost", has_account: bool = False) -> Smarthost:
    """The smarthost of a URL; ConfigError names `key`, the fault and a correct form.

    `has_account`: its account stands elsewhere, so it is a submission port that is meant.
    """
    preset = _preset(url, key)
    if preset is not None:
        return Smarthost(preset.scheme, preset.host, preset.port, preset=preset)
    scheme, separator, rest = url.strip().partition("://")
    scheme = scheme.lower()
    if separator and scheme == "lmtp" and rest.startswith("/"):
        return Smarthost(scheme, _socket_path(rest, key), 0)
    if not separator or scheme not in _PORTS:
        raise ConfigError(
            f"{key}: '{redacted(url)}' begins with neither smtp:// nor smtps:// nor lmtp://; "
            f"{_EXAMPLE}"
        )
    if "@" in rest and re.search(r"[/?#]", rest.rpartition("@")[0]):
        raise ConfigError(f"{key}: '{redacted(url)}' cannot be read; {_SPECIAL}")
    try:
        parts = urlsplit(url.strip())
        port = parts.port
    except ValueError:
        raise ConfigError(
            f"{key}: the host or port of '{redacted(url)}' is not valid; {_EXAMPLE}"
        ) from None
    if parts.path.strip("/") or parts.query or parts.fragment:
        raise ConfigError(f"{key}: '{redacted(url)}' has something after the port; remove it")
    credentials = _credentials(parts.netloc, key)
    default_port = _PORTS[scheme][has_account or credentials is not None]
    if port == 0:
        raise ConfigError(f"{key}: the port of '{redacted(url)}' is 0; {_EXAMPLE}")
    host = _host(parts.hostname or "", f"{key}: '{redacted(url)}'")
    return Smarthost(scheme, host, port or default_port, credentials)


def _socket_path(path: str, key: str) -> str:
    """The path of `lmtp:///path`; ConfigError where it is none that we can use."""
    if path.endswith("/") or _NOT_IN_PATHS.search(path) or len(path.encode()) > _PATH_OCTETS:
        raise ConfigError(
            f"{key}: '{redacted(path)}' is no path of a socket that we can use: at most "
            f"{_PATH_OCTETS} octets, no white space and none of |:%?#@; write for example "
            "'lmtp:///run/dovecot/lmtp'"
        )
    return path


def _preset(text: str, key: str) -> Preset | None:
    try:
        return find_preset(text)
    except ConfigError as error:
        raise ConfigError(f"{key}: {error}") from None


def _host(text: str, where: str) -> str:
    if not text:
        raise ConfigError(f"{where} names no host; {_EXAMPLE}")
    try:
        return str(ipaddress.ip_address(text))
    except ValueError:
        pass
    try:
        return normalize_domain(text)
    except ValueError as error:
        raise ConfigError(f"{where}: the host {error}; {_EXAMPLE}") from None


def _credentials(netloc: str, key: str) -> Credentials | None:
    userinfo, separator, _ = netloc.rpartition("@")
    if not separator:
        return None
    username, colon, password = userinfo.partition(":")
    if not username or not colon or not password:
        raise ConfigError(
            f"{key}: the URL has a user name without a password, or the reverse; {_EXAMPLE}"
        )
    try:
        name, secret = (unquote(part, errors="strict") for part in (username, password))
    except UnicodeDecodeError:
        raise ConfigError(f"{key}: the credentials are not UTF-8; {_SPECIAL}") from None
    if any(re.search(r"[\x00-\x1f\x7f]", value) for value in (name, secret)):
        raise ConfigError(f"{key}: the credentials contain a control character")
    if re.search(r"%(?![0-9A-Fa-f]{2})", userinfo):
        raise ConfigError(f"{key}: a % in the credentials starts no %XX; write % itself as %25")
    return Credentials(name, secret)
