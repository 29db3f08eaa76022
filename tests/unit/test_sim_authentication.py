"""Our mechanisms against the simulated smarthost's: each side checks the other's arithmetic."""

import contextlib
import ssl

import pytest

from relay.model.credentials import Credentials
from relay.net.tls import channel_binding
from relay.sim.authentication import Authentication
from relay.sim.certificates import Certificates
from relay.smtp.mechanisms import FOR_PASSWORDS, FOR_TOKENS
from relay.smtp.sasl import Channel, Mechanism, decode, encode

KNOWN = {**FOR_PASSWORDS, **FOR_TOKENS}
BOUND = Channel("smarthost.test", 587, "tls-unique", b"finished", is_bindable=True)
BINDING = (BOUND.binding, BOUND.binding_data)


def made(name: str, secret: str, channel: Channel = BOUND) -> Mechanism:
    account = Credentials("relay", secret, is_token=name in FOR_TOKENS)
    return KNOWN[name](account, channel)


def converse(mechanism: Mechanism, server: Authentication) -> str:
    """The last reply of the exchange."""
    initial = mechanism.initial_response()
    line = mechanism.name.encode() + (b"" if initial is None else b" " + encode(initial))
    reply = server.begin(line)
    while reply.startswith("334"):
        reply = server.respond(encode(mechanism.respond(decode(reply[4:]))))
    return reply


@pytest.mark.parametrize("name", KNOWN)
def test_each_mechanism_logs_in_and_trusts_the_server(name: str) -> None:
    server = Authentication({"relay": "sécret" if name not in FOR_TOKENS else "secret"}, *BINDING)
    mechanism = made(name, "sécret" if name not in FOR_TOKENS else "secret")
    assert converse(mechanism, server).startswith("235")
    assert server.user == "relay"
    mechanism.verify()


@pytest.mark.parametrize("name", KNOWN)
@pytest.mark.parametrize("credentials", [{"relay": "changed"}, {}], ids=["wrong", "unknown"])
def test_each_mechanism_is_refused_with_a_wrong_secret(
    name: str, credentials: dict[str, str]
) -> None:
    server = Authentication(credentials, *BINDING)
    assert converse(made(name, "secret"), server).startswith("535")
    assert (server.user, server.is_open) == ("", False)


@pytest.mark.parametrize("name", [name for name in KNOWN if name.endswith("-PLUS")])
def test_man_in_the_middle_gets_no_login_where_the_channel_is_bound(name: str) -> None:
    server = Authentication({"relay": "secret"}, "tls-unique", b"another handshake")
    assert converse(made(name, "secret"), server).startswith("535")
    assert name not in Authentication({"relay": "secret"}).offered


@pytest.mark.parametrize("version", [ssl.TLSVersion.TLSv1_2, ssl.TLSVersion.TLSv1_3])
def test_both_ends_of_a_tls_channel_name_the_same_binding(version: ssl.TLSVersion) -> None:
    with contextlib.closing(Certificates()) as certificates:
        ours, theirs = handshake(certificates.context_for("smarthost.test"), version)
    assert channel_binding(ours) == channel_binding(theirs)
    kind = "tls-unique" if version is ssl.TLSVersion.TLSv1_2 else "tls-exporter"
    assert channel_binding(ours)[0] == (kind if kind in ssl.CHANNEL_BINDING_TYPES else "")
    assert channel_binding(None) == ("", b"")


def handshake(
    server_context: ssl.SSLContext, version: ssl.TLSVersion
) -> tuple[ssl.SSLObject, ssl.SSLObject]:
    """Both ends of a TLS channel in memory."""
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    context.check_hostname, context.verify_mode = False, ssl.CERT_NONE
    context.maximum_version = version
    pipes = [ssl.MemoryBIO() for _ in range(2)]
    client = context.wrap_bio(pipes[0], pipes[1])
    server = server_context.wrap_bio(pipes[1], pipes[0], server_side=True)
    for end in (client, server, client, server):
        try:
            end.do_handshake()
        except ssl.SSLWantReadError:
            continue
    return client, server
