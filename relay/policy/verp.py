"""VERP: reverse-paths that tell which recipient a report is about, signed against forgery.

    codec = VerpCodec.from_settings(settings)  # [envelope]
    address = codec.encode(queue_id, number, "bounces.example.org")
    token = codec.decode(address, now)  # BounceToken, or None: not one of ours

The local-part is `<prefix><queue-id><number><tag><mac>` in lower-case base 32: at most 43
characters behind the prefix, of 64 (RFC 5321 §4.5.3.1.1), and the same whatever case it comes back
in. It needs no record: the queue-id tells when the message was accepted, and so when it ends.
The MAC has 60 bits of HMAC-SHA-256: who guesses blindly needs 10^18 mails.

The tag, 25 bits, stands for the recipient's address: when the message is forgotten, it tells
whether the address that a report names is his. Tokens of messages have none, nor have those of
recipients for which there is no room behind a long prefix.
"""

import hmac
import re
from collections.abc import Sequence

import msgspec

from relay.model.address import LOCAL_PART_OCTETS
from relay.model.errors import ConfigError
from relay.model.ids import accepted_at, is_queue_id, recipient_id
from relay.settings.schema import Settings

#: Octets of a secret, at least: what `openssl rand -base64 24` gives has 32.
SECRET_OCTETS = 16
_ALPHABET = "0123456789abcdefghjkmnpqrstvwxyz"
_QUEUE_ID_LENGTH, _MAC_LENGTH, _NUMBER_LENGTH, _TAG_LENGTH = 20, 12, 6, 5
_LARGEST_NUMBER = 32**_NUMBER_LENGTH - 1
_LONGEST = _QUEUE_ID_LENGTH + _NUMBER_LENGTH + _MAC_LENGTH
_PREFIX = re.compile(r"[A-Za-z0-9](?:[A-Za-z0-9._=+\-]*[A-Za-z0-9_=+\-])?")
#: What else is signed with the same secrets has another purpose, so that none passes for another.
_PURPOSE, _PURPOSE_TAGGED, _PURPOSE_OF_TAG = b"relay verp 1\0", b"relay verp 2\0", b"relay tag 1\0"


class BounceToken(msgspec.Struct, frozen=True):
    """What a reverse-path of ours says; `number` 0 stands for the message as a whole.

    `is_expired`: it is genuine, but older than what is still listened to. `tag` stands for the
    recipient's address (`VerpCodec.vouches`).
    """

    queue_id: str
    number: int
    is_expired: bool = False
    tag: str = ""

    @property
    def recipient_id(self) -> str | None:
        """The recipient's id; None where the token stands for the whole message."""
        return recipient_id(self.queue_id, self.number) if self.number else None


class VerpCodec:
    """Makes and reads reverse-paths with a token; the first secret signs, all of them verify."""

    def __init__(self, secrets: Sequence[str], *, prefix: str, lifetime_s: float) -> None:
        """ConfigError where a secret is too short to be one, or the prefix no local-part."""
        if not secrets or any(len(secret.encode()) < SECRET_OCTETS for secret in secrets):
            raise ConfigError(
                f"envelope.verp_secrets: each needs {SECRET_OCTETS} octets or more; "
                "`openssl rand -base64 24` makes one"
            )
        if _PREFIX.fullmatch(prefix) is None or ".." in prefix:
            raise ConfigError(
                f"envelope.verp_prefix: {prefix!r} cannot begin a local-part; write such as 'b-'"
            )
        if len(prefix) + _LONGEST > LOCAL_PART_OCTETS:
            raise ConfigError(
                f"envelope.verp_prefix: has {len(prefix)} characters, more than "
                f"{LOCAL_PART_OCTETS - _LONGEST}; shorten it"
            )
        self._secrets = [secret.encode() for secret in secrets]
        self._prefix = prefix
        self._lifetime_s = lifetime_s

    @classmethod
    def from_settings(cls, settings: Settings) -> "VerpCodec":
        """The codec of [envelope]; ConfigError where there is no secret."""
        envelope = settings.envelope
        return cls(
            envelope.verp_secrets, prefix=envelope.verp_prefix, lifetime_s=envelope.verp_lifetime
        )

    def encode(self, queue_id: str, number: int, domain: str, recipient: str = "") -> str:
        """The reverse-path for a recipient, or with number 0 for the message, at this domain.

        With the address of the `recipient` it has a tag, where there is room for it.
        """
        if not is_queue_id(queue_id) or not 0 <= number <= _LARGEST_NUMBER:
            raise ValueError(f"no recipient: {queue_id!r}, {number}")
        named, purpose, secret = _named(queue_id, number), _PURPOSE, self._secrets[0]
        if recipient and len(self._prefix) + _LONGEST + _TAG_LENGTH <= LOCAL_PART_OCTETS:
            named, purpose = named + _tag(secret, named, recipient), _PURPOSE_TAGGED
        return f"{self._prefix}{named}{_mac(secret, purpose, named)}@{domain}"

    def decode(self, address: str, now: float) -> BounceToken | None:
        """What an address, or its local-part alone, says in whatever case; None: not ours."""
        local = address.strip("<> ").partition("@")[0].lower()
        if not local.startswith(self._prefix.lower()) or not local.isascii():
            return None
        text = local[len(self._prefix) :]
        if not _QUEUE_ID_LENGTH + _MAC_LENGTH <= len(text) <= _LONGEST + _TAG_LENGTH:
            return None
        named, mac, tag = text[:-_MAC_LENGTH], text[-_MAC_LENGTH:], ""
        if self._is_genuine(mac, _PURPOSE_TAGGED, named):
            named, tag = named[:-_TAG_LENGTH], named[-_TAG_LENGTH:]
        elif not self._is_genuine(mac, _PURPOSE, named):
            return None
        queue_id, number = named[:_QUEUE_ID_LENGTH].upper(), 0
        for character in named[_QUEUE_ID_LENGTH:]:
            number = number << 5 | _ALPHABET.index(character)
        is_expired = accepted_at(queue_id) + self._lifetime_s < now
        return BounceToken(queue_id, number, is_expired, tag)

    def vouches(self, token: BounceToken, address: str) -> bool:
        """Whether this is the address of the recipient whom a genuine token names."""
        named = _named(token.queue_id, token.number)
        return bool(address) and any(
            hmac.compare_digest(_tag(secret, named, address), token.tag) for secret in self._secrets
        )

    def _is_genuine(self, mac: str, purpose: bytes, named: str) -> bool:
        return any(
            hmac.compare_digest(_mac(secret, purpose, named), mac) for secret in self._secrets
        )


def _named(queue_id: str, number: int) -> str:
    return queue_id.lower() + _base32(number)


def _tag(secret: bytes, named: str, address: str) -> str:
    text = f"{named} {address.lower()}".encode(errors="replace")
    digest = hmac.digest(secret, _PURPOSE_OF_TAG + text, "sha256")
    value = int.from_bytes(digest[:4], "big") >> 7
    return _base32(value).rjust(_TAG_LENGTH, "0")


def _mac(secret: bytes, purpose: bytes, named: str) -> str:
    digest = hmac.digest(secret, purpose + named.encode(), "sha256")
    value = int.from_bytes(digest[:8], "big") >> 4
    return _base32(value).rjust(_MAC_LENGTH, "0")


def _base32(value: int) -> str:
    """A number without leading zeros; nothing for 0."""
    digits = []
    while value:
        digits.append(_ALPHABET[value & 31])
        value >>= 5
    return "".join(reversed(digits))
