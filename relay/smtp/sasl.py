"""SASL for the client (RFC 4422, RFC 4954 §4): what a mechanism is; PLAIN, LOGIN and CRAM-MD5.

SCRAM stands in `scram`, those of OAuth 2 in `oauth`, the choice among all in `mechanisms`.
"""

import base64
import binascii
import hashlib
import hmac
from typing import Protocol

import msgspec

from relay.model.credentials import Credentials
from relay.model.errors import LocalProtocolError


class Channel(msgspec.Struct, frozen=True):
    """What a mechanism may know of the connection: the host as it was named, its port.

    `binding` is the type of the TLS channel binding (RFC 5929, RFC 9266), `binding_data` its value;
    empty where there is none. `is_bindable`: the server offers a mechanism that binds.
    """

    host: str = ""
    port: int = 0
    binding: str = ""
    binding_data: bytes = b""
    is_bindable: bool = False


NO_CHANNEL = Channel()


class Mechanism(Protocol):
    """One authentication exchange; used once. Users may write their own."""

    name: str

    def initial_response(self) -> bytes | None:
        """What is sent with AUTH itself, not encoded; None: the server speaks first."""

    def respond(self, challenge: bytes) -> bytes:
        """The answer to a decoded challenge; ValueError where none is due."""

    def verify(self) -> None:
        """Called when the server says that we are in; ValueError where it must not be trusted."""

    @property
    def refusal(self) -> str:
        """What the server said against us inside the exchange; empty: nothing."""


class OneSided:
    """A mechanism by which the server proves nothing and tells nothing."""

    refusal = ""

    def verify(self) -> None:
        """Nothing to check."""


class Plain(OneSided):
    """PLAIN (RFC 4616): everything in the initial response."""

    name = "PLAIN"

    def __init__(self, credentials: Credentials) -> None:
        self._response = b"\0%b\0%b" % octets_of(credentials)

    def initial_response(self) -> bytes:
        return self._response

    def respond(self, challenge: bytes) -> bytes:
        raise ValueError("a challenge after everything was said")


class Login(OneSided):
    """LOGIN (draft-murchison-sasl-login): user name, then password, whatever the prompts say."""

    name = "LOGIN"

    def __init__(self, credentials: Credentials) -> None:
        self._answers = list(octets_of(credentials))

    def initial_response(self) -> None:
        return None

    def respond(self, challenge: bytes) -> bytes:
        if not self._answers:
            raise ValueError("a challenge after everything was said")
        return self._answers.pop(0)


class CramMd5(OneSided):
    """CRAM-MD5 (RFC 2195): the password as the key of a digest of the challenge."""

    name = "CRAM-MD5"

    def __init__(self, credentials: Credentials) -> None:
        self._username, self._password = octets_of(credentials)
        self._is_answered = False

    def initial_response(self) -> None:
        return None

    def respond(self, challenge: bytes) -> bytes:
        if self._is_answered:
            raise ValueError("a challenge after everything was said")
        if not challenge:
            raise ValueError("an empty challenge")
        self._is_answered = True
        digest = hmac.new(self._password, challenge, hashlib.md5).hexdigest()
        return b"%b %b" % (self._username, digest.encode("ascii"))


def encode(response: bytes) -> bytes:
    """Base64 on one line (RFC 4954 §4)."""
    return base64.b64encode(response)


def decode(text: str) -> bytes:
    """A challenge from base64; ValueError where it is none."""
    try:
        return base64.b64decode(text.encode("ascii"), validate=True)
    except (binascii.Error, UnicodeEncodeError) as error:
        raise ValueError(f"not base64: {error}") from None


def octets_of(credentials: Credentials) -> tuple[bytes, bytes]:
    """User name and secret in UTF-8; LocalProtocolError where no mechanism could carry them."""
    username, password = credentials.username.encode(), credentials.password.encode()
    if b"\0" in username or b"\0" in password or not username:
        raise LocalProtocolError("credentials with NUL or without user name")
    return username, password
