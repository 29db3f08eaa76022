"""Recipient keywords, the fault table and profiles, seen from the other end of the connection."""

import asyncio
import time

import pytest
from sim_dialogue import Dialogue

from relay.sim.effects import Action, Command, Effect
from relay.sim.faults import FaultRequest
from relay.sim.profiles import PROFILES
from relay.sim.receipts import ReceiptFilter
from relay.sim.scenario import Scenario
from relay.sim.server import Sink

RUNS_ON_BOTH_LOOPS = True


@pytest.fixture
async def sink():
    async with Sink(scenario=Scenario(seed=1)) as running:
        yield running


def fault(sink, command, action, pattern="a.test", **options):
    return sink.scenario.faults.add(
        FaultRequest(pattern=pattern, command=command, action=action, **options)
    )


async def attempt(sink, recipient, host="mx1.a.test"):
    """One try on a new connection: the last reply, empty when the connection broke."""
    async with Dialogue(sink, host) as peer:
        if not (await peer.hello()).startswith("250"):
            return ""
        return await peer.send(recipient)


@pytest.mark.parametrize(
    ("recipient", "reply"),
    [
        ("tempfail@a.test", "451 4.3.0"),
        ("reject@a.test", "550 5.1.1"),
        ("full@a.test", "452 4.2.2"),
        ("overquota@a.test", "552 5.2.2"),
        ("moved@a.test", "551 5.1.6"),
        ("forward@a.test", "250 2.0.0"),
        ("shutdown@a.test", "421 4.3.2"),
        ("drop-at-rcpt@a.test", ""),
        ("rcpt459@a.test", "459 4.0.0"),
        ("tempfail-data@a.test", "451 4.3.0"),
        ("reject-data@a.test", "554 5.5.0"),
        ("drop-in-data@a.test", ""),
        ("reject-in-data@a.test", "550 5.7.1"),
        ("drop-after-dot@a.test", ""),
        ("lose-reply@a.test", ""),
        ("tempfail-dot@a.test", "451 4.3.0"),
        ("reject-dot@a.test", "554 5.7.1"),
        ("dot599@a.test", "599 5.0.0"),
        ("shutdown-dot@a.test", "421 4.3.2"),
        ("split@a.test", "250 2.0.0"),
    ],
)
async def test_keyword_decides_the_outcome(sink, recipient, reply):
    assert (await attempt(sink, recipient))[:9] == reply


async def test_keyword_with_a_number_affects_the_first_attempts_only(sink):
    replies = [await attempt(sink, "tempfail+2@a.test") for _ in range(3)]
    assert [reply[:3] for reply in replies] == ["451", "451", "250"]
    dots = [await attempt(sink, "tempfail-dot+1@a.test") for _ in range(2)]
    assert [reply[:3] for reply in dots] == ["451", "250"]


async def test_greylist_refuses_the_first_try_of_each_pair(sink):
    replies = [await attempt(sink, "greylist@a.test") for _ in range(2)]
    assert [reply[:9] for reply in replies] == ["450 4.7.1", "250 2.0.0"]
    assert (await attempt(sink, "greylist+b@a.test")).startswith("450")


async def test_greylist_with_a_duration_refuses_until_it_is_over():
    now = 1000.0
    async with Sink(scenario=Scenario(clock=lambda: now)) as sink:
        assert "try again in 30 seconds" in await attempt(sink, "greylist+30s@a.test")
        now += 29
        assert "try again in 1 seconds" in await attempt(sink, "greylist+30s@a.test")
        now += 1
        assert (await attempt(sink, "greylist+30s@a.test")).startswith("250")


async def test_toomany_refuses_all_but_the_first_recipients_of_a_transaction(sink):
    async with Dialogue(sink, "mx1.a.test") as peer:
        await peer.hello()
        replies = await peer.envelope("toomany+a@a.test", "toomany+b@a.test", "c@a.test")
    assert [reply[:9] for reply in replies[1:]] == ["250 2.1.5", "452 4.5.3", "250 2.1.5"]


async def test_slow_delays_the_reply_and_keeps_the_order(sink):
    async with Dialogue(sink, "mx1.a.test") as peer:
        await peer.hello()
        start = time.monotonic()
        peer.writer.write(
            b"MAIL FROM:<a@b.test>\r\nRCPT TO:<slow+150ms@a.test>\r\nRCPT TO:<reject@a.test>\r\n"
        )
        replies = [await peer.reply() for _ in range(3)]
        assert [reply[:3] for reply in replies] == ["250", "250", "550"]
        assert time.monotonic() - start >= 0.14


async def test_lose_reply_keeps_the_message_and_drop_after_dot_does_not(sink):
    await attempt(sink, "lose-reply+1@a.test")
    await attempt(sink, "drop-after-dot+1@a.test")
    assert [r.forward_paths for r in sink.mailbox.receipts()] == [("lose-reply+1@a.test",)]
    assert (await attempt(sink, "lose-reply+1@a.test")).startswith("250")
    assert sink.mailbox.count("lose-reply+1@a.test") == 2


