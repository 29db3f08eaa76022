"""What domains publish of their TLS, by MTA-STS and by DANE, is obeyed; what fails it waits, but
for mail that says that it need not (`TLS-Required: No`, RFC 8689)."""

from pathlib import Path

from tests.support.system import running_system

#: Who waits, for which reason, and what is said of it.
WAITING = {
    "anna@badcert.mtasts.test": ("tls_failed", "the domain's MTA-STS policy demands it"),
    "anna@notls.mtasts.test": ("tls_failed", "the domain's MTA-STS policy demands it"),
    "anna@mtastswrong.test": ("mta_sts_failed", "only mx.another.test"),
    "anna@danewrong.test": ("tls_failed", "its TLSA records demand it"),
    "anna@danefail.test": ("dns_unavailable", "TLSA"),
}
#: Who is delivered: by which policy, and whether the certificate was checked.
DELIVERED = {
    "anna@mtasts.test": ("mta-sts", True),
    "anna@mtaststesting.test": ("opportunistic", False),
    "anna@dane.test": ("dane", True),
    "anna@badcert.dane.test": ("dane", True),
    "anna@mtasts.dane.test": ("dane", True),
}


async def test_published_policies_are_found_and_obeyed(tmp_path: Path) -> None:
    variables = {"RELAY_SINK_HTTPS": "127.0.0.1:{https_port}", "RELAY_TLS_DANE": "true"}
    async with running_system(tmp_path, **variables) as system:
        system.expects("site.breaker")
        good = [await system.submit([address]) for address in DELIVERED]
        bad = {address: await system.submit([address]) for address in WAITING}
        await system.until_delivered(*good)
        told = {
            event.data["address"]: event.data["tls"]
            for event in await system.events("recipient.delivered")
        }
        seen = {address: (tls["policy"], tls["verified"]) for address, tls in told.items()}
        assert seen == DELIVERED
        assert told["anna@mtasts.test"]["peer_name"] == "mx1.mtasts.test"
        for address, (reason, words) in WAITING.items():
            waiting = await system.until_waiting(bad[address], address, reason)
            assert words in waiting.text, waiting.text
        received = {receipt.forward_paths[0] for receipt in system.sink.receipts()}
        assert received == set(DELIVERED)

        urgent = {
            address: await system.submit([address], headers=b"TLS-Required: No\r\n")
            for address in WAITING
        }
        await system.until_delivered(*urgent.values())
        for address in WAITING:
            (receipt,) = system.sink.receipts(recipient=address)
            assert b"\r\nTLS-Required: No\r\n" in system.sink.content(receipt.number)
            await system.until_waiting(bad[address], address, WAITING[address][0])
        tls = {
            event.data["address"]: event.data["tls"]
            for event in await system.events("recipient.delivered")
        }
        assert tls.pop("anna@notls.mtasts.test") is None
        assert {tls[address]["policy"] for address in WAITING if address in tls} == {
            "opportunistic"
        }
        assert system.complaints() == []
