"""Mechanisms against the examples of their RFCs, and the choice among them."""

import base64

import pytest

from relay.model.credentials import Credentials
from relay.model.errors import LocalProtocolError
from relay.smtp.mechanisms import FOR_PASSWORDS, FOR_TOKENS, choose_mechanism
from relay.smtp.oauth import OAuthBearer, XOAuth2
from relay.smtp.sasl import NO_CHANNEL, Channel, CramMd5, Login, Mechanism, Plain, decode, encode
from relay.smtp.saslprep import saslprep
from relay.smtp.scram import SHA1, SHA256, Hash, Scram

ACCOUNT = Credentials("user", "pässword")
TOKEN = Credentials(
    "ann@example.org", "ya29.vF9dft4qmTc2Nvb3RlckBhdHRhdmlzdGEuY29tCg==", is_token=True
)
BOUND = Channel("mx.test", 587, "tls-unique", b"finished")
#: RFC 7677 §3 and RFC 5802 §5.
SHA256_EXAMPLE = (
    SHA256,
    "rOprNGfwEbeRWgbNEkqO",
    "r=rOprNGfwEbeRWgbNEkqO%hvYDpWUa2RaTCAfuxFIlj)hNlF$k0,s=W22ZaJ0SNY7soEsUEjb6gQ==,i=4096",
    "c=biws,r=rOprNGfwEbeRWgbNEkqO%hvYDpWUa2RaTCAfuxFIlj)hNlF$k0,"
    "p=dHzbZapWIk4jUhN+Ute9ytag9zjfMHgsqmmiz7AndVQ=",
    "v=6rriTRBi23WpRR/wtup+mMhUZUn/dB5nLTJRsjl95G4=",
)
SHA1_EXAMPLE = (
    SHA1,
    "fyko+d2lbbFgONRv9qkxdawL",
    "r=fyko+d2lbbFgONRv9qkxdawL3rfcNHYJY1ZVvWVs7j,s=QSXCR+Q6sek8bf92,i=4096",
    "c=biws,r=fyko+d2lbbFgONRv9qkxdawL3rfcNHYJY1ZVvWVs7j,p=v0X8v3Bz2T0CJGbJQyF0X+HI4Ts=",
    "v=rmF9pqV8S7suAoZWja4dJRkFsKQ=",
)
Example = tuple[Hash, str, str, str, str]


def pencil(hash: Hash, nonce: str, channel: Channel = NO_CHANNEL, *, binds: bool = False) -> Scram:
    return Scram(Credentials("user", "pencil"), hash, channel, binds=binds, nonce=nonce)


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


def test_cram_md5_answers_the_example_of_rfc_2195() -> None:
    cram = CramMd5(Credentials("tim", "tanstaaftanstaaf"))
    assert cram.initial_response() is None
    challenge = b"<1896.697170952@postoffice.reston.mci.net>"
    assert cram.respond(challenge) == b"tim b913a602c7eda7a495b4e6e7334d3890"
    with pytest.raises(ValueError, match="challenge"):
        cram.respond(challenge)


def test_cram_md5_signs_no_empty_challenge() -> None:
    with pytest.raises(ValueError, match="empty"):
        CramMd5(ACCOUNT).respond(b"")


@pytest.mark.parametrize("example", [SHA256_EXAMPLE, SHA1_EXAMPLE], ids=["rfc7677", "rfc5802"])
def test_scram_speaks_the_examples_of_its_rfcs(example: Example) -> None:
    hash, nonce, first, final, proof = example
    scram = pencil(hash, nonce)
    assert scram.initial_response() == f"n,,n=user,r={nonce}".encode()
    assert scram.respond(first.encode()) == final.encode()
    assert scram.respond(proof.encode()) == b""
    scram.verify()
    with pytest.raises(ValueError, match="challenge"):
        scram.respond(proof.encode())


def test_scram_trusts_no_server_before_its_proof() -> None:
    hash, nonce, first, _, _ = SHA256_EXAMPLE
    scram = pencil(hash, nonce)
    for challenge in (None, first.encode()):
        if challenge is not None:
            scram.respond(challenge)
        with pytest.raises(ValueError, match="did not prove"):
            scram.verify()


@pytest.mark.parametrize(
    "proof", ["v=" + base64.b64encode(bytes(32)).decode(), "v=AAAA", "v=*", "w=x", ""]
)
def test_scram_refuses_a_wrong_proof(proof: str) -> None:
    hash, nonce, first, _, _ = SHA256_EXAMPLE
    scram = pencil(hash, nonce)
    scram.respond(first.encode())
    with pytest.raises(ValueError, match=r"signature is wrong|cannot be read|not base64"):
        scram.respond(proof.encode())
    with pytest.raises(ValueError, match="did not prove"):
        scram.verify()


