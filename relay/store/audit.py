"""The invariants of a store, checked by walking all of it (`doctor --store`).

What must hold: each recipient is in exactly one state and in exactly the structure of that state;
counters and views equal the structures; content exists exactly while something needs it; whatever
waits will be looked at again: by a timer, by a worker that was asked, or by a session that lives.

The walk is not one moment: on a store at work, findings that do not come back mean nothing.
It reads everything: for an operator's question and for tests, never for a schedule.
"""

from collections import Counter, defaultdict
from collections.abc import Iterator

from relay.store.codec import SIGN_CHARACTERS, unpack
from relay.store.keys import split_queue_name
from relay.store.queue import Store
from relay.store.snapshot import Snapshot, StoredRecipient, take_snapshot

_FINAL = frozenset("DFXCS")
_WORD = {"s": "staged", "r": "ready", "d": "deferred", "h": "held", "c": "claimed"}
_BIN_MS = 300_000
#: A deadline that met only claimed recipients is looked at again after this.
_DEADLINE_AGAIN_MS = 30_000


async def audit(store: Store) -> list[str]:
    """Every breach of the store's invariants, one sentence each; empty: all is well."""
    return findings(await take_snapshot(store))


def findings(snapshot: Snapshot) -> list[str]:
    """The breaches in a snapshot."""
    checks = (
        _messages,
        _structures,
        _counters,
        _queues,
        _lanes,
        _liveness,
        _holders,
        _suppressions,
    )
    return [*snapshot.unreadable, *(finding for check in checks for finding in check(snapshot))]


def _is_staging(s: Snapshot, queue_id: str) -> bool:
    """Whether rows of a staged message may still be missing."""
    fields = s.of("m")[queue_id]
    return "rows" in fields and "next" not in fields and "gone" not in fields


def _messages(s: Snapshot) -> Iterator[str]:
    """Rows, the count of open recipients, content, and the index that ends the message."""
    by_message: dict[str, list[StoredRecipient]] = defaultdict(list)
    for recipient in s.recipients.values():
        by_message[recipient.queue_id].append(recipient)
    for queue_id, message in s.messages.items():
        rows = by_message[queue_id]
        still_open = sum(1 for row in rows if row.record.state not in _FINAL)
        if _is_staging(s, queue_id):
            if int(s.of("m")[queue_id]["rows"]) != len(rows):
                yield f"message {queue_id} counts its staged rows wrongly"
            still_open += message.count - len(rows)
        elif len(rows) != message.count and "gone" not in s.of("m")[queue_id]:
            yield f"message {queue_id} has {len(rows)} of {message.count} recipients"
        counted = int(s.of("m")[queue_id].get("o", 0))
        if counted != still_open:
            yield f"message {queue_id} counts {counted} open recipients, there are {still_open}"
        copies = (queue_id in s.of("c")) + ("b" in s.of("m")[queue_id])
        if copies != (still_open > 0):
            yield f"message {queue_id} with {still_open} open recipients: content is amiss"
        yield from _index_of(s, queue_id, still_open)
    for queue_id in s.of("c").keys() - s.messages.keys():
        yield f"content of {queue_id}, which does not exist"
    for name in s.of("b"):
        if name.partition(":")[0] not in s.messages:
            yield f"bucket {name} of a message that does not exist"


def _index_of(s: Snapshot, queue_id: str, still_open: int) -> Iterator[str]:
    deadline = s.one("deadlines").get(queue_id)
    if still_open == 0:
        if deadline is not None:
            yield f"finished message {queue_id} has a deadline"
        return
    message = s.messages[queue_id]
    if queue_id in s.one("finished"):
        yield f"open message {queue_id} is indexed as finished"
    times = [time for time in (message.notice_ms, message.expires_ms) if time > 0]
    if _is_staging(s, queue_id):
        times = [message.expires_ms]
    latest = max(min(times), s.now_ms + _DEADLINE_AGAIN_MS) + 1
    if deadline is None or deadline > latest:
        yield f"message {queue_id} will miss its deadline"


