"""SCRAM (RFC 5802, RFC 7677) with and without channel binding (RFC 5929, RFC 9266).

The password is never said; the server proves that it knows it, too, by a signature over the whole
exchange. A server that says 235 without that proof is not trusted (`verify`).
"""

import base64
import binascii
import hashlib
import hmac
import re
import secrets
from functools import lru_cache
from typing import Final

import msgspec

from relay.model.credentials import Credentials
from relay.model.errors import LocalProtocolError
from relay.smtp.sasl import Channel
from relay.smtp.saslprep import saslprep


class Hash(msgspec.Struct, frozen=True):
    """A hash by its name in `hashlib` and in mechanisms."""

    name: str
    mechanism: str


SHA1: Final = Hash("sha1", "SCRAM-SHA-1")
SHA256: Final = Hash("sha256", "SCRAM-SHA-256")

#: Below this a password is guessed too cheaply (RFC 5802 §5.1) …
LEAST_ITERATIONS: Final = 4096
#: … above this a server could hold us up: as many take 0.3 s, once for each salt.
MOST_ITERATIONS: Final = 600_000

_FIRST = re.compile(r"r=([\x21-\x2b\x2d-\x7e]+),s=([A-Za-z0-9+/=]+),i=([1-9][0-9]{0,9})(?:,.*)?")
_FINAL = re.compile(r"v=([A-Za-z0-9+/=]+)(?:,.*)?")
_ERROR = re.compile(r"e=([^,]+)(?:,.*)?")


class Scram:
    """One exchange; `binds`: the -PLUS form, which fails where somebody sits in the middle.

    LocalProtocolError where user name or password has no prepared form.
    """

    def __init__(
        self,
        credentials: Credentials,
        hash: Hash,
        channel: Channel,
        *,
        binds: bool = False,
        nonce: str = "",
    ) -> None:
        self.name = hash.mechanism + ("-PLUS" if binds else "")
        self.refusal = ""
        self._hash = hash.name
        try:
            username = saslprep(credentials.username)
            self._password = saslprep(credentials.password).encode()
        except ValueError as error:
            raise LocalProtocolError(f"user name or password: {error}") from None
        self._header = _gs2_header(channel, binds=binds)
        self._binding = channel.binding_data if binds else b""
        self._nonce = nonce or secrets.token_urlsafe(24)
        escaped = username.replace("=", "=3D").replace(",", "=2C")
        self._first = f"n={escaped},r={self._nonce}"
        self._signature: bytes | None = None
        self._is_proven = False

    def initial_response(self) -> bytes:
        return (self._header + self._first).encode()

    def respond(self, challenge: bytes) -> bytes:
        text = challenge.decode("utf-8")
        error = _ERROR.fullmatch(text)
        if error is not None:
            self.refusal = error[1][:100]
            return b""
        if self._signature is None:
            return self._prove_ourselves(text)
        if self._is_proven:
            raise ValueError("a challenge after everything was said")
        self._check_proof(text)
        return b""

    def verify(self) -> None:
        """ValueError where the server has not proved that it knows the password."""
        if not self._is_proven:
            raise ValueError("the server did not prove that it knows the password")

    def _prove_ourselves(self, text: str) -> bytes:
        match = _FIRST.fullmatch(text)
        if match is None:
            raise ValueError("the server's first message cannot be read")
        nonce, salt, iterations = match[1], _base64(match[2]), int(match[3])
        if not nonce.startswith(self._nonce) or len(nonce) == len(self._nonce):
            raise ValueError("the server's nonce does not continue ours")
        if not LEAST_ITERATIONS <= iterations <= MOST_ITERATIONS:
            raise ValueError(f"the server wants {iterations} iterations")
        bound = base64.b64encode(self._header.encode() + self._binding).decode("ascii")
        final = f"c={bound},r={nonce}"
        said = f"{self._first},{text},{final}".encode()
        salted = salted_password(self._hash, self._password, salt, iterations)
        client_key = self._mac(salted, b"Client Key")
        stored_key = hashlib.new(self._hash, client_key).digest()
        signature = self._mac(stored_key, said)
        proof = bytes(one ^ other for one, other in zip(client_key, signature, strict=True))
        self._signature = self._mac(self._mac(salted, b"Server Key"), said)
        return f"{final},p={base64.b64encode(proof).decode('ascii')}".encode()

    def _check_proof(self, text: str) -> None:
        match = _FINAL.fullmatch(text)
        if match is None:
            raise ValueError("the server's final message cannot be read")
        if not hmac.compare_digest(_base64(match[1]), self._signature or b""):
            raise ValueError("the server's signature is wrong: it does not know the password")
        self._is_proven = True

    def _mac(self, key: bytes, data: bytes) -> bytes:
        return hmac.digest(key, data, self._hash)


@lru_cache(maxsize=64)
def salted_password(hash: str, password: bytes, salt: bytes, iterations: int) -> bytes:
    """Hi() of RFC 5802 §2.2; remembered, because the same account logs in again and again."""
    return hashlib.pbkdf2_hmac(hash, password, salt, iterations)


def _gs2_header(channel: Channel, *, binds: bool) -> str:
    """RFC 5802 §6: whether we bind (p), could have but were not offered it (y), or cannot (n)."""
    if binds:
        return f"p={channel.binding},,"
    return "y,," if channel.binding and not channel.is_bindable else "n,,"


def _base64(text: str) -> bytes:
    try:
        return base64.b64decode(text, validate=True)
    except binascii.Error as error:
        raise ValueError(f"not base64: {error}") from None
