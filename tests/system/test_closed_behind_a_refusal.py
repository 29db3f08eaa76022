"""A receiver that refuses and closes at once, as Outlook does, has refused; QUIT is no matter."""

import pytest

from tests.support.system import System


@pytest.mark.client_row("C65", "C66", "C87")
async def test_what_was_said_before_the_close_counts(system: System) -> None:
    refusal = "550 5.7.1 Not from your address"
    for place in ("MAIL", "RCPT", "DATA", "end-of-data"):
        domain = f"{place.lower().replace('-', '')}.test"
        system.sink.add_fault(domain, place, "421", reply=refusal)
        receipt = await system.submit([f"ann@{domain}"])
        views = await system.until(receipt, {f"ann@{domain}": "failed"})
        (view,) = views.values()
        assert view.reply is not None
        assert (view.reply.code, view.reply.lines) == (550, ("Not from your address",))
        assert (view.attempt, view.step) == (1, 0)
    system.sink.add_fault("quit.test", "QUIT", "reply", reply="500 5.5.1 What?")
    system.sink.add_fault("gone.test", "QUIT", "reset")
    taken = [await system.submit([f"ann@{domain}"]) for domain in ("quit.test", "gone.test")]
    await system.until_delivered(*taken)
    await system.until_connected(0)
    assert set(await system.event_counts()) == {
        "message.accepted",
        "recipient.delivered",
        "recipient.failed",
    }