def _structures(s: Snapshot) -> Iterator[str]:
    """Each live recipient is where its state says, and nothing else is there."""
    listed = {kind: {q: set(ids) for q, ids in s.of(kind).items()} for kind in ("qr", "qy")}
    held_by: dict[str, str] = {}
    for holder, claims in s.of("ic").items():
        for rid in claims:
            if rid in held_by:
                yield f"recipient {rid} is claimed by two incarnations"
            held_by[rid] = holder
    for rid, recipient in s.recipients.items():
        record, queue = recipient.record, recipient.queue
        if record.state == "r":
            kind = "qy" if record.step > 0 else "qr"
            if rid not in listed[kind].get(queue, ()):
                yield f"ready recipient {rid} is in no list of queue {queue}"
        elif record.state == "d" and s.of("qd").get(queue, {}).get(rid) != record.due_ms:
            yield f"deferred recipient {rid} is not due in queue {queue} when its record says"
        elif record.state == "h" and rid not in s.of("qh").get(queue, {}):
            yield f"held recipient {rid} is not among the held of queue {queue}"
        elif record.state == "c" and held_by.get(rid) != record.holder:
            yield f"claimed recipient {rid} is not among the claims of {record.holder}"
        if (record.state == "c") is not (len(record.holder) > SIGN_CHARACTERS):
            yield f"recipient {rid} is {record.state} with holder {record.holder!r}"
    for kind, letter in (("qd", "d"), ("qh", "h")):
        for queue, members in s.of(kind).items():
            for rid in members:
                if rid not in s.recipients or s.recipients[rid].record.state != letter:
                    yield f"queue {queue} has {rid} as {_WORD[letter]}, which it is not"
    for rid in held_by:
        if rid not in s.recipients or s.recipients[rid].record.state != "c":
            yield f"{held_by[rid]} holds {rid}, which is not claimed"


