"""The minimum a message must satisfy before relay takes it (RFC 5322 §2.1.1, §3.6).

Receivers refuse what fails here for good (Gmail 550 5.7.1, Yahoo 554), so it is better refused at
the door. What can be added (Date, Message-ID) is no finding: the door adds it.
"""

import re
from collections import Counter

from relay.model.errors import Finding

#: Postfix `header_size_limit`; Gmail takes 500 kB.
HEADER_OCTETS = 102_400
#: RFC 5322 §2.1.1, without CRLF.
LINE_OCTETS = 998
#: Postfix, Gmail and Stalwart stop at 50 Received fields, Exim at 30, mox at 100.
RECEIVED_LIMIT = 50

SINGLE_INSTANCE = frozenset(
    b"date from sender reply-to to cc bcc message-id in-reply-to references subject "
    b"mime-version content-type content-transfer-encoding".split()
)
_FIELD = re.compile(rb"([\x21-\x39\x3b-\x7e]+)[ \t]*:")


def lint(content: bytes) -> list[Finding]:
    """Findings of a message with CRLF line ends, not dot-stuffed; empty: it may be accepted."""
    header = _header_block(content)
    findings = _check_lines(content)
    if len(header) > HEADER_OCTETS:
        findings.append(
            Finding(
                "content",
                "header.too_large",
                f"the header has {len(header)} octets, more than {HEADER_OCTETS}",
                "shorten the header fields",
            )
        )
        return findings
    names: Counter[bytes] = Counter()
    for line in header.split(b"\r\n") if header else ():
        if line[:1] in (b" ", b"\t") and names:
            continue
        match = _FIELD.match(line)
        if match is None:
            findings.append(_malformed(line))
            return findings
        names[match[1].lower()] += 1
    return findings + _check_fields(names, header)


def _header_block(content: bytes) -> bytes:
    if content.startswith(b"\r\n"):
        return b""
    header, separator, _ = content.partition(b"\r\n\r\n")
    return header if separator else header.removesuffix(b"\r\n")


def _check_lines(content: bytes) -> list[Finding]:
    findings = []
    # Three times as fast as counting the line ends and looking for each of their octets alone.
    if content.replace(b"\r", b"").replace(b"\n", b"\r\n") != content:
        findings.append(
            Finding(
                "content",
                "body.bare_cr_lf",
                "the message has a CR or LF that is not part of a CRLF",
                "end every line with CRLF (RFC 5321 §2.3.8)",
            )
        )
    if b"\0" in content:
        findings.append(
            Finding("content", "body.nul", "the message has a NUL octet", "encode binary parts")
        )
    longest = _first_long_line(content)
    if longest:
        findings.append(
            Finding(
                "content",
                "line.too_long",
                f"a line has {longest} octets, more than {LINE_OCTETS}",
                "fold the header, or encode the part as quoted-printable or base64",
            )
        )
    return findings


def _first_long_line(content: bytes) -> int:
    """Octets of the first line over the limit, or 0: looks at one line end in every 1000 octets."""
    start, end = 0, len(content)
    while end - start > LINE_OCTETS:
        line_end = content.rfind(b"\n", start, start + LINE_OCTETS + 2)
        if line_end < 0:
            stop = content.find(b"\r\n", start)
            return (stop if stop >= 0 else end) - start
        start = line_end + 1
    return 0


def _malformed(line: bytes) -> Finding:
    shown = line[:40].decode("ascii", "replace").encode("unicode_escape").decode("ascii")
    return Finding(
        "content",
        "header.malformed",
        f"the header line '{shown}' is not of the form 'Name: value'",
        "put an empty line between header and body",
    )


def _check_fields(names: Counter[bytes], header: bytes) -> list[Finding]:
    findings = []
    if names[b"from"] != 1:
        times = "no" if not names[b"from"] else str(names[b"from"])
        findings.append(
            Finding(
                "from", "from.count", f"the message has {times} From fields", "give exactly one"
            )
        )
    elif re.search(rb"(?i)(?:\A|\r\n)from[ \t]*:(?:[ \t]|\r\n[ \t])*(?=\r\n[^ \t]|\Z)", header):
        findings.append(
            Finding("from", "from.empty", "the From field is empty", "name the author's address")
        )
    for name, count in sorted(names.items()):
        if count > 1 and name in SINGLE_INSTANCE and name != b"from":
            shown = name.decode("ascii").title()
            findings.append(
                Finding(
                    "content",
                    "header.duplicate",
                    f"the field {shown} stands {count} times",
                    "keep one of them (RFC 5322 §3.6)",
                )
            )
    if names[b"received"] >= RECEIVED_LIMIT:
        findings.append(
            Finding(
                "content",
                "routing.loop",
                f"the message has passed {names[b'received']} servers",
                "find the two servers that send it to each other",
            )
        )
    return findings
