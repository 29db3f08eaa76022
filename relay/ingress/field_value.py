"""Values of header fields as they go on the wire: folded, encoded words (RFC 2047), parameters
(RFC 2231). Pure functions from text to ASCII; nothing here lets a line break in.
"""

import base64
import re
from collections.abc import Iterator, Sequence
from urllib.parse import quote

from relay.ingress.message import NamedAddress

#: RFC 5322 §2.1.1: a line should have at most 78 characters, with an encoded word 76.
LINE = 76
#: RFC 2047 §2: an encoded word has at most 75 characters; "=?utf-8?q?" and "?=" are 12 of them.
_PAYLOAD = 75 - 12
#: Of one character at least: 12 octets as q, or 3 of base64, in an encoded word's own 12.
_SHORTEST_WORD = 24
_PLAIN = re.compile(r"[!-~](?:[ -~]*[!-~])?")
_PHRASE = re.compile(r"[A-Za-z0-9!#$%&'*+/=?^_`{|}~\-]+(?: [A-Za-z0-9!#$%&'*+/=?^_`{|}~\-]+)*")
_Q_SAFE = frozenset(b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789!*+-/")
_Q_OCTET = [chr(o) if o in _Q_SAFE else "_" if o == 32 else f"={o:02X}" for o in range(256)]
_TOKEN = re.compile(r"[!#$%&+\-^_`{|}~0-9A-Za-z.]+")
#: RFC 2231 §7 attribute-char for the percent-encoded form.
_ATTRIBUTE_SAFE = "!#$&+-.^_`{|}~"
_SEGMENT = 56


def unstructured(name: str, value: str) -> str:
    """The whole field `Name: value` for free text, folded; no CRLF at its end."""
    start = f"{name}: "
    if value == "" or (
        _PLAIN.fullmatch(value) is not None and "=?" not in value and not _has_long_word(value)
    ):
        return fold(start + value)
    room = LINE - len(start)
    if room < _SHORTEST_WORD:  # a long name: the words begin on a line of their own
        start, room = f"{name}:\r\n ", LINE - 1
    return start + "\r\n ".join(encoded_words(value, room=room))


def structured(name: str, value: str) -> str:
    """The whole field for a value of tokens, folded at spaces only; the value is ASCII."""
    return fold(f"{name}: {value}")


def mailboxes(name: str, values: Sequence[NamedAddress]) -> str:
    """The whole field for a list of mailboxes, as many on a line as fit."""
    text = f"{name}:"
    last = len(values) - 1
    for index, value in enumerate(values):
        pieces = [
            *_phrase_pieces(value.name),
            f"<{value.address}>" if value.name else str(value.address),
        ]
        if index < last:
            pieces[-1] += ","
        for number, piece in enumerate(pieces):
            column = len(text) - text.rfind("\n") - 1
            is_first = index == 0 and number == 0
            text += " " if is_first or column + 1 + len(piece) <= LINE else "\r\n "
            text += piece
    return text


def _phrase_pieces(name: str) -> list[str]:
    """A display name as atoms, a quoted string or encoded words; it may be folded between them."""
    if name == "":
        return []
    if _PHRASE.fullmatch(name) and len(name) <= 60 and "=?" not in name:
        return [name]
    if name.isascii() and name.isprintable() and len(name) <= 60 and "=?" not in name:
        escaped = name.replace("\\", "\\\\").replace('"', '\\"')
        return [f'"{escaped}"']
    return list(encoded_words(name, room=48))


def encoded_words(text: str, *, room: int) -> Iterator[str]:
    """The text as encoded words in UTF-8, no character split; the first has `room` at most."""
    octets = text.encode()
    q_length = sum(len(_Q_OCTET[octet]) for octet in octets)
    use_q = q_length <= (len(octets) + 2) // 3 * 4
    space = min(_PAYLOAD, max(room - 12, 12))
    chunk = bytearray()
    length = 0
    for character in text:
        piece = character.encode()
        cost = sum(len(_Q_OCTET[octet]) for octet in piece) if use_q else len(piece)
        if length + cost > (space if use_q else space // 4 * 3):
            yield _word(bytes(chunk), use_q=use_q)
            chunk.clear()
            length, space = 0, _PAYLOAD
        chunk += piece
        length += cost
    yield _word(bytes(chunk), use_q=use_q)


def _word(octets: bytes, *, use_q: bool) -> str:
    if use_q:
        return "=?utf-8?q?" + "".join(_Q_OCTET[octet] for octet in octets) + "?="
    return "=?utf-8?b?" + base64.b64encode(octets).decode("ascii") + "?="


def fold(line: str) -> str:
    """Fold a field at its spaces so that lines stay within 76 characters where they can.

    The value neither begins nor ends with a space, so no line is ever blank.
    """
    lines = []
    begin = line.index(":") + 3
    while len(line) > LINE:
        at = line.rfind(" ", begin, LINE + 1)
        if at < 0:
            at = line.find(" ", LINE + 1)
        if at < 0:
            break
        while line[at - 1] == " ":
            at -= 1
        lines.append(line[:at])
        line = line[at:]
        begin = len(line) - len(line.lstrip(" ")) + 1
    return "\r\n".join([*lines, line])


def parameter(name: str, value: str) -> str:
    """`; name=value` for a MIME field on a line of its own, by RFC 2231 where needed."""
    if value.isascii() and value.isprintable() and len(value) <= _SEGMENT:
        if _TOKEN.fullmatch(value):
            return f";\r\n {name}={value}"
        escaped = value.replace("\\", "\\\\").replace('"', '\\"')
        return f';\r\n {name}="{escaped}"'
    encoded = [quote(character, safe=_ATTRIBUTE_SAFE) for character in value]
    if sum(map(len, encoded)) <= _SEGMENT:
        return f";\r\n {name}*=utf-8''{''.join(encoded)}"
    segments = ["utf-8''"]
    for piece in encoded:
        if len(segments[-1]) + len(piece) > _SEGMENT:
            segments.append("")
        segments[-1] += piece
    return "".join(f";\r\n {name}*{number}*={text}" for number, text in enumerate(segments))


def _has_long_word(value: str) -> bool:
    return len(value) > 900 and max(map(len, value.split(" "))) > 900