async def test_stall_keeps_the_connection_without_an_answer(sink):
    async with Dialogue(sink, "mx1.a.test") as peer:
        await peer.hello()
        await peer.say("MAIL FROM:<a@b.test>")
        peer.writer.write(b"RCPT TO:<stall@a.test>\r\nQUIT\r\n")
        with pytest.raises(TimeoutError):
            await asyncio.wait_for(peer.reader.read(1), 0.2)


@pytest.mark.parametrize("recipient", ["stall@a.test", "stall-in-data@a.test", "stall-dot@a.test"])
async def test_stalled_connection_is_forgotten_when_the_client_goes(sink, recipient):
    async with Dialogue(sink, "mx1.a.test") as peer:
        await peer.hello()
        with pytest.raises(TimeoutError):
            await asyncio.wait_for(peer.send(recipient), 0.1)
        assert len(sink.receiver.connections) == 1
    async with asyncio.timeout(5):
        while sink.receiver.connections:
            await asyncio.sleep(0.02)


async def test_stall_in_data_lets_the_window_fill(sink):
    async with Dialogue(sink, "mx1.a.test") as peer:
        await peer.hello()
        await peer.envelope("stall-in-data@a.test")
        await peer.say("DATA")
        with pytest.raises(TimeoutError):
            async with asyncio.timeout(0.3):
                while True:
                    peer.writer.write(b"x" * 65536)
                    await peer.writer.drain()


async def test_refused_message_is_recorded_as_refused(sink):
    await attempt(sink, "reject-dot@a.test")
    (receipt,) = sink.mailbox.receipts(ReceiptFilter(accepted=False))
    assert receipt.reply == "554 5.7.1 Message refused"
    assert sink.mailbox.counters.messages == 0


# ---- the fault table

_STEPS = [
    Command.CONNECT,
    Command.GREETING,
    Command.EHLO,
    Command.MAIL,
    Command.RCPT,
    Command.DATA,
    Command.BODY,
    Command.END_OF_DATA,
    Command.RSET,
    Command.NOOP,
    Command.QUIT,
]
CODES_OF_A_GOOD_SESSION = ["220", "250", "250", "250", "354", "250", "250", "250", "221"]
_EXPECTED = {"4xx": "4", "5xx": "5", "421": "4", "close": "", "reset": "", "garbage": "\x00"}


async def _walk(sink):
    """A whole session; the first reply at each step up to the one that failed."""
    async with Dialogue(sink, "mx1.a.test") as peer:
        replies = [await peer.reply()]
        lines = ("EHLO x.test", "MAIL FROM:<a@b.test>", "RCPT TO:<c@a.test>", "DATA")
        for line in (*lines, "a: b\r\n\r\nc\r\n.", "RSET", "NOOP", "QUIT"):
            if replies[-1][:1] not in ("2", "3"):
                break
            replies.append(await peer.say(line))
        return replies


@pytest.mark.parametrize("command", _STEPS)
@pytest.mark.parametrize("action", list(_EXPECTED))
async def test_fault_shows_at_its_command(sink, command, action):
    fault(sink, command, action)
    replies = await _walk(sink)
    order = ["greeting", "EHLO", "MAIL", "RCPT", "DATA", "end-of-data", "RSET", "NOOP", "QUIT"]
    same_place = {"connect": "greeting", "body": "end-of-data"}
    assert len(replies) == order.index(same_place.get(command, command)) + 1
    assert replies[-1][:1] == _EXPECTED[action]
    assert sink.scenario.faults.list()[0].fired == 1


@pytest.mark.parametrize("command", _STEPS)
@pytest.mark.parametrize("action", ["delay", "split"])
async def test_fault_that_only_slows_changes_no_reply(sink, command, action):
    fault(sink, command, action, delay=0.001)
    replies = await _walk(sink)
    assert [reply[:3] for reply in replies] == (
        ["220", "250", "250", "250", "354", "250", "250", "250", "221"]
    )


async def test_fault_split_sends_single_octets(sink):
    fault(sink, "NOOP", "split", delay="5ms")
    async with Dialogue(sink, "mx1.a.test") as peer:
        await peer.hello()
        peer.writer.write(b"NOOP\r\n")
        pieces = [await peer.reader.read(100) for _ in range(3)]
    assert pieces == [b"2", b"5", b"0"]


async def test_fault_count_runs_out(sink):
    fault(sink, "RCPT", "reply", reply="450 4.2.1 Busy", count=2)
    replies = [await attempt(sink, "anna@a.test") for _ in range(3)]
    assert [reply[:3] for reply in replies] == ["450", "450", "250"]


async def test_fault_probability_hits_its_share(sink):
    row = fault(sink, "RCPT", "4xx", probability=0.3)
    async with Dialogue(sink, "mx1.a.test") as peer:
        await peer.hello()
        await peer.say("MAIL FROM:<a@b.test>")
        codes = [(await peer.say(f"RCPT TO:<r{n}@a.test>"))[:3] for n in range(300)]
    assert 60 <= codes.count("451") == row.fired <= 120


