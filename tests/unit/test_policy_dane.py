"""TLSA records and chains of certificates: which vouch for which (RFC 6698, 7672)."""

import datetime
import hashlib

import pytest
from certificates import Issued, issue
from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat

from relay.policy.dane import Tlsa, read_tlsa, why_not

NOW = datetime.datetime.now(datetime.UTC)
HOST = "mx.example.test"

ROOT = issue("root", ca=True)
MIDDLE = issue("middle", ca=True, issuer=ROOT)
LEAF = issue("leaf", HOST, issuer=MIDDLE)
CHAIN = [LEAF.der, MIDDLE.der, ROOT.der]


def octets(certificate: Issued, selector: int) -> bytes:
    if selector == 0:
        return certificate.der
    key = certificate.key.public_key()
    return key.public_bytes(Encoding.DER, PublicFormat.SubjectPublicKeyInfo)


def record(usage: int, certificate: Issued, selector: int = 1, matching: int = 1) -> Tlsa:
    data = octets(certificate, selector)
    digest = {1: hashlib.sha256, 2: hashlib.sha512}.get(matching)
    return Tlsa(usage, selector, matching, digest(data).digest() if digest else data)


@pytest.mark.parametrize("selector", [0, 1])
@pytest.mark.parametrize("matching", [0, 1, 2])
def test_every_form_of_a_record_stands_for_its_certificate_and_no_other(
    selector: int, matching: int
) -> None:
    other = issue("leaf", HOST, issuer=MIDDLE)
    for usage, certificate, chain in ((3, LEAF, CHAIN), (2, MIDDLE, CHAIN), (2, ROOT, CHAIN)):
        right = record(usage, certificate, selector, matching)
        assert right.is_usable
        assert why_not([right], chain, [HOST], NOW) == ""
    for usage in (2, 3):
        wrong = record(usage, other, selector, matching)
        assert why_not([wrong], CHAIN, [HOST], NOW).startswith("no TLSA record stands for")
        assert why_not([wrong, right], CHAIN, [HOST], NOW) == ""


def test_own_certificate_needs_neither_name_nor_date_nor_chain() -> None:
    expired = issue("leaf", "elsewhere.test", days=-1)
    assert why_not([record(3, expired)], [expired.der], [HOST], NOW) == ""


def test_record_of_the_own_certificate_says_nothing_of_issuers() -> None:
    assert why_not([record(3, MIDDLE)], CHAIN, [HOST], NOW)
    assert why_not([record(3, ROOT)], CHAIN, [HOST], NOW)


@pytest.mark.parametrize(
    ("names", "host"),
    [([HOST], HOST.upper() + "."), (["a.test", HOST], HOST), (["*.example.test"], HOST)],
)
def test_issuer_vouches_for_the_names_in_its_certificate(names: list[str], host: str) -> None:
    leaf = issue("leaf", *names, issuer=ROOT)
    assert why_not([record(2, ROOT)], [leaf.der, ROOT.der], [host], NOW) == ""


@pytest.mark.parametrize(
    "names", [["other.test"], ["example.test"], ["*.test"], ["mx.*.test"], ["*"], []]
)
def test_issuer_does_not_vouch_for_another_name(names: list[str]) -> None:
    leaf = issue("leaf", *names, issuer=ROOT)
    fault = why_not([record(2, ROOT)], [leaf.der, ROOT.der], [HOST], NOW)
    assert fault == f"the certificate is not for {HOST}"


@pytest.mark.parametrize("where", ["leaf", "middle", "root"])
def test_no_certificate_up_to_the_issuer_may_be_out_of_date(where: str) -> None:
    days = {"leaf": 30, "middle": 30, "root": 30} | {where: -1}
    root = issue("root", ca=True, days=days["root"])
    middle = issue("middle", ca=True, issuer=root, days=days["middle"])
    leaf = issue("leaf", HOST, issuer=middle, days=days["leaf"])
    chain = [leaf.der, middle.der, root.der]
    assert "out of date" in why_not([record(2, root)], chain, [HOST], NOW)


def test_issuer_that_may_not_issue_vouches_for_nothing() -> None:
    not_ca = issue("root", ca=False)
    leaf = issue("leaf", HOST, issuer=not_ca)
    assert "by none that may" in why_not([record(2, not_ca)], [leaf.der, not_ca.der], [HOST], NOW)


def test_certificate_beside_the_chain_vouches_for_nothing() -> None:
    stranger = issue("leaf", HOST)
    fault = why_not([record(2, ROOT)], [stranger.der, MIDDLE.der, ROOT.der], [HOST], NOW)
    assert fault == "no TLSA record stands for an issuer in the server's chain"
    namesake = issue("middle", ca=True)
    fault = why_not([record(2, namesake)], [LEAF.der, namesake.der], [HOST], NOW)
    assert fault == "no TLSA record stands for an issuer in the server's chain"


def test_chain_may_be_out_of_order_and_the_issuer_stand_in_the_record_alone() -> None:
    assert why_not([record(2, ROOT)], [LEAF.der, ROOT.der, MIDDLE.der], [HOST], NOW) == ""
    whole = record(2, ROOT, selector=0, matching=0)
    assert why_not([whole], [LEAF.der, MIDDLE.der], [HOST], NOW) == ""
    assert why_not([record(2, ROOT)], [LEAF.der, MIDDLE.der], [HOST], NOW)


@pytest.mark.parametrize("chain", [[], [b""], [b"\x30\x03\x02\x01\x01"], [b"x" * 5000]])
def test_what_is_no_chain_is_refused(chain: list[bytes]) -> None:
    for usage in (2, 3):
        assert why_not([record(usage, LEAF)], chain, [HOST], NOW)


def test_record_that_holds_no_certificate_refuses_and_does_no_harm() -> None:
    junk = Tlsa(2, 0, 0, b"junk")
    assert junk.is_usable
    assert "cannot be read" in why_not([junk], CHAIN, [HOST], NOW)


@pytest.mark.parametrize(
    "unusable",
    [
        Tlsa(0, 1, 1, bytes(32)),
        Tlsa(1, 1, 1, bytes(32)),
        Tlsa(4, 1, 1, bytes(32)),
        Tlsa(3, 2, 1, bytes(32)),
        Tlsa(3, 1, 3, bytes(32)),
        Tlsa(3, 1, 1, bytes(31)),
        Tlsa(3, 1, 2, bytes(32)),
        Tlsa(3, 1, 0, b""),
    ],
)
def test_unusable_records_are_known(unusable: Tlsa) -> None:
    assert not unusable.is_usable


def test_records_are_read_of_their_text_form() -> None:
    assert read_tlsa(["3 1 1 00ff", "2 0 2 "]) == (Tlsa(3, 1, 1, b"\0\xff"), Tlsa(2, 0, 2, b""))
    with pytest.raises(ValueError):
        read_tlsa(["3 1 1"])
