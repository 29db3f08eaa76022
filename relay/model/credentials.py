"""Credentials of a smarthost: a value whose secret never shows in a repr, log or error."""

import hashlib
from typing import Any

import msgspec


class Credentials(msgspec.Struct, frozen=True):
    """User name and secret for AUTH (RFC 4954); every printed form hides the secret.

    The secret is a password, or an OAuth 2 access token (`is_token`). It stands in `password`, or
    in the file or environment variable named here, read anew for each login. `mechanisms`: only
    these may be used; empty: the strongest.
    """

    username: str
    password: str = ""
    is_token: bool = False
    file: str = ""
    variable: str = ""
    mechanisms: tuple[str, ...] = ()

    @property
    def key(self) -> str:
        """A short stable name of the account, without anything of the secret: for lanes."""
        return hashlib.sha256(self.username.encode()).hexdigest()[:12]

    def __repr__(self) -> str:
        return f"Credentials({', '.join(f'{name}={shown!r}' for name, shown in self._shown())})"

    __str__ = __repr__

    def __rich_repr__(self) -> list[tuple[str, Any]]:
        return self._shown()

    def _shown(self) -> list[tuple[str, Any]]:
        shown: list[tuple[str, Any]] = [("username", self.username), ("password", "***")]
        changed = ("is_token", "file", "variable", "mechanisms")
        return shown + [(name, value) for name in changed if (value := getattr(self, name))]
