"""A smarthost route groups recipients of all its domains: one transaction carries them."""

from tests.system.conftest import Start

ROUTES = """
[[routes]]
domain = ".partner.test"
name = "out"
smarthost = "smtp://plain.out.test:{smtp_port}"
"""


async def test_domains_of_a_smarthost_route_share_one_transaction(start: Start) -> None:
    system = await start(RELAY_CONFIG=ROUTES)
    through = [f"ann@{name}.partner.test" for name in ("a", "b", "c", "d")]
    receipt = await system.submit([*through, "ann@elsewhere.test"])
    await system.until_delivered(receipt)

    (seen,) = system.sink.receipts(host="plain.out.test")
    assert set(seen.forward_paths) == set(through)
    assert seen.tls
    (direct,) = system.sink.receipts(domain="elsewhere.test")
    assert direct.host == "mx1.elsewhere.test"

    views = await system.recipients(receipt)
    assert {views[address].destination for address in through} == {"[out]"}
    delivered = await system.events("recipient.delivered")
    hosts = {event.data["address"]: event.data["remote"]["host"] for event in delivered}
    assert hosts == dict.fromkeys(through, "plain.out.test") | {
        "ann@elsewhere.test": "mx1.elsewhere.test"
    }