@pytest.mark.parametrize(
    ("first", "fault"),
    [
        ("r=other,s=AAAA,i=4096", "nonce"),
        ("r=mine,s=AAAA,i=4096", "nonce"),
        ("r=mine+yours,s=AAAA,i=4095", "4095 iterations"),
        ("r=mine+yours,s=AAAA,i=600001", "600001 iterations"),
        ("r=mine+yours,s=AAA,i=4096", "base64"),
        ("r=mine+yours,s=AAAA,i=0x10", "cannot be read"),
        ("r=mine+yours,i=4096", "cannot be read"),
        ("m=ext,r=mine+yours,s=AAAA,i=4096", "cannot be read"),
        ("r=mine+\u00e4,s=AAAA,i=4096", "cannot be read"),
        ("", "cannot be read"),
    ],
)
def test_scram_breaks_off_at_a_malformed_first_message(first: str, fault: str) -> None:
    with pytest.raises(ValueError, match=fault):
        pencil(SHA256, "mine").respond(first.encode())


def test_scram_tells_why_the_server_refuses_and_stays_unproven() -> None:
    hash, nonce, first, _, _ = SHA256_EXAMPLE
    scram = pencil(hash, nonce)
    scram.respond(first.encode())
    assert scram.respond(b"e=invalid-proof") == b""
    assert scram.refusal == "invalid-proof"
    with pytest.raises(ValueError, match="did not prove"):
        scram.verify()


def test_scram_binds_to_the_channel_where_it_can() -> None:
    scram = pencil(SHA256, "mine", BOUND, binds=True)
    assert scram.initial_response() == b"p=tls-unique,,n=user,r=mine"
    final = scram.respond(b"r=mine+yours,s=AAAA,i=4096").decode()
    bound = base64.b64decode(final.partition(",")[0].removeprefix("c="))
    assert bound == b"p=tls-unique,,finished"


def test_scram_says_when_it_could_have_bound_and_was_not_offered_it() -> None:
    """RFC 5802 §6: so a -PLUS that somebody took out of the offer is noticed by the server."""
    could = choose_mechanism({"SCRAM-SHA-256", "PLAIN"}, ACCOUNT, BOUND).initial_response()
    cannot = choose_mechanism({"SCRAM-SHA-256", "SCRAM-SHA-256-PLUS"}, ACCOUNT).initial_response()
    assert could is not None and could.startswith(b"y,,n=user,")
    assert cannot is not None and cannot.startswith(b"n,,n=user,")


def test_scram_escapes_the_user_name_and_takes_a_fresh_nonce_each_time() -> None:
    said = {Scram(Credentials("a=b,c", "x"), SHA256, NO_CHANNEL).initial_response() for _ in "12"}
    assert len(said) == 2
    assert all(one.startswith(b"n,,n=a=3Db=2Cc,r=") for one in said)


@pytest.mark.parametrize(
    ("text", "prepared"),
    [
        ("user", "user"),
        ("I\u00adX", "IX"),
        ("USER", "USER"),
        ("\u00aa", "a"),
        ("\u2168", "IX"),
        ("a\u00a0b", "a b"),
    ],
)
def test_saslprep_gives_the_examples_of_rfc_4013(text: str, prepared: str) -> None:
    assert saslprep(text) == prepared


@pytest.mark.parametrize("text", ["\7", "\u0627\u0031", "a\u0627", "\ue000"])
def test_saslprep_refuses_what_rfc_4013_prohibits(text: str) -> None:
    with pytest.raises(ValueError, match="RFC"):
        saslprep(text)
    with pytest.raises(LocalProtocolError, match="user name or password"):
        Scram(Credentials("user", text), SHA256, NO_CHANNEL)


def test_xoauth2_says_what_its_document_shows_and_acknowledges_a_refusal_with_nothing() -> None:
    xoauth2 = XOAuth2(TOKEN)
    said = f"user=ann@example.org\1auth=Bearer {TOKEN.password}\1\1"
    assert xoauth2.initial_response() == said.encode()
    xoauth2.verify()
    refusal = b'{"status":"401","schemes":"bearer mac","scope":"https://mail.google.com/"}'
    assert xoauth2.respond(refusal) == b""
    assert xoauth2.refusal == "status=401 scope=https://mail.google.com/"


def test_oauthbearer_says_the_example_of_rfc_7628_and_acknowledges_a_refusal() -> None:
    token = "vF9dft4qmTc2Nvb3RlckBhbHRhdmlzdGEuY29tCg=="
    account = Credentials("user@example.com", token, is_token=True)
    bearer = OAuthBearer(account, Channel("server.example.com", 143))
    assert bearer.initial_response() == base64.b64decode(
        "bixhPXVzZXJAZXhhbXBsZS5jb20sAWhvc3Q9c2VydmVyLmV4YW1wbGUuY29tAXBvcnQ9MTQzAWF1dGg9QmVhcmVyIH"
        "ZGOWRmdDRxbVRjMk52YjNSbGNrQmhiSFJoZG1semRHRXVZMjl0Q2c9PQEB"
    )
    assert bearer.respond(b'{"status":"invalid_token"}') == b"\1"
    assert bearer.refusal == "status=invalid_token"


