"""A worker that has no room leaves new mail to another that has: wake-ups are passed on."""

from tests.system.conftest import Start

PLACES = 4
MESSAGES = 30


async def test_wake_up_that_a_full_worker_took_is_passed_on(start: Start) -> None:
    """One message after the other: nearly every second wake-up goes to the worker that is full."""
    system = await start(RELAY_WORKER_MAX_SESSIONS=str(PLACES))
    stuck = [await system.submit([f"stall-dot@stuck{n}.test"]) for n in range(PLACES)]
    for receipt in stuck:
        await system.until(receipt, {receipt.recipients[0].address: "claimed"})
    system.start_worker()
    await system.until_leased()
    for number in range(MESSAGES):
        await system.until_delivered(await system.submit([f"ann@new{number}.test"]))
    for receipt in stuck:
        (view,) = (await system.recipients(receipt)).values()
        assert view.status == "claimed"
