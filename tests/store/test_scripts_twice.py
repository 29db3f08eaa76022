"""Every script run twice with the same ids has the effect of once (the clock stands between).

Two calls are not meant to be repeated and by nobody are: `report` counts what it is told, and a
second `claim` leases more, which the worker that does not know of it gives back.
"""

import os
from collections.abc import Callable
from typing import Any

import pytest

from relay.model.state import State
from relay.model.suppression import Consequence, Origin, Suppression, SuppressionReason
from relay.store import queue
from relay.store.audit import audit
from relay.store.codec import encode_content
from relay.store.limits import Ceilings, Rate
from relay.store.queue import Store, accept_request, rows_of
from relay.store.scripts import NAMES
from relay.store.settler import Group, settle_item, settle_request
from relay.store.suppressions import Suppressions
from relay.store.work import Work
from tests.store import mail

LANE = mail.lane_of("one.test")
HALF = "0000000000000000000H"
STAGED = "0000000000000000000S"
ONE = "0000000000000000000A"
TOLD = "0000000000000000000T"
CEILINGS = Ceilings(
    slots=(("key", 5),), rates=(Rate("rate", 1.0, 5),), windows={"key": 5}, breakers=("site",)
)
NOT_MEANT_TO_BE_REPEATED = {"claim", "report"}
BOUNCED = Consequence(SuppressionReason.BOUNCED, Origin.BOUNCE, 60.0, 10)
Call = tuple[str, dict[str, Any], tuple[bytes, ...]]


async def prepared(store: Store) -> Work:
    """Mail in every state, with a session, a suspension under way, and time standing still."""
    await mail.stop_clock(store)
    work = await mail.worker(store)
    await work.routed("one.test", LANE, b"site", fresh_s=1000)
    expiring = mail.submission("x@two.test", queue_id=HALF, expires_after_s=50.0)
    await store.accept(expiring)
    await store.accept(mail.submission("a@one.test", "b@one.test", queue_id=ONE))
    told = mail.submission("y@two.test", "z@two.test", queue_id=TOLD, wants_dsn=True)
    await store.accept(told)
    await store.bounce(f"{TOLD}.1")
    await work.take(LANE, "TOKEN:1".replace("TOKEN", work.holder), CEILINGS)
    await work.claim(LANE, limit=1, octets=1 << 20)
    old = Suppression(name="old@two.test", reason=SuppressionReason.OTHER)
    await Suppressions(store).add([old], most=10)
    staged = mail.submission("c@one.test", "d@one.test", queue_id=STAGED)
    await store.scripts.call(
        "accept", accept_request(staged, rows_of(staged), 1) | {"staged": True}, b"\0content"
    )
    await mail.shift(store, 60)
    return work


def settle_call(work: Work, number: int, state: State, **more: Any) -> Call:
    done = mail.outcome(ONE, number, 1, state, **more)
    report = mail.submission("news@example.org", reverse_path=None, queue_id="0" * 19 + "R")
    request, contents = settle_request(work.holder, [Group([settle_item(done)], [report])])
    return "settle", request, tuple(contents)


def suppress_call(verb: str, rows: list[Any]) -> Call:
    request = {"verb": verb, "tenant": "default", "rows": rows, "most": 10, "actor": "me"}
    return "suppress", request, ()


def accept_call(queue_id: str, *, to: tuple[str, ...] = ("new@three.test",), **more: Any) -> Call:
    item = mail.submission(*to, queue_id=queue_id, idempotency_key="k", digest="d")
    content = encode_content(item.content)
    return "accept", accept_request(item, rows_of(item), 1) | more, (content,)


def deadline_call_of_bounce(work: Work) -> Call:
    report = mail.submission("news@example.org", reverse_path=None, queue_id="0" * 19 + "R")
    reports = [accept_request(report, rows_of(report), 1)]
    request = {"id": TOLD, "from": 1, "limit": 500, "act": "bounce", "asked": "1"}
    content = encode_content(report.content)
    return "deadline", {**request, "named": [1], "reports": reports}, (content,)


def suspend_call(verb: str, **more: Any) -> Call:
    queues = ["t|default||one.test", "t|default||two.test"]
    return "suspend", {"verb": verb, "queues": queues, **more}, ()


def route_call(**more: Any) -> Call:
    return "route", {"destination": "two.test", "after": "", "limit": 500, **more}, (b"site",)


def of_session(work: Work) -> dict[str, Any]:
    token = f"{work.holder}:1"
    return {"lane": LANE, "holder": work.holder, "token": token}