async def test_fault_on_a_domain_spares_its_neighbours_on_the_same_host(sink):
    fault(sink, "RCPT", "5xx", pattern="one.hosted.test")
    host = "mx1.hosting.test"
    assert (await attempt(sink, "a@one.hosted.test", host)).startswith("550")
    assert (await attempt(sink, "a@two.hosted.test", host)).startswith("250")


async def test_fault_before_rcpt_reaches_the_hosts_of_the_domain(sink):
    fault(sink, "MAIL", "4xx", pattern="gmail.test")
    assert (await attempt(sink, "a@gmail.test", "alt1.gmail-smtp-in.l.google.test")) == (
        "503 5.5.1 Bad sequence of commands"
    )
    assert (await attempt(sink, "a@b.test", "mx1.b.test")).startswith("250")


async def test_fault_pattern_may_name_one_host(sink):
    fault(sink, "RCPT", "4xx", pattern="mx1.a.test")
    assert (await attempt(sink, "a@a.test", "mx1.a.test")).startswith("451")
    assert (await attempt(sink, "a@a.test", "mx2.a.test")).startswith("250")


async def test_fault_refuse_closes_the_door_and_opens_it_again(sink):
    address = sink.address_of("mx1.a.test")
    row = fault(sink, "connect", "refuse", pattern="a.test")
    with pytest.raises(ConnectionRefusedError):
        await asyncio.open_connection(address, sink.smtp_port)
    with pytest.raises(ConnectionRefusedError):
        await asyncio.open_connection(sink.address_of("mx2.a.test"), sink.smtp_port)
    assert sink.scenario.faults.remove(row.id)
    assert (await attempt(sink, "anna@a.test")).startswith("250")
    assert (await attempt(sink, "anna@a.test", "mx2.a.test")).startswith("250")


async def test_fault_in_the_handshake_breaks_tls(sink):
    fault(sink, "handshake", "close")
    async with Dialogue(sink, "mx1.a.test") as peer:
        await peer.hello()
        with pytest.raises((ConnectionError, OSError)):
            await peer.start_tls(sink.authority_path)


@pytest.mark.parametrize(
    ("request_", "message"),
    [
        ({"command": "FOO", "action": "4xx"}, "unknown command 'FOO'; one of connect"),
        ({"command": "RCPT", "action": "explode"}, "unknown action 'explode'; one of 4xx"),
        ({"command": "RCPT", "action": "reply"}, "needs a reply"),
        ({"command": "RCPT", "action": "reply", "reply": "nonsense"}, "is not a reply"),
        ({"command": "RCPT", "action": "refuse"}, "only for the command 'connect'"),
        ({"command": "MAIL", "action": "greylist"}, "only for the command 'RCPT'"),
        ({"command": "RCPT", "action": "4xx", "probability": 0.0}, "probability is 0"),
        ({"command": "RCPT", "action": "4xx", "count": 0}, "count is 0"),
        ({"command": "RCPT", "action": "delay", "delay": "soon"}, "not a duration"),
    ],
)
def test_fault_table_refuses_nonsense(request_, message):
    with pytest.raises(ValueError, match=message):
        Scenario().faults.add(FaultRequest(pattern="*", **request_))


# ---- profiles


async def test_profile_can_be_switched_while_the_sink_runs(sink):
    codes = []
    for profile in ("spamwall", "greylisting", "greylisting", "outage"):
        sink.scenario.faults.use_profile("a.test", profile)
        codes.append((await attempt(sink, "anna@a.test"))[:3])
    assert codes == ["550", "450", "250", ""]


async def test_profile_badday_delivers_most_mail_after_some_troubles(sink):
    profile = sink.scenario.faults.use_profile("a.test", "bad-day")
    for row in profile:
        if row.effect.action is Action.DELAY:
            row.effect = Effect(Action.DELAY, delay_s=0.001)
    waiting = {f"r{number}@a.test" for number in range(80)}
    failed, rounds = set(), 0
    while waiting and rounds < 20:
        rounds += 1
        for recipient in sorted(waiting):
            code = (await attempt(sink, recipient))[:3]
            if code in ("250", "550"):
                waiting.discard(recipient)
            if code == "550":
                failed.add(recipient)
    assert not waiting and rounds > 1 and len(failed) < 20
    assert all(row.fired for row in sink.scenario.faults.list() if row.probability >= 0.05)
    assert sink.mailbox.counters.recipients == 80 - len(failed)


async def test_profile_of_a_domain_keyword_is_in_force_at_once(sink):
    assert (await attempt(sink, "anna@spamwall.test", "mx1.spamwall.test")).startswith("550 5.7.1")
    async with Dialogue(sink, "mx1.outage.test") as peer:
        assert (await peer.reply()).startswith("421")


def test_profile_replaces_the_earlier_one_of_its_pattern():
    faults = Scenario().faults
    faults.use_profile("a.test", "bad-day")
    faults.use_profile("a.test", "outage")
    assert [row.profile for row in faults.list()] == ["outage"]
    with pytest.raises(ValueError, match="one of bad-day"):
        faults.use_profile("a.test", "good-day")


def test_profiles_only_use_what_the_scenario_can_do():
    for profile in PROFILES.values():
        for likely in profile:
            assert 0 < likely.probability <= 1
            assert likely.effect.action is not Action.REFUSE
