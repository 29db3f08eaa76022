"""The machine beyond dialogues: its tables, its misuse, and a server that says anything."""

import contextlib

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from relay.model.errors import ConnectionLost, LocalProtocolError, RelayError, RemoteProtocolError
from relay.settings.schema import Timeouts
from relay.smtp.client import Client
from relay.smtp.states import HEARS, PHASES, SAYS, Phase, State
from relay.smtp.transaction import Answered, Finished, GoAhead, Transaction

TRANSACTION = Transaction(
    "a@relay.test", ("b@mx.test", "c@mx.test"), b"Subject: x\r\n\r\nhello\r\n"
)


def ready(*offers: str) -> Client:
    client = Client("relay.test")
    client.receive(b"220 mx\r\n")
    client.hello()
    client.data_to_send()
    lines = ["mx", *offers]
    reply = [f"250{' ' if line is lines[-1] else '-'}{line}\r\n" for line in lines]
    client.receive("".join(reply).encode())
    while client.next_event() is not None:
        pass
    return client


def test_phases_are_the_names_of_the_timeouts() -> None:
    assert {phase.value for phase in Phase} == {
        field.name for field in msgspec.structs.fields(Timeouts)
    }


def test_tables_cover_every_state_and_every_command_that_can_be_said() -> None:
    assert set(SAYS) == set(State)
    said = {verb for verbs in SAYS.values() for verb in verbs}
    assert said <= set(HEARS)
    assert set(PHASES) <= set(HEARS)
    assert all(digit in range(2, 6) for digits in HEARS.values() for digit in digits)


def test_every_state_can_be_reached() -> None:
    reached = {State.CONNECTED, State.CLOSED}
    reached |= {state for verbs in SAYS.values() for state in verbs.values()}
    reached |= {state for digits in HEARS.values() for state in digits.values()}
    assert reached == set(State)


@pytest.mark.parametrize("say", ["hello", "starttls", "quit", "handshake_done"])
def test_nothing_is_said_before_the_greeting(say: str) -> None:
    client = Client("relay.test")
    with pytest.raises(LocalProtocolError):
        getattr(client, say)()
    with pytest.raises(LocalProtocolError):
        client.start(TRANSACTION)
    assert client.data_to_send() == b""


def test_hello_name_is_checked_before_anything() -> None:
    with pytest.raises(LocalProtocolError):
        Client("relay.test\r\nMAIL")


def test_quit_is_not_said_inside_a_transaction() -> None:
    client = ready()
    client.start(TRANSACTION)
    with pytest.raises(LocalProtocolError):
        client.quit()


def test_content_is_not_sent_before_the_go_ahead() -> None:
    client = ready("PIPELINING")
    exchange = client.start(TRANSACTION)
    with pytest.raises(LocalProtocolError):
        client.send_content(exchange)


def test_malformed_transaction_is_refused_with_nothing_said() -> None:
    client = ready("PIPELINING")
    for paths in ((), ("b@mx.test", "c@mx.test\r\nDATA")):
        with pytest.raises(LocalProtocolError):
            client.start(Transaction("a@relay.test", paths, b""))
    assert client.data_to_send() == b""
    assert client.is_quiet


def test_octets_in_clear_while_the_handshake_is_due_break_the_session() -> None:
    client = ready("STARTTLS")
    client.starttls()
    client.data_to_send()
    client.receive(b"220 go\r\n")
    client.receive(b"250 injected\r\n")
    assert isinstance(client.next_event(), Answered)
    with pytest.raises(RemoteProtocolError):
        client.next_event()
    with pytest.raises(LocalProtocolError):
        client.handshake_done()


def test_half_a_reply_while_idle_stops_the_next_transaction() -> None:
    client = ready()
    client.receive(b"250 o")
    assert not client.is_quiet
    with pytest.raises(RemoteProtocolError):
        client.start(TRANSACTION)
    assert client.is_over