UNKNOWN_ROUTE = {"retry_ms": 1000, "max_retry_ms": 9000, "reason": "servfail", "text": ""}
RULE = {"id": "RULE", "match": ["", "", "", ""], "for_ms": 5000, "reason": "", "actor": ""}
VERB = {"id": ONE, "from": 1, "limit": 500, "only": 0, "reason": "r", "text": "t", "actor": "me"}
CALLS: dict[str, Callable[[Work], Call]] = {
    "accept": lambda w: accept_call("0" * 19 + "N", staged=False),
    "accept_chunk": lambda w: accept_call("0" * 19 + "N", staged=True),
    "commit": lambda w: ("commit", {"id": STAGED, "limit": 500}, ()),
    "commit_unknown": lambda w: ("commit", {"id": "0" * 20, "limit": 500}, ()),
    "route": lambda w: route_call(lane=LANE, fresh_ms=1000, stale_ms=5000),
    "route_unknown": lambda w: route_call(**UNKNOWN_ROUTE),
    "hand_out_routes": lambda w: (
        "hand_out",
        {"list": "unrouted", "queue": "route", "limit": 50, "again_ms": 9000},
        (),
    ),
    "hand_back": lambda w: ("hand_out", {"list": "wanting:default", "back": [LANE]}, ()),
    "take": lambda w: (
        "take",
        of_session(w)
        | {
            "token": f"{w.holder}:2",
            "slots": [["key", 5]],
            "windows": {"key": 5},
            "rates": [["rate", 1e6, 5]],
            "breakers": ["site"],
        },
        (),
    ),
    "release": lambda w: ("release", of_session(w) | {"slots": ["key"], "probes": ["site"]}, ()),
    "mark": lambda w: ("mark", {"holder": w.holder, "marks": [f"{ONE}.1:1"]}, ()),
    "settle_delivered": lambda w: settle_call(w, 1, State.DELIVERED),
    "settle_failed_with_report": lambda w: settle_call(w, 1, State.FAILED),
    "settle_deferred": lambda w: settle_call(w, 1, State.DEFERRED, delay_s=60),
    "settle_given_back": lambda w: settle_call(w, 1, State.READY),
    "settle_given_back_later": lambda w: settle_call(w, 1, State.READY, delay_s=60),
    "settle_held": lambda w: settle_call(w, 1, State.HELD),
    "tick": lambda w: (
        "tick",
        {
            "holder": w.holder,
            "limit": 500,
            "grace_ms": 0,
            "keep": 1000,
            "pools": ["default"],
            "uncertain": mail.NO_UNCERTAINTY,
            "expected": 0,
            "slew_ms": 0,
        },
        (),
    ),
    "lease_begin": lambda w: (
        "lease",
        {"holder": "ANOTHER", "lease_ms": 5000, "begin": True, "info": "x"},
        (),
    ),
    "lease_renew": lambda w: ("lease", {"holder": w.holder, "lease_ms": 5000, "info": "x"}, ()),
    "lease_stop": lambda w: ("lease", {"holder": w.holder, "lease_ms": 0, "stop": True}, ()),
    "forgo": lambda w: (
        "forgo",
        {
            "holder": w.holder,
            "rids": [f"{ONE}.1", f"{ONE}.2"],
            "entries": [f"s {w.holder}:1 key", f"l {w.holder}:1 {LANE}"],
            "uncertain": mail.NO_UNCERTAINTY,
        },
        (),
    ),
    "expiry": lambda w: (
        "deadline",
        {"id": HALF, "from": 1, "limit": 500, "act": "expiry", "named": [1], "reports": []},
        (),
    ),
    **{
        f"verb_{verb}": lambda w, verb=verb: ("verb", VERB | {"verb": verb}, ())  # type: ignore[misc]
        for verb in ("retry", "hold", "release", "cancel", "bounce")
    },
    "bounce_with_report": deadline_call_of_bounce,
    "verb_bounce_of_reported": lambda w: ("verb", VERB | {"verb": "bounce", "id": TOLD}, ()),
    "verb_on_staged": lambda w: ("verb", VERB | {"verb": "cancel", "id": STAGED}, ()),
    "meter": lambda w: (
        "meter",
        {"process": "P", "number": 1, "live_ms": 9000, "info": "x", "counts": {"lint|x": 3}},
        (),
    ),
    "tell": lambda w: (
        "tell",
        {
            "id": ONE,
            "only": 1,
            "event": "recipient.bounced",
            "address": "a@one.test",
            "keep_ms": 9000,
            "data": {"reason": "r", "text": "t"},
        },
        (),
    ),
    "tell_of_suppressed": lambda w: (
        "tell",
        {
            "id": ONE,
            "only": 1,
            "event": "recipient.complained",
            "address": "",
            "keep_ms": 9000,
            "data": {"reason": "complaint", "text": "t"},
            "suppress": ["spam", "complaint", 0, 10],
            "tenant": "default",
        },
        (),
    ),
    "settle_failed_and_suppressed": lambda w: settle_call(w, 1, State.FAILED, consequence=BOUNCED),
    "accept_of_suppressed": lambda w: accept_call("0" * 19 + "N", to=("old@two.test", "n@x.test")),
    "accept_of_suppressed_chunk": lambda w: accept_call(
        "0" * 19 + "N", to=("old@two.test",), staged=True
    ),
    "suppress": lambda w: suppress_call(
        "add", [["a@b.test", "spam", "manual", 0, 0, 9000, "", ""]]
    ),
    "suppress_again": lambda w: suppress_call(
        "add", [["old@two.test", "spam", "manual", 0, 0, 0, "", ""]]
    ),
    "suppress_no_more": lambda w: suppress_call("remove", ["old@two.test", "nobody@two.test"]),
    "suppressions": lambda w: (
        "suppressions",
        {"tenant": "default", "after": "", "since": 0, "limit": 5},
        (),
    ),
    "suppressions_named": lambda w: (
        "suppressions",
        {"tenant": "default", "names": ["old@two.test"]},
        (),
    ),
    "suspension_begins": lambda w: suspend_call("rule", **RULE),
    "suspension_ends": lambda w: suspend_call("over", id="RULE"),
    "suspension_is_followed": lambda w: suspend_call("follow"),
    "suspension_is_done": lambda w: suspend_call("done", id="RULE"),
    "park": lambda w: suspend_call("park", for_ms=5000, reason="r", text="t"),
    "park_lane": lambda w: suspend_call("park", lane=LANE, for_ms=5000, reason="r", text="t"),
    "flush": lambda w: suspend_call("flush", limit=500),
}


