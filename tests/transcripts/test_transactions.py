"""Mail transactions as dialogues (rows C22, C31, C54-C58, C63-C92 of the edge-case table)."""

import pytest
from player import Talker, play, three_ways, transaction

from relay.model.errors import ConnectionLost, RemoteProtocolError
from relay.smtp.envelope import Terms
from relay.smtp.transaction import Stage

pytestmark = three_ways

PIPELINING = """
S: 220 mx
C: EHLO relay.test
S: 250-mx
S: 250 PIPELINING
"""
PLAIN = """
S: 220 mx
C: EHLO relay.test
S: 250 mx
"""
CONTENT = """
C: Subject: x
C:
C: hello
C: .
"""


def codes(replies: list) -> list[int | None]:
    return [reply and reply.code for reply in replies]


def lines(*parts: str) -> str:
    return "\n".join(line.strip() for part in parts for line in part.split("\n") if line.strip(" "))


@pytest.mark.client_row("C74")
def test_envelope_leaves_in_one_piece_when_pipelining_is_offered(way: str) -> None:
    script = lines(
        PIPELINING,
        """C: MAIL FROM:<a@relay.test>
        C: RCPT TO:<b@mx.test>
        C: RCPT TO:<c@mx.test>
        C: DATA
        S: 250 2.1.0 ok
        S: 250 2.1.5 ok
        S: 251 2.1.5 will forward
        S: 354 go""",
        CONTENT,
        "S: 250 2.0.0 queued as 1\nC: QUIT\nS: 221 bye",
    )
    played = play(script, way, Talker(transactions=[transaction("b@mx.test", "c@mx.test")]))
    [exchange] = played.finished
    assert codes(exchange.recipients) == [250, 251]
    assert exchange.final is not None
    assert exchange.final.enhanced == "2.0.0"
    assert exchange.final.text == "queued as 1"
    assert exchange.dot_sent


def test_one_command_at_a_time_when_pipelining_is_not_offered(way: str) -> None:
    script = lines(
        PLAIN,
        """C: MAIL FROM:<a@relay.test>
        S: 250 ok
        C: RCPT TO:<b@mx.test>
        S: 550 no such user
        C: RCPT TO:<c@mx.test>
        S: 250 ok
        C: DATA
        S: 354 go""",
        CONTENT,
        "S: 250 ok\nC: QUIT",
    )
    played = play(script, way, Talker(transactions=[transaction("b@mx.test", "c@mx.test")]))
    assert codes(played.finished[0].recipients) == [550, 250]


def test_without_pipelining_all_refused_sends_no_data(way: str) -> None:
    script = lines(
        PLAIN,
        """C: MAIL FROM:<a@relay.test>
        S: 250 ok
        C: RCPT TO:<b@mx.test>
        S: 550 no
        C: QUIT""",
    )
    [exchange] = play(script, way, Talker(transactions=[transaction()])).finished
    assert exchange.data is None
    assert exchange.final is None


@pytest.mark.parametrize("code", [451, 550])
@pytest.mark.client_row("C64", "C90")
def test_mail_refused_asks_for_no_recipient_and_resets_before_the_next(way: str, code: int) -> None:
    script = lines(
        PLAIN,
        f"""C: MAIL FROM:<a@relay.test>
        S: {code} no
        C: RSET
        S: 250 ok
        C: MAIL FROM:<a@relay.test>
        S: 250 ok
        C: RCPT TO:<b@mx.test>
        S: 250 ok
        C: DATA
        S: 354 go""",
        CONTENT,
        "S: 250 ok\nC: QUIT",
    )
    first, second = play(script, way, Talker(transactions=[transaction(), transaction()])).finished
    assert first.mail is not None
    assert first.mail.code == code
    assert first.recipients == [None]
    assert second.final is not None


@pytest.mark.client_row("C65")
def test_mail_refused_then_eof_keeps_the_refusal(way: str) -> None:
    script = lines(
        PIPELINING,
        """C: MAIL FROM:<a@relay.test>
        C: RCPT TO:<b@mx.test>
        C: DATA
        S: 550 5.7.1 not you
        EOF""",
    )
    played = play(script, way, Talker(transactions=[transaction()]))
    [exchange] = played.exchanges
    assert exchange.mail is not None
    assert exchange.mail.code == 550
    assert isinstance(played.broken, ConnectionLost)


