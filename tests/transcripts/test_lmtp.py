"""LMTP as dialogues (RFC 2033): LHLO, and after the dot one reply for each accepted recipient."""

import pytest
from player import Played, Talker, play, three_ways, transaction

from relay.delivery.values import TransactionResult
from relay.model.errors import ConnectionLost, RemoteProtocolError
from relay.policy.classify import classify_transaction

pytestmark = three_ways

THREE = ("a@mx.test", "b@mx.test", "c@mx.test")
CONTENT = "C: Subject: x\nC:\nC: hello\nC: ."
PIPELINED = """
S: 220 mx LMTP
C: LHLO relay.test
S: 250-mx
S: 250-PIPELINING
S: 250 ENHANCEDSTATUSCODES
"""
ENVELOPE = """
C: MAIL FROM:<a@relay.test>
C: RCPT TO:<a@mx.test>
C: RCPT TO:<b@mx.test>
C: RCPT TO:<c@mx.test>
C: DATA
S: 250 2.1.0 ok
"""


def lmtp(*paths: str, **more: object) -> Talker:
    return Talker(lmtp=True, transactions=[transaction(*paths)], **more)


def verdicts(played: Played) -> list[tuple[str, str, str]]:
    """What the first transaction comes to for each of its recipients."""
    exchange = played.exchanges[0]
    result = TransactionResult(
        transaction=exchange.transaction,
        replies=tuple(exchange.recipients),
        mail=exchange.mail,
        data=exchange.data,
        final=exchange.final,
        finals=tuple(exchange.finals),
        broken=played.broken,
        dot_sent=exchange.dot_sent,
    )
    return [
        (verdict.severity.value, verdict.scope.value, verdict.reason)
        for verdict in classify_transaction(result)
    ]


def test_each_recipient_has_the_verdict_of_its_own_reply(way: str) -> None:
    script = f"""{PIPELINED}{ENVELOPE}
S: 250 2.1.5 ok
S: 250 2.1.5 ok
S: 250 2.1.5 ok
S: 354 go
{CONTENT}
S: 250 2.0.0 <a@mx.test> stored
S: 452 4.2.2 <b@mx.test> over quota
S: 550 5.1.1 <c@mx.test> unknown
C: QUIT
"""
    played = play(script, way, lmtp(*THREE))
    severities = [verdict[:2] for verdict in verdicts(played)]
    assert severities == [
        ("success", "recipient"),
        ("transient", "recipient"),
        ("permanent", "recipient"),
    ]


def test_refused_recipient_gets_no_reply_after_the_dot(way: str) -> None:
    script = f"""{PIPELINED}{ENVELOPE}
S: 250 2.1.5 ok
S: 550 5.1.1 unknown
S: 250 2.1.5 ok
S: 354 go
{CONTENT}
S: 250 2.0.0 stored
S: 554 5.6.0 no
C: QUIT
"""
    played = play(script, way, lmtp(*THREE))
    assert [one and one.code for one in played.exchanges[0].finals] == [250, None, 554]
    assert [verdict[0] for verdict in verdicts(played)] == ["success", "permanent", "permanent"]


def test_lost_connection_leaves_only_the_unanswered_uncertain(way: str) -> None:
    script = f"""{PIPELINED}{ENVELOPE}
S: 250 2.1.5 ok
S: 250 2.1.5 ok
S: 250 2.1.5 ok
S: 354 go
{CONTENT}
S: 250 2.0.0 stored
EOF:
"""
    played = play(script, way, lmtp(*THREE, quits=False))
    assert isinstance(played.broken, ConnectionLost)
    assert played.finished == []
    assert verdicts(played)[0][0] == "success"
    assert [verdict[2] for verdict in verdicts(played)[1:]] == ["uncertain"] * 2


def test_421_among_the_replies_defers_its_recipient_and_leaves_the_rest_uncertain(
    way: str,
) -> None:
    script = f"""{PIPELINED}{ENVELOPE}
S: 250 2.1.5 ok
S: 250 2.1.5 ok
S: 250 2.1.5 ok
S: 354 go
{CONTENT}
S: 250 2.0.0 stored
S: 421 4.3.2 going down
"""
    played = play(script, way, lmtp(*THREE, quits=False))
    assert isinstance(played.broken, ConnectionLost)
    assert [verdict[0] for verdict in verdicts(played)] == ["success", "transient", "transient"]
    assert [verdict[2] == "uncertain" for verdict in verdicts(played)] == [False, False, True]


def test_surplus_reply_after_the_last_recipient_breaks_the_session(way: str) -> None:
    script = f"""{PIPELINED}
C: MAIL FROM:<a@relay.test>
C: RCPT TO:<b@mx.test>
C: DATA
S: 250 2.1.0 ok
S: 250 2.1.5 ok
S: 354 go
{CONTENT}
S: 250 2.0.0 stored
S: 250 2.0.0 stored again
"""
    played = play(script, way, lmtp(quits=False))
    assert isinstance(played.broken, RemoteProtocolError)
    assert verdicts(played)[0][0] == "success"