def _counters(s: Snapshot) -> Iterator[str]:
    """Counters and views equal what they count."""
    states: Counter[str] = Counter()
    views: dict[str, Counter[str]] = defaultdict(Counter)
    for recipient in s.recipients.values():
        if recipient.record.state in _FINAL:
            continue
        states[_WORD[recipient.record.state]] += 1
        views[recipient.destination][str(int(recipient.message.created_ms // _BIN_MS))] += 1
    counted = {word: int(number) for word, number in s.one("states").items() if int(number)}
    if counted != states:
        yield f"states are counted as {counted}, they are {dict(states)}"
    for destination in views.keys() | s.of("v").keys():
        view = {name: int(number) for name, number in s.of("v").get(destination, {}).items()}
        if view != views[destination]:
            yield f"the view of {destination} is {view}, not {dict(views[destination])}"


def _queues(s: Snapshot) -> Iterator[str]:
    """Queue counters; a queue exists, and is indexed, exactly while it has recipients."""
    expected: dict[str, Counter[str]] = defaultdict(Counter)
    for recipient in s.recipients.values():
        state = recipient.record.state
        if state == "r" and recipient.record.step > 0:
            state = "y"
        if state in "rydhc":
            expected[recipient.queue][state] += 1
    names = s.one("queues").keys()
    for queue in expected.keys() | s.of("q").keys() | names:
        fields = s.of("q").get(queue, {})
        counts = {letter: int(fields.get(letter, 0)) for letter in "rydhc"}
        counts = {letter: number for letter, number in counts.items() if number}
        if counts != expected[queue]:
            yield f"queue {queue} counts {counts}, has {dict(expected[queue])}"
        if not expected[queue] and "q:" + queue not in s.one("timers"):
            yield f"queue {queue} is empty and will stay"
        destination = split_queue_name(queue)[3]
        if queue not in names or queue not in s.of("dest").get(destination, {}):
            yield f"queue {queue} is missing in an index"
    for destination, members in s.of("dest").items():
        for queue in members.keys() - names:
            yield f"destination {destination} names queue {queue}, which does not exist"
    for kind in ("qr", "qy", "qd", "qh"):
        for queue in s.of(kind).keys() - names:
            yield f"structure {kind} of queue {queue}, which does not exist"


def _lanes(s: Snapshot) -> Iterator[str]:
    """A queue is in one lane at most, the one that it names; tenants are there while it is."""
    places: dict[str, list[str]] = defaultdict(list)
    tenants: set[tuple[str, str, str]] = set()
    for name, members in s.of("lq").items():
        site, pool, security, rest = name.split("|", 3)
        credentials, letter, tenant = rest.split(":", 2)
        lane = "|".join((site, pool, security, credentials))
        tenants.add((lane, letter, tenant))
        for queue in members:
            places[queue].append(lane)
            if queue.split("|")[:2] != [letter, tenant]:
                yield f"queue {queue} waits among those of tenant {tenant}, class {letter}"
    for queue in s.one("queues"):
        lane = s.of("q").get(queue, {}).get("on", "")
        if places.pop(queue, []) != ([lane] if lane else []):
            yield f"queue {queue} is not (only) in its lane {lane!r}"
    for queue, lanes in places.items():
        yield f"lanes {lanes} have queue {queue}, which does not exist"
    indexed = {
        (lane, letter, tenant)
        for letter in "tb"
        for lane, members in s.of("l" + letter).items()
        for tenant in members
    }
    for lane, letter, tenant in indexed ^ tenants:
        yield f"lane {lane} has tenant {tenant} of class {letter} without its queues, or they him"


def _liveness(s: Snapshot) -> Iterator[str]:
    """Nothing that waits is forgotten."""
    timers, unrouted = s.one("timers"), s.one("unrouted")
    for queue, fields in s.of("q").items():
        due = min(s.of("qd").get(queue, {}).values(), default=None)
        if due is not None and timers.get("q:" + queue, float("inf")) > max(due, s.now_ms + 1):
            yield f"queue {queue} has deferred mail and no timer that comes in time"
        if int(fields.get("r", 0)) + int(fields.get("y", 0)) == 0 or fields.get("on"):
            continue
        blocked = max(float(fields.get("su", 0)), float(fields.get("pu", 0)))
        destination = split_queue_name(queue)[3]
        by_timer = blocked > 0 and timers.get("q:" + queue, float("inf")) <= blocked
        by_route = destination in unrouted or "d:" + destination in timers
        if not by_timer and not by_route:
            yield f"queue {queue} has ready mail and nobody will look at it"
    wanting = {lane for lanes in s.of("wanting").values() for lane in lanes}
    for lane in s.of("lt").keys() | s.of("lb").keys():
        if lane in wanting or "l:" + lane in timers or s.of("ls").get(lane):
            continue
        yield f"lane {lane} has queues and nobody will look at it"
    for name in timers:
        if name.startswith("q:") and name[2:] not in s.of("q"):
            yield f"timer of queue {name[2:]}, which does not exist"
    for rid, recipient in s.recipients.items():
        is_held = recipient.record.state == "h" and recipient.record.wish == "bounce"
        if is_held and "bo" not in s.of("m")[recipient.queue_id]:
            yield f"recipient {rid} is to be bounced and nobody writes the report"
    for queue_id, fields in s.of("m").items():
        if "bo" in fields and s.one("deadlines").get(queue_id, s.now_ms) > s.now_ms + 1:
            yield f"message {queue_id} has bounces that are not due"
    for queue_id in s.one("committing") - s.messages.keys():
        yield f"message {queue_id} is being committed and does not exist"
    for queue_id, fields in s.of("m").items():
        if "rows" in fields and "next" in fields and queue_id not in s.one("committing"):
            yield f"message {queue_id} is half committed and nobody goes on"


def _holders(s: Snapshot) -> Iterator[str]:
    """What hangs on an incarnation hangs on one that is known; slots are held by someone."""
    known = s.one("incarnations").keys()
    for kind in ("ic", "is", "ih", "iv"):
        for holder in s.of(kind).keys() - known:
            yield f"{kind} of incarnation {holder}, which is not known"
    for holder in s.one("workers").keys() - known:
        yield f"worker {holder} is listed and not known"
    for holder, marks in s.of("is").items():
        for mark in marks:
            rid, _, attempt = mark.rpartition(":")
            recipient = s.recipients.get(rid)
            if recipient is None or recipient.record.holder != holder:
                yield f"mark {mark} of {holder} for a recipient that it does not hold"
            elif recipient.record.attempt != int(attempt):
                yield f"mark {mark} of {holder} for an attempt that is over"
    entries = {entry for members in s.of("ih").values() for entry in members}
    slots = {f"s {token} {key}" for key, tokens in s.of("sl").items() for token in tokens}
    slots |= {f"l {token} {lane}" for lane, tokens in s.of("ls").items() for token in tokens}
    probes = {
        f"p {fields['probe']} {key}" for key, fields in s.of("br").items() if fields.get("probe")
    }
    for lane, tokens in s.of("lw").items():
        for token in set(tokens) - set(s.of("ls").get(lane, ())):
            yield f"session {token} of lane {lane} works and is not held"
    for entry in (slots | probes) - entries:
        yield f"slot or probe {entry!r} hangs on nobody"
    for entry in {entry for entry in entries if entry[0] in "sl"} - slots:
        yield f"slot {entry!r} is noted and not held"


def _suppressions(s: Snapshot) -> Iterator[str]:
    """Each entry of a suppression list is shown once, and ends if it says so."""
    for tenant in s.of("sup").keys() | s.of("sups").keys() | s.of("supx").keys():
        entries = {name: unpack(raw) for name, raw in s.of("sup").get(tenant, {}).items()}
        since = {name: float(entry[3]) for name, entry in entries.items()}
        ends = {name: float(entry[4]) for name, entry in entries.items() if entry[4]}
        if s.of("sups").get(tenant, {}) != since:
            yield f"the suppression list of {tenant} is not shown as it is"
        if s.of("supx").get(tenant, {}) != ends:
            yield f"the suppression list of {tenant} does not end as it says"
