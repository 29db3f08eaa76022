"""Static routes, smarthost URLs, TLS demands; passwords never show."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from relay.model.credentials import Credentials
from relay.model.errors import ConfigError
from relay.policy.route import RouteTable, StaticRoute
from relay.policy.shape import Shape
from relay.policy.smarthost import Smarthost, parse_smarthost, redacted
from relay.policy.tls import tls_for
from relay.settings.schema import Delivery, Route, Settings, TlsPolicy

HUB = "smtp://hub.example:2525"


@pytest.mark.parametrize(
    ("url", "smarthost"),
    [
        ("smtp://hub.example", Smarthost("smtp", "hub.example", 25)),
        ("smtp://Hub.Example:2525/", Smarthost("smtp", "hub.example", 2525)),
        ("SMTP://127.0.0.1:25", Smarthost("smtp", "127.0.0.1", 25)),
        ("smtp://[2001:db8::1]:2525", Smarthost("smtp", "2001:db8::1", 2525)),
        (
            "smtp://u:p@hub.example",
            Smarthost("smtp", "hub.example", 587, Credentials("u", "p")),
        ),
        (
            "smtps://user%40example.org:p%40ss%2Fw%3A@hub.example",
            Smarthost("smtps", "hub.example", 465, Credentials("user@example.org", "p@ss/w:")),
        ),
        (
            "smtp://u:p:q@hub.example",
            Smarthost("smtp", "hub.example", 587, Credentials("u", "p:q")),
        ),
        (
            "smtp://u:p@q@hub.example",
            Smarthost("smtp", "hub.example", 587, Credentials("u", "p@q")),
        ),
        ("lmtp://hub.example", Smarthost("lmtp", "hub.example", 24)),
        ("LMTP://[::1]:2003", Smarthost("lmtp", "::1", 2003)),
        ("lmtp:///run/dovecot/lmtp", Smarthost("lmtp", "/run/dovecot/lmtp", 0)),
        ("smtp://bücher.example", Smarthost("smtp", "xn--bcher-kva.example", 25)),
    ],
)
def test_smarthost_url_is_read(url: str, smarthost: Smarthost) -> None:
    assert parse_smarthost(url) == smarthost


@pytest.mark.parametrize(
    ("url", "message"),
    [
        ("hub.example:25", "begins with neither smtp:// nor smtps://"),
        ("http://hub.example", "begins with neither smtp://"),
        ("lmtp://hub.example/inbox", "something after the port"),
        ("LMTP://u:secret@hub.example:x", "host or port"),
        ("lmtp:///run/dovecot/", "is no path of a socket"),
        ("lmtp:///run/dove cot", "is no path of a socket"),
        ("lmtp:///run/a|b", "is no path of a socket"),
        (f"lmtp:///run/{'x' * 103}", "at most 107 octets"),
        ("smtp://", "names no host"),
        ("smtp://:25", "names no host"),
        ("smtp://hub.example:0", "is 0"),
        ("smtp://hub.example:x", "host or port .* is not valid"),
        ("smtp://hub.example:70000", "host or port .* is not valid"),
        ("smtp://hub.example/inbox", "something after the port"),
        ("smtp://hub.example?tls=off", "something after the port"),
        ("smtp://hub_!.example", "the host has the invalid label"),
        ("smtp://u@hub.example", "without a password"),
        ("smtp://:secret@hub.example", "without a password"),
        ("smtp://u:se/cret@hub.example", "write special characters of the password as %XX"),
        ("smtp://u:se#cret@hub.example", "write special characters of the password as %XX"),
        ("smtp://u:secret%zz@hub.example", "starts no %XX"),
        ("smtp://u:secret%ff@hub.example", "not UTF-8"),
        ("smtp://u:secret%0d%0a@hub.example", "control character"),
        ("u:secret@hub.example", "begins with neither smtp://"),
        ("smtp://u:secret@hub.example:x", "host or port"),
        ("smtp://u:secret@[::1", "host or port"),
    ],
)
def test_fault_of_a_smarthost_url_is_named_without_its_secret(url: str, message: str) -> None:
    with pytest.raises(ConfigError, match=message) as caught:
        parse_smarthost(url, key="delivery.smarthost")
    assert str(caught.value).startswith("delivery.smarthost: ")
    assert "cret" not in str(caught.value)
    assert caught.value.__cause__ is None and (
        caught.value.__context__ is None or caught.value.__suppress_context__
    )


@given(st.text(alphabet="pqrsx:/@#?[]%.0", min_size=1, max_size=30))
def test_no_url_ever_shows_its_password(tail: str) -> None:
    url = f"smtp://user:SECRET{tail}@hub.example"
    assert "SECRET" not in redacted(url)
    try:
        parsed = parse_smarthost(url)
    except ConfigError as error:
        assert "SECRET" not in str(error)
    else:
        assert "SECRET" not in repr(parsed)


def test_credentials_show_their_user_and_never_their_password() -> None:
    credentials = Credentials("user", "hunter2")
    shown = f"{credentials} {credentials!r} {[credentials]} {credentials.__rich_repr__()}"
    assert "user" in shown and "hunter2" not in shown
    assert credentials.key == Credentials("user", "other").key != Credentials("u", "").key


def table(*routes: Route, smarthost: str = "") -> RouteTable:
    return RouteTable(routes, smarthost)


def test_domain_without_a_route_is_its_own_destination() -> None:
    routes = table()
    assert routes.destination_for("example.org") == "example.org"
    assert routes.route("example.org") is None


def test_smarthost_of_the_settings_takes_every_domain() -> None:
    routes = RouteTable.from_settings(Settings(delivery=Delivery(smarthost=HUB)))
    assert routes.destination_for("example.org") == "[hub.example:2525]"
    route = routes.route("[hub.example:2525]")
    assert route == StaticRoute("hub.example:2525", "hub.example", 2525)
    assert route.destination == "[hub.example:2525]"


def test_exact_domain_beats_the_longest_suffix_beats_the_star() -> None:
    routes = table(
        Route(domain="*", name="all", smarthost=HUB),
        Route(domain=".example.org", name="short", smarthost=HUB),
        Route(domain=".a.example.org", name="long", smarthost=HUB),
        Route(domain="x.a.example.org", name="exact", smarthost=HUB),
        Route(domain="direct.example"),
    )
    assert routes.destination_for("x.a.example.org") == "[exact]"
    assert routes.destination_for("y.a.example.org") == "[long]"
    assert routes.destination_for("a.example.org") == "[short]"
    assert routes.destination_for("example.org") == "[all]"
    assert routes.destination_for("notexample.org") == "[all]"
    assert routes.destination_for("direct.example") == "direct.example"


def test_domains_of_one_smarthost_share_a_destination() -> None:
    routes = table(
        Route(domain="a.example", smarthost=HUB), Route(domain="b.example", smarthost=HUB)
    )
    assert routes.destination_for("a.example") == routes.destination_for("b.example")


@pytest.mark.parametrize(
    ("routes", "smarthost", "message"),
    [
        (
            [Route(domain="a..b", smarthost=HUB)],
            "",
            r"routes\[1\].domain: 'a..b' has an empty label",
        ),
        (
            [Route(domain="x.example", smarthost="hub")],
            "",
            r"\[1\].smarthost: the value begins",
        ),
        ([Route(domain="x.example", name="a b", smarthost=HUB)], "", r"routes\[1\].name: 'a b'"),
        ([Route(domain="x.example", name="a")], "", "own MX has no name"),
        ([Route(domain="x.example")] * 2, "", r"routes\[2\].domain: 'x.example' stands in an"),
        ([Route(domain="*", smarthost=HUB)] * 2, "", "stands in an earlier route"),
        ([Route(domain="*", smarthost=HUB)], HUB, "delivery.smarthost: .* remove one of them"),
        ([], "hub", "delivery.smarthost: the value begins"),
        (
            [
                Route(domain="a.example", name="n", smarthost=HUB),
                Route(domain="b.example", name="n", smarthost="smtp://other.example"),
            ],
            "",
            r"routes\[2\].name: another route is named 'n'",
        ),
        (
            [
                Route(domain="a.example", name="a", smarthost="smtp://u:secret@hub.example"),
                Route(domain="b.example", name="b", smarthost="smtp://u:secret2@hub.example"),
            ],
            "",
            r"routes\[2\].username: .* logs in at hub.example:587 as 'u' with another password",
        ),
        (
            [Route(domain="*", smarthost="smtp://u:secret@hub.example", tls=TlsPolicy.OFF)],
            "",
            r"routes\[1\].tls: 'off' could send the password in clear",
        ),
        (
            [Route(domain="*", smarthost="smtp://hub.example", tls=TlsPolicy.DANE)],
            "",
            r"routes\[1\].tls: 'dane' is for the MX hosts of a domain",
        ),
        (
            [Route(domain="*", smarthost="smtps://hub.example", tls=TlsPolicy.OPPORTUNISTIC)],
            "",
            "contradicts smtps://",
        ),
    ],
)
def test_fault_of_a_route_is_named_by_its_key(
    routes: list[Route], smarthost: str, message: str
) -> None:
    with pytest.raises(ConfigError, match=message) as caught:
        RouteTable(routes, smarthost)
    assert "secret" not in str(caught.value)


def demand(url: str, tls: TlsPolicy | None = None, shape: Shape | None = None) -> TlsPolicy:
    routes = table(Route(domain="*", name="n", smarthost=url, tls=tls))
    return tls_for(routes.route("[n]"), shape or Shape())


def test_socket_has_a_route_of_its_own_name_and_no_tls() -> None:
    routes = table(Route(domain="*", smarthost="lmtp:///run/dovecot/lmtp"))
    route = routes.route(routes.destination_for("a.example"))
    assert route is not None and route.is_socket
    assert (route.destination, route.scheme) == ("[lmtp-run-dovecot-lmtp]", "lmtp")
    assert tls_for(route, Shape(tls=TlsPolicy.VERIFIED)) is TlsPolicy.OFF
    assert demand("lmtp://hub.example") is TlsPolicy.OPPORTUNISTIC
    with pytest.raises(ConfigError, match="a socket of this machine has no TLS"):
        table(Route(domain="*", smarthost="lmtp:///run/lmtp", tls=TlsPolicy.REQUIRED))


def test_credentials_demand_tls_and_nothing_else_does_by_itself() -> None:
    assert demand("smtp://u:p@hub.example") is TlsPolicy.REQUIRED
    assert demand("smtps://hub.example") is TlsPolicy.REQUIRED
    assert demand("smtp://hub.example") is TlsPolicy.OPPORTUNISTIC


def test_operator_may_demand_more_or_less() -> None:
    assert demand("smtp://u:p@hub.example", TlsPolicy.VERIFIED) is TlsPolicy.VERIFIED
    assert demand("smtp://hub.example", TlsPolicy.OFF) is TlsPolicy.OFF
    assert demand("smtp://u:p@127.0.0.1", TlsPolicy.OFF) is TlsPolicy.OFF


@pytest.mark.parametrize(
    ("shaped", "plain", "login"),
    [
        (TlsPolicy.OFF, TlsPolicy.OFF, TlsPolicy.REQUIRED),
        (TlsPolicy.REQUIRED, TlsPolicy.REQUIRED, TlsPolicy.REQUIRED),
        (TlsPolicy.VERIFIED, TlsPolicy.VERIFIED, TlsPolicy.VERIFIED),
    ],
)
def test_smarthost_follows_the_shape_where_its_route_says_nothing(
    shaped: TlsPolicy, plain: TlsPolicy, login: TlsPolicy
) -> None:
    shape = Shape(tls=shaped)
    assert demand("smtp://hub.example", shape=shape) is plain
    assert demand("smtp://u:p@hub.example", shape=shape) is login
    assert demand("smtp://hub.example", TlsPolicy.OPPORTUNISTIC, shape) is TlsPolicy.OPPORTUNISTIC


def test_direct_mail_follows_the_demand_of_its_domain_then_the_shape() -> None:
    routes = table(Route(domain="bank.example", tls=TlsPolicy.VERIFIED))
    strict = Shape(tls=TlsPolicy.REQUIRED)
    demanded = routes.tls_demanded("bank.example")
    assert tls_for(None, strict, demanded=demanded) is TlsPolicy.VERIFIED
    assert routes.tls_demanded("example.org") is None
    assert tls_for(None, strict) is TlsPolicy.REQUIRED
    assert tls_for(None, Shape()) is TlsPolicy.OPPORTUNISTIC
