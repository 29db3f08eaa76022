"""Credentials of a smarthost: a value whose password never shows in a repr, log or error."""

import hashlib
from typing import Any

import msgspec


class Credentials(msgspec.Struct, frozen=True):
    """User name and password for AUTH (RFC 4954); every printed form hides the password."""

    username: str
    password: str

    @property
    def key(self) -> str:
        """A short stable name of the account, without anything of the password: for lanes."""
        return hashlib.sha256(self.username.encode()).hexdigest()[:12]

    def __repr__(self) -> str:
        return f"Credentials(username={self.username!r}, password='***')"

    __str__ = __repr__

    def __rich_repr__(self) -> list[tuple[str, Any]]:
        return [("username", self.username), ("password", "***")]
