"""What a sender asks to be told of his message (RFC 3461 §4): RET, ENVID, NOTIFY and ORCPT.

ENVID and ORCPT are kept as they stand on the wire, in xtext, for they are passed on unchanged.
"""

import re
from typing import Final

import msgspec

#: RFC 3461 §4.2, §4.4: characters of an ORCPT and of an ENVID as they stand in a command.
ORCPT_LENGTH: Final = 500
ENVID_LENGTH: Final = 100

FULL: Final = "FULL"
HEADERS: Final = "HDRS"

#: What NOTIFY lists, by the letter that stands for it.
NEVER, SUCCESS, FAILURE, DELAY = "N", "S", "F", "D"
NOTIFY_WORDS: Final = {SUCCESS: "SUCCESS", FAILURE: "FAILURE", DELAY: "DELAY", NEVER: "NEVER"}

_XTEXT = re.compile(r"(?:[!-*,-<>-~]|\+[0-9A-F]{2})*")
_ORCPT = re.compile(
    r"[A-Za-z0-9!#$%&'*/?^_`{|}~\-]+;(?:[!-*,-<>-~\u0080-\U0010ffff]|\+[0-9A-F]{2})+"
)
_HEX = re.compile(r"\+([0-9A-F]{2})")
_UNICODE = re.compile(r"\\x\{([0-9A-F]{2,6})\}")
_NOT_XCHAR = re.compile(r"[^!-*,-<>-~]")
_NOT_ASCII = re.compile(r"[^\x00-\x7f]")


class RecipientDsn(msgspec.Struct, frozen=True):
    """Parameters of one RCPT: `notify` is letters of NOTIFY_WORDS, empty where it was not given."""

    notify: str = ""
    orcpt: str = ""

    def wants(self, letter: str, *, default: bool) -> bool:
        """Whether the sender wants such a report; `default` where he said nothing of it."""
        return letter in self.notify if self.notify else default

    def packed(self) -> str:
        """As it lies in the store; empty where nothing was said."""
        return f"{self.notify}:{self.orcpt}" if self.notify or self.orcpt else ""

    @classmethod
    def unpacked(cls, text: str) -> "RecipientDsn":
        """The value of `packed`."""
        notify, _, orcpt = text.partition(":")
        return cls(notify, orcpt)


NOTHING_ASKED: Final = RecipientDsn()


class Dsn(msgspec.Struct, frozen=True):
    """The parameters of one message; `recipients[i]` belongs to its i-th forward-path.

    `ret` is FULL, HDRS or empty, `envid` xtext; no `recipients`: nothing was said at any RCPT.
    """

    ret: str = ""
    envid: str = ""
    recipients: tuple[RecipientDsn, ...] = ()

    @property
    def asks_for_reports(self) -> bool:
        """Whether a report is asked for by name."""
        return any(item.notify not in ("", NEVER) for item in self.recipients)


def notify_letters(words: str) -> str:
    """The letters of `SUCCESS,DELAY` or `NEVER` in any case; ValueError where it is neither."""
    letters = {word: letter for letter, word in NOTIFY_WORDS.items()}
    given = words.upper().split(",")
    if not all(word in letters for word in given) or len(set(given)) < len(given):
        raise ValueError(words)
    if "NEVER" in given and len(given) > 1:
        raise ValueError(words)
    return "".join(letter for letter, word in NOTIFY_WORDS.items() if word in given)


def notify_value(letters: str) -> str:
    """The value of NOTIFY."""
    return ",".join(NOTIFY_WORDS[letter] for letter in letters)


def is_envid(text: str) -> bool:
    """Whether it may stand behind `ENVID=`: xtext of printable ASCII (RFC 3461 §4.4)."""
    if not 0 < len(text) <= ENVID_LENGTH or _XTEXT.fullmatch(text) is None:
        return False
    return all(" " <= character <= "~" for character in decode_xtext(text))


def is_orcpt(text: str) -> bool:
    """Whether it may stand behind `ORCPT=`: `type;xtext`, or with UTF-8 in it (RFC 6533 §3)."""
    if len(text) > ORCPT_LENGTH or _ORCPT.fullmatch(text) is None:
        return False
    return text.isascii() or text[:6].lower() == "utf-8;"


def encode_xtext(text: str) -> str:
    """ASCII text as xtext (RFC 3461 §4)."""
    return _NOT_XCHAR.sub(lambda match: f"+{ord(match[0]):02X}", text)


def decode_xtext(text: str) -> str:
    """The text that xtext stands for."""
    return _HEX.sub(lambda match: chr(int(match[1], 16)), text) if "+" in text else text


def ascii_orcpt(orcpt: str) -> str:
    """An ORCPT for a peer without SMTPUTF8: UTF-8 as `\\x{…}` (RFC 6533 §3)."""
    return _NOT_ASCII.sub(lambda match: f"\\x{{{ord(match[0]):02X}}}", orcpt)


def original_recipient(orcpt: str) -> tuple[str, str]:
    """Type and address of an ORCPT, decoded: what a report shows as Original-Recipient."""
    kind, _, address = orcpt.partition(";")
    address = decode_xtext(address)
    if kind.lower() == "utf-8":
        address = _UNICODE.sub(_character, address)
    return kind, address


def _character(match: re.Match[str]) -> str:
    number = int(match[1], 16)
    is_one = number < 0xD800 or 0xDFFF < number <= 0x10FFFF
    return chr(number) if is_one else match[0]