def test_what_broke_the_session_is_raised_again_and_nothing_is_sent() -> None:
    client = ready()
    client.receive_eof()
    for _ in range(2):
        with pytest.raises(ConnectionLost):
            client.next_event()
        with pytest.raises(ConnectionLost):
            client.start(TRANSACTION)
    assert client.data_to_send() == b""


def test_large_content_comes_in_blocks_and_stops_when_the_server_refuses_it() -> None:
    client = ready("PIPELINING")
    content = b"x" * 70 + b"\r\n"
    exchange = client.start(Transaction("a@relay.test", ("b@mx.test",), content * 20_000))
    client.data_to_send()
    client.receive(b"250 ok\r\n250 ok\r\n354 go\r\n")
    assert isinstance(client.next_event(), GoAhead)
    client.send_content(exchange)
    first = client.data_to_send()
    assert 0 < len(first) < 200_000
    assert client.is_sending
    client.receive(b"552 5.3.4 too large\r\n")
    assert client.data_to_send() == b""
    assert isinstance(client.next_event(), Finished)
    assert exchange.final is not None
    assert exchange.final.code == 552
    assert not exchange.dot_sent
    with pytest.raises(ConnectionLost):
        client.next_event()


def test_go_ahead_and_421_in_one_segment_send_no_content() -> None:
    client = ready("PIPELINING")
    exchange = client.start(Transaction("a@relay.test", ("b@mx.test",), b"x"))
    client.data_to_send()
    client.receive(b"250 ok\r\n250 ok\r\n354 go\r\n421 going down\r\n")
    assert isinstance(client.next_event(), GoAhead)
    with pytest.raises(ConnectionLost):
        client.send_content(exchange)
    assert client.data_to_send() == b""
    assert not exchange.dot_sent


def test_success_before_the_end_of_the_content_is_no_success() -> None:
    client = ready("PIPELINING")
    exchange = client.start(Transaction("a@relay.test", ("b@mx.test",), b"x" * 500_000))
    client.data_to_send()
    client.receive(b"250 ok\r\n250 ok\r\n354 go\r\n")
    client.next_event()
    client.send_content(exchange)
    client.data_to_send()
    client.receive(b"250 done\r\n")
    with pytest.raises(RemoteProtocolError):
        client.next_event()
    assert exchange.final is None


replies = st.sampled_from(
    [b"250 ok\r\n", b"354 go\r\n", b"550 no\r\n", b"451 x\r\n", b"421 bye\r\n", b"garbage\r\n",
     b"250-a\r\n", b"220 go\r\n", b"503 seq\r\n", b"250 o", b"k\r\n"]
)  # fmt: skip


@given(st.lists(replies, max_size=30), st.booleans(), st.booleans())
def test_content_is_sent_only_to_accepted_recipients_whatever_the_server_says(
    said: list[bytes], pipelining: bool, ahead: bool
) -> None:
    client = ready(*(["PIPELINING"] if pipelining else []))
    pending = [TRANSACTION, TRANSACTION, TRANSACTION]
    exchanges = [client.start(pending.pop())]
    finished = []
    with contextlib.suppress(RelayError):
        for reply in said:
            while client.data_to_send():
                pass
            client.receive(reply)
            while (event := client.next_event()) is not None:
                assert not isinstance(event, Answered)
                if isinstance(event, GoAhead):
                    assert event.exchange.accepted
                    if ahead and pending:
                        exchanges.append(client.start(pending.pop()))
                    client.send_content(event.exchange)
                else:
                    finished.append(event.exchange)
                    if pending and len(finished) == len(exchanges):
                        exchanges.append(client.start(pending.pop()))
    assert finished == exchanges[: len(finished)]
    for exchange in exchanges:
        if exchange.dot_sent or exchange.final is not None:
            assert exchange.data is not None
            assert exchange.data.code == 354
            assert any(reply and reply.is_positive for reply in exchange.recipients)