def test_nobody_accepted_ends_in_503_and_no_content(way: str) -> None:
    script = f"""{PIPELINED}
C: MAIL FROM:<a@relay.test>
C: RCPT TO:<b@mx.test>
C: DATA
S: 250 2.1.0 ok
S: 550 5.1.1 unknown
S: 503 5.5.1 no valid recipients
C: QUIT
"""
    played = play(script, way, lmtp())
    assert verdicts(played)[0][0] == "permanent"


def test_354_though_nobody_was_accepted_breaks_the_session_instead_of_waiting(way: str) -> None:
    script = f"""{PIPELINED}
C: MAIL FROM:<a@relay.test>
C: RCPT TO:<b@mx.test>
C: DATA
S: 250 2.1.0 ok
S: 550 5.1.1 unknown
S: 354 go
"""
    played = play(script, way, lmtp(quits=False))
    assert isinstance(played.broken, RemoteProtocolError)
    assert verdicts(played)[0][0] == "permanent"


def test_without_pipelining_each_command_waits_and_the_replies_are_still_one_each(
    way: str,
) -> None:
    script = f"""
S: 220 mx
C: LHLO relay.test
S: 250 mx
C: MAIL FROM:<a@relay.test>
S: 250 ok
C: RCPT TO:<a@mx.test>
S: 250 ok
C: RCPT TO:<b@mx.test>
S: 250 ok
C: DATA
S: 354 go
{CONTENT}
S: 250 stored
S: 450 later
C: QUIT
"""
    played = play(script, way, lmtp("a@mx.test", "b@mx.test"))
    assert [verdict[0] for verdict in verdicts(played)] == ["success", "transient"]


def test_next_envelope_behind_the_dot_is_answered_after_every_recipient(way: str) -> None:
    script = f"""{PIPELINED}
C: MAIL FROM:<a@relay.test>
C: RCPT TO:<a@mx.test>
C: RCPT TO:<b@mx.test>
C: DATA
S: 250 2.1.0 ok
S: 250 2.1.5 ok
S: 250 2.1.5 ok
S: 354 go
{CONTENT}
C: MAIL FROM:<a@relay.test>
C: RCPT TO:<c@mx.test>
C: DATA
S: 250 2.0.0 stored
S: 250 2.0.0 stored
S: 250 2.1.0 ok
S: 250 2.1.5 ok
S: 354 go
{CONTENT}
S: 250 2.0.0 stored
C: QUIT
"""
    talker = Talker(
        lmtp=True,
        transactions=[transaction("a@mx.test", "b@mx.test"), transaction("c@mx.test")],
        pipelines_next=True,
    )
    played = play(script, way, talker)
    assert [one.final.code if one.final else None for one in played.finished] == [250, 250]


def test_refusal_before_the_end_of_the_content_is_everybodys(way: str) -> None:
    content = b"x" * 98 + b"\r\n"
    talker = Talker(
        lmtp=True, transactions=[transaction("a@mx.test", "b@mx.test", content=content * 5000)]
    )
    client = talker.client
    for said in (b"220 mx\r\n", b"250-mx\r\n250 PIPELINING\r\n", b"250 ok\r\n" * 3):
        client.receive(said)
        talker.listen()
        client.data_to_send()
    client.receive(b"354 go\r\n")
    talker.listen()
    assert client.data_to_send() and client.is_sending
    client.receive(b"552 5.3.4 too large\r\n")
    talker.listen()
    (exchange,) = talker.finished
    assert (exchange.final and exchange.final.code, exchange.dot_sent) == (552, False)
    assert isinstance(talker.broken, ConnectionLost)


@pytest.mark.parametrize("code", [500, 502, 550])
def test_lhlo_refused_is_not_followed_by_helo(way: str, code: int) -> None:
    script = f"S: 220 mx\nC: LHLO relay.test\nS: {code} no LMTP here\nC: QUIT"
    played = play(script, way, lmtp())
    assert [reply.code for reply in played.answers] == [220, code]
    assert played.answers[-1].command == "LHLO"


def test_smtp_server_is_not_spoken_to_in_smtp(way: str) -> None:
    played = play("S: 220 mx\nC: LHLO relay.test\nS: 421 bye", way, lmtp(quits=False))
    assert isinstance(played.broken, ConnectionLost)


def test_large_content_goes_by_data_whatever_is_offered(way: str) -> None:
    script = f"""
S: 220 mx
C: LHLO relay.test
S: 250-mx
S: 250-PIPELINING
S: 250 CHUNKING
C: MAIL FROM:<a@relay.test>
C: RCPT TO:<b@mx.test>
C: DATA
S: 250 ok
S: 250 ok
S: 354 go
{CONTENT}
S: 250 stored
C: QUIT
"""
    played = play(script, way, lmtp(block_octets=4))
    assert played.finished[0].dot_sent
