"""The store against its model: any sequence of transitions, on a real Redis, audited at each step.

RELAY_TEST_PROFILE=thorough walks 50 times as far, and elsewhere each time.
"""

import asyncio
import copy
import itertools
import os
from collections import Counter
from collections.abc import Coroutine
from typing import Any, TypeVar

import pytest
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import (
    RuleBasedStateMachine,
    initialize,
    invariant,
    precondition,
    rule,
    run_state_machine_as_test,
)

import relay.store.queue
import relay.store.work
from relay.model.errors import (
    IdempotencyConflict,
    LeaseLost,
    NotFound,
    StateConflict,
    SubmissionRefused,
)
from relay.model.message import Receipt, Submission
from relay.model.state import State
from relay.model.suppression import Suppression
from relay.store.audit import findings
from relay.store.codec import SIGN_CHARACTERS, encode_content, unpack
from relay.store.holdings import Holdings
from relay.store.limits import Ceilings
from relay.store.queue import Store, accept_request, rows_of
from relay.store.snapshot import take_snapshot
from relay.store.suppressions import Suppressions
from relay.store.views import QueueMatch
from relay.store.work import Work
from tests.store import mail
from tests.store.model import Message, Model, Recipient, Suspension
from tests.store.road import drain
from tests.support.redis_server import RedisServer

T = TypeVar("T")

DOMAINS = ("one.test", "two.test", "[hub]")
LANES = tuple(mail.lane_of(site) for site in ("near", "far"))
KINDS = {
    State.DELIVERED: "D",
    State.FAILED: "F",
    State.EXPIRED: "X",
    State.DEFERRED: "d",
    State.HELD: "h",
    State.READY: "r",
}
LETTER = {"transactional": "t", "bulk": "b"}
hundreds = st.sampled_from((100.0, 300.0, 1000.0))
picks = st.integers(0, 10**6)


