"""AUTH as a smarthost sees it (RFC 4954): SCRAM, CRAM-MD5, PLAIN, LOGIN, OAUTHBEARER, XOAUTH2.

A mechanism is a generator: challenges go out, responses come in, the name of the user is its end;
an empty name is nobody's.
"""

import base64
import binascii
import hashlib
import hmac
import re
import secrets
from collections.abc import Callable, Generator, Mapping
from typing import Final

from relay.smtp.scram import LEAST_ITERATIONS, salted_password

Steps = Generator[bytes, bytes, str]
_REFUSED_TOKEN: Final = b'{"status":"invalid_token","scope":"https://mail.test/"}'
_SCRAM_FIRST = re.compile(rb"(?:n|y|p=([a-z\-]+)),,(n=([^,]+),r=([^,]+))", re.DOTALL)
_SCRAM_FINAL = re.compile(rb"(c=([A-Za-z0-9+/=]+),r=([^,]+)),p=([A-Za-z0-9+/=]+)", re.DOTALL)


class Authentication:
    """One exchange: every line in gives a reply; `user` is set once a 235 was given.

    `credentials` maps users to passwords, which serve as access tokens, too. `binding` and its
    data are those of the TLS channel, where there is one.
    """

    def __init__(
        self, credentials: Mapping[str, str], binding: str = "", binding_data: bytes = b""
    ) -> None:
        self._credentials = credentials
        self._binding = binding
        self._binding_data = binding_data
        self._steps: Steps | None = None
        self.user = ""

    @property
    def offered(self) -> tuple[str, ...]:
        """The mechanisms that the client may choose from."""
        return tuple(
            name for name in self._mechanisms() if self._binding or not name.endswith("-PLUS")
        )

    @property
    def is_open(self) -> bool:
        """Whether the next line is a response."""
        return self._steps is not None

    def begin(self, argument: bytes) -> str:
        """The reply to AUTH with its mechanism and initial response."""
        name, _, initial = argument.partition(b" ")
        mechanism = name.upper().decode("ascii", "replace")
        if mechanism not in self.offered:
            return "504 5.5.4 Mechanism not offered"
        self._steps = self._mechanisms()[mechanism]()
        challenge = next(self._steps)
        if initial:
            return self.respond(b"" if initial == b"=" else initial)
        return _challenge(challenge)

    def respond(self, line: bytes) -> str:
        """The reply to one response of the client."""
        steps, self._steps = self._steps, None
        if line == b"*" or steps is None:
            return "501 5.7.0 Authentication cancelled"
        try:
            challenge = steps.send(base64.b64decode(line, validate=True))
        except (binascii.Error, ValueError):
            return "501 5.5.2 Not base64"
        except StopIteration as ended:
            self.user = ended.value
            if self.user:
                return "235 2.7.0 Authentication successful"
            return "535 5.7.8 Authentication credentials invalid"
        self._steps = steps
        return _challenge(challenge)

    def _mechanisms(self) -> dict[str, Callable[[], Steps]]:
        return {
            "SCRAM-SHA-256-PLUS": lambda: self._scram("sha256", binds=True),
            "SCRAM-SHA-256": lambda: self._scram("sha256"),
            "SCRAM-SHA-1-PLUS": lambda: self._scram("sha1", binds=True),
            "SCRAM-SHA-1": lambda: self._scram("sha1"),
            "CRAM-MD5": self._cram_md5,
            "PLAIN": self._plain,
            "LOGIN": self._login,
            "OAUTHBEARER": lambda: self._bearer(
                rb"n,a=([^,]*),\x01(?:.*\x01)?auth=Bearer (.*)\x01\x01"
            ),
            "XOAUTH2": lambda: self._bearer(rb"user=([^\x01]*)\x01auth=Bearer (.*)\x01\x01"),
        }

    def _plain(self) -> Steps:
        parts = (yield b"").split(b"\0")
        return self._known(*parts[1:]) if len(parts) == 3 else ""

    def _login(self) -> Steps:
        user = yield b"Username:"
        password = yield b"Password:"
        return self._known(user, password)

    def _cram_md5(self) -> Steps:
        challenge = f"<{secrets.token_hex(8)}@smarthost.test>".encode()
        user, _, digest = (yield challenge).rpartition(b" ")
        password = self._credentials.get(user.decode())
        if password is None:
            return ""
        expected = hmac.new(password.encode(), challenge, hashlib.md5).hexdigest()
        return user.decode() if hmac.compare_digest(expected.encode(), digest) else ""

    def _bearer(self, pattern: bytes) -> Steps:
        match = re.fullmatch(pattern, (yield b""), re.DOTALL)
        user = self._known(match[1], match[2]) if match is not None else ""
        if not user:
            yield _REFUSED_TOKEN
        return user

    def _scram(self, hash: str, *, binds: bool = False) -> Steps:
        """RFC 5802; the name of an unknown user gets a salt, too, and fails at its proof."""
        first = _SCRAM_FIRST.fullmatch((yield b""))
        if first is None or (first[1] or b"").decode() != (self._binding if binds else ""):
            return ""
        user = first[3].decode().replace("=2C", ",").replace("=3D", "=")
        salt = hashlib.sha256(user.encode()).digest()[:16]
        nonce = first[4] + secrets.token_urlsafe(12).encode()
        said = b"r=%b,s=%b,i=%d" % (nonce, base64.b64encode(salt), LEAST_ITERATIONS)
        final = _SCRAM_FINAL.fullmatch((yield said))
        header = first[0][: first.start(2) - first.start()]
        bound = header + (self._binding_data if binds else b"")
        if final is None or base64.b64decode(final[2]) != bound or final[3] != nonce:
            return ""
        password = self._credentials.get(user, secrets.token_hex(16)).encode()
        salted = salted_password(hash, password, salt, LEAST_ITERATIONS)
        spoken = b",".join((first[2], said, final[1]))
        client_key = hmac.digest(salted, b"Client Key", hash)
        signature = hmac.digest(hashlib.new(hash, client_key).digest(), spoken, hash)
        proof = bytes(one ^ other for one, other in zip(client_key, signature, strict=True))
        if not hmac.compare_digest(proof, base64.b64decode(final[4])):
            return ""
        server_key = hmac.digest(salted, b"Server Key", hash)
        yield b"v=" + base64.b64encode(hmac.digest(server_key, spoken, hash))
        return user

    def _known(self, user: bytes, password: bytes) -> str:
        """The user's name where the password is right, else empty."""
        expected = self._credentials.get(user.decode())
        if expected is None or not hmac.compare_digest(expected.encode(), password):
            return ""
        return user.decode()


def _challenge(challenge: bytes) -> str:
    return f"334 {base64.b64encode(challenge).decode('ascii')}"
