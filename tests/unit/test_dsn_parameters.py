"""DSN parameters as values: xtext and its lengths, NOTIFY's words, the packed form."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from relay.model.dsn import (
    NOTIFY_WORDS,
    RecipientDsn,
    ascii_orcpt,
    decode_xtext,
    encode_xtext,
    is_envid,
    is_orcpt,
    notify_letters,
    notify_value,
    original_recipient,
)
from relay.smtp import command

ASCII = st.text(st.characters(max_codepoint=127))
SCALARS = st.characters(exclude_categories=("Cs", "Cc"))


@given(ASCII)
def test_any_ascii_text_goes_through_xtext_unchanged(text: str) -> None:
    encoded = encode_xtext(text)
    assert decode_xtext(encoded) == text
    assert not set(encoded) & set(" =\r\n")


@given(st.text(st.characters(min_codepoint=32, max_codepoint=126), min_size=1, max_size=33))
def test_printable_text_makes_an_envid(text: str) -> None:
    assert is_envid(encode_xtext(text))


@given(st.text(max_size=60))
def test_what_passes_as_parameter_stands_in_a_command_as_one_line(text: str) -> None:
    if is_envid(text):
        line = command.mail("a@b.test", envid=text)
        assert line.count(b" ") == 2 and line.count(b"\r\n") == 1
    if is_orcpt(text):
        line = command.rcpt_with_dsn("a@b.test", RecipientDsn(orcpt=text))
        assert line.count(b" ") == 2 and line.count(b"\r\n") == 1 and line.isascii()


@given(st.text(SCALARS, min_size=1, max_size=20).map(lambda text: text.replace("\\", "")))
def test_utf8_original_recipient_survives_its_form_in_ascii(text: str) -> None:
    orcpt = "utf-8;" + "".join(encode_xtext(c) if c.isascii() else c for c in text) + "@x.test"
    assert original_recipient(orcpt) == ("utf-8", f"{text}@x.test")
    assert original_recipient(ascii_orcpt(orcpt)) == ("utf-8", f"{text}@x.test")


@given(st.sets(st.sampled_from(["SUCCESS", "FAILURE", "DELAY"]), min_size=1))
def test_words_of_notify_come_back_in_any_order_and_case(words: set[str]) -> None:
    letters = notify_letters(",".join(words).lower())
    assert set(notify_value(letters).split(",")) == words


@pytest.mark.parametrize(
    "words", ["", ",", "NEVER,DELAY", "SUCCESS,SUCCESS", "SUCCESS, DELAY", "X"]
)
def test_other_words_are_no_notify(words: str) -> None:
    with pytest.raises(ValueError):
        notify_letters(words)


@given(st.sampled_from(["", "N", "S", "SFD", "FD"]), st.sampled_from(["", "rfc822;a:b@x.test"]))
def test_packed_form_comes_back(notify: str, orcpt: str) -> None:
    asked = RecipientDsn(notify, orcpt)
    assert RecipientDsn.unpacked(asked.packed()) == asked
    assert bool(asked.packed()) == bool(notify or orcpt)


def test_silence_means_the_default_and_never_means_nothing() -> None:
    for letter in NOTIFY_WORDS:
        assert RecipientDsn().wants(letter, default=True)
        assert not RecipientDsn().wants(letter, default=False)
    assert not any(RecipientDsn("N").wants(letter, default=True) for letter in "SFD")
    assert RecipientDsn("S").wants("S", default=False)
    assert not RecipientDsn("S").wants("F", default=True)
