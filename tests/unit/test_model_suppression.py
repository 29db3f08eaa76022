"""The name under which an address stands on the suppression list."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from relay.model.address import parse_address
from relay.model.errors import SubmissionRefused
from relay.model.suppression import suppression_name

#: What `string.lower` of Lua does to an address, byte for byte.
ASCII_LOWER = bytes.maketrans(b"ABCDEFGHIJKLMNOPQRSTUVWXYZ", b"abcdefghijklmnopqrstuvwxyz")
locals_ = st.text(
    st.characters(codec="utf-8", exclude_categories=("C", "Z"), exclude_characters='@"(),:;<>[\\]'),
    min_size=1,
    max_size=20,
).filter(lambda text: "." not in text)


@given(locals_, st.sampled_from(["Example.ORG", "bücher.example", "XN--BCHER-KVA.example"]))
def test_name_of_an_address_is_what_scripts_make_of_the_recipient(local: str, domain: str) -> None:
    address = parse_address(f"{local}@{domain}")
    name = suppression_name(f"  <{local}@{domain}>  "[2:-2])
    assert name.encode() == str(address).encode().translate(ASCII_LOWER)
    assert suppression_name(name) == name


@given(locals_)
def test_name_is_the_same_for_upper_and_lower_case_of_ascii(local: str) -> None:
    raw = f"{local}@one.test".encode()
    upper = raw.translate(bytes.maketrans(*(t for t in (ASCII_LOWER[97:123], ASCII_LOWER[97:123]))))
    assert suppression_name(raw.decode()) == suppression_name(
        "".join(c.upper() if c.isascii() else c for c in upper.decode())
    )


@pytest.mark.parametrize("text", ["example.org", "@Example.Org", " @example.org. ", "EXAMPLE.ORG"])
def test_domain_stands_for_everybody_of_it(text: str) -> None:
    assert suppression_name(text) == "@example.org"


def test_international_domain_is_one_name_in_both_forms() -> None:
    assert suppression_name("bücher.example") == suppression_name("@xn--bcher-kva.example")
    assert suppression_name("Ä@bücher.example") == "Ä@xn--bcher-kva.example"


@pytest.mark.parametrize(
    ("text", "fault"),
    [
        ("", "is empty"),
        ("@", "is empty"),
        ("ann@", "has no domain"),
        ("ann smith@one.test", "is not a mail address"),
        ("ann@one..test", "empty label"),
        ("one test", "invalid label"),
        ("a\r\nb@one.test", "control character"),
        ("@[127.0.0.1]", "address literal"),
        ("x" * 65 + "@one.test", "more than 64"),
        ("10.0.0.1", "IP address"),
    ],
)
def test_what_is_neither_address_nor_domain_is_refused_with_field_and_fix(
    text: str, fault: str
) -> None:
    with pytest.raises(SubmissionRefused, match=fault) as caught:
        suppression_name(text, field="row 3")
    (finding,) = caught.value.findings
    assert finding.field == "row 3"
    assert finding.fix
