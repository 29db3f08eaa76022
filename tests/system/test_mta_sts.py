"""Domains with an MTA-STS policy get their mail over verified TLS, or it waits and says why."""

from pathlib import Path

from tests.support.system import running_system

BADCERT = "anna@badcert.mtasts.test"
WRONG = "anna@mtastswrong.test"


async def test_policy_is_fetched_and_obeyed_and_what_fails_it_waits(tmp_path: Path) -> None:
    async with running_system(tmp_path, RELAY_SINK_HTTPS="127.0.0.1:{https_port}") as system:
        system.expects("site.breaker")
        good = await system.submit(["anna@mtasts.test", "anna@mtaststesting.test"])
        forged = await system.submit([BADCERT])
        wrong = await system.submit([WRONG])
        await system.until_delivered(good)
        told = {
            event.data["address"]: event.data["tls"]
            for event in await system.events("recipient.delivered")
        }
        enforced = told["anna@mtasts.test"]
        assert (enforced["policy"], enforced["verified"]) == ("mta-sts", True)
        assert enforced["peer_name"] == "mx1.mtasts.test"
        tested = told["anna@mtaststesting.test"]
        assert (tested["policy"], tested["verified"]) == ("opportunistic", False)

        waiting = await system.until_waiting(forged, BADCERT, "tls_failed")
        assert "the domain's MTA-STS policy demands it" in waiting.text
        (suspended,) = await system.until_event("site.suspended")
        assert suspended.data["reason"] == "tls_failed"

        waiting = await system.until_waiting(wrong, WRONG, "mta_sts_failed")
        assert "only mx.another.test" in waiting.text

        received = {receipt.forward_paths[0] for receipt in system.sink.receipts()}
        assert received == set(told)
        assert system.complaints() == []