@pytest.mark.parametrize("challenge", [b"", b"\xff\r\n{", b"[1]", b"[" * 5000, b'{"a":1}'])
def test_refusal_of_any_form_is_acknowledged_once(challenge: bytes) -> None:
    for mechanism in (XOAuth2(TOKEN), OAuthBearer(TOKEN, NO_CHANNEL)):
        mechanism.respond(challenge)
        assert mechanism.refusal and mechanism.refusal.isprintable()
        assert len(mechanism.refusal) <= 200
        with pytest.raises(ValueError, match="acknowledged"):
            mechanism.respond(challenge)
        with pytest.raises(ValueError, match="has refused"):
            mechanism.verify()


@pytest.mark.parametrize(
    "account", [("a", "b\1c"), ("a", ""), ("a", "b c"), ("", "c"), ("\1", "c")]
)
def test_tokens_that_would_break_the_message_are_refused(account: tuple[str, str]) -> None:
    for make in FOR_TOKENS.values():
        with pytest.raises(LocalProtocolError):
            make(Credentials(*account, is_token=True), NO_CHANNEL)


ALL = {*FOR_PASSWORDS, *FOR_TOKENS, "GSSAPI", "NTLM", "DIGEST-MD5"}


@pytest.mark.parametrize(
    ("offered", "channel", "name"),
    [
        (ALL, BOUND, "SCRAM-SHA-256-PLUS"),
        (ALL, NO_CHANNEL, "SCRAM-SHA-256"),
        (ALL - {"SCRAM-SHA-256"}, NO_CHANNEL, "SCRAM-SHA-1"),
        ({"LOGIN", "PLAIN", "XOAUTH2", "CRAM-MD5"}, BOUND, "CRAM-MD5"),
        ({"LOGIN", "PLAIN", "XOAUTH2"}, BOUND, "PLAIN"),
        ({"LOGIN"}, NO_CHANNEL, "LOGIN"),
    ],
)
def test_strongest_mechanism_for_a_password_is_taken(
    offered: set[str], channel: Channel, name: str
) -> None:
    assert choose_mechanism(offered, ACCOUNT, channel).name == name


@pytest.mark.parametrize(
    ("offered", "name"), [(ALL, "OAUTHBEARER"), ({"PLAIN", "XOAUTH2"}, "XOAUTH2")]
)
def test_token_is_given_to_oauth_mechanisms_only(offered: set[str], name: str) -> None:
    assert choose_mechanism(offered, TOKEN).name == name
    with pytest.raises(LocalProtocolError, match="we have a token, the server offers LOGIN PLAIN"):
        choose_mechanism({"PLAIN", "LOGIN"}, TOKEN)


def test_operator_narrows_the_choice() -> None:
    account = Credentials("user", "x", mechanisms=("LOGIN", "PLAIN"))
    assert choose_mechanism(ALL, account, BOUND).name == "PLAIN"
    with pytest.raises(LocalProtocolError, match="we are to use LOGIN PLAIN"):
        choose_mechanism({"CRAM-MD5"}, account)


@pytest.mark.parametrize("offered", [set(), {"PLAINX", "XOAUTH2", "SCRAM-SHA-256-PLUS"}])
def test_nothing_in_common_is_refused(offered: set[str]) -> None:
    with pytest.raises(LocalProtocolError, match="no SASL mechanism in common"):
        choose_mechanism(offered, ACCOUNT)


@pytest.mark.parametrize("account", [("a\0b", "c"), ("a", "b\0c"), ("", "c")])
@pytest.mark.client_row("C51")
def test_credentials_that_no_mechanism_can_carry_are_refused(account: tuple[str, str]) -> None:
    for mechanism in (Plain, Login, CramMd5):
        with pytest.raises(LocalProtocolError):
            mechanism(Credentials(*account))


@pytest.mark.parametrize("name", [*FOR_PASSWORDS, *FOR_TOKENS])
def test_every_mechanism_stands_under_its_own_name(name: str) -> None:
    account = TOKEN if name in FOR_TOKENS else ACCOUNT
    made: Mechanism = {**FOR_PASSWORDS, **FOR_TOKENS}[name](account, BOUND)
    assert (made.name, made.refusal) == (name, "")


def test_base64_is_strict() -> None:
    assert decode(encode(b"abc").decode()) == b"abc"
    assert decode("") == b""
    for text in ("***", "YQ", "YQ==YQ==", "ä"):
        with pytest.raises(ValueError, match="base64"):
            decode(text)