class StoreMachine(RuleBasedStateMachine):
    """One store, two workers of whom either may die, operators, producers, and time."""

    server: RedisServer

    def __init__(self) -> None:
        super().__init__()
        self.runner = asyncio.Runner()
        self.model = Model()
        self.attempts: list[tuple[str, int, Work]] = []
        self.works: dict[str, Work] = {}
        self.sessions: dict[str, tuple[Work, str]] = {}
        self.requests: list[Submission] = []

    def run(self, what: Coroutine[Any, Any, T]) -> T:
        return self.runner.run(what)

    @initialize(
        lanes=st.lists(st.sampled_from((*LANES, "")), min_size=3, max_size=3),
        first=st.lists(picks, max_size=3),
    )
    def open(self, lanes: list[str], first: list[int]) -> None:
        with self.server.client() as client:
            client.flushall()
        self.store = self.run(Store.connect(self.server.url, "sink"))
        self.run(
            self.store.wire.call("HSET", self.store.p + "meta", "frozen_ms", 1_800_000_000_000)
        )
        self.clock = Work(self.store, lease_s=mail.LEASE_S, info={})
        self.workers = [self.new_worker(), self.new_worker()]
        for destination, lane in zip(DOMAINS, lanes, strict=True):
            if lane:
                self.run(self.clock.routed(destination, lane, b"site", fresh_s=10**4))
                self.model.routes[destination] = lane
        for pick in first:
            self.accept(1 + pick % 3, pick, False)

    def new_worker(self) -> Work:
        work = self.run(mail.worker(self.store))
        self.model.leases[work.holder] = self.model.now + mail.LEASE_S
        self.works[work.holder] = work
        return work

    # -- producers ---------------------------------------------------------------------------

    def draw_submission(self, count: int, pick: int, *, key: str = "") -> Submission:
        """A submission whose properties follow from a number."""
        destinations = [DOMAINS[(pick + n * (1 + pick % 2)) % 3] for n in range(count)]
        paths = [
            f"r{n}@{'elsewhere.test' if name == '[hub]' else name}"
            for n, name in enumerate(destinations)
        ]
        return mail.submission(
            *paths,
            destinations=tuple(destinations),
            mail_class=("transactional", "bulk")[pick % 2],
            tenant=("ann", "bob")[pick // 2 % 2],
            campaign=("", "spring")[pick // 4 % 2],
            expires_after_s=(1000.0, 5000.0)[pick // 8 % 2],
            delay_notice_after_s=(0.0, 500.0)[pick // 16 % 2],
            wants_dsn=bool(pick // 32 % 2),
            idempotency_key=key,
            digest=key and "digest",
        )

    def add(self, item: Submission, *, state: str = "r", staged: int | None = None) -> None:
        rows = [
            Recipient(
                "|".join((LETTER[item.mail_class], item.tenant, item.campaign, destination)),
                state,
                address=str(path),
            )
            for path, destination in zip(item.forward_paths, item.destinations, strict=True)
        ]
        if staged is None:
            self.end_suppressed(rows)
        now = self.model.now
        expires = now + item.expires_after_s
        notice = now + item.delay_notice_after_s if item.delay_notice_after_s else 0.0
        self.model.messages[item.queue_id] = Message(
            rows,
            LETTER[item.mail_class],
            expires,
            notice,
            staged,
            deadline=notice or expires,
            wants_dsn=item.wants_dsn,
        )

    def end_suppressed(self, rows: list[Recipient]) -> None:
        for row in rows:
            if self.model.is_suppressed(row):
                row.state = "S"

    def accepted(self, item: Submission) -> Receipt | None:
        """Hand it over; None where the list has all of its recipients, and it is refused."""
        probe = [Recipient(f"|{item.tenant}||", address=str(path)) for path in item.forward_paths]
        if not all(map(self.model.is_suppressed, probe)):
            return self.run(self.store.accept(item))
        with pytest.raises(SubmissionRefused):
            self.run(self.store.accept(item))
        return None

    @rule(verb=st.sampled_from(("add", "add", "remove")), pick=picks, keep_s=hundreds)
    def suppress(self, verb: str, pick: int, keep_s: float) -> None:
        """A person changes the list."""
        tenant = ("ann", "bob")[pick % 2]
        name = (f"r{pick % 3}@one.test", "@two.test", "r0@elsewhere.test")[pick // 2 % 3]
        if verb == "add":
            self.put_on_list(tenant, name, keep_s)
        else:
            self.run(Suppressions(self.store, tenant=tenant).remove([name]))
            self.model.suppressed.pop((tenant, name), None)

    def put_on_list(self, tenant: str, name: str, keep_s: float) -> None:
        entries = [Suppression(name=name)]
        found = Suppressions(self.store, tenant=tenant)
        self.run(found.add(entries, most=10**6, keep_s=keep_s))
        self.model.suppressed[tenant, name] = self.model.now + keep_s

    @rule(count=st.integers(1, 4), pick=picks, twice=st.booleans())
    def accept_one(self, count: int, pick: int, twice: bool) -> None:
        self.accept(count, pick, twice)

    def accept(self, count: int, pick: int, twice: bool) -> None:
        item = self.draw_submission(count, pick)
        receipt = self.accepted(item)
        if receipt is None:
            return
        assert not receipt.replayed
        assert receipt.accepted == count
        if twice:
            assert self.run(self.store.accept(item)).id == item.queue_id
        self.add(item)

    @rule(pick=picks, key=st.sampled_from(("k1", "k2")))
    def accept_with_key(self, pick: int, key: str) -> None:
        item = self.draw_submission(2, pick, key=key)
        known = [
            old for old in self.requests if (old.tenant, old.idempotency_key) == (item.tenant, key)
        ]
        receipt = self.run(self.store.accept(item)) if known else self.accepted(item)
        if receipt is None:
            return
        assert receipt.replayed is bool(known)
        assert receipt.id == (known[0] if known else item).queue_id
        if not known:
            self.requests.append(item)
            self.add(item)

    def accept_key_with_other_payload(self, pick: int) -> None:
        if not self.requests:
            return
        old = self.requests[pick % len(self.requests)]
        item = mail.submission(
            "x@one.test", idempotency_key=old.idempotency_key, tenant=old.tenant, digest="other"
        )
        with pytest.raises(IdempotencyConflict):
            self.run(self.store.accept(item))

    async def send_chunk(self, item: Submission, first: int, last: int) -> bytes:
        request = accept_request(item, rows_of(item)[first - 1 : last], first)
        content = encode_content(item.content) if first == 1 else b""
        answer = await self.store.scripts.call("accept", {**request, "staged": True}, content)
        return bytes(answer[0])

    @rule(kind=st.sampled_from(("stage", "more", "commit")), count=st.integers(1, 4), pick=picks)
    def hand_over(self, kind: str, count: int, pick: int) -> None:
        """A message in chunks: its first, another, the order to make it ready."""
        if kind == "stage" or self.staging is None:
            self.stage(max(count, 2), pick)
        elif kind == "more":
            self.stage_more(self.staging, pick)
        else:
            if pick % 2:
                address = self.staging.forward_paths[pick % len(self.staging.forward_paths)]
                self.put_on_list(self.staging.tenant, str(address), 1000.0)
            self.commit(self.staging, count)

    def stage(self, count: int, pick: int) -> None:
        item = self.draw_submission(count, pick)
        there = 1 + pick % count
        assert self.run(self.send_chunk(item, 1, there)) == b"ok"
        self.add(item, state="s", staged=there)
        self.staging = item

    staging: Submission | None = None

    def stage_more(self, item: Submission, pick: int) -> None:
        message = self.model.messages.get(item.queue_id)
        first = 1 + pick % len(item.forward_paths)
        answer = self.run(self.send_chunk(item, first, len(item.forward_paths)))
        if message is None:
            assert answer == (b"unknown" if first > 1 else b"ok")
            if first == 1:
                self.add(item, state="s", staged=len(item.forward_paths))
            return
        if message.staged is None:
            assert answer == (b"unknown" if message.is_gone else b"replay")
            return
        if first > message.staged + 1:  # a gap: rows are counted, so it cannot be committed
            self.run(self.send_chunk(item, message.staged + 1, first - 1))
        message.staged = len(item.forward_paths)

    def commit(self, item: Submission, slice_: int) -> None:
        message = self.model.messages.get(item.queue_id)
        call = self.store.scripts.call("commit", {"id": item.queue_id, "limit": slice_})
        word = self.run(call)[0].decode()
        if message is None:
            assert word == "unknown"
        elif message.staged is None:
            assert word == ("unknown" if message.is_gone else "ok")
        elif message.staged < len(message.rows):
            assert word == "missing"
        else:
            self.model.commit(message, min(message.committed_to + slice_, len(message.rows)))

    # -- routes ------------------------------------------------------------------------------

    @rule(destination=st.sampled_from(DOMAINS), lane=st.sampled_from(LANES), page=st.booleans())
    def route(self, destination: str, lane: str, page: bool) -> None:
        async def record() -> None:
            request: dict[str, Any] = {"destination": destination, "lane": lane, "after": ""}
            request |= {"limit": 1 if page else 500, "fresh_ms": 10**6, "stale_ms": 10**9}
            await self.store.scripts.call("route", request, b"site")

        self.run(record())
        self.model.routes[destination] = lane

    @rule(kind=st.sampled_from(("routes", "lanes", "dns", "lane", "key")), pick=picks)
    def disturb(self, kind: str, pick: int) -> None:
        """What must never change a state: a worker that takes what waits and is never heard of
        again, DNS in trouble, a lane that must rest, a key used twice."""
        work = self.workers[0]
        if kind == "routes":
            self.run(work.unrouted(50))
        elif kind == "lanes":
            self.run(work.wanting("default", 50))
        elif kind == "dns":
            self.run(work.unroutable(DOMAINS[pick % 3], "servfail", "no answer"))
        elif kind == "lane":
            self.run(work.park_lane(LANES[pick % 2], 300.0, "resting", "resting"))
        else:
            self.accept_key_with_other_payload(pick)

    # -- sessions ----------------------------------------------------------------------------

    ceilings = Ceilings(slots=(("near-and-far", 2),), breakers=("site",))

    @rule(which=st.integers(0, 1), lane=st.sampled_from(LANES), twice=st.booleans())
    def take(self, which: int, lane: str, twice: bool) -> None:
        work = self.workers[which]
        token = work.new_token()
        taken = self.run(work.take(lane, token, self.ceilings))
        if taken.reason == "lease_lost":
            assert work.holder not in self.model.leases
            return
        assert (taken.word == "no") is (taken.word != "idle" and len(self.sessions) >= 2)
        if taken.word == "ok":
            self.sessions[token] = (work, lane)
        if twice:
            assert self.run(work.take(lane, token, self.ceilings)).word == taken.word

    @precondition(lambda self: self.sessions)
    @rule(pick=picks, twice=st.booleans())
    def release(self, pick: int, twice: bool) -> None:
        token = sorted(self.sessions)[pick % len(self.sessions)]
        work, lane = self.sessions.pop(token)
        for _ in range(1 + twice):
            self.run(work.release(lane, token, self.ceilings))

    # -- attempts ----------------------------------------------------------------------------

    def lane_with_work(self, pick: int) -> str:
        """A lane with ready mail, if there is one; which of them follows from a number."""
        busy = {
            self.model.routes.get(row.queue.split("|", 3)[3], "")
            for _, row in self.model.recipients()
            if row.state == "r" and self.model.may_move(row.queue)
        } - {""}
        lanes = sorted(busy) or LANES
        return lanes[pick % len(lanes)]

    def has_ready(self) -> bool:
        return any(row.state == "r" for _, row in self.model.recipients())

    @precondition(has_ready)
    @rule(which=st.integers(0, 1), pick=picks, limit=st.integers(1, 4))
    def claim_some(self, which: int, pick: int, limit: int) -> None:
        self.claim(which, pick, limit)

    @precondition(has_ready)
    @rule(
        which=st.integers(0, 1),
        pick=picks,
        states=st.lists(st.sampled_from(sorted(KINDS)), min_size=1, max_size=4),
        delay=hundreds,
    )
    def attempt(self, which: int, pick: int, states: list[State], delay: float) -> None:
        """What a worker does that nothing disturbs."""
        before = len(self.attempts)
        self.claim(which, pick, 4)
        for (rid, attempt, work), state in zip(self.attempts[before:], states, strict=False):
            self.settle(rid, attempt, work, state, delay)

    def claim(self, which: int, pick: int, limit: int) -> None:
        work, lane = self.workers[which], self.lane_with_work(pick)
        try:
            claim = self.run(work.claim(lane, limit=limit, octets=10**6))
        except LeaseLost:
            assert work.holder not in self.model.leases
            return
        claimed = mail.claimed(claim)
        # Only the last message may go beyond the limit, with those of its recipients at hand.
        assert sum(len(message.recipients) for message in claim.messages[:-1]) < limit
        assert len({item.queue for _, item in claimed}) <= 1
        for message, item in claimed:
            rid = f"{message.queue_id}.{item.number}"
            self.note_claim(rid, lane, work)
            row = self.model.recipient(rid)
            assert row is not None
            assert item.attempt == row.attempt
            assert row.claims <= 3 or len(claimed) == 1

    def note_claim(self, rid: str, lane: str, work: Work) -> None:
        self.model.claim(rid, work.holder)
        row = self.model.recipient(rid)
        assert row is not None
        assert self.model.routes[row.queue.split("|", 3)[3]] == lane
        self.attempts.append((rid, row.attempt, work))

    @precondition(has_ready)
    @rule(which=st.integers(0, 1), pick=picks)
    def claim_whose_answer_is_lost(self, which: int, pick: int) -> None:
        """The connection breaks between claim and answer; two looks later all is given back."""
        work, lane = self.workers[which], self.lane_with_work(pick)
        request = {"lane": lane, "n": 3, "octets": 10**6, "inline": 10**6, "rates": []}
        answer = self.run(self.store.scripts.call("claim", {**request, "holder": work.holder}))
        rids = [
            f"{answer[at].decode()}.{row[0]}"
            for at in range(5, len(answer), 4)
            for row in unpack(answer[at + 3])
        ]
        for rid in rids:
            self.note_claim(rid, lane, work)
        for _ in range(2):
            self.run(work.reconcile(mail.NO_UNCERTAINTY))
        for rid in rids:
            self.model.come_back(rid, "retry")

    @precondition(lambda self: self.attempts)
    @rule(pick=picks)
    def mark(self, pick: int) -> None:
        rid, attempt, work = self.attempts[-1 - pick % min(len(self.attempts), 8)]
        marks = {"holder": work.holder, "marks": [f"{rid}:{attempt}"]}
        row = self.model.recipient(rid)
        holds = row is not None and row.state == "c" and row.holder == work.holder
        if row is not None and holds and row.attempt != attempt:
            return  # a worker does not mark an attempt that it has settled
        assert self.run(self.store.scripts.call("mark", marks)) == holds
        if row is not None and holds:
            row.is_marked = True

    @precondition(lambda self: self.attempts)
    @rule(
        pick=picks,
        state=st.sampled_from(sorted(KINDS)),
        delay=hundreds,
        twice=st.booleans(),
        by_other=st.booleans(),
    )
    def settle_any(
        self, pick: int, state: State, delay: float, twice: bool, by_other: bool
    ) -> None:
        rid, attempt, work = self.attempts[-1 - pick % min(len(self.attempts), 8)]
        work = self.workers[pick % 2] if by_other else work
        for _ in range(1 + twice):
            self.settle(rid, attempt, work, state, delay if pick % 3 == 0 else 0.0)

    def settle(self, rid: str, attempt: int, work: Work, state: State, delay: float) -> None:
        queue_id, _, number = rid.partition(".")
        if state is State.DEFERRED:
            delay = delay or 100.0
        done = mail.outcome(queue_id, int(number), attempt, state, delay_s=delay)
        answers = self.run(mail.settle(work, [done]))
        work.holdings.settled(rid, attempt)
        assert answers == [self.model.settle(rid, attempt, KINDS[state], work.holder, done.delay_s)]
        self.model.tidy()

    # -- operators ---------------------------------------------------------------------------

    @precondition(lambda self: self.model.messages)
    @rule(
        pick=picks,
        verb=st.sampled_from(("retry", "hold", "release", "cancel", "bounce")),
        whole=st.booleans(),
    )
    def verb(self, pick: int, verb: str, whole: bool) -> None:
        queue_id = sorted(self.model.messages)[pick % len(self.model.messages)]
        count = self.model.rows_of(self.model.messages[queue_id])
        numbers = range(1, count + 1) if whole else [1 + pick % count]
        target = queue_id if whole else f"{queue_id}.{numbers[0]}"
        expected = sum(self.model.verb(verb, f"{queue_id}.{number}") for number in numbers)
        try:
            changed = self.run(getattr(self.store, verb)(target))
        except (StateConflict, NotFound):
            changed = 0
        assert changed == expected
        self.model.tidy()

    @rule(
        verb=st.sampled_from(("suspend", "resume", "park", "flush")),
        pick=picks,
        duration=hundreds,
    )
    def queue_verb(self, verb: str, pick: int, duration: float) -> None:
        if verb == "suspend":
            self.suspend(pick, duration)
        elif verb == "resume":
            self.resume(pick)
        elif verb == "park":
            self.park(DOMAINS[pick % 3], duration)
        else:
            self.flush(DOMAINS[pick % 3])

    def suspend(self, pick: int, duration: float) -> None:
        match = QueueMatch(
            mail_class=("", "bulk")[pick % 2],
            tenant=("", "ann")[pick // 2 % 2],
            campaign=("", "spring")[pick // 4 % 2],
            destination=("", *DOMAINS)[pick // 8 % 4],
        )
        made = self.run(self.store.suspend(match, reason="test", duration_s=duration))
        letters = (match.mail_class and "b", match.tenant, match.campaign, match.destination)
        self.model.suspensions[made.id] = Suspension(letters, self.model.now + duration)

    def resume(self, pick: int) -> None:
        if not self.model.suspensions:
            return
        name = sorted(self.model.suspensions)[pick % len(self.model.suspensions)]
        over = self.model.suspensions.pop(name).until <= self.model.now
        try:
            assert self.run(self.store.resume(name)) == 1
        except NotFound:
            assert over

    def park(self, destination: str, duration: float) -> None:
        match = QueueMatch(destination=destination)
        self.run(self.store.park(match, for_s=duration, reason="blamed", text="blamed"))
        for _, row in self.model.recipients():
            if row.queue.endswith("|" + destination) and row.state in "rdhc":
                self.model.parked[row.queue] = self.model.now + duration

    def flush(self, destination: str) -> None:
        expected = self.model.flush(destination)
        assert self.run(self.store.flush(QueueMatch(destination=destination))) == expected

    # -- time --------------------------------------------------------------------------------

    @rule(seconds=hundreds)
    def wait(self, seconds: float) -> None:
        self.let_pass(seconds)

    @rule(seconds=hundreds)
    def wait_and_tick(self, seconds: float) -> None:
        for which in (0, 1):
            self.renew_lease(which)
        self.let_pass(seconds)
        self.act(mail.NO_UNCERTAINTY)

    def let_pass(self, seconds: float) -> None:
        self.run(mail.shift(self.store, seconds))
        self.model.now += seconds

    @rule(
        transactional=st.sampled_from(("retry", "hold", "assume-delivered")),
        bulk=st.sampled_from(("retry", "hold", "assume-delivered")),
    )
    def tick(self, transactional: str, bulk: str) -> None:
        self.act({"t": transactional, "b": bulk})

    def act(self, policies: dict[str, str]) -> None:
        self.run(mail.tick(self.clock, uncertain=policies))
        self.model.pass_time(policies)
        self.model.tidy()
        self.sessions = {
            token: session
            for token, session in self.sessions.items()
            if token.partition(":")[0] in self.model.leases
        }

    def renew_lease(self, which: int) -> None:
        work = self.workers[which]
        try:
            self.run(work.renew())
        except LeaseLost:
            assert work.holder not in self.model.leases
            self.workers[which] = self.new_worker()
        else:
            assert work.holder in self.model.leases
            self.model.leases[work.holder] = self.model.now + mail.LEASE_S

    @rule(which=st.integers(0, 1), how=st.sampled_from(("killed", "stopped", "renewed")))
    def live_or_die(self, which: int, how: str) -> None:
        if how == "renewed":
            self.renew_lease(which)
            return
        if how == "stopped":
            work = self.workers[which]
            self.run(work.end())
            if work.holder in self.model.leases:
                self.model.leases[work.holder] = self.model.now
        self.workers[which] = self.new_worker()

    # -- replication -------------------------------------------------------------------------

    #: What a replica has: all keys of the server as it dumps them, and what we knew then.
    replica: tuple[dict[bytes, bytes], tuple[Any, ...]] | None = None

    @rule(fails=st.booleans())
    def replicate_or_fail_over(self, fails: bool) -> None:
        """A replica has all there is, or takes over and knows nothing of what came since."""
        with self.server.client() as client:
            if not fails or self.replica is None:
                dumped = {key: bytes(client.dump(key) or b"") for key in client.scan_iter()}
                self.replica = dumped, copy.deepcopy(self.our_side())
                return
            client.flushdb()
            for key, value in self.replica[0].items():
                client.restore(key, 0, value)
        ours = copy.deepcopy(self.replica[1])
        self.model, self.requests, self.staging, sessions = ours
        self.sessions = {token: (self.works[who], lane) for token, (who, lane) in sessions.items()}
        # Attempts are the workers' own: they go on, and end in a store that may not know of them.
        for work in self.works.values():
            work.holdings = Holdings(self.store)
        for rid, row in self.model.recipients():
            if row.state == "c":
                self.works[row.holder].holdings.claimed(rid, row.attempt)

    def our_side(self) -> tuple[Any, ...]:
        sessions = {token: (work.holder, lane) for token, (work, lane) in self.sessions.items()}
        return self.model, self.requests, self.staging, sessions

    # -- what holds after each of them -------------------------------------------------------

    @invariant()
    def store_is_sound_and_equals_the_model(self) -> None:
        if not hasattr(self, "workers"):
            return
        snapshot = self.run(take_snapshot(self.store))
        assert findings(snapshot) == []
        stored = {rid: self.shape(item.record) for rid, item in snapshot.recipients.items()}
        wanted = {rid: self.shape_of_twin(row) for rid, row in self.model.recipients()}
        differing = {
            rid: f"is {stored.get(rid)}, should be {wanted.get(rid)}"
            for rid in stored.keys() | wanted.keys()
            if stored.get(rid) != wanted.get(rid)
        }
        assert not differing, f"(state, step, claims, attempt, holder): {differing}"

    @staticmethod
    def shape(record: Any) -> tuple[Any, ...]:
        return (record.state, record.step, record.claims, record.attempt, record.holder)

    @staticmethod
    def shape_of_twin(row: Recipient) -> tuple[Any, ...]:
        holder = row.holder or row.claimant[-SIGN_CHARACTERS:]
        return (row.state, row.step, row.claims, row.attempt, holder)

    def teardown(self) -> None:
        try:
            if hasattr(self, "workers"):
                self.run(self.finish())
        finally:
            if hasattr(self, "store"):
                self.run(self.store.close())
            self.runner.close()

    async def finish(self) -> None:
        """Whatever happened: a worker that only follows hints brings all of it to an end."""
        await drain(self.store, Counter())
        snapshot = await take_snapshot(self.store)
        assert findings(snapshot) == []
        ends = Counter(
            event.data["recipient_id"]
            for event in await self.store.events(limit=100_000)
            if event.type.removeprefix("recipient.")
            in ("delivered", "failed", "expired", "cancelled", "suppressed")
        )
        for rid, item in snapshot.recipients.items():
            assert ends.pop(rid, 0) == (item.record.state in "DFXCS"), rid
        # Finished messages are kept for an hour; their events stay.
        assert not [rid for rid in ends if rid.partition(".")[0] in snapshot.messages]


PROFILES = {"quick": (120, 50), "thorough": (2000, 60)}


def test_store_equals_its_model_after_any_transitions(
    redis_server: RedisServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    StoreMachine.server = redis_server
    # Ids in the order of their making, and a clock that stands: each run is the same.
    ids = (f"{number:020d}" for number in itertools.count(1))
    for room in (mail, relay.store.queue, relay.store.work):
        monkeypatch.setattr(room, "new_queue_id", lambda now=None: next(ids))
    profile = os.environ.get("RELAY_TEST_PROFILE", "quick")
    examples, steps = PROFILES[profile]
    run_state_machine_as_test(
        StoreMachine,
        settings=settings(
            max_examples=examples,
            stateful_step_count=steps,
            derandomize=profile == "quick",
            database=None,
            report_multiple_bugs=False,
        ),
    )