@pytest.mark.client_row("C66")
def test_recipient_refused_then_eof_keeps_the_refusal(way: str) -> None:
    script = lines(
        PIPELINING,
        """C: MAIL FROM:<a@relay.test>
        C: RCPT TO:<b@mx.test>
        C: DATA
        S: 250 ok
        S: 554 5.7.1 not you
        EOF""",
    )
    played = play(script, way, Talker(transactions=[transaction()]))
    assert codes(played.exchanges[0].recipients) == [554]
    assert isinstance(played.broken, ConnectionLost)


@pytest.mark.client_row("C67")
def test_mixed_recipients_get_their_own_replies_and_the_content_goes_once(way: str) -> None:
    paths = ("a@mx.test", "b@mx.test", "c@mx.test", "d@mx.test")
    script = lines(
        PIPELINING,
        "C: MAIL FROM:<a@relay.test>",
        *[f"C: RCPT TO:<{path}>" for path in paths],
        """C: DATA
        S: 250 ok
        S: 250 ok
        S: 451 4.2.1 later
        S: 550 5.1.1 no
        S: 250 ok
        S: 354 go""",
        CONTENT,
        "S: 250 ok\nC: QUIT",
    )
    played = play(script, way, Talker(transactions=[transaction(*paths)]))
    assert codes(played.finished[0].recipients) == [250, 451, 550, 250]
    assert played.said.count(b"Subject: x") == 1


@pytest.mark.parametrize("code", [503, 554])
@pytest.mark.client_row("C68")
def test_all_refused_and_data_refused_ends_the_transaction(way: str, code: int) -> None:
    script = lines(
        PIPELINING,
        f"""C: MAIL FROM:<a@relay.test>
        C: RCPT TO:<b@mx.test>
        C: DATA
        S: 250 ok
        S: 550 no
        S: {code} no valid recipients
        C: QUIT""",
    )
    [exchange] = play(script, way, Talker(transactions=[transaction()])).finished
    assert codes([*exchange.recipients, exchange.data]) == [550, code]
    assert not exchange.dot_sent


@pytest.mark.parametrize("final", ["250 queued", "550 nothing there", "451 x"])
@pytest.mark.client_row("C69", "C70")
def test_all_refused_and_354_gets_a_lone_dot_that_delivers_nothing(way: str, final: str) -> None:
    script = lines(
        PIPELINING,
        f"""C: MAIL FROM:<a@relay.test>
        C: RCPT TO:<b@mx.test>
        C: DATA
        S: 250 ok
        S: 550 no
        S: 354 go
        C: .
        S: {final}
        C: MAIL FROM:<a@relay.test>
        C: RCPT TO:<b@mx.test>
        C: DATA""",
    )
    played = play(script, way, Talker(transactions=[transaction(), transaction()]))
    [exchange] = played.finished
    assert exchange.final is None
    assert not exchange.dot_sent


def test_mail_refused_and_recipient_accepted_breaks_the_session(way: str) -> None:
    script = lines(
        PIPELINING,
        """C: MAIL FROM:<a@relay.test>
        C: RCPT TO:<b@mx.test>
        C: DATA
        S: 550 no
        S: 250 ok
        S: 354 go""",
    )
    played = play(script, way, Talker(transactions=[transaction()]))
    assert isinstance(played.broken, RemoteProtocolError)
    assert played.exchanges[0].mail is not None
    assert not played.exchanges[0].dot_sent


@pytest.mark.client_row("C76")
def test_recipient_421_ends_the_session_with_the_rest_unanswered(way: str) -> None:
    paths = ("a@mx.test", "b@mx.test", "c@mx.test")
    script = lines(
        PIPELINING,
        "C: MAIL FROM:<a@relay.test>",
        *[f"C: RCPT TO:<{path}>" for path in paths],
        """C: DATA
        S: 250 ok
        S: 250 ok
        S: 421 4.3.2 going down""",
    )
    played = play(script, way, Talker(transactions=[transaction(*paths)]))
    assert codes(played.exchanges[0].recipients) == [250, 421, None]
    assert isinstance(played.broken, ConnectionLost)


@pytest.mark.client_row("C76")
def test_recipient_421_without_pipelining_asks_nothing_more(way: str) -> None:
    script = lines(
        PLAIN,
        """C: MAIL FROM:<a@relay.test>
        S: 250 ok
        C: RCPT TO:<b@mx.test>
        S: 421 going down""",
    )
    played = play(script, way, Talker(transactions=[transaction("b@mx.test", "c@mx.test")]))
    assert codes(played.exchanges[0].recipients) == [421, None]
    assert not played.client.is_usable


