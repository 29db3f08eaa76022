"""Well-known smarthosts: every row is whole, names lead to it, mistakes are told."""

import re
from pathlib import Path
from urllib.parse import urlsplit

import pytest

from relay.model.address import normalize_domain
from relay.model.credentials import Credentials
from relay.model.errors import ConfigError
from relay.policy.route import RouteTable, StaticRoute
from relay.policy.smarthost import parse_smarthost
from relay.settings.loader import load
from relay.settings.presets import Preset, find_preset, presets
from relay.settings.reference import smarthosts_table
from relay.settings.report import as_rows, as_toml
from relay.settings.schema import Delivery, Route, Settings, TlsPolicy

ROWS = presets()


@pytest.mark.parametrize("row", ROWS, ids=lambda row: row.name)
def test_row_names_host_port_tls_and_source(row: Preset) -> None:
    assert all(re.fullmatch(r"[a-z0-9][a-z0-9.\-]*", name) for name in (row.name, *row.aliases))
    host = row.host.replace("{region}", "eu-west-1")
    assert normalize_domain(host) == host
    assert (row.port, row.tls) in {(465, "implicit"), (587, "starttls")}
    source = urlsplit(row.source)
    assert source.scheme == "https" and "." in source.netloc and source.path.strip("/")
    assert all("|" not in text and "\n" not in text for text in (row.limits, row.note))


def test_no_name_is_given_twice_and_the_large_ones_are_there() -> None:
    names = [name for row in ROWS for name in (row.name, *row.aliases)]
    assert len(names) == len(set(names))
    large = "gmail outlook office365 yahoo icloud zoho fastmail qq exmail 163 126 aliyun yandex"
    services = "mail.ru ses sendgrid mailgun postmark sparkpost brevo mailjet"
    assert set(names) >= {*large.split(), *services.split()}


def route(smarthost: str, **keys: object) -> StaticRoute:
    keys = {"username": "u", "password": "p", **keys}
    table = RouteTable([Route(domain="*", name="n", smarthost=smarthost, **keys)])
    found = table.route("[n]")
    assert found is not None
    return found


@pytest.mark.parametrize("row", ROWS, ids=lambda row: row.name)
def test_name_and_account_are_enough(row: Preset) -> None:
    name = f"{row.name}:eu-west-1" if "{region}" in row.host else row.name
    found = route(name)
    assert found.host == row.host.replace("{region}", "eu-west-1")
    assert (found.port, found.implicit_tls) == (row.port, row.tls == "implicit")
    assert (found.tls, found.credentials) == (TlsPolicy.VERIFIED, Credentials("u", "p"))


def test_user_name_that_all_accounts_share_need_not_be_written() -> None:
    found = route("sendgrid", username="")
    assert found.credentials == Credentials("apikey", "p")
    assert route("QQ").host == route("foxmail").host == "smtp.qq.com"
    assert route("gmail", tls=TlsPolicy.REQUIRED).tls is TlsPolicy.REQUIRED


@pytest.mark.parametrize(
    ("smarthost", "message"),
    [
        ("gmial", r"'gmial' .* is no well-known smarthost; did you mean gmail\?"),
        ("sendgird", r"did you mean sendgrid\?"),
        ("zzz", "no well-known smarthost; `relay config smarthosts` lists them"),
        ("ses", "'ses' needs its region: write for example 'ses:eu-west-1'"),
        ("ses:", "needs its region"),
        ("qq:eu", "'qq' has no regions, write 'qq' alone"),
    ],
)
def test_mistaken_name_gets_a_suggestion(smarthost: str, message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        parse_smarthost(smarthost, key="routes[1].smarthost")


@pytest.mark.parametrize(
    "text", ["smtp://gmail", "hub.example", "hub.example:25", "hub:25", "u:p@qq", "qq/", ""]
)
def test_what_may_be_a_url_or_a_host_is_no_name(text: str) -> None:
    assert find_preset(text) is None


def test_name_without_an_account_says_what_is_missing() -> None:
    with pytest.raises(ConfigError, match=r"routes\[1\].smarthost: qq takes mail from accounts"):
        RouteTable([Route(domain="*", smarthost="qq")])
    settings = Settings(delivery=Delivery(smarthost="sendgrid"))
    with pytest.raises(ConfigError, match=r"in a \[\[routes\]\] table add one of password"):
        RouteTable.from_settings(settings)


def test_config_show_says_what_a_name_stands_for_and_hides_only_the_password(
    tmp_path: Path,
) -> None:
    path = tmp_path / "relay.toml"
    path.write_text(
        '[[routes]]\ndomain = "a.example"\nsmarthost = "ses:eu-west-1"\nusername = "u"\n'
        'password = "hunter2"\n[[routes]]\ndomain = "*"\nsmarthost = "smtp://u:hunter2@hub.example"\n'
    )
    loaded = load(path, environ={})
    resolved = "smtp://email-smtp.eu-west-1.amazonaws.com:587"
    shown = as_toml(loaded)
    assert f'smarthost = "ses:eu-west-1"  # {resolved}, certificate verified' in shown
    assert 'smarthost = "smtp://***@hub.example"' in shown
    rows = [row["value"] for row in as_rows(loaded) if row["name"].startswith("routes[")]
    assert [row.get("resolved") for row in rows] == [resolved, None]
    assert "hunter2" not in shown + str(rows)


def test_documented_table_is_what_config_smarthosts_prints() -> None:
    written = Path(__file__).parents[2] / "docs" / "smarthosts.md"
    assert written.read_text().endswith(smarthosts_table()), "see `relay config smarthosts`"
