"""STARTTLS and AUTH as dialogues (rows C35-C50 of the edge-case table)."""

import base64

import pytest
from player import Talker, play, three_ways, transaction

from relay.model.credentials import Credentials
from relay.model.errors import ConnectionLost, LocalProtocolError, RemoteProtocolError
from relay.smtp.client import Client
from relay.smtp.sasl import NO_CHANNEL, CramMd5, Login, Plain
from relay.smtp.scram import SHA256, Scram
from relay.smtp.states import State

pytestmark = three_ways

SECRET = Credentials("user", "pass word")
PLAIN = base64.b64encode(b"\0user\0pass word").decode()
TOKEN = Credentials("user", "abc", is_token=True)
NONCE = "rOprNGfwEbeRWgbNEkqO"
THEIRS = f"{NONCE}%hvYDpWUa2RaTCAfuxFIlj)hNlF$k0"
PROOF = "v=6rriTRBi23WpRR/wtup+mMhUZUn/dB5nLTJRsjl95G4="
HELLO = """
S: 220 mx
C: EHLO relay.test
S: 250-mx
"""


@pytest.mark.client_row("C35")
def test_capabilities_before_tls_are_forgotten(way: str) -> None:
    script = """
    S: 220 mx
    C: EHLO relay.test
    S: 250-mx
    S: 250-PIPELINING
    S: 250-SIZE 10
    S: 250 STARTTLS
    C: STARTTLS
    S: 220 go
    TLS
    C: EHLO relay.test
    S: 250 mx.inside
    C: MAIL FROM:<a@relay.test>
    """
    talker = Talker(starttls=True, transactions=[transaction()])
    played = play(script, way, talker)
    assert not played.client.extensions.pipelining
    assert played.client.extensions.size_limit is None
    assert played.client.server_name == "mx.inside"


@pytest.mark.client_row("C36")
def test_octets_behind_the_starttls_reply_are_never_read_as_replies(way: str) -> None:
    script = """
    S: 220 mx
    C: EHLO relay.test
    S: 250 STARTTLS
    C: STARTTLS
    S!: 220 go\\r\\n250-injected\\r\\n250 AUTH PLAIN\\r\\n
    """
    played = play(script, way, Talker(starttls=True))
    assert isinstance(played.broken, RemoteProtocolError)
    assert "AUTH" not in played.client.extensions.auth
    assert played.client.state is State.CLOSED


@pytest.mark.parametrize("code", [454, 502])
@pytest.mark.client_row("C37")
def test_starttls_refused_leaves_the_session_usable_in_clear(way: str, code: int) -> None:
    script = f"""
    S: 220 mx
    C: EHLO relay.test
    S: 250-mx
    S: 250 STARTTLS
    C: STARTTLS
    S: {code} not now
    C: MAIL FROM:<a@relay.test>
    """
    played = play(script, way, Talker(starttls=True, transactions=[transaction()]))
    assert played.client.is_usable


def test_auth_plain_authenticates_in_one_round_trip(way: str) -> None:
    script = f"""{HELLO}
    S: 250 AUTH LOGIN PLAIN
    C: AUTH PLAIN {PLAIN}
    S: 235 2.7.0 welcome
    C: MAIL FROM:<a@relay.test>
    """
    talker = Talker(credentials=SECRET, is_private=True, transactions=[transaction()])
    assert play(script, way, talker).answers[-1].code == 235


@pytest.mark.client_row("C28")
def test_auth_login_answers_two_challenges(way: str) -> None:
    script = f"""{HELLO}
    S: 250 AUTH=LOGIN
    C: AUTH LOGIN
    S: 334 VXNlcm5hbWU6
    C: {base64.b64encode(b"user").decode()}
    S: 334 UGFzc3dvcmQ6
    C: {base64.b64encode(b"pass word").decode()}
    S: 235 welcome
    C: QUIT
    """
    played = play(script, way, Talker(credentials=SECRET, is_private=True))
    assert [reply.code for reply in played.answers] == [220, 250, 235]
    assert not any(played.problems)


