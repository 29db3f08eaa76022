"""Reading the URL of a Redis behind sentinels."""

import pytest

from relay.model.errors import ConfigError
from relay.settings.loader import load_settings
from relay.settings.sentinel import FORM, Login, SentinelUrl, parse_sentinel_url


def test_url_with_everything() -> None:
    text = (
        "rediss+sentinel://ann:p%40s%2Fs@one:5000,two,[::1]:5001/mail/3"
        "?sentinel_username=bob&sentinel_password=x%26y&ssl_ca_certs=/ca.pem"
    )
    assert parse_sentinel_url(text) == SentinelUrl(
        sentinels=(("one", 5000), ("two", 26379), ("::1", 5001)),
        master="mail",
        login=Login("ann", "p@s/s"),
        sentinel_login=Login("bob", "x&y"),
        db=3,
        is_tls=True,
        ca_file="/ca.pem",
    )


@pytest.mark.parametrize("text", ["redis+sentinel://one/mail", "redis+sentinel://one/mail/"])
def test_shortest_url(text: str) -> None:
    url = parse_sentinel_url(text)
    assert (url.sentinels, url.master, url.db) == ((("one", 26379),), "mail", 0)
    assert (url.login, url.is_tls) == (Login(), False)


def test_password_without_a_user() -> None:
    assert parse_sentinel_url("redis+sentinel://:pw@one/mail").login == Login("", "pw")


@pytest.mark.parametrize(
    "rest",
    [
        "one:26379",
        "one:26379/",
        "/mail",
        "one,,two/mail",
        "one:0/mail",
        "one:99999/mail",
        "a b/mail",
        "one/mail/first",
        "one/mail?sentinel_pasword=x",
        "user:secret@one:x/mail",
    ],
)
def test_bad_url_is_a_fault_of_the_setting_that_tells_the_form(rest: str) -> None:
    with pytest.raises(ConfigError) as caught:
        load_settings(environ={"RELAY_REDIS_URL": f"redis+sentinel://{rest}"})
    assert "redis.url" in str(caught.value)
    assert "redis+sentinel://" in str(caught.value)
    assert "secret" not in str(caught.value)


def test_form_is_one_that_is_read() -> None:
    text = FORM.replace("[", "").replace("]", "").replace("/db", "/1")
    assert parse_sentinel_url(text).master == "mymaster"
