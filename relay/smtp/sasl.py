"""SASL for the client (RFC 4422, RFC 4954 §4): PLAIN and LOGIN, behind a small protocol.

Both show the password to whoever carries the line: `client` refuses them on a clear path.
"""

import base64
import binascii
from collections.abc import Set
from typing import Protocol

from relay.model.credentials import Credentials
from relay.model.errors import LocalProtocolError


class Mechanism(Protocol):
    """One authentication exchange; used once."""

    name: str

    def initial_response(self) -> bytes | None:
        """What is sent with AUTH itself, not encoded; None: the server speaks first."""

    def respond(self, challenge: bytes) -> bytes:
        """The answer to a decoded challenge; ValueError where none is due."""


class Plain:
    """PLAIN (RFC 4616): everything in the initial response."""

    name = "PLAIN"

    def __init__(self, credentials: Credentials) -> None:
        self._response = b"\0%b\0%b" % _octets(credentials)

    def initial_response(self) -> bytes:
        return self._response

    def respond(self, challenge: bytes) -> bytes:
        raise ValueError("a challenge after everything was said")


class Login:
    """LOGIN (draft-murchison-sasl-login): user name, then password, whatever the prompts say."""

    name = "LOGIN"

    def __init__(self, credentials: Credentials) -> None:
        self._answers = list(_octets(credentials))

    def initial_response(self) -> None:
        return None

    def respond(self, challenge: bytes) -> bytes:
        if not self._answers:
            raise ValueError("a challenge after everything was said")
        return self._answers.pop(0)


#: In order of preference: PLAIN takes one round trip, LOGIN three.
MECHANISMS: tuple[type[Plain] | type[Login], ...] = (Plain, Login)


def choose_mechanism(offered: Set[str], credentials: Credentials) -> Mechanism:
    """The preferred mechanism among those offered; LocalProtocolError where none is in common."""
    for mechanism in MECHANISMS:
        if mechanism.name in offered:
            return mechanism(credentials)
    names = " ".join(sorted(offered)) or "none"
    raise LocalProtocolError(f"no SASL mechanism in common; the server offers {names}")


def encode(response: bytes) -> bytes:
    """Base64 on one line (RFC 4954 §4)."""
    return base64.b64encode(response)


def decode(text: str) -> bytes:
    """A challenge from base64; ValueError where it is none."""
    try:
        return base64.b64decode(text.encode("ascii"), validate=True)
    except (binascii.Error, UnicodeEncodeError) as error:
        raise ValueError(f"not base64: {error}") from None


def _octets(credentials: Credentials) -> tuple[bytes, bytes]:
    username, password = credentials.username.encode(), credentials.password.encode()
    if b"\0" in username or b"\0" in password or not username:
        raise LocalProtocolError("credentials with NUL or without user name")
    return username, password