def test_auth_secrets_are_not_in_the_transcript(way: str) -> None:
    script = f"""{HELLO}
    S: 250 AUTH LOGIN
    C: AUTH LOGIN
    S: 334 VXNlcm5hbWU6
    C: {base64.b64encode(b"user").decode()}
    S: 334 UGFzc3dvcmQ6
    C: {base64.b64encode(b"pass word").decode()}
    S: 235 welcome
    C: QUIT
    """
    text = "\n".join(play(script, way, Talker(credentials=SECRET, is_private=True)).client.opening)
    for secret in ("pass word", base64.b64encode(b"pass word").decode(), "VXNl", "UGFz"):
        assert secret not in text
    assert "AUTH LOGIN" in text


@pytest.mark.client_row("C48")
def test_auth_refused_keeps_all_lines_of_the_reply(way: str) -> None:
    script = f"""{HELLO}
    S: 250 AUTH PLAIN
    C: AUTH PLAIN {PLAIN}
    S: 535-5.7.8 bad
    S: 535 5.7.8 credentials
    C: QUIT
    """
    played = play(script, way, Talker(credentials=SECRET, is_private=True))
    assert played.answers[2].lines == ("bad", "credentials")
    assert played.answers[2].enhanced == "5.7.8"


@pytest.mark.parametrize("challenge", ["334 ***", "334-VXNl\nS: 334 cm5h"])
@pytest.mark.client_row("C49")
def test_challenge_that_is_no_base64_is_cancelled(way: str, challenge: str) -> None:
    script = f"""{HELLO}
    S: 250 AUTH LOGIN
    C: AUTH LOGIN
    S: {challenge}
    C: *
    S: 501 cancelled
    C: QUIT
    """
    played = play(script, way, Talker(credentials=SECRET, is_private=True))
    assert played.answers[2].code == 501
    assert played.problems[2].startswith("AUTH LOGIN: ")


@pytest.mark.client_row("C49")
def test_challenge_after_everything_was_said_is_cancelled(way: str) -> None:
    script = f"""{HELLO}
    S: 250 AUTH PLAIN
    C: AUTH PLAIN {PLAIN}
    S: 334
    C: *
    S: 501 cancelled
    C: QUIT
    """
    assert play(script, way, Talker(credentials=SECRET, is_private=True)).problems[2]


@pytest.mark.parametrize("reply", ["235 fine", "334 again"])
@pytest.mark.client_row("C49")
def test_cancelled_auth_answered_by_success_breaks_the_session(way: str, reply: str) -> None:
    script = f"""{HELLO}
    S: 250 AUTH LOGIN
    C: AUTH LOGIN
    S: 334 ***
    C: *
    S: {reply}
    """
    played = play(script, way, Talker(credentials=SECRET, is_private=True))
    assert isinstance(played.broken, RemoteProtocolError)


@pytest.mark.client_row("C50")
def test_empty_initial_response_is_an_equals_sign(way: str) -> None:
    class Empty(Plain):
        def initial_response(self) -> bytes:
            return b""

    script = f"{HELLO}S: 250 AUTH PLAIN\nC: AUTH PLAIN =\nS: 235 ok\nC: QUIT"
    play(script, way, Talker(mechanism=Empty(SECRET), is_private=True))


@pytest.mark.client_row("C50")
def test_no_initial_response_leaves_no_trailing_space(way: str) -> None:
    script = f"{HELLO}S: 250 AUTH LOGIN\nC: AUTH LOGIN\nS: 535 no\nC: QUIT"
    play(script, way, Talker(mechanism=Login(SECRET), is_private=True))


@pytest.mark.client_row("C46")
def test_auth_on_a_clear_path_is_refused_before_any_octet(way: str) -> None:
    client = Client("relay.test")
    client.receive(b"220 mx\r\n")
    client.hello()
    client.data_to_send()
    client.receive(b"250-mx\r\n250 AUTH PLAIN\r\n")
    with pytest.raises(LocalProtocolError, match="without TLS"):
        client.authenticate(Plain(SECRET))
    assert client.data_to_send() == b""
    assert client.is_usable


def test_auth_421_ends_the_session(way: str) -> None:
    script = f"{HELLO}S: 250 AUTH PLAIN\nC: AUTH PLAIN {PLAIN}\nS: 421 too many failures"
    played = play(script, way, Talker(credentials=SECRET, is_private=True, quits=False))
    assert isinstance(played.broken, ConnectionLost)
    assert played.answers[-1].code == 421


def b64(text: str) -> str:
    return base64.b64encode(text.encode()).decode()


