"""How a program logs in: a small protocol, and the two ways that nearly all need."""

from collections.abc import Callable
from typing import Protocol

import msgspec

from relay.model.credentials import Credentials
from relay.model.errors import LocalProtocolError
from relay.smtp.mechanisms import choose_mechanism
from relay.smtp.sasl import Channel, Mechanism


class Server(msgspec.Struct, frozen=True):
    """Whom we are about to log in to: the host as the caller named it, and the path to it.

    `is_private`: the path is encrypted, or does not leave this machine. `mechanisms` are those that
    the server offers, in upper case.
    """

    host: str
    port: int
    is_private: bool
    mechanisms: frozenset[str]
    channel: Channel


class Auth(Protocol):
    """What `auth` takes; LocalProtocolError where this server must not get the secret."""

    def begin(self, server: Server) -> Mechanism:
        """The exchange to be had with this server; used once."""


class _AccountAuth:
    """An account at one host; its secret goes nowhere else, and never in clear off this machine."""

    def __init__(self, account: Credentials, host: str) -> None:
        self._account = account
        self._host = host

    def begin(self, server: Server) -> Mechanism:
        """The strongest mechanism that both know."""
        if _plain_name(server.host) != _plain_name(self._host):
            raise LocalProtocolError(
                f"these credentials are for {self._host}, the server was named {server.host}"
            )
        if not server.is_private:
            raise LocalProtocolError(
                f"the path to {server.host} is not encrypted; call starttls() before auth()"
            )
        return choose_mechanism(server.mechanisms, self._account, server.channel)

    def __repr__(self) -> str:
        return f"{type(self).__name__}({self._account.username!r}, '***', {self._host!r})"


class PasswordAuth(_AccountAuth):
    """A user name and a password, for the host that is named."""

    def __init__(
        self, username: str, password: str, host: str, *, mechanisms: tuple[str, ...] = ()
    ) -> None:
        """`mechanisms`: only these may be used; empty: the strongest in common."""
        super().__init__(Credentials(username, password, mechanisms=mechanisms), host)


class TokenAuth(_AccountAuth):
    """A user name and an OAuth 2 access token (OAUTHBEARER, XOAUTH2), for the host named."""

    def __init__(self, username: str, token: str | Callable[[], str], host: str) -> None:
        """`token`: the token, or what gives a fresh one for each login."""
        self._token = token
        super().__init__(Credentials(username, is_token=True), host)

    def begin(self, server: Server) -> Mechanism:
        """OAUTHBEARER where it is offered, else XOAUTH2."""
        token = self._token() if callable(self._token) else self._token
        self._account = msgspec.structs.replace(self._account, password=token)
        return super().begin(server)


def _plain_name(host: str) -> str:
    return host.rstrip(".").lower()
