"""OAuth 2 access tokens as SASL: OAUTHBEARER (RFC 7628) and XOAUTH2, Google's form before it.

A refusal comes as a challenge with JSON in it; it must be answered before the server says 535.
"""

import json
import re
from typing import Final

from relay.model.credentials import Credentials
from relay.model.errors import LocalProtocolError
from relay.smtp.sasl import Channel, OneSided

#: RFC 6750 §2.1.
_TOKEN: Final = re.compile(r"[A-Za-z0-9\-._~+/]+=*")
_NOT_PRINTABLE: Final = re.compile(r"[^\x20-\x7e]+")
_REFUSAL_OCTETS: Final = 200


class _Bearer(OneSided):
    """What both forms share: one message, and at most one refusal to acknowledge."""

    _acknowledgement = b""

    def __init__(self, message: str) -> None:
        self._message = message.encode()
        self.refusal = ""

    def initial_response(self) -> bytes:
        return self._message

    def respond(self, challenge: bytes) -> bytes:
        if self.refusal:
            raise ValueError("a challenge after the refusal was acknowledged")
        self.refusal = _read_refusal(challenge)
        return self._acknowledgement

    def verify(self) -> None:
        """ValueError where the server says yes after it has said no."""
        if self.refusal:
            raise ValueError("the server accepts a token that it has refused")


class XOAuth2(_Bearer):
    """XOAUTH2 (developers.google.com/gmail/imap/xoauth2-protocol); also of Microsoft and others."""

    name = "XOAUTH2"

    def __init__(self, credentials: Credentials) -> None:
        super().__init__(f"user={_user(credentials)}\1auth=Bearer {_token(credentials)}\1\1")


class OAuthBearer(_Bearer):
    """OAUTHBEARER (RFC 7628 §3.1), with host and port where they are known."""

    name = "OAUTHBEARER"
    _acknowledgement = b"\1"

    def __init__(self, credentials: Credentials, channel: Channel) -> None:
        user = _user(credentials).replace("=", "=3D").replace(",", "=2C")
        place = f"host={channel.host}\1port={channel.port}\1" if channel.host else ""
        super().__init__(f"n,a={user},\1{place}auth=Bearer {_token(credentials)}\1\1")


def _user(credentials: Credentials) -> str:
    username = credentials.username
    if not username or "\0" in username or "\1" in username:
        raise LocalProtocolError("credentials with a control character or without user name")
    return username


def _token(credentials: Credentials) -> str:
    if _TOKEN.fullmatch(credentials.password) is None:
        raise LocalProtocolError("the access token is none: it has other characters (RFC 6750)")
    return credentials.password


def _read_refusal(challenge: bytes) -> str:
    """The words of the server's JSON that say what is wrong; anything else as it is."""
    text = challenge.decode("utf-8", "replace")
    try:
        fields = json.loads(text)
    except (ValueError, RecursionError):
        fields = None
    if isinstance(fields, dict):
        text = " ".join(f"{name}={fields[name]}" for name in ("status", "scope") if name in fields)
    return _NOT_PRINTABLE.sub(" ", text)[:_REFUSAL_OCTETS] or "refused"
