"""Mechanisms and their choice."""

import pytest

from relay.model.credentials import Credentials
from relay.model.errors import LocalProtocolError
from relay.smtp.sasl import Login, Plain, choose_mechanism, decode, encode

ACCOUNT = Credentials("user", "pässword")


def test_plain_says_everything_at_once() -> None:
    assert Plain(ACCOUNT).initial_response() == b"\0user\0p\xc3\xa4ssword"
    with pytest.raises(ValueError, match="challenge"):
        Plain(ACCOUNT).respond(b"")


def test_login_answers_user_then_password_then_nothing() -> None:
    login = Login(ACCOUNT)
    assert login.initial_response() is None
    assert [login.respond(b"Username:"), login.respond(b"?")] == [b"user", b"p\xc3\xa4ssword"]
    with pytest.raises(ValueError, match="challenge"):
        login.respond(b"more")


@pytest.mark.parametrize(
    ("offered", "name"),
    [({"LOGIN", "PLAIN", "XOAUTH2"}, "PLAIN"), ({"LOGIN"}, "LOGIN"), ({"PLAIN"}, "PLAIN")],
)
def test_plain_is_preferred(offered: set[str], name: str) -> None:
    assert choose_mechanism(offered, ACCOUNT).name == name


@pytest.mark.parametrize("offered", [set(), {"PLAINX", "CRAM-MD5"}])
def test_nothing_in_common_is_refused(offered: set[str]) -> None:
    with pytest.raises(LocalProtocolError, match="no SASL mechanism in common"):
        choose_mechanism(offered, ACCOUNT)


@pytest.mark.parametrize("account", [("a\0b", "c"), ("a", "b\0c"), ("", "c")])
@pytest.mark.client_row("C51")
def test_credentials_that_plain_cannot_carry_are_refused(account: tuple[str, str]) -> None:
    for mechanism in (Plain, Login):
        with pytest.raises(LocalProtocolError):
            mechanism(Credentials(*account))


def test_base64_is_strict() -> None:
    assert decode(encode(b"abc").decode()) == b"abc"
    assert decode("") == b""
    for text in ("***", "YQ", "YQ==YQ==", "ä"):
        with pytest.raises(ValueError, match="base64"):
            decode(text)