def by_scram(**more: object) -> Talker:
    """The client of RFC 7677 §3."""
    mechanism = Scram(Credentials("user", "pencil"), SHA256, NO_CHANNEL, nonce=NONCE)
    return Talker(mechanism=mechanism, is_private=True, **more)


SCRAM = f"""{HELLO}
    S: 250 AUTH SCRAM-SHA-256
    C: AUTH SCRAM-SHA-256 {b64(f"n,,n=user,r={NONCE}")}
    S: 334 {b64(f"r={THEIRS},s=W22ZaJ0SNY7soEsUEjb6gQ==,i=4096")}
    C: {b64(f"c=biws,r={THEIRS},p=dHzbZapWIk4jUhN+Ute9ytag9zjfMHgsqmmiz7AndVQ=")}
"""


def test_auth_scram_sends_mail_once_the_server_has_proved_itself(way: str) -> None:
    script = f"""{SCRAM}
    S: 334 {b64(PROOF)}
    C:
    S: 235 2.7.0 welcome
    C: MAIL FROM:<a@relay.test>
    """
    played = play(script, way, by_scram(transactions=[transaction()]))
    assert played.answers[-1].code == 235
    assert played.client.is_usable


def test_auth_scram_server_without_proof_gets_no_mail(way: str) -> None:
    played = play(f"{SCRAM}S: 235 welcome", way, by_scram(transactions=[transaction()]))
    assert isinstance(played.broken, RemoteProtocolError)
    assert "did not prove that it knows the password" in str(played.broken)
    assert not played.client.is_usable


def test_auth_scram_wrong_proof_is_cancelled(way: str) -> None:
    script = f"""{SCRAM}
    S: 334 {b64("v=AAAA")}
    C: *
    S: 501 cancelled
    C: QUIT
    """
    played = play(script, way, by_scram())
    assert "signature is wrong" in played.problems[-1]


def test_auth_scram_refused_leaves_a_session_that_may_quit(way: str) -> None:
    played = play(f"{SCRAM}S: 535 5.7.8 no\nC: QUIT", way, by_scram())
    assert (played.answers[-1].code, played.problems[-1]) == (535, "")


def test_auth_cram_md5_answers_the_challenge(way: str) -> None:
    script = f"""{HELLO}
    S: 250 AUTH CRAM-MD5
    C: AUTH CRAM-MD5
    S: 334 PDE4OTYuNjk3MTcwOTUyQHBvc3RvZmZpY2UucmVzdG9uLm1jaS5uZXQ+
    C: dGltIGI5MTNhNjAyYzdlZGE3YTQ5NWI0ZTZlNzMzNGQzODkw
    S: 235 welcome
    C: QUIT
    """
    account = Credentials("tim", "tanstaaftanstaaf")
    played = play(script, way, Talker(mechanism=CramMd5(account), is_private=True))
    assert played.answers[-1].code == 235


@pytest.mark.parametrize("old", ["AUTH=CRAM-MD5 LOGIN", "auth=login"])
def test_auth_in_the_old_form_is_an_offer(way: str, old: str) -> None:
    played = play(f"{HELLO}S: 250 {old}\nC: QUIT", way, Talker())
    assert "LOGIN" in played.client.extensions.auth


@pytest.mark.parametrize(
    ("name", "message", "acknowledgement"),
    [
        ("XOAUTH2", "dXNlcj11c2VyAWF1dGg9QmVhcmVyIGFiYwEB", ""),
        ("OAUTHBEARER", "bixhPXVzZXIsAWF1dGg9QmVhcmVyIGFiYwEB", "AQ=="),
    ],
)
def test_auth_refused_token_is_acknowledged_and_its_reason_kept(
    way: str, name: str, message: str, acknowledgement: str
) -> None:
    script = f"""{HELLO}
    S: 250 AUTH {name}
    C: AUTH {name} {message}
    S: 334 {b64('{"status":"401","scope":"mail"}')}
    C: {acknowledgement}
    S: 535 5.7.8 refused
    C: QUIT
    """
    played = play(script, way, Talker(credentials=TOKEN, is_private=True))
    assert (played.answers[-1].code, played.problems[-1]) == (535, "")
    assert f"! AUTH {name}: status=401 scope=mail" in played.client.opening
    assert "abc" not in "\n".join(played.client.opening)
