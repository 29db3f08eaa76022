"""AUTH PLAIN and LOGIN as a smarthost sees them (RFC 4954, RFC 4616)."""

import base64
import binascii
import hmac
from collections.abc import Mapping

MECHANISMS = ("PLAIN", "LOGIN")
_USERNAME = "334 VXNlcm5hbWU6"
_PASSWORD = "334 UGFzc3dvcmQ6"


class Authentication:
    """One exchange: every line in gives a reply; `user` is set once a 235 was given."""

    def __init__(self, credentials: Mapping[str, str]) -> None:
        self._credentials = credentials
        self._mechanism = ""
        self._given: list[str] = []
        self.is_open = False
        self.user = ""

    def begin(self, argument: bytes) -> str:
        """The reply to AUTH with its mechanism and initial response."""
        mechanism, _, initial = argument.partition(b" ")
        self._mechanism = mechanism.upper().decode("ascii", "replace")
        if self._mechanism not in MECHANISMS:
            return "504 5.5.4 Mechanism not offered"
        self._given = []
        self.is_open = True
        if initial:
            return self.respond(b"" if initial == b"=" else initial)
        return "334 " if self._mechanism == "PLAIN" else _USERNAME

    def respond(self, line: bytes) -> str:
        """The reply to one response of the client."""
        if line == b"*":
            self.is_open = False
            return "501 5.7.0 Authentication cancelled"
        try:
            self._given.append(base64.b64decode(line, validate=True).decode("utf-8"))
        except (binascii.Error, UnicodeDecodeError):
            self.is_open = False
            return "501 5.5.2 Not base64"
        if self._mechanism == "PLAIN":
            parts = self._given[0].split("\0")
            return self._check(*parts[1:]) if len(parts) == 3 else self._check("", "")
        return _PASSWORD if len(self._given) == 1 else self._check(*self._given)

    def _check(self, user: str, password: str) -> str:
        self.is_open = False
        expected = self._credentials.get(user)
        if expected is None or not hmac.compare_digest(expected.encode(), password.encode()):
            return "535 5.7.8 Authentication credentials invalid"
        self.user = user
        return "235 2.7.0 Authentication successful"
