"""The machine's part of a delivery status notification (RFC 3464, RFC 6533), as found in the wild.

Tolerated: fields of message and recipient without the empty line between them, a missing Action
(the status tells), a status with words behind it, brackets around addresses, `utf-8` addresses
with `\\x{…}` (RFC 6533 §3), xtext that was left as it was (RFC 3461 §4).
"""

import re

from relay.delivery.intake.parts import Fields, Part, fields_of
from relay.delivery.intake.report import Kind, ReportedRecipient

#: Recipients of one report; a message of ours has at most so many in a transaction.
RECIPIENTS = 100
_BLOCK = re.compile(r"\n[ \t]{0,8}\n")
_STATUS = re.compile(r"\b([245])\.(\d{1,3})\.(\d{1,3})\b")
_XTEXT = re.compile(r"\+([0-9A-F]{2})")
_UNICODE = re.compile(r"\\x\{([0-9A-Fa-f]{1,6})\}")
_ADDRESS = re.compile(r"<?([^\s<>\";]{1,64}@[^\s<>\";]{1,255})>?")
_ACTIONS = {
    "failed": Kind.BOUNCE,
    "failure": Kind.BOUNCE,
    "delayed": Kind.DELAY,
    "delivered": Kind.SUCCESS,
    "relayed": Kind.SUCCESS,
    "expanded": Kind.SUCCESS,
}
_BY_CLASS = {"5": Kind.BOUNCE, "4": Kind.DELAY, "2": Kind.SUCCESS}


class Status(Fields):
    """A status part as a whole: what it says of the message, and of each recipient."""

    def __init__(self, part: Part) -> None:
        blocks = [fields_of(text.encode()) for text in _BLOCK.split(part.text)[: RECIPIENTS + 1]]
        blocks = [block for block in blocks if block.pairs]
        super().__init__(blocks[0].pairs if blocks else [])
        self.recipients = [block for block in blocks if _is_of_recipient(block)]

    def of(self, kind: Kind) -> tuple[ReportedRecipient, ...]:
        """The recipients about whom this is said."""
        return tuple(_recipient(block) for block in self.recipients if _kind(block) is kind)

    @property
    def kind(self) -> Kind:
        """What the report is about: the worst that it says of anyone."""
        said = {_kind(block) for block in self.recipients}
        for kind in (Kind.BOUNCE, Kind.DELAY, Kind.SUCCESS):
            if kind in said:
                return kind
        return Kind.UNKNOWN


def address_of(value: str) -> str:
    """The address of a typed field such as `rfc822; <a@b>`; empty where there is none."""
    kind, semicolon, rest = value.partition(";")
    text = (rest if semicolon else kind).strip()
    if kind.strip().lower() == "utf-8":
        text = _UNICODE.sub(lambda found: _character(found[1]), text)
    elif "+" in text:
        # Where it is no xtext the address has a plus of its own: only ASCII signs are undone.
        text = _XTEXT.sub(lambda found: _undone(found[0], int(found[1], 16)), text)
    match = _ADDRESS.search(text)
    return match[1].strip(".,:'") if match else ""


def enhanced_of(text: str) -> str:
    """The first enhanced code in a text; empty where there is none."""
    match = _STATUS.search(text)
    return match[0] if match else ""


def _character(digits: str) -> str:
    code = int(digits, 16)
    return chr(code) if 0x20 <= code < 0x110000 and not 0xD800 <= code < 0xE000 else "?"


def _undone(found: str, code: int) -> str:
    return chr(code) if chr(code) in "+=@" else found


def _is_of_recipient(block: Fields) -> bool:
    names = {name for name, _ in block.pairs}
    return bool(names & {"final-recipient", "original-recipient", "x-actual-recipient"})


def _kind(block: Fields) -> Kind:
    action = block.get("action").partition("(")[0].strip().lower()
    if action in _ACTIONS:
        return _ACTIONS[action]
    return _BY_CLASS.get(enhanced_of(block.get("status"))[:1], Kind.UNKNOWN)


def _recipient(block: Fields) -> ReportedRecipient:
    original = address_of(block.get("original-recipient"))
    final = address_of(block.get("final-recipient"))
    diagnostic = block.get("diagnostic-code")
    said, semicolon, rest = diagnostic.partition(";")
    status = enhanced_of(block.get("status"))
    if status[1:] in ("", ".0.0"):  # the server's own is better than one that says nothing
        status = enhanced_of(diagnostic) or status
    return ReportedRecipient(
        address=final or original or address_of(block.get("x-actual-recipient")),
        original=original,
        status=status,
        diagnostic=(rest if semicolon and len(said) < 20 else diagnostic).strip()[:1000],
        remote=block.get("remote-mta").rpartition(";")[2].strip()[:255],
    )
