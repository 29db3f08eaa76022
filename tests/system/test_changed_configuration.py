"""Mail follows the configuration of today, whatever was found out under that of yesterday."""

import asyncio

from tests.system.conftest import Start
from tests.system.test_private_mx_refused import LIVE

BY_SMARTHOST = """
[[routes]]
domain = "*"
name = "out"
smarthost = "smtp://{host}:{{smtp_port}}"
"""


async def test_what_was_refused_is_delivered_once_it_is_allowed(start: Start) -> None:
    system = await start(**LIVE)
    refused = await system.submit(["ann@shop.test"])
    await system.until(refused, {"ann@shop.test": "failed"})

    system.stop_worker(system.workers[-1])
    system.environment["RELAY_DELIVERY_ALLOW_PRIVATE"] = "true"
    system.start_worker()
    await system.until_delivered(await system.submit(["ann@shop.test"]))


async def test_mail_of_a_route_goes_to_its_new_smarthost(start: Start) -> None:
    system = await start(RELAY_CONFIG=BY_SMARTHOST.format(host="smarthost.dead.test"))
    system.expects("site.breaker")
    receipts = [await system.submit([f"ann@domain{n}.test"]) for n in range(3)]
    for number, receipt in enumerate(receipts):
        await system.until_waiting(receipt, f"ann@domain{number}.test", "connect_failed")

    system.stop_worker(system.workers[-1])
    path = system.folder / "relay.toml"
    path.write_text(path.read_text().replace("smarthost.dead.test", "other.test"))
    system.start_worker()
    await system.until_delivered(*receipts)
    assert {seen.host for seen in system.sink.receipts()} == {"other.test"}


async def test_refusal_of_dns_is_not_believed_for_longer_than_a_few_minutes(start: Start) -> None:
    system = await start(workers=0, RELAY_DNS_MIN_TTL="1s", RELAY_DNS_NEGATIVE_TTL="1s")
    for kind in ("MX", "A", "AAAA"):
        system.sink.set_dns("new.test", kind, code="NXDOMAIN")
    system.start_worker()
    early = await system.submit(["ann@new.test"])
    await system.until(early, {"ann@new.test": "failed"})

    system.sink.set_dns("new.test", "MX", "10 mx.new.test.")
    await system.shift_clock(301)
    await asyncio.sleep(1.5)  # the resolver's own memory goes by the real clock
    await system.until_delivered(await system.submit(["ann@new.test"]))