@pytest.mark.client_row("C77")
def test_malformed_recipient_reply_breaks_everything_after_it(way: str) -> None:
    script = lines(
        PIPELINING,
        """C: MAIL FROM:<a@relay.test>
        C: RCPT TO:<b@mx.test>
        C: RCPT TO:<c@mx.test>
        C: DATA
        S: 250 ok
        S: 250 ok
        S: garbage
        S: 354 go""",
    )
    played = play(script, way, Talker(transactions=[transaction("b@mx.test", "c@mx.test")]))
    assert codes(played.exchanges[0].recipients) == [250, None]
    assert isinstance(played.broken, RemoteProtocolError)
    assert played.finished == []
    assert b"Subject" not in played.said


@pytest.mark.parametrize("code", [451, 550])
@pytest.mark.client_row("C79", "C90")
def test_data_refused_ends_the_transaction_and_resets_before_the_next(way: str, code: int) -> None:
    script = lines(
        PIPELINING,
        f"""C: MAIL FROM:<a@relay.test>
        C: RCPT TO:<b@mx.test>
        C: DATA
        S: 250 ok
        S: 250 ok
        S: {code} no
        C: RSET
        C: MAIL FROM:<a@relay.test>
        C: RCPT TO:<b@mx.test>
        C: DATA""",
    )
    played = play(script, way, Talker(transactions=[transaction(), transaction()]))
    assert codes([played.finished[0].data]) == [code]


@pytest.mark.client_row("C89")
def test_reset_refused_breaks_the_session(way: str) -> None:
    script = lines(
        PLAIN,
        """C: MAIL FROM:<a@relay.test>
        S: 550 no
        C: RSET
        S: 502 what?""",
    )
    played = play(script, way, Talker(transactions=[transaction(), transaction()]))
    assert isinstance(played.broken, RemoteProtocolError)
    assert played.exchanges[1].mail is None


@pytest.mark.parametrize(
    ("mail", "data"), [("354 go", "354 go"), ("250 ok", "250 ok"), ("850 x", "354 go")]
)
@pytest.mark.client_row("C21", "C22")
def test_reply_of_the_wrong_kind_breaks_the_session(way: str, mail: str, data: str) -> None:
    script = lines(
        PIPELINING,
        f"""C: MAIL FROM:<a@relay.test>
        C: RCPT TO:<b@mx.test>
        C: DATA
        S: {mail}
        S: 250 ok
        S: {data}""",
    )
    played = play(script, way, Talker(transactions=[transaction()]))
    assert isinstance(played.broken, RemoteProtocolError)
    assert b"Subject" not in played.said


@pytest.mark.parametrize("code", [299, 452, 499, 552, 554, 599])
@pytest.mark.client_row("C20", "C86")
def test_final_reply_is_kept_whatever_its_last_digits(way: str, code: int) -> None:
    script = lines(
        PIPELINING,
        "C: MAIL FROM:<a@relay.test>\nC: RCPT TO:<b@mx.test>\nC: DATA",
        "S: 250 ok\nS: 250 ok\nS: 354 go",
        CONTENT,
        f"S: {code} it is\nC: QUIT",
    )
    [exchange] = play(script, way, Talker(transactions=[transaction()])).finished
    assert codes([exchange.final]) == [code]


@pytest.mark.client_row("C83")
def test_eof_after_the_dot_is_uncertain(way: str) -> None:
    script = lines(
        PIPELINING,
        "C: MAIL FROM:<a@relay.test>\nC: RCPT TO:<b@mx.test>\nC: DATA",
        "S: 250 ok\nS: 250 ok\nS: 354 go",
        CONTENT,
        "EOF",
    )
    played = play(script, way, Talker(transactions=[transaction()]))
    [exchange] = played.exchanges
    assert exchange.dot_sent
    assert exchange.final is None
    assert exchange.stage is Stage.DOT_SENT
    assert isinstance(played.broken, ConnectionLost)


@pytest.mark.parametrize("ending", ["S: 500 what?", "EOF"])
@pytest.mark.client_row("C84", "C87")
def test_whatever_answers_quit_does_not_matter(way: str, ending: str) -> None:
    script = lines(
        PIPELINING,
        "C: MAIL FROM:<a@relay.test>\nC: RCPT TO:<b@mx.test>\nC: DATA",
        "S: 250 ok\nS: 250 ok\nS: 354 go",
        CONTENT,
        f"S: 250 ok\nC: QUIT\n{ending}",
    )
    [exchange] = play(script, way, Talker(transactions=[transaction()])).finished
    assert codes([exchange.final]) == [250]


