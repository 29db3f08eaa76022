"""Each behaviour of the simulated internet leads to one sane end, beside all the others.

One system, one message for each; what waits on the receiver's side alone costs no step.
"""

import pytest

from tests.support.system import System
from tests.system.conftest import Start

#: Nobody is waited for for long, and nothing is tried twice.
HASTY = {f"RELAY_TIMEOUTS_{phase}": "1s" for phase in ("CONNECT", "GREETING", "TLS", "COMMAND")}
HASTY |= {f"RELAY_TIMEOUTS_{phase}": "1s" for phase in ("DATA", "DATA_BLOCK", "DATA_DONE")}
HASTY |= {"RELAY_DNS_TIMEOUT": "500ms", "RELAY_DNS_LIFETIME": "1s"}
HASTY |= {"RELAY_RETRY_TRANSACTIONAL": "1h*", "RELAY_RETRY_FIRST_AFTER_RCPT": "1h"}

DELIVERED = [
    "forward@a.test",
    "toomany@b.test",
    "shutdown+1@c.test",
    "drop-at-rcpt+1@d.test",
    "stall+1@e.test",
    "garbage+1@f.test",
    "split@g.test",
    "shutdown-dot+1@h.test",
    "rcpt299@i.test",
    "ann@slowdns200ms.test",
    "ann@dnstimeout1.test",
    "ann@nomx.test",
    "ann@cname.test",
    "ann@manymx.test",
    "ann@truncate.test",
    "ann@onemx.test",
    "ann@deadv6.test",
    "ann@ipv6only.test",
    "ann@firstdead.test",
    "ann@rate3.test",
    "ann@split.test",
    "ann@slow20ms.test",
    "ann@noehlo.test",
    "ann@notls.test",
    "ann@requiretls.test",
    "ann@badtls.test",
    "ann@badcert.test",
    "ann@expiredcert.test",
    "ann@nopipelining.test",
    "ann@no8bitmime.test",
    "ann@nosmtputf8.test",
    "ann@noenhanced.test",
]
FAILED = {
    "disabled@j.test": "mailbox_disabled",
    "overquota@k.test": "mailbox_full",
    "blocked@l.test": "policy",
    "moved@m.test": "mailbox_moved",
    "reject-in-data@n.test": "policy",
    "dot554@o.test": "message_rejected",
    "ann@mxip.test": "no_usable_host",
    "ann@size200.test": "message_too_large",
}
DEFERRED = {
    "full@p.test": "mailbox_full",
    "shutdown@q.test": "system_unavailable",
    "drop-at-rcpt@r.test": "connection_lost",
    "stall@s.test": "timeout",
    "garbage@t.test": "protocol_error",
    "shutdown-dot@u.test": "system_unavailable",
    "rcpt452@v.test": "too_many_recipients",
    "rcpt421@w.test": "service_unavailable",
    "data451@x.test": "local_error",
    "data421@y.test": "service_unavailable",
    "stall-dot@z.test": "uncertain",
    "garbage-dot@aa.test": "uncertain",
}
WAITING = {
    "ann@dnstimeout.test": "dns_unavailable",
    "ann@cnameloop.test": "dns_unavailable",
    "ann@mxprivate.test": "no_usable_host",
    "ann@blackhole.test": "connect_failed",
    "ann@tarpit.test": "timeout",
    "ann@hangup.test": "connection_lost",
    "ann@greeting4.test": "greeting_rejected",
    "ann@greeting5.test": "greeting_rejected",
    "ann@greeting421.test": "service_unavailable",
    "ann@smarthost.test": "authentication_required",
}


@pytest.mark.client_row("C41", "C73", "C74", "C75", "C98")
async def test_each_behaviour_leads_to_its_end(start: Start) -> None:
    system = await start(workers=0, **HASTY)
    system.expects("site.breaker")
    addresses = [*DELIVERED, *FAILED, *DEFERRED, *WAITING]
    ids = {address: (await system.submit([address])).id for address in addresses}
    system.start_worker()
    for address, reason in WAITING.items():
        await until_waiting(system, ids[address], address, reason)
    for address in DELIVERED:
        await system.until(ids[address], {address: "delivered"})
    for expected, state in ((FAILED, "failed"), (DEFERRED, "deferred")):
        for address, reason in expected.items():
            views = await system.until(ids[address], {address: state})
            assert (address, views[address].reason) == (address, reason)
            assert (address, views[address].attempt) == (address, 1)
    assert system.sink.counts() == dict.fromkeys(DELIVERED, 1)


async def until_waiting(system: System, queue_id: str, address: str, reason: str) -> None:
    """Wait until the recipient says that it waits for this; it costs no step."""
    view = (
        await system.until_view(
            queue_id,
            lambda views: (wait := views[address].waiting) is not None and wait.reason == reason,
        )
    )[address]
    assert (view.status, view.step) == ("ready", 0)
    assert view.attempt <= 1


@pytest.mark.parametrize("reply", ["521 5.3.2 No mail here", "556 5.1.10 No mail here"])
@pytest.mark.client_row("C3")
async def test_site_whose_every_host_takes_no_mail_at_all_fails_it(
    system: System, reply: str
) -> None:
    system.sink.add_fault("shop.test", "greeting", "reply", reply=reply)
    receipt = await system.submit(["ann@shop.test", "bob@shop.test"])
    await system.until(receipt, {"ann@shop.test": "failed", "bob@shop.test": "failed"})
    assert {event.data["reason"] for event in await system.events("recipient.failed")} == {
        "host_refuses_mail"
    }


async def test_site_of_which_one_host_may_come_back_is_waited_for(system: System) -> None:
    system.expects("site.breaker")
    system.sink.add_fault("mx1.shop.test", "greeting", "reply", reply="521 5.3.2 No mail here")
    system.sink.add_fault("mx2.shop.test", "connect", "refuse")
    receipt = await system.submit(["ann@shop.test"])
    await system.until_waiting(receipt, "ann@shop.test", "connect_failed")
    system.sink.clear_faults("mx2.shop.test")
    await system.shift_clock(16)
    await system.until_delivered(receipt)


async def test_site_that_demands_a_login_is_not_asked_without_end(system: System) -> None:
    """Its MAIL is answered 530: the mail is not bounced, and costs one attempt a probe."""
    system.expects("site.breaker")
    receipt = await system.submit(["ann@smarthost.test"])
    await system.until_event("site.suspended")
    await system.shift_clock(16)
    first, second = await system.until_event("site.suspended", 2)
    assert second.data["until"] - second.timestamp > first.data["until"] - first.timestamp
    view = (await system.recipients(receipt))["ann@smarthost.test"]
    assert (view.status, view.step, view.attempt) == ("ready", 0, 2)
