"""Scanning and editing the header block without touching what stays."""

from relay.smtp.header_block import rewrite, scan

CONTENT = (
    b"From: a@b.c\r\nBcc: secret@x.y,\r\n\tother@x.y\r\nSubject: hi\r\n there\r\n\r\nBcc: body\r\n"
)


def test_scan_gives_names_values_and_the_place_of_the_body() -> None:
    block = scan(CONTENT)
    assert block.names == ["from", "bcc", "subject"]
    assert block.first("subject") == "hi there"
    assert CONTENT[block.body_at :] == b"\r\nBcc: body\r\n"


def test_rewrite_drops_a_folded_field_whole_and_leaves_the_body() -> None:
    made = rewrite(CONTENT, scan(CONTENT), top=b"X: 1\r\n", drop={"bcc"})
    assert made == b"X: 1\r\nFrom: a@b.c\r\nSubject: hi\r\n there\r\n\r\nBcc: body\r\n"


def test_rewrite_without_anything_to_drop_only_puts_on_top() -> None:
    assert rewrite(CONTENT, scan(CONTENT), top=b"X: 1\r\n", drop={"cc"}) == b"X: 1\r\n" + CONTENT


def test_line_that_is_no_field_ends_the_block() -> None:
    content = b"From: a@b.c\r\nno field\r\nSubject: x\r\n\r\nbody\r\n"
    block = scan(content)
    assert block.is_cut and block.names == ["from"]
    made = rewrite(content, block, top=b"", drop=())
    assert made == b"From: a@b.c\r\n\r\nno field\r\nSubject: x\r\n\r\nbody\r\n"


def test_message_without_header_or_body_is_scanned() -> None:
    assert scan(b"").names == []
    assert scan(b"\r\nbody\r\n").body_at == 0
    only = scan(b"From: a@b.c\r\n")
    assert only.names == ["from"] and only.body_at == 13 and not only.is_cut


def test_values_with_octets_above_127_are_shown_not_refused() -> None:
    assert scan("Subject: grüße\r\n\r\n".encode()).first("subject") == "grüße"
    assert scan(b"Subject: \xff\r\n\r\n").first("subject") == "�"