async def test_no_script_is_left_out(store: Store) -> None:
    work = await prepared(store)
    called = {call(work)[0] for call in CALLS.values()}
    assert called | NOT_MEANT_TO_BE_REPEATED == set(NAMES)


@pytest.mark.parametrize("name", CALLS)
async def test_script_run_twice_has_the_effect_of_once(store: Store, name: str) -> None:
    work = await prepared(store)
    if name.startswith("suspension_"):
        await store.scripts.call("suspend", suspend_call("rule", **RULE)[1])
    script, request, blobs = CALLS[name](work)
    await store.scripts.call(script, request, *blobs)
    once = await mail.everything(store)
    assert await audit(store) == []
    await store.scripts.call(script, request, *blobs)
    assert await mail.everything(store) == once


async def test_claim_whose_answer_was_lost_is_given_back(store: Store) -> None:
    """The worker lives on, so its lease would keep what it does not know of for ever."""
    work = await mail.worker(store)
    await work.routed("one.test", LANE, b"site", fresh_s=1000)
    receipt = await store.accept(mail.submission("a@one.test", "b@one.test"))
    request = {"lane": LANE, "n": 5, "octets": 1 << 20, "inline": 1 << 20, "rates": []}
    await store.scripts.call("claim", {**request, "holder": work.holder})
    assert await work.reconcile(mail.NO_UNCERTAINTY) == 0  # one look may be too early
    assert await work.reconcile(mail.NO_UNCERTAINTY) == 2
    assert await mail.states(store, receipt.id) == ["ready", "ready"]
    assert await audit(store) == []


async def test_slots_whose_answer_was_lost_are_given_back(store: Store) -> None:
    work = await mail.worker(store)
    await work.routed("one.test", LANE, b"site", fresh_s=1000)
    await store.accept(mail.submission("a@one.test"))
    token = work.new_token()
    await work.take(LANE, token, CEILINGS)
    work.holdings.released(token)  # as if the answer had not come
    await work.reconcile(mail.NO_UNCERTAINTY)
    await work.reconcile(mail.NO_UNCERTAINTY)
    assert await store.wire.call("EXISTS", store.p + "sl:key", store.p + "ls:" + LANE) == 0
    assert await work.wanting("default", 5) == [LANE]


LARGE = os.urandom(queue.BESIDE_OCTETS + 1)


async def test_large_content_that_is_handed_over_twice_stays_for_good(store: Store) -> None:
    item = mail.submission("a@one.test", content=LARGE)
    for _ in range(2):
        await store.accept(item)
    assert await store.content(item.queue_id) == LARGE
    assert await store.wire.call("TTL", f"{store.p}c:{item.queue_id}") == -1


async def test_large_content_that_no_script_took_goes_by_itself(store: Store) -> None:
    await store.accept(
        mail.submission("a@one.test", content=LARGE, idempotency_key="k", digest="1")
    )
    again = mail.submission("a@one.test", content=LARGE, idempotency_key="k", digest="1")
    await store.accept(again)
    (left,) = await store.wire.call("KEYS", f"{store.p}beside:*".replace("{", "\\{"))
    assert 0 < await store.wire.call("TTL", left) <= queue.BESIDE_S


async def test_message_whose_large_content_did_not_arrive_is_not_accepted(store: Store) -> None:
    item = mail.submission("a@one.test", content=LARGE)
    request = accept_request(item, rows_of(item), 1) | {"beside": "beside:nowhere"}
    answer = await store.scripts.call("accept", request, b"")
    assert answer[0] == b"lost"
    assert await store.wire.call("EXISTS", f"{store.p}m:{item.queue_id}") == 0
    assert await audit(store) == []