@pytest.mark.client_row("C88")
def test_next_envelope_leaves_directly_behind_the_final_dot(way: str) -> None:
    script = lines(
        PIPELINING,
        "C: MAIL FROM:<a@relay.test>\nC: RCPT TO:<b@mx.test>\nC: DATA",
        "S: 250 ok\nS: 250 ok\nS: 354 go",
        CONTENT,
        "C: MAIL FROM:<a@relay.test>\nC: RCPT TO:<c@mx.test>\nC: DATA",
        "S: 451 later\nS: 250 ok\nS: 250 ok\nS: 354 go",
        CONTENT,
        "S: 250 ok\nC: QUIT",
    )
    talker = Talker(
        transactions=[transaction("b@mx.test"), transaction("c@mx.test")], pipelines_next=True
    )
    first, second = play(script, way, talker).finished
    assert codes([first.final, second.final]) == [451, 250]


def test_final_421_leaves_the_next_envelope_unanswered(way: str) -> None:
    script = lines(
        PIPELINING,
        "C: MAIL FROM:<a@relay.test>\nC: RCPT TO:<b@mx.test>\nC: DATA",
        "S: 250 ok\nS: 250 ok\nS: 354 go",
        CONTENT,
        "C: MAIL FROM:<a@relay.test>\nC: RCPT TO:<c@mx.test>\nC: DATA",
        "S: 421 enough",
    )
    talker = Talker(
        transactions=[transaction("b@mx.test"), transaction("c@mx.test")], pipelines_next=True
    )
    played = play(script, way, talker)
    first, second = played.exchanges
    assert codes([first.final, second.mail]) == [421, None]
    assert isinstance(played.broken, ConnectionLost)


@pytest.mark.client_row("C19")
def test_surplus_reply_after_a_transaction_breaks_the_session_not_the_delivery(way: str) -> None:
    script = lines(
        PIPELINING,
        "C: MAIL FROM:<a@relay.test>\nC: RCPT TO:<b@mx.test>\nC: DATA",
        "S: 250 ok\nS: 250 ok\nS: 354 go",
        CONTENT,
        "S!: 250 ok\\r\\n250 surplus\\r\\n",
    )
    played = play(script, "merged", Talker(transactions=[transaction()], quits=False))
    assert codes([played.finished[0].final]) == [250]
    assert isinstance(played.broken, RemoteProtocolError)


@pytest.mark.client_row("C31")
def test_message_above_the_size_limit_is_not_offered(way: str) -> None:
    script = lines("S: 220 mx\nC: EHLO relay.test\nS: 250-mx\nS: 250 SIZE 10\nC: QUIT")
    [exchange] = play(script, way, Talker(transactions=[transaction()])).finished
    assert exchange.is_local
    assert exchange.mail is not None
    assert (exchange.mail.code, exchange.mail.enhanced) == (552, "5.3.4")
    assert exchange.recipients == [None]


def test_following_message_above_the_limit_is_refused_without_disturbing_the_first(
    way: str,
) -> None:
    script = lines(
        "S: 220 mx\nC: EHLO relay.test\nS: 250-mx\nS: 250-PIPELINING\nS: 250 SIZE 100",
        "C: MAIL FROM:<a@relay.test> SIZE=21\nC: RCPT TO:<b@mx.test>\nC: DATA",
        "S: 250 ok\nS: 250 ok\nS: 354 go",
        CONTENT,
        "S: 250 ok\nC: QUIT",
    )
    large = transaction(content=b"x" * 200)
    talker = Talker(transactions=[transaction(), large], pipelines_next=True)
    first, second = play(script, way, talker).finished
    assert codes([first.final, second.mail]) == [250, 552]


def test_parameters_are_sent_only_as_offered_and_needed(way: str) -> None:
    script = lines(
        "S: 220 mx\nC: EHLO relay.test\nS: 250-mx\nS: 250-SIZE\nS: 250-8bitmime\nS: 250 SmtpUtf8",
        r"C: MAIL FROM:<> SIZE=12 BODY=8BITMIME SMTPUTF8",
        "S: 250 ok",
        r"C: RCPT TO:<\xc3\xbc@mx.test>",
    )
    eight = transaction(
        "ü@mx.test", content=b"a: b\r\n\r\n\xc3\xbc\r\n", reverse_path="", is_8bit=True
    )
    eight.content = b"a: b\r\n\r\n\xc3\xbc" + b"\r\n"
    play(script, way, Talker(transactions=[eight]))


@pytest.mark.client_row("C62")
def test_eight_bit_content_goes_as_it_is_where_8bitmime_is_not_offered(way: str) -> None:
    script = lines(PLAIN, "C: MAIL FROM:<a@relay.test>")
    play(script, way, Talker(transactions=[transaction(content=b"\xff", is_8bit=True)]))


