"""One session's life, the file to read first: take, connect, claim, send, settle, release.

A session serves one lane. It holds its slots from `take` to `release`; whatever it claimed is
settled or given back before it ends, and what it could not (a kill) returns with the lease.
Nothing here decides: verdicts come from `policy`, limits from the plan, delays from the schedule.
"""

import asyncio

from relay.delivery.carrier import Carrier
from relay.delivery.context import GIVEN_BACK, TOO_SLOW, Context
from relay.delivery.load import Load
from relay.delivery.outcomes import conclude, ready_again
from relay.delivery.routing import Unroutable
from relay.delivery.supply import Supply
from relay.model.state import State
from relay.model.verdict import Severity, Verdict
from relay.policy.classify import classify_transaction
from relay.store.limits import Taken


async def serve(lane: str, context: Context) -> Taken:
    """Serve a lane until it has no more work, its hosts fail or the engine drains."""
    plan = await context.plan(lane)
    if plan is None:
        return Taken("idle")
    if isinstance(plan, Unroutable):
        return await serve_nowhere(lane, context, plan)
    token, ceilings = context.work.new_token(), context.ceilings(plan)
    taken = await context.work.take(lane, token, ceilings)
    if taken.word != "ok":
        return context.refused(plan, taken)
    carrier = Carrier(plan, context, token, probing=taken.probing)
    context.may_leave(carrier)
    try:
        await carry(lane, carrier, context)
        if carrier.failure is not None and carrier.is_refused_for_good:
            await fail_all(lane, context, carrier.failure)
    except asyncio.CancelledError:
        if context.gives_way():
            await carrier.fail(TOO_SLOW)
        raise
    finally:
        await carrier.close()
        await context.work.release(lane, token, ceilings)
    return taken


async def carry(lane: str, carrier: Carrier, context: Context) -> None:
    """Send what the lane has while there is a connection; what no host takes goes back to ready."""
    supply = Supply(lane, carrier, context)
    try:
        while await carrier.is_ready():
            load = await supply.take()
            if load is not None:
                supply.done(await send(load, supply.following, carrier, context))
            elif not await context.await_work(lane, supply.claim):
                break
    finally:
        await supply.close()


async def send(
    load: Load, following: Load | None, carrier: Carrier, context: Context
) -> Load | None:
    """One mail transaction; the next one's commands may leave with its final dot.

    What of it is to be sent to another host, or on another connection, at once comes back.
    """
    if context.is_revoked(load) and not carrier.is_promised(load):
        await context.settle(ready_again([load], GIVEN_BACK), [])
        return None
    if not carrier.takes(load):
        return load
    result = await carrier.send(load, following)
    provider = carrier.plan.provider or None
    verdicts = classify_transaction(result, provider=provider, rules=context.rules)
    if not (is_done := all(verdict.severity is Severity.SUCCESS for verdict in verdicts)):
        carrier.weigh(load, verdicts)
    facts = context.facts(
        carrier.plan,
        remote=carrier.remote,
        tls=carrier.tls,
        clear_because=carrier.clear_because,
        timings=result.timings,
        session_id=carrier.session_id,
        connect_s=carrier.connect_s,
        dialogue="" if is_done else result.dialogue,
        has_other_host=carrier.has_other_host(load),
        success_action=result.success_action,
    )
    again, outcomes = conclude(load, verdicts, facts)
    await context.settle(outcomes, [load.message])
    await carrier.heed(load, verdicts)
    return load.of(tuple(again)) if again else None


async def serve_nowhere(lane: str, context: Context, refused: Unroutable) -> Taken:
    """A lane to nowhere (null MX, no such domain): its mail gets the verdict, no packet leaves.

    Hosts that served and have no address now are waited for.
    """
    if refused.may_pass or (lane[0] != "!" and await context.work.has_served(lane)):
        await context.rest(lane, refused)
        return Taken("no", reason=refused.verdict.reason)
    await fail_all(lane, context, refused.verdict)
    return Taken("idle")


async def fail_all(lane: str, context: Context, verdict: Verdict) -> None:
    """All mail of the lane gets the verdict."""
    while not context.is_draining:
        claim = await context.work.claim(lane, limit=50, octets=1 << 20)
        if not claim.messages:
            break
        outcomes = context.without_session(claim, verdict, State.FAILED)
        await context.settle(outcomes, claim.messages)
