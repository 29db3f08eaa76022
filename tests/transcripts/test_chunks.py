"""Content that goes by BDAT (RFC 3030) as dialogues: blocks are of 20 octets here."""

import pytest
from player import Played, Talker, play, three_ways, transaction
from verdicts import answers_of

from relay.model.errors import ConnectionLost, RemoteProtocolError
from relay.policy.classify import classify_transaction
from relay.smtp.transaction import Transaction
from relay.smtp.transcript import Transcript

pytestmark = three_ways

LINE = b"Subject:\r\n"  # ten octets
OFFERS = """
S: 220 mx
C: EHLO relay.test
S: 250-mx
S: 250-PIPELINING
S: 250 CHUNKING
"""
ENVELOPE = """
C: MAIL FROM:<a@relay.test>
C: RCPT TO:<b@mx.test>
"""
ACCEPTED = """
S: 250 ok
S: 250 ok
"""
CHUNKS = """
C: BDAT 20
C: Subject:
C: Subject:
C: BDAT 20
C: Subject:
C: Subject:
C: BDAT 10 LAST
C: Subject:
"""


def chunked(
    script: str, way: str, *transactions: Transaction, pipelines_next: bool = False
) -> Played:
    talker = Talker(
        transactions=transactions or [transaction(content=LINE * 5)],
        block_octets=20,
        pipelines_next=pipelines_next,
    )
    return play(script, way, talker)


def verdicts(played: Played, index: int = 0) -> list[str]:
    """`severity reason` of each recipient, as the delivery would judge them."""
    judged = classify_transaction(answers_of(played, index))
    return [f"{one.severity} {one.reason}" for one in judged]


def test_large_content_goes_in_chunks_behind_an_accepted_envelope(way: str) -> None:
    script = OFFERS + ENVELOPE + ACCEPTED + CHUNKS + "S: 250 ok\nS: 250 ok\nS: 250 done\nC: QUIT"
    played = chunked(script, way)
    [exchange] = played.finished
    assert exchange.dot_sent
    assert exchange.data is None
    assert exchange.final is not None
    assert exchange.final.text == "done"
    assert verdicts(played) == ["success delivered"]
    assert "[50 octets of content in chunks by BDAT, with the last one]" in str(
        Transcript([], exchange, None)
    )


@pytest.mark.parametrize("offer", ["CHUNKING", "PIPELINING"])
def test_large_content_goes_by_data_where_not_both_are_offered(way: str, offer: str) -> None:
    script = f"S: 220 mx\nC: EHLO relay.test\nS: 250-mx\nS: 250 {offer}{ENVELOPE}"
    if offer == "CHUNKING":
        script = script.replace("C: RCPT", "S: 250 ok\nC: RCPT")
        script += "S: 250 ok\nC: DATA\nS: 354 go\n" + "C: Subject:\n" * 5 + "C: .\n"
    else:
        script += "C: DATA\nS: 250 ok\nS: 250 ok\nS: 354 go\n" + "C: Subject:\n" * 5 + "C: .\n"
    assert verdicts(chunked(script + "S: 250 ok\nC: QUIT", way)) == ["success delivered"]


def test_content_of_one_block_goes_by_data(way: str) -> None:
    script = OFFERS + ENVELOPE + "C: DATA\nS: 250 ok\nS: 250 ok\nS: 354 go\nC: Subject:\nC: .\n"
    small = transaction(content=LINE)
    assert verdicts(chunked(script + "S: 250 ok\nC: QUIT", way, small)) == ["success delivered"]


@pytest.mark.client_row("C61")
def test_chunks_are_made_of_whole_lines_and_stuff_nothing(way: str) -> None:
    content = b".a\nb\r.\r\n.\r\n" + b"c\r" + b".d\r\ne"
    talker = Talker(transactions=[transaction(content=content)], block_octets=13)
    play(OFFERS + ENVELOPE, way, talker)
    talker.client.receive(b"250 ok\r\n250 ok\r\n")
    talker.listen()
    said = b"".join(iter(talker.client.data_to_send, b""))
    # The CR at the end of the first block waits for what follows.
    first, last = b".a\r\nb\r\n.\r\n.\r\nc", b"\r\n.d\r\ne\r\n"
    assert said == b"BDAT 14\r\n" + first + b"BDAT 9 LAST\r\n" + last


def test_content_that_nobody_gets_is_not_sent(way: str) -> None:
    script = OFFERS + ENVELOPE + "S: 250 ok\nS: 550 5.1.1 no\nC: QUIT"
    assert verdicts(chunked(script, way)) == ["permanent no_such_mailbox"]


def test_refused_mail_is_reset_before_the_next(way: str) -> None:
    script = OFFERS + ENVELOPE + "S: 451 later\nS: 503 no\nC: RSET\n" + ENVELOPE
    content = LINE * 5
    played = chunked(script, way, transaction(content=content), transaction(content=content))
    assert verdicts(played) == ["transient local_error"]


