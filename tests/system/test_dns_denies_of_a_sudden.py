"""DNS denies what was there today: a zone broken by mistake bounces no mail at once."""

import asyncio

from relay.store.views import RecipientView
from tests.support.system import System
from tests.system.conftest import Start

#: Pauses between look-ups that fail in a row.
PAUSES_S = (15, 60, 135, 240)


async def start_with_short_ttls(start: Start) -> System:
    return await start(
        RELAY_DNS_MIN_TTL="10ms", RELAY_DNS_NEGATIVE_TTL="10ms", RELAY_DNS_MAX_TTL="10ms"
    )


def deny(system: System, name: str) -> None:
    for kind in ("MX", "A", "AAAA"):
        system.sink.set_dns(name, kind, code="NXDOMAIN")


def denials(system: System) -> list[str]:
    """Look-ups so far that did not give a route."""
    return [line["reason"] for line in system.log_lines() if line["event"] == "route.unknown"]


async def ended_as(system: System, address: str) -> str:
    """How a message to the address ends."""

    def is_over(views: dict[str, RecipientView]) -> bool:
        return views[address].finished_at is not None

    return (await system.until_view(await system.submit([address]), is_over))[address].status


async def test_domain_that_had_a_route_is_believed_to_be_gone_only_after_minutes(
    start: Start,
) -> None:
    system = await start_with_short_ttls(start)
    await system.until_delivered(await system.submit(["ann@shop.test"]))
    deny(system, "shop.test")
    for number, pause_s in enumerate((5, *PAUSES_S[:-1])):
        await system.shift_clock(pause_s)
        while len(denials(system)) <= number:  # look-ups are made while there is mail
            await system.until_delivered(await system.submit(["bob@shop.test"]))
    unknown = await system.submit(["ann@unknown.test", "ann@nxdomain.test"])
    await system.until(unknown, {"ann@nxdomain.test": "failed"})
    assert await system.events("recipient.deferred") == []

    await system.shift_clock(PAUSES_S[-1])
    while await ended_as(system, "eve@shop.test") != "failed":
        pass
    system.sink.clear_dns()
    await system.shift_clock(400)
    await system.until_delivered(await system.submit(["fay@shop.test"]))


async def test_hosts_that_served_and_lost_their_addresses_are_waited_for(start: Start) -> None:
    system = await start_with_short_ttls(start)
    system.expects("site.breaker")
    await system.until_delivered(await system.submit(["ann@shop.test"]))
    await asyncio.to_thread(system.stop_worker, system.workers[0])
    for host in ("mx1.shop.test", "mx2.shop.test"):
        deny(system, host)
    system.start_worker()
    receipt = await system.submit(["bob@shop.test"])
    wait = await system.until_waiting(receipt, "bob@shop.test", "no_usable_host")
    assert "mx1.shop.test" in wait.text or "mx2.shop.test" in wait.text

    (view,) = (await system.recipients(receipt)).values()
    assert (view.status, view.step, view.attempt) == ("ready", 0, 0)
