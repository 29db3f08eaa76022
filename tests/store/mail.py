"""Submissions, outcomes and lanes for tests of the store."""

from typing import Any

from relay.model.address import parse_address
from relay.model.ids import new_queue_id
from relay.model.message import ClaimedMessage, ClaimedRecipient, Outcome, Submission
from relay.model.state import State
from relay.model.verdict import Scope, Severity, Verdict
from relay.store.claims import Claim
from relay.store.codec import unpack
from relay.store.deadlines import Deadlines
from relay.store.queue import Store
from relay.store.settler import Group, settle_item, settle_request
from relay.store.work import Work

DEFERRED_BY_PEER = Verdict(Severity.TRANSIENT, Scope.RECIPIENT, "greylisted", "Try again later.")
#: No test takes that long: what is due in the future stays so until the clock is moved.
LEASE_S = 100.0
NO_UNCERTAINTY = {"t": "retry", "b": "retry"}


def submission(*to: str, **more: Any) -> Submission:
    """A small message to these addresses; `destinations` are their domains unless given."""
    paths = tuple(parse_address(item) for item in to)
    queue_id = more.pop("queue_id", "") or new_queue_id()
    values: dict[str, Any] = {
        "queue_id": queue_id,
        "reverse_path": parse_address("news@example.org"),
        "forward_paths": paths,
        "destinations": tuple(path.domain for path in paths),
        "content": b"Subject: hello\r\n\r\nhello\r\n",
        "message_id": f"<{queue_id}@example.org>",
    }
    return Submission(**values | more)


def lane_of(site: str, pool: str = "default") -> str:
    """The name of a lane."""
    return f"{site}|{pool}|none|"


def outcome(
    queue_id: str, number: int, attempt: int, state: State, *, delay_s: float = 0.0, **more: Any
) -> Outcome:
    """What an attempt came to, with the events that it has."""
    events = {
        State.DELIVERED: "recipient.delivered",
        State.FAILED: "recipient.failed",
        State.EXPIRED: "recipient.expired",
        State.DEFERRED: "recipient.deferred",
        State.HELD: "recipient.held",
    }
    values: dict[str, Any] = {
        "queue_id": queue_id,
        "number": number,
        "attempt": attempt,
        "state": state,
        "verdict": DEFERRED_BY_PEER,
        "delay_s": delay_s,
        "advance": state is State.DEFERRED,
        "events": (events[state],) if state in events else (),
        "event": {"recipient_id": f"{queue_id}.{number}", "attempt": attempt},
    }
    return Outcome(**values | more)


def outcomes_of(claim: Claim, state: State, **more: Any) -> list[Outcome]:
    """The same outcome for all of a claim."""
    return [
        outcome(message.queue_id, item.number, item.attempt, state, **more)
        for message, item in claimed(claim)
    ]


def claimed(claim: Claim) -> list[tuple[ClaimedMessage, ClaimedRecipient]]:
    """The recipients of a claim."""
    return [(message, item) for message in claim.messages for item in message.recipients]


def claimed_ids(claim: Claim) -> list[str]:
    """Recipient-ids of a claim, in order."""
    return [f"{message.queue_id}.{item.number}" for message, item in claimed(claim)]


async def settle(work: Work, outcomes: list[Outcome], *reports: Submission) -> list[str]:
    """Commit outcomes in one call; a word for each."""
    group = Group([settle_item(item) for item in outcomes], list(reports))
    request, contents = settle_request(work.holder, [group])
    answers = await work.store.scripts.call("settle", request, *contents)
    return [answer.decode() for answer in answers]


async def worker(store: Store, *, lease_s: float = LEASE_S) -> Work:
    """An incarnation that holds a lease."""
    work = Work(store, lease_s=lease_s, info={})
    await work.begin()
    return work


async def shift(store: Store, seconds: float) -> None:
    """Move the store's clock, be it stopped or not, be there memory or not."""
    meta = store.p + "meta"
    stopped = await store.wire.call("HEXISTS", meta, "frozen_ms")
    script = "#!lua flags=allow-oom\nreturn redis.call('HINCRBY', KEYS[1], ARGV[1], ARGV[2])"
    field = "frozen_ms" if stopped else "shift_ms"
    await store.wire.call("EVAL", script, 1, meta, field, int(seconds * 1000))


async def tick(work: Work, **more: Any) -> list[str]:
    """Let all that is due happen, deadlines too; ids of messages whose deadline was acted on."""
    acted: list[str] = []
    await work.store.wire.call("DEL", work.store.p + "ticker")
    while True:
        ticked = await work.tick(
            pools=("default",), uncertain=more.get("uncertain", NO_UNCERTAINTY), keep_events=10**6
        )
        for queue_id in ticked.committing:
            await work.store.commit(queue_id)
        for queue_id in ticked.due:
            acted.append(queue_id)
            await act_on_deadline(work, queue_id)
        if not ticked.worked and not ticked.due:
            return acted


async def act_on_deadline(work: Work, queue_id: str) -> None:
    """What the ticker of a worker does for a message that is due."""
    start, deadlines = 1, Deadlines(work.store)
    while start:
        due = await deadlines.due(queue_id, start)
        if due is None:
            return
        await deadlines.act(due)
        start = due.following


async def states(store: Store, queue_id: str) -> list[str]:
    """The states of a message's recipients, in order."""
    return [item.status for item in (await store.message(queue_id)).recipients]


async def event_types(store: Store, recipient_id: str = "") -> list[str]:
    """Types of all events, or of those of a recipient, in order."""
    events = await store.events(limit=100_000)
    return [
        event.type
        for event in events
        if not recipient_id or event.data.get("recipient_id") == recipient_id
    ]


async def everything(store: Store) -> dict[str, Any]:
    """All keys and values of the store but for hints that only live for seconds."""
    read: dict[bytes, tuple[Any, ...]] = {
        b"string": ("GET",),
        b"hash": ("HGETALL",),
        b"list": ("LRANGE", 0, -1),
        b"set": ("SMEMBERS",),
        b"zset": ("ZRANGE", 0, -1, "WITHSCORES"),
        b"stream": ("XRANGE", "-", "+"),
    }
    found: dict[str, Any] = {}
    for key in sorted(await store.wire.call("KEYS", store.p.replace("{", "?") + "*")):
        name = key.decode().removeprefix(store.p)
        if not name.startswith(("woken:", "ticker")):
            command, *rest = read[await store.wire.call("TYPE", key)]
            value = await store.wire.call(command, key, *rest)
            if name.startswith("ro:"):
                value = unpack(value)
            elif command == "HGETALL":
                value = dict(zip(value[::2], map(_plain, value[1::2]), strict=True))
            found[name] = sorted(value) if command == "SMEMBERS" else value
    return found


def _plain(value: bytes) -> Any:
    """A packed map as a map: the order in which it was packed means nothing."""
    return unpack(value) if value and value[0] >> 4 == 8 else value


async def stop_clock(store: Store) -> None:
    """Let the store's clock stand, so that only `shift` moves it."""
    await store.wire.call("HSET", store.p + "meta", "frozen_ms", 1_800_000_000_000)