def test_each_recipient_has_its_own_verdict(way: str) -> None:
    paths = ("a@mx.test", "b@mx.test", "c@mx.test")
    script = (
        OFFERS
        + "C: MAIL FROM:<a@relay.test>\n"
        + "".join(f"C: RCPT TO:<{path}>\n" for path in paths)
        + "S: 250 ok\nS: 250 ok\nS: 550 5.1.1 no\nS: 450 4.2.1 later\n"
        + CHUNKS
        + "S: 250 ok\nS: 250 ok\nS: 250 done\nC: QUIT"
    )
    played = chunked(script, way, transaction(*paths, content=LINE * 5))
    assert verdicts(played) == [
        "success delivered",
        "permanent no_such_mailbox",
        "transient mailbox_disabled",
    ]


def test_recipient_accepted_after_mail_was_refused_breaks_the_session(way: str) -> None:
    played = chunked(OFFERS + ENVELOPE + "S: 550 no\nS: 250 ok", way)
    assert isinstance(played.broken, RemoteProtocolError)
    assert b"BDAT" not in played.said


@pytest.mark.parametrize("place", [0, 1, 2])
def test_refusal_of_any_chunk_refuses_the_content_and_keeps_the_connection(
    way: str, place: int
) -> None:
    replies = ["S: 250 ok"] * place + ["S: 552 5.3.4 too large"] + ["S: 503 bad"] * (2 - place)
    script = OFFERS + ENVELOPE + ACCEPTED + CHUNKS + "\n".join(replies)
    script += "\nC: RSET\nC: MAIL FROM:<a@relay.test>\nC: RCPT TO:<b@mx.test>\nC: DATA"
    played = chunked(script, way, transaction(content=LINE * 5), transaction(content=LINE))
    assert verdicts(played) == ["permanent message_too_large"]
    assert played.broken is None


@pytest.mark.parametrize("code", [500, 501, 502, 503, 504])
def test_server_that_does_not_know_bdat_delivered_nothing(way: str, code: int) -> None:
    script = OFFERS + ENVELOPE + ACCEPTED + CHUNKS + f"S: {code} what?\nS: 500 what?\nS: 500 what?"
    played = chunked(script, way)
    assert isinstance(played.broken, RemoteProtocolError)
    assert not played.exchanges[0].dot_sent
    assert verdicts(played) == ["transient protocol_error"]


def test_go_ahead_in_the_place_of_a_chunks_reply_breaks_the_session(way: str) -> None:
    played = chunked(OFFERS + ENVELOPE + ACCEPTED + CHUNKS + "S: 354 go", way)
    assert isinstance(played.broken, RemoteProtocolError)
    assert verdicts(played) == ["transient uncertain"]


@pytest.mark.parametrize("place", [0, 1, 2])
def test_close_behind_the_last_chunk_is_uncertain(way: str, place: int) -> None:
    script = OFFERS + ENVELOPE + ACCEPTED + CHUNKS + "S: 250 ok\n" * place + "EOF"
    played = chunked(script, way)
    assert isinstance(played.broken, ConnectionLost)
    assert verdicts(played) == ["transient uncertain"]


def test_421_to_a_chunk_defers(way: str) -> None:
    played = chunked(OFFERS + ENVELOPE + ACCEPTED + CHUNKS + "S: 250 ok\nS: 421 bye", way)
    assert isinstance(played.broken, ConnectionLost)
    assert verdicts(played) == ["transient service_unavailable"]


def test_next_envelope_leaves_behind_the_last_chunk_with_rset(way: str) -> None:
    script = (
        OFFERS
        + ENVELOPE
        + ACCEPTED
        + CHUNKS
        + "C: RSET\nC: MAIL FROM:<a@relay.test>\nC: RCPT TO:<c@mx.test>\nC: DATA\n"
        + "S: 250 ok\nS: 250 ok\nS: 452 4.3.1 full\nS: 250 ok\nS: 250 ok\nS: 250 ok\nS: 354 go\n"
        + "C: Subject:\nC: .\nS: 250 ok\nC: QUIT"
    )
    large, small = transaction(content=LINE * 5), transaction("c@mx.test", content=LINE)
    played = chunked(script, way, large, small, pipelines_next=True)
    assert verdicts(played) == ["transient system_full"]
    assert verdicts(played, 1) == ["success delivered"]


def test_client_told_to_forgo_chunks_sends_by_data(way: str) -> None:
    talker = Talker(transactions=[transaction(content=LINE * 5)], block_octets=20)
    talker.client.receive(b"220 mx\r\n")
    talker.listen()
    talker.client.data_to_send()
    talker.client.receive(b"250-mx\r\n250-PIPELINING\r\n250 CHUNKING\r\n")
    talker.client.forgo_chunking()
    talker.listen()
    assert talker.client.data_to_send().endswith(b"DATA\r\n")
