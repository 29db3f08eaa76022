"""Enquiries: MAIL and RCPT are asked, DATA never is."""

import msgspec
from player import Talker, play, three_ways, transaction

pytestmark = three_ways

ASKED = msgspec.structs.replace(transaction("b@mx.test", "c@mx.test"), content=b"", is_enquiry=True)
PIPELINING = """
S: 220 mx
C: EHLO relay.test
S: 250-mx
S: 250-SIZE 1000
S: 250 PIPELINING
"""
PLAIN = """
S: 220 mx
C: EHLO relay.test
S: 250-mx
S: 250 SIZE 1000
"""


def lines(*parts: str) -> str:
    return "\n".join(line.strip() for part in parts for line in part.split("\n") if line.strip(" "))


def codes(exchange) -> list[int | None]:
    return [reply and reply.code for reply in (exchange.mail, *exchange.recipients)]


def test_enquiry_ends_with_the_reply_to_its_last_recipient(way: str) -> None:
    for script in (
        lines(
            PIPELINING,
            """C: MAIL FROM:<a@relay.test>
            C: RCPT TO:<b@mx.test>
            C: RCPT TO:<c@mx.test>
            S: 250 ok
            S: 250 ok
            S: 550 5.1.1 nobody
            C: QUIT
            S: 221 bye""",
        ),
        lines(
            PLAIN,
            """C: MAIL FROM:<a@relay.test>
            S: 250 ok
            C: RCPT TO:<b@mx.test>
            S: 250 ok
            C: RCPT TO:<c@mx.test>
            S: 550 5.1.1 nobody
            C: QUIT
            S: 221 bye""",
        ),
    ):
        played = play(script, way, Talker(transactions=[ASKED]))
        [exchange] = played.finished
        assert codes(exchange) == [250, 250, 550]
        assert exchange.data is None and exchange.final is None and not exchange.dot_sent


def test_refused_sender_ends_an_enquiry(way: str) -> None:
    piped = lines(
        PIPELINING,
        """C: MAIL FROM:<a@relay.test>
        C: RCPT TO:<b@mx.test>
        C: RCPT TO:<c@mx.test>
        S: 550 5.7.1 not you
        S: 503 MAIL first
        S: 503 MAIL first
        C: QUIT
        S: 221 bye""",
    )
    one_by_one = lines(
        PLAIN,
        """C: MAIL FROM:<a@relay.test>
        S: 550 5.7.1 not you
        C: QUIT
        S: 221 bye""",
    )
    for script in (piped, one_by_one):
        [exchange] = play(script, way, Talker(transactions=[ASKED])).finished
        assert exchange.mail is not None and exchange.mail.code == 550


def test_what_follows_an_enquiry_begins_with_rset(way: str) -> None:
    script = lines(
        PLAIN,
        """C: MAIL FROM:<a@relay.test>
        S: 250 ok
        C: RCPT TO:<b@mx.test>
        S: 250 ok
        C: RCPT TO:<c@mx.test>
        S: 250 ok
        C: RSET
        S: 250 ok
        C: MAIL FROM:<a@relay.test>
        S: 250 ok
        C: RCPT TO:<b@mx.test>
        S: 450 later
        C: RCPT TO:<c@mx.test>
        S: 450 later
        C: QUIT
        S: 221 bye""",
    )
    played = play(script, way, Talker(transactions=[ASKED, ASKED]))
    assert [codes(exchange) for exchange in played.finished] == [[250, 250, 250], [250, 450, 450]]


def test_closing_within_an_enquiry_is_a_lost_connection(way: str) -> None:
    script = lines(
        PIPELINING,
        """C: MAIL FROM:<a@relay.test>
        C: RCPT TO:<b@mx.test>
        C: RCPT TO:<c@mx.test>
        S: 250 ok
        S: 250 ok
        S: 421 4.3.2 bye""",
    )
    played = play(script, way, Talker(transactions=[ASKED]))
    [exchange] = played.exchanges
    assert played.broken is not None and codes(exchange) == [250, 250, 421]