@pytest.mark.client_row("C63")
def test_non_ascii_recipient_without_smtputf8_puts_nothing_on_the_wire(way: str) -> None:
    script = lines(PLAIN, "C: QUIT")
    [exchange] = play(script, way, Talker(transactions=[transaction("ü@mx.test")])).finished
    assert exchange.is_local
    assert exchange.mail is not None
    assert exchange.mail.enhanced == "5.6.7"


@pytest.mark.client_row("C59")
def test_content_with_nul_puts_nothing_on_the_wire(way: str) -> None:
    script = lines(PLAIN, "C: QUIT")
    talker = Talker(transactions=[transaction(content=b"a\0b")])
    [exchange] = play(script, way, talker).finished
    assert exchange.mail is not None
    assert exchange.mail.enhanced == "5.6.0"


@pytest.mark.client_row("C53", "C54", "C55")
def test_smuggling_attempts_arrive_as_one_message(way: str) -> None:
    content = b"a\n.\r\nb\r.\r\nc\n.\nd\r\n.\ne\r\n.\rMAIL FROM:<x>\r\n.f\r\n.\r\n"
    script = lines(
        PIPELINING,
        "C: MAIL FROM:<a@relay.test>\nC: RCPT TO:<b@mx.test>\nC: DATA",
        "S: 250 ok\nS: 250 ok\nS: 354 go",
        "C: a\nC: ..\nC: b\nC: ..\nC: c\nC: ..\nC: d\nC: ..\nC: e\nC: ..\nC: MAIL FROM:<x>",
        "C: ..f\nC: ..\nC: .",
        "S: 250 ok\nC: QUIT",
    )
    play(script, way, Talker(transactions=[transaction(content=content)]))


@pytest.mark.client_row("C78")
def test_replies_out_of_order_break_the_session(way: str) -> None:
    script = lines(
        PIPELINING,
        """C: MAIL FROM:<a@relay.test>
        C: RCPT TO:<b@mx.test>
        C: RCPT TO:<c@mx.test>
        C: DATA
        S: 250 ok
        S: 250 ok
        S: 354 go
        S: 250 ok""",
    )
    played = play(script, way, Talker(transactions=[transaction("b@mx.test", "c@mx.test")]))
    assert isinstance(played.broken, RemoteProtocolError)
    assert played.finished == []
    assert b"Subject" not in played.said


@pytest.mark.client_row("C60")
def test_line_of_any_length_goes_as_it_is(way: str) -> None:
    long = "x" * 5000
    script = lines(
        PIPELINING,
        "C: MAIL FROM:<a@relay.test>\nC: RCPT TO:<b@mx.test>\nC: DATA",
        "S: 250 ok\nS: 250 ok\nS: 354 go",
        f"C: {long}\nC: .",
        "S: 250 ok\nC: QUIT",
    )
    play(script, way, Talker(transactions=[transaction(content=long.encode())]))


@pytest.mark.client_row("C62")
@pytest.mark.parametrize(
    ("content", "code"), [(b"A: b\r\n\r\n\xff\r\n", "5.6.3"), (b"A: \xff\r\n\r\nb\r\n", "5.6.7")]
)
def test_eight_bit_content_may_be_refused_where_8bitmime_is_not_offered(
    way: str, content: bytes, code: str
) -> None:
    script = lines(PLAIN, "C: QUIT")
    talker = Talker(transactions=[transaction(content=content, is_8bit=True)])
    talker.client.agree(Terms(needs_8bitmime=True))
    [exchange] = play(script, way, talker).finished
    assert exchange.is_local
    assert exchange.mail is not None
    assert exchange.mail.enhanced == code


@pytest.mark.parametrize(
    ("offer", "is_verified", "is_sent"),
    [("RequireTLS", True, True), ("RequireTLS", False, False), ("HELP", True, False)],
)
def test_requiretls_is_said_to_a_verified_host_that_offers_it(
    way: str, offer: str, is_verified: bool, is_sent: bool
) -> None:
    command = "C: MAIL FROM:<a@relay.test> REQUIRETLS" if is_sent else "C: QUIT"
    script = lines("S: 220 mx\nC: EHLO relay.test\nS: 250-mx", f"S: 250 {offer}", command)
    talker = Talker(transactions=[transaction(requires_tls=True)])
    talker.client.agree(Terms(is_verified=is_verified))
    play(script, way, talker)
    if not is_sent:
        assert talker.finished[0].mail is not None
        assert talker.finished[0].mail.enhanced == "5.7.30"
