"""Shaping: providers by their MX names, rates in human units, faults by table and key."""

import pytest

from relay.model.errors import ConfigError
from relay.policy.shape import Shape, load_shaping
from relay.settings.files import default_shaping
from relay.settings.schema import TlsPolicy

SHIPPED = load_shaping(default_shaping())


def test_shipped_default_is_the_seed() -> None:
    shape = SHIPPED.shape_for(["mx.example.org"])
    assert shape == Shape()
    assert shape.provider is None
    assert shape.max_connections == 10
    assert shape.connection_rate_per_s == pytest.approx(100 / 60)


@pytest.mark.parametrize(
    ("hosts", "provider", "connections", "mails", "tls"),
    [
        (["gmail-smtp-in.l.google.com", "alt1.gmail-smtp-in.l.google.com"], "google", 5, 50, True),
        (["aspmx.l.google.com", "aspmx2.googlemail.com"], "google", 5, 50, True),
        (["SMTP.GOOGLE.COM."], "google", 5, 50, True),
        (["outlook-com.olc.protection.outlook.com"], "microsoft", 5, 50, False),
        (["example-org.mail.protection.outlook.com"], "microsoft", 5, 50, False),
        (["example-org.p-v1.mx.microsoft"], "microsoft", 5, 50, False),
        (["mta5.am0.yahoodns.net"], "yahoo", 10, 20, False),
        (["mx01.mail.icloud.com", "mx02.mail.icloud.com"], "apple", 10, 5, False),
    ],
)
def test_large_provider_is_recognised(
    hosts: list[str], provider: str, connections: int, mails: int, tls: bool
) -> None:
    shape = SHIPPED.shape_for(hosts)
    assert shape.provider == provider
    assert shape.max_connections == connections
    assert shape.mails_per_connection == mails
    assert (shape.tls is TlsPolicy.REQUIRED) is tls


@pytest.mark.parametrize(
    "hosts",
    [
        ["aspmx.l.google.com", "backup.example.org"],
        ["mx.notgoogle.com"],
        ["google.com.example.org"],
        [],
    ],
)
def test_provider_claims_a_site_only_when_all_its_hosts_match(hosts: list[str]) -> None:
    assert SHIPPED.shape_for(hosts).provider is None


def test_provider_may_be_known_by_the_recipient_domain() -> None:
    assert SHIPPED.shape_for(["smtp-in.orange.fr"], domain="orange.fr").provider == "orange"
    assert SHIPPED.shape_for(["mx.example.org"], domain="notorange.fr").provider is None


def test_provider_overrides_single_keys_of_the_default() -> None:
    shaping = load_shaping(
        '["default"]\nmessage_rate = "unlimited"\nmax_connections = 7\n'
        '[provider.x]\nmatch = [{mx_suffix = ".x.example"}]\nconnection_rate = "1/30s"\n'
    )
    shape = shaping.shape_for(["a.x.example"])
    assert shape.max_connections == 7
    assert shape.message_rate_per_s == 0
    assert shape.connection_rate_per_s == pytest.approx(1 / 30)
    assert shape.provider == "x"


def test_first_provider_of_the_file_wins() -> None:
    shaping = load_shaping(
        '[provider.first]\nmatch = [{mx_suffix = ".x.example"}]\n'
        '[provider.second]\nmatch = [{mx_suffix = ".example"}]\n'
    )
    assert shaping.shape_for(["a.x.example"]).provider == "first"
    assert shaping.shape_for(["a.y.example"]).provider == "second"


def test_empty_file_means_the_built_in_shape() -> None:
    assert load_shaping("").shape_for(["mx.example.org"]) == Shape()


_MATCH = '[provider.x]\nmatch = [{mx_suffix = ".x.example"}]\n'


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("nonsense", "is not TOML"),
        ("[defaults]", r"unknown table \[defaults\]; did you mean 'default'"),
        ('["orange.fr"]', r"domain_suffix = \"orange.fr\""),
        (
            '["default"]\nmax_conections = 5',
            r"\[\"default\"\]: unknown key 'max_conections'; did you",
        ),
        ('["default"]\nmatch = []', "unknown key 'match'"),
        ('["default"]\nmax_connections = 0', "max_connections: 0 is not a whole number"),
        ('["default"]\nmax_connections = true', "max_connections: True is not"),
        ('["default"]\nmessage_rate = "fast"', "message_rate: 'fast' is not a rate"),
        ('["default"]\nmessage_rate = 5', "message_rate: '5' is not a rate"),
        ('["default"]\nmessage_rate = "0/s"', "use suspend"),
        ('["default"]\ntls = "require"', "tls: unknown policy 'require'; did you mean 'required'"),
        ('["default"]\ntls = "dane"', "tls: unknown policy 'dane'; write one of off, opp"),
        ("default = 5", "not a table"),
        ("[provider]\nx = 5", r"\[provider.x\]: not a table"),
        ("[provider.x]\nmax_connections = 5", r"\[provider.x\]: match is missing; write"),
        ('[provider.x]\nmatsch = [{mx_suffix = "y"}]', "did you mean 'match'"),
        ("[provider.x]\nmatch = []", "match: not a list of matchers"),
        ('[provider.x]\nmatch = [{mx_sufix = "y"}]', "did you mean 'mx_suffix'"),
        ('[provider.x]\nmatch = [{mx_suffix = "."}]', "mx_suffix is not a domain name"),
        ("[provider.x]\nmatch = [{}]", "matches nothing"),
        (_MATCH + "mails_per_conection = 5", "did you mean 'mails_per_connection'"),
    ],
)
def test_fault_of_a_shaping_file_is_named(text: str, message: str) -> None:
    with pytest.raises(ConfigError, match=message) as caught:
        load_shaping(text, file="mine.toml")
    assert str(caught.value).startswith("mine.toml: ")
