"""Who signs: by the author's domain and the tenant."""

import pytest

from relay.policy.signing import SigningTable, author_domain

TABLE = SigningTable(
    [
        ("example.org", "", "rsa"),
        ("example.org", "", "ed25519"),
        ("news.example.org", "", "news"),
        ("example.org", "acme", "acme"),
        ("only.test", "acme", "acme-only"),
        ("relay.example", "", "ours"),
    ],
    default_domain="relay.example",
)


@pytest.mark.parametrize(
    ("domain", "tenant", "keys"),
    [
        ("example.org", "default", ("rsa", "ed25519")),
        ("news.example.org", "default", ("news",)),
        ("a.b.example.org", "default", ("rsa", "ed25519")),
        ("deep.news.example.org", "default", ("news",)),
        ("example.org", "acme", ("acme",)),
        ("news.example.org", "acme", ("news",)),
        ("only.test", "acme", ("acme-only",)),
        ("only.test", "other", ("ours",)),
        ("notexample.org", "default", ("ours",)),
        ("org", "default", ("ours",)),
        ("", "default", ("ours",)),
    ],
)
def test_signing_domain_is_the_exact_one_then_a_parent_then_the_default(
    domain: str, tenant: str, keys: tuple[str, ...]
) -> None:
    assert TABLE.keys_for(domain, tenant) == keys


def test_signing_without_a_default_leaves_other_domains_unsigned() -> None:
    table = SigningTable([("example.org", "", "rsa"), ("example.org", "acme", "acme")])
    assert table.keys_for("example.com", "default") == ()


@pytest.mark.parametrize(
    ("header", "domain"),
    [
        (b"From: a@example.org", "example.org"),
        (b"Subject: x\r\nFROM : Ann <a@Example.ORG>", "example.org"),
        (b"From:\r\n\tAnn\r\n <a@example.org>\r\nTo: b@x.test", "example.org"),
        (b'From: "Ann, at work" <a@example.org>, bob@other.test', "example.org"),
        ("From: <a@bücher.example>".encode(), "xn--bcher-kva.example"),
        (b"From: nobody", ""),
        (b"From: =?utf-8?q?a@b?= <>", ""),
        (b"X-From: a@example.org", ""),
        (b"Subject: x\r\n From: a@example.org", ""),
        (b"", ""),
    ],
)
def test_author_domain_is_read_from_the_from_field(header: bytes, domain: str) -> None:
    assert author_domain(header + b"\r\n\r\nFrom: evil@body.test\r\n") == domain


def test_author_domain_of_a_header_alone_is_found() -> None:
    assert author_domain(b"To: x\r\nFrom: a@example.org\r\n") == "example.org"
