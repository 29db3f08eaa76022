"""One session's life, the file to read first: take, connect, claim, send, settle, release.

A session serves one lane. It holds its slots from `take` to `release`; whatever it claimed is
settled or given back before it ends, and what it could not (a kill) returns with the lease.
Nothing here decides: verdicts come from `policy`, limits from the plan, delays from the schedule.
"""

import asyncio
from collections import deque
from collections.abc import Sequence

from relay.delivery.carrier import Carrier
from relay.delivery.context import EXPIRED, GIVEN_BACK, TOO_SLOW, Context
from relay.delivery.load import Load, loads_of, without_expired
from relay.delivery.outcomes import conclude, ready_again
from relay.delivery.reports import reports_for
from relay.delivery.routing import Unroutable
from relay.model.message import ClaimedMessage, Outcome
from relay.model.state import State
from relay.model.verdict import Severity, Verdict
from relay.policy.classify import classify_transaction
from relay.store.claims import Claim
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
        while await carrier.is_ready():
            claim = await claim_for(lane, carrier, context)
            if claim.messages:
                await deliver(claim, carrier, context)
            elif not await context.await_work(lane, claim):
                break
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


async def claim_for(lane: str, carrier: Carrier, context: Context) -> Claim:
    """Claim about one second's work, within the content budget of the process."""
    octets = context.content_room()
    if octets <= 0:
        return Claim(wait_s=0.1, reason="content_budget")
    claim = await context.work.claim(
        lane, limit=carrier.pace.batch, octets=octets, rates=context.message_rates(carrier.plan)
    )
    context.noticed(lane, claim, carrier.plan)
    return claim


async def deliver(claim: Claim, carrier: Carrier, context: Context) -> None:
    """Send all of a claim; what no host takes goes back to ready."""
    with context.holding(claim):
        claim, expired = without_expired(claim, context.now())
        late = context.without_session(expired, EXPIRED, State.EXPIRED)
        await settle(late, expired.messages, context)
        loads = deque(loads_of(claim, carrier.plan.shape.recipients_per_transaction))
        current: Load | None = None
        carrier.is_parked = False
        try:
            while loads and carrier.may_go_on(loads[0]) and await carrier.is_ready():
                current = loads.popleft()
                await send(current, loads, carrier, context)
                current = None
        finally:
            # A load whose dot was on its way has no outcome: its mark makes it known as uncertain.
            left = [*([current] if current is not None and not current.dotted else []), *loads]
            if current is not None and current.dotted:
                context.work.give_up([current.claimed])
            verdict = carrier.failure or GIVEN_BACK
            await settle(ready_again(left, verdict), [], context)


async def send(load: Load, loads: deque[Load], carrier: Carrier, context: Context) -> None:
    """One mail transaction; the next one's commands may leave with its final dot."""
    if context.is_revoked(load) and not carrier.is_promised(load):
        await settle(ready_again([load], GIVEN_BACK), [], context)
        return
    following = loads[0] if loads and not context.is_revoked(loads[0]) else None
    result = await carrier.send(load, following)
    verdicts = classify_transaction(
        result, provider=carrier.plan.provider or None, rules=context.rules
    )
    facts = context.facts(
        carrier.plan,
        remote=carrier.remote,
        tls=carrier.tls,
        timings=result.timings,
        session_id=carrier.session_id,
        connect_s=carrier.connect_s,
        dialogue="" if all(v.severity is Severity.SUCCESS for v in verdicts) else result.dialogue,
        has_other_host=carrier.has_other_host(load),
    )
    again, outcomes = conclude(load, verdicts, facts)
    await settle(outcomes, [load.message], context)
    await carrier.heed(load, verdicts)
    if again:
        # What was already announced to the peer goes first.
        position = 1 if following is not None and carrier.is_promised(following) else 0
        loads.insert(position, load.of(tuple(again)))


async def settle(
    outcomes: list[Outcome], messages: Sequence[ClaimedMessage], context: Context
) -> None:
    """Hand outcomes, and the reports that they call for, to the settler and the log."""
    if outcomes:
        context.tell(outcomes, messages)
        reports = reports_for(outcomes, messages, context.directory)
        await context.settler.settle(outcomes, reports)


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
        await settle(context.without_session(claim, verdict, State.FAILED), claim.messages, context)
