"""Whatever does not move says why: each unfinished recipient, in every state."""

import re

from relay.store.codec import encode_content
from relay.store.queue import accept_request, rows_of
from relay.store.views import MessageFilter, QueueMatch, RecipientView
from tests.support.doors import relay
from tests.support.system import System
from tests.system.conftest import Start

#: One message in a minute, and nothing else that binds.
ONE_A_MINUTE = """
["default"]
max_connections = 20
connection_rate = "unlimited"
message_rate = "1/min"
"""
ONE_CONNECTION = """
["default"]
max_connections = 1
connection_rate = "unlimited"
message_rate = "unlimited"
"""


async def why(system: System, address: str, reason: str) -> str:
    """Submit to the address; the sentence that its wait comes to have."""
    receipt = await system.submit([address])
    views = await system.until_view(receipt, lambda found: _reason(found[address]) == reason)
    waiting = views[address].waiting
    assert waiting is not None and waiting.text
    return waiting.text


def _reason(view: RecipientView) -> str:
    return view.waiting.reason if view.waiting is not None else ""


async def test_ready_mail_says_what_it_waits_for(start: Start) -> None:
    system = await start(RELAY_RETRY_FIRST_AFTER_RCPT="1h", RELAY_RETRY_TRANSACTIONAL="1h*")
    system.expects("site.breaker")
    await system.store.suspend(
        QueueMatch(destination="stopped.test"), reason="asked by them", duration_s=60
    )
    assert "asked by them" in await why(system, "a@stopped.test", "suspended")
    assert "SERVFAIL" in await why(system, "a@servfail.test", "dns_unavailable")
    assert "refused" in await why(system, "a@dead.test", "connect_failed")
    silent = await why(system, "a@onemx.tarpit.test", "session_opening")
    assert silent.startswith("mx1.onemx.tarpit.test [127.")


async def test_mail_under_way_and_what_was_said_meanwhile(system: System) -> None:
    address = "slow+10s@shop.test"
    under_way = await why(system, address, "under_way")
    worker = system.workers[0].pid
    assert under_way.startswith(f"attempt 1 is under way by worker {worker} on ")
    (found, _) = await system.store.messages(MessageFilter())
    for verb, then in (("hold", "held"), ("cancel", "cancelled"), ("bounce", "bounced")):
        await getattr(system.store, verb)(found[0].id)
        waiting = (await system.recipients(found[0].id))[address].waiting
        assert waiting is not None
        assert waiting.text.endswith(f"; it is {then} afterwards unless this ends it")


async def test_mail_behind_a_rate_or_a_limit_says_whose(start: Start) -> None:
    system = await start(RELAY_FILES_SHAPING=ONE_A_MINUTE)
    first = await system.submit(["a@shop.test"])
    await system.until_delivered(first)
    text = await why(system, "b@shop.test", "message_rate")
    assert text == "mail to mx1.shop.test is sent no faster than shaping allows"


async def test_mail_behind_other_mail_of_its_site_says_so(start: Start) -> None:
    system = await start(RELAY_FILES_SHAPING=ONE_CONNECTION)
    slow = await system.submit(["slow+10s@shop.test"])
    await system.until(slow, {"slow+10s@shop.test": "claimed"})
    assert "mx1.shop.test" in await why(system, "ann@shop.test", "in_turn")


async def test_mail_without_a_worker_says_so(start: Start) -> None:
    system = await start(workers=0)
    assert "MX hosts of shop.test" in await why(system, "a@shop.test", "mx_lookup")


async def test_staged_deferred_and_held_mail_say_it_in_their_own_words(start: Start) -> None:
    system = await start(RELAY_RETRY_FIRST_AFTER_RCPT="1h", RELAY_RETRY_TRANSACTIONAL="1h*")
    submission = system.submitter.prepare(system.draft(["a@shop.test", "b@shop.test"])).submission
    request = accept_request(submission, rows_of(submission)[:1], 1) | {"staged": True}
    await system.store.scripts.call("accept", request, encode_content(submission.content))
    (staged,) = (await system.message(submission.queue_id)).recipients
    assert _reason(staged) == "staged"

    receipt = await system.submit(["tempfail@shop.test", "tempfail+b@shop.test"])
    await system.until(receipt, dict.fromkeys(("tempfail@shop.test",), "deferred"))
    await system.until(receipt, {"tempfail+b@shop.test": "deferred"})
    await system.store.hold(f"{receipt.id}.2", "looks odd")
    api = f"http://127.0.0.1:{system.start_http()}"
    queued = relay("queue", "ls", "--domain", "shop.test", api=api).out.splitlines()[1]
    assert re.search(r"\tin \d+m\t451 4\.3\.0 Mailbox .* \(in \d+m\)$", queued)
    deferred, held = relay("message", "show", receipt.id, api=api).out.splitlines()[-2:]
    assert "451 4.3.0" in deferred and "mx1.shop.test [127." in deferred
    assert re.search(r"\tin \d+m\t", deferred)
    assert "looks odd (last reply: 451 4.3.0 " in held
    listed = relay("message", "ls", "--to", "tempfail@shop.test", api=api).out.splitlines()[1]
    assert re.search(r"\t451 4\.3\.0 Mailbox .* \(next attempt in \d+m\)$", listed)
    await system.store.hold(f"{receipt.id}.1", "looks odd, too")
    queued = relay("queue", "ls", "--domain", "shop.test", api=api).out.splitlines()[1]
    assert queued.endswith("\t-\tlooks odd")
    await system.store.suspend(QueueMatch(destination="shop.test"), reason="stop", duration_s=60)
    queued = relay("queue", "ls", "--domain", "shop.test", api=api).out.splitlines()[1]
    assert "\tsuspended: stop (in " in queued
