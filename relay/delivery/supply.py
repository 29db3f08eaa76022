"""What a session sends, one load after another: claimed about a second's worth at a time.

The next claim comes before the last load of the present one is sent, so that its commands leave
with that load's final dot: over a long line a session is not without mail for a round trip.
"""

from collections import deque

from relay.delivery.carrier import Carrier
from relay.delivery.context import EXPIRED, GIVEN_BACK, Context
from relay.delivery.load import Load, loads_of, without_expired
from relay.delivery.outcomes import ready_again
from relay.model.state import State
from relay.store.claims import Claim


class Supply:
    """The loads of one session; each that `take` gave is ended by `done`, or goes back."""

    def __init__(self, lane: str, carrier: Carrier, context: Context) -> None:
        self._lane = lane
        self._carrier = carrier
        self._context = context
        self._loads: deque[Load] = deque()
        self._current: Load | None = None
        self._has_all = False
        #: What was claimed last.
        self.claim = Claim()

    async def take(self) -> Load | None:
        """The next load; None: there is nothing to claim at present.

        Where the last claim took all there was, no other finds that out: who brings mail offers it.
        """
        if self._carrier.is_parked and not self._goes_on():
            await self._give_back(list(self._loads))
            self._carrier.is_parked = False
        if self._has_all and not self._loads:
            self._has_all = False
            return None
        while not self._loads:
            await self._claim()
            if not self.claim.messages:
                return None
        self._cut_first()
        self._current = self._loads.popleft()
        if not self._loads and self.claim.backlog:
            await self._claim()
        self._cut_first()
        if self._carrier.is_7bit_only:
            await self._convert([self._current, *self._loads])
        return self._current

    @property
    def following(self) -> Load | None:
        """The load after the present one, where it may be announced."""
        load = self._loads[0] if self._loads else None
        return None if load is None or self._context.is_revoked(load) else load

    def done(self, again: Load | None) -> None:
        """The present load has its outcomes; `again` is what of it goes to another host."""
        assert self._current is not None
        self._context.let_go(self._current, again)
        self._current = None
        if again is not None:
            # What was already announced to the peer goes first.
            self._loads.insert(1 if self._goes_on() else 0, again)

    def _cut_first(self) -> None:
        """The next load is no larger than the host takes at once."""
        count = len(self._loads)
        if count:
            self._carrier.cut_first(self._loads)
        if len(self._loads) > count:
            self._context.hold(self._loads[1])

    async def close(self) -> None:
        """What no host took goes back to ready.

        A load whose dot was on its way has no outcome: its mark makes it known as uncertain.
        """
        current, self._current = self._current, None
        if current is not None and current.dotted:
            self._context.work.give_up([current.claimed])
            self._context.let_go(current)
        elif current is not None:
            self._loads.appendleft(current)
        await self._give_back(list(self._loads))

    def _goes_on(self) -> bool:
        """Whether the peer has been told of the next load."""
        return bool(self._loads) and self._carrier.is_promised(self._loads[0])

    async def _claim(self) -> None:
        """Claim within the content budget of the process."""
        context, carrier = self._context, self._carrier
        octets = context.content_room()
        if octets <= 0:
            self.claim = Claim(wait_s=0.1, reason="content_budget")
            return
        claim = await context.work.claim(
            self._lane,
            limit=carrier.pace.batch,
            octets=octets,
            rates=context.message_rates(carrier.plan),
        )
        context.noticed(self._lane, claim, carrier.plan)
        self.claim = claim
        self._has_all = bool(claim.messages) and claim.backlog == 0
        live, expired = without_expired(claim, context.now())
        size = carrier.plan.shape.recipients_per_transaction
        loads = list(loads_of(live, size, context.directory.reverse_paths))
        for load in loads:
            context.hold(load)
        self._loads += loads
        late = context.without_session(expired, EXPIRED, State.EXPIRED)
        await context.settle(late, expired.messages)
        await context.sign(loads)

    async def _convert(self, loads: list[Load]) -> None:
        """Make 7-bit what the host could not take; its signatures are made anew."""
        await self._context.sign(await self._context.convert(loads))

    async def _give_back(self, loads: list[Load]) -> None:
        self._loads.clear()
        self._has_all = False
        for load in loads:
            self._context.let_go(load)
        verdict = self._carrier.failure or GIVEN_BACK
        await self._context.settle(ready_again(loads, verdict), [])
