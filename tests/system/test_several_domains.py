"""Recipients of several domains: each domain's own MX host gets a transaction of its own."""

from tests.support.system import System

DOMAINS = ("alpha.test", "beta.test", "gamma.test")


async def test_each_domain_gets_its_own_transaction_at_its_own_host(system: System) -> None:
    receipt = await system.submit([f"{name}@{domain}" for domain in DOMAINS for name in "ab"])
    await system.until_delivered(receipt)

    for domain in DOMAINS:
        (seen,) = system.sink.receipts(domain=domain)
        assert set(seen.forward_paths) == {f"a@{domain}", f"b@{domain}"}
        assert seen.host == f"mx1.{domain}"
    assert len({seen.session for seen in system.sink.receipts()}) == len(DOMAINS)
    assert len(await system.events("recipient.delivered")) == 6


async def test_one_failing_domain_does_not_touch_the_others(system: System) -> None:
    receipt = await system.submit(["ann@alpha.test", "ann@nxdomain.beta.test", "ann@gamma.test"])
    await system.until(
        receipt,
        {
            "ann@alpha.test": "delivered",
            "ann@nxdomain.beta.test": "failed",
            "ann@gamma.test": "delivered",
        },
    )
    assert system.sink.counts() == {"ann@alpha.test": 1, "ann@gamma.test": 1}
