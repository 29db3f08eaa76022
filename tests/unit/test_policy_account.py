"""Accounts in the keys of a route, and the secrets behind them."""

from pathlib import Path

import pytest

from relay.delivery.secret import read_secret
from relay.model.credentials import Credentials
from relay.model.errors import ConfigError
from relay.policy.route import RouteTable
from relay.settings.schema import Route, SaslMechanism, TlsPolicy

HUB = "smtp://hub.example"
LOGIN = SaslMechanism.LOGIN
XOAUTH2 = SaslMechanism.XOAUTH2


def account(**keys: object) -> Credentials | None:
    route = RouteTable([Route(domain="*", name="n", smarthost=HUB, **keys)]).route("[n]")
    assert route is not None
    assert route.port == (587 if keys else 25)
    return route.credentials


@pytest.mark.parametrize(
    ("keys", "expected"),
    [
        ({}, None),
        ({"password": "p"}, Credentials("u", "p")),
        ({"password_file": "/run/p"}, Credentials("u", file="/run/p")),
        ({"password_env": "P"}, Credentials("u", variable="P")),
        ({"token_file": "/run/t"}, Credentials("u", is_token=True, file="/run/t")),
        ({"token_env": "T"}, Credentials("u", is_token=True, variable="T")),
        (
            {"password": "p", "auth": (LOGIN, SaslMechanism.PLAIN)},
            Credentials("u", "p", mechanisms=("LOGIN", "PLAIN")),
        ),
    ],
)
def test_account_of_a_route_stands_in_its_keys(
    keys: dict[str, object], expected: Credentials | None
) -> None:
    assert account(**({"username": "u"} if keys else {}), **keys) == expected


def test_mechanisms_narrow_the_account_of_a_url_too() -> None:
    url = "smtp://u:p@hub.example"
    route = RouteTable([Route(domain="*", name="n", smarthost=url, auth=(LOGIN,))]).route("[n]")
    assert route is not None
    assert route.credentials == Credentials("u", "p", mechanisms=("LOGIN",))


@pytest.mark.parametrize(
    ("route", "message"),
    [
        (
            Route(domain="*", smarthost=HUB, password="cret"),
            r"routes\[1\].password: there is no username",
        ),
        (
            Route(domain="*", smarthost=HUB, auth=(LOGIN,)),
            r"routes\[1\].auth: there is no username",
        ),
        (
            Route(domain="*", smarthost=HUB, username="u"),
            r"routes\[1\].username: there is no secret",
        ),
        (
            Route(domain="*", smarthost=HUB, username="u", password="cret", token_env="T"),
            r"routes\[1\].token_env: password is set too; remove one",
        ),
        (
            Route(domain="*", smarthost="smtp://u:cret@hub.example", username="u"),
            r"routes\[1\].username: the URL of the smarthost names an account already",
        ),
        (Route(domain="*", username="u", password="cret"), "an account without a smarthost"),
        (
            Route(domain="*", smarthost=HUB, username="u", password_file="secrets/p"),
            r"routes\[1\].password_file: 'secrets/p' is no absolute path",
        ),
        (
            Route(domain="*", smarthost=HUB, username="u", password="cret", auth=(XOAUTH2,)),
            r"routes\[1\].auth: XOAUTH2 takes a token, but the account has a password",
        ),
        (
            Route(domain="*", smarthost=HUB, username="u", token_env="T", auth=(LOGIN,)),
            r"routes\[1\].auth: LOGIN takes a password, but the account has a token",
        ),
        (
            Route(domain="*", smarthost=HUB, username="u\r", password="cret"),
            "credentials contain a control character",
        ),
        (
            Route(domain="*", smarthost=HUB, username="u", password="cret", tls=TlsPolicy.OFF),
            r"routes\[1\].tls: 'off' could send the password in clear",
        ),
    ],
)
def test_fault_of_an_account_names_its_key_and_no_secret(route: Route, message: str) -> None:
    with pytest.raises(ConfigError, match=message) as caught:
        RouteTable([route])
    assert "cret" not in str(caught.value).replace("secret", "").replace("secrets/p", "")


def test_secret_of_a_file_is_read_anew_each_time(tmp_path: Path) -> None:
    path = tmp_path / "token"
    credentials = Credentials("u", is_token=True, file=str(path))
    for token in ("first", "second"):
        path.write_text(f"{token}\n")
        assert read_secret(credentials).password == token
    assert "second" not in repr(read_secret(credentials))


def test_secret_of_a_variable_and_of_the_value_itself(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("SMARTHOST", "sesame")
    assert read_secret(Credentials("u", variable="SMARTHOST")).password == "sesame"
    assert read_secret(Credentials("u", "p")).password == "p"


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (None, "cannot be read: No such file"),
        (b"", "the password is missing there"),
        (b"\n", "the password is missing there"),
        (b"hidden\nhidden", "must stand there alone"),
        (b"hidden\xff", "not UTF-8"),
        (b"hidden" * 20_000, "too long"),
    ],
)
def test_secret_that_is_none_names_its_file_and_not_its_content(
    tmp_path: Path, content: bytes | None, message: str
) -> None:
    path = tmp_path / "password"
    if content is not None:
        path.write_bytes(content)
    with pytest.raises(ConfigError, match=message) as caught:
        read_secret(Credentials("u", file=str(path)))
    assert str(path) in str(caught.value) and "hidden" not in str(caught.value)


def test_missing_variable_is_named() -> None:
    with pytest.raises(ConfigError, match="NO_SUCH_VARIABLE: the token is missing"):
        read_secret(Credentials("u", is_token=True, variable="NO_SUCH_VARIABLE"))
