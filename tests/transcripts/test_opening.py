"""Greeting, EHLO and HELO as dialogues (rows C1-C10, C19-C30 of the edge-case table)."""

import pytest
from player import Talker, play, three_ways, transaction

from relay.model.errors import ConnectionLost, RemoteProtocolError
from relay.smtp.states import State

pytestmark = three_ways


@pytest.mark.client_row("C1")
def test_greeting_that_is_not_smtp_breaks_the_session(way: str) -> None:
    played = play("S: bogus", way, Talker())
    assert isinstance(played.broken, RemoteProtocolError)
    assert played.said == b""
    assert not played.client.is_usable


@pytest.mark.client_row("C2")
def test_greeting_followed_by_eof_is_a_lost_connection(way: str) -> None:
    played = play("EOF", way, Talker())
    assert isinstance(played.broken, ConnectionLost)
    assert "greeting" in str(played.broken)


@pytest.mark.parametrize("code", [450, 521, 554])
@pytest.mark.client_row("C3", "C8")
def test_greeting_refusal_is_reported_and_quit_said(way: str, code: int) -> None:
    played = play(f"S: {code} go away\nC: QUIT\nS: 221 bye", way, Talker())
    assert [reply.code for reply in played.answers] == [code, 221]
    assert played.client.state is State.CLOSED


@pytest.mark.client_row("C4")
def test_greeting_with_four_digits_is_not_220(way: str) -> None:
    assert isinstance(play("S: 2200 mx", way, Talker()).broken, RemoteProtocolError)


@pytest.mark.client_row("C5")
def test_greeting_of_several_lines_is_read_to_its_end_before_acting(way: str) -> None:
    script = """
    S: 554-mx.test
    S: 554-no
    S: 554 service
    C: QUIT
    """
    played = play(script, way, Talker())
    assert played.answers[0].lines == ("mx.test", "no", "service")


@pytest.mark.client_row("C6")
def test_greeting_may_end_in_a_bare_code(way: str) -> None:
    script = """
    S: 220-one
    S: 220-two
    S: 220-three
    S: 220
    C: EHLO relay.test
    """
    assert play(script, way, Talker()).answers[0].lines == ("one", "two", "three", "")


@pytest.mark.parametrize("line", ["250", "250 "])
@pytest.mark.client_row("C7")
def test_replies_without_text_are_accepted(way: str, line: str) -> None:
    script = f"""
    S: 220
    C: EHLO relay.test
    S: {line}
    C: MAIL FROM:<a@relay.test>
    S!: {line}\\r\\n
    C: RCPT TO:<b@mx.test>
    S!: {line}\\r\\n
    C: DATA
    S: 354
    C: Subject: x
    C:
    C: hello
    C: .
    S!: {line}\\r\\n
    C: QUIT
    """
    played = play(script, way, Talker(transactions=[transaction()]))
    assert played.finished[0].final is not None


@pytest.mark.client_row("C9")
def test_greeting_hidden_by_a_firewall_is_a_greeting(way: str) -> None:
    script = "S: 220 ****************\nC: EHLO relay.test"
    assert play(script, way, Talker()).broken is None


@pytest.mark.parametrize("code", [500, 501, 502, 503, 504])
@pytest.mark.client_row("C23")
def test_ehlo_unknown_leads_to_helo_without_extensions(way: str, code: int) -> None:
    script = f"""
    S: 220 mx.test
    C: EHLO relay.test
    S: {code} what?
    C: HELO relay.test
    S: 250 mx.test PIPELINING
    C: MAIL FROM:<a@relay.test>
    S: 250 ok
    C: RCPT TO:<b@mx.test>
    S: 250 ok
    C: DATA
    S: 354 go
    C: Subject: x
    C:
    C: hello
    C: .
    S: 250 ok
    C: QUIT
    """
    played = play(script, way, Talker(transactions=[transaction()]))
    assert not played.client.extensions.pipelining
    assert played.client.server_name == "mx.test"


@pytest.mark.client_row("C24")
def test_ehlo_refused_for_good_does_not_lead_to_helo(way: str) -> None:
    script = "S: 220 mx\nC: EHLO relay.test\nS: 550 not you\nC: QUIT\nEOF"
    played = play(script, way, Talker())
    assert [reply.code for reply in played.answers] == [220, 550]


@pytest.mark.client_row("C24")
def test_helo_that_meets_eof_is_a_lost_connection(way: str) -> None:
    script = "S: 220 mx\nC: EHLO relay.test\nS: 502 no\nC: HELO relay.test\nEOF"
    assert isinstance(play(script, way, Talker()).broken, ConnectionLost)


@pytest.mark.client_row("C25")
def test_ehlo_421_ends_the_session_without_helo(way: str) -> None:
    played = play("S: 220 mx\nC: EHLO relay.test\nS: 421 busy", way, Talker())
    assert isinstance(played.broken, ConnectionLost)
    assert played.answers[-1].code == 421


@pytest.mark.client_row("C26")
def test_ehlo_of_one_line_offers_nothing(way: str) -> None:
    played = play("S: 220 mx\nC: EHLO relay.test\nS: 250 mx\nC: QUIT", way, Talker())
    assert not played.client.extensions.pipelining
    assert not played.client.extensions.size


@pytest.mark.client_row("C19")
def test_surplus_reply_without_pipelining_breaks_the_session(way: str) -> None:
    script = "S!: 220 mx\\r\\n250 surplus\\r\\n"
    played = play(script, "merged" if way == "replies" else way, Talker(quits=False))
    assert isinstance(played.broken, RemoteProtocolError)


@pytest.mark.parametrize("line", ["850 x", "150 x", "000 x", "25 x", "250_x", "", "2b0 x"])
@pytest.mark.client_row("C21")
def test_reply_that_is_no_reply_breaks_the_session(way: str, line: str) -> None:
    script = f"S: 220 mx\nC: EHLO relay.test\nS: {line}"
    assert isinstance(play(script, way, Talker()).broken, RemoteProtocolError)


@pytest.mark.client_row("C17")
def test_replies_ended_by_lf_alone_are_accepted(way: str) -> None:
    script = """
    S!: 220 mx\\n
    C: EHLO relay.test
    S!: 250-mx\\n250-PIPELINING\\n250 SIZE 1000\\n
    C: QUIT
    S!: 221 bye\\n
    """
    played = play(script, way, Talker())
    assert played.client.extensions.pipelining
    assert played.client.extensions.size_limit == 1000


def test_idle_421_ends_the_session(way: str) -> None:
    script = "S: 220 mx\nC: EHLO relay.test\nS: 250 mx\nS: 421 idle too long"
    played = play(script, way, Talker(quits=False))
    assert isinstance(played.broken, ConnectionLost)
    assert "421" in str(played.broken)
    assert not played.client.is_usable


@pytest.mark.client_row("C34")
def test_endless_offers_end_the_session(way: str) -> None:
    talker = Talker(transactions=[transaction()])
    talker.client.receive(b"220 mx\r\n")
    talker.listen()
    assert talker.client.data_to_send() == b"EHLO relay.test\r\n"
    block = b"250-XKEYWORD " + b"x" * 999 + b"\r\n"
    for _ in range(2000):
        talker.client.receive(block)
        talker.listen()
    assert isinstance(talker.broken, RemoteProtocolError)
    assert talker.client.data_to_send() == b""
