"""TLS that fails what some mail demands keeps no other mail from the same site."""

from collections.abc import AsyncIterator

import msgspec
import pytest

from relay.delivery.carrier import Carrier
from relay.delivery.context import Context
from relay.delivery.directory import load_directory
from relay.delivery.lanes import Lanes
from relay.delivery.plan import Plan
from relay.delivery.routing import Unroutable
from relay.delivery.values import Dialogue
from relay.model.lane import Lane
from relay.model.verdict import Scope, Severity, Verdict
from relay.net.resolver import Resolver
from relay.policy.shape import Shape
from relay.settings.schema import Delivery, Mode, Settings
from relay.store.limits import Report, Taken
from relay.store.queue import Store
from relay.store.settler import Settler
from tests.store import mail

SITE = "mx.test:25"
FAILED = "tls_failed"


class Lease(msgspec.Struct):
    """One that was just renewed."""

    age_s: float = 0.0


async def _serve_nothing(_lane: str) -> Taken:
    return Taken("idle")


@pytest.fixture
async def context(store: Store) -> AsyncIterator[Context]:
    settings = Settings(delivery=Delivery(mode=Mode.SINK, hostname="relay.example"))
    work, resolver = await mail.worker(store), Resolver.from_settings(settings)
    settler = Settler(work, on_fenced=lambda: None)
    lanes = Lanes(settings.worker, _serve_nothing)
    directory = load_directory(settings, resolver, signs=False)
    yield Context(directory, work, settler, Lease(), lanes)
    await settler.stop(within_s=1)
    await resolver.aclose()


def plan(security: str) -> Plan:
    return Plan(Lane(SITE, security=security), (), Dialogue("relay.example"), Shape(), "")


async def taken(context: Context, plan: Plan) -> Taken:
    """What a session of the plan is told that wants to begin."""
    domain = f"{plan.lane.security.replace('+', '-')}.test"
    await context.work.store.accept(mail.submission(f"ann@{domain}"))
    await context.work.routed(domain, str(plan.lane), b"site", fresh_s=1000)
    token, ceilings = context.work.new_token(), context.ceilings(plan)
    return await context.work.take(str(plan.lane), token, ceilings)


async def test_tls_that_fails_a_demand_keeps_back_what_demands_it(context: Context) -> None:
    for demand in ("required", "verified", "verified+mta-sts", "opportunistic+dane"):
        key = context.tls_breaker(plan(demand))
        await context.work.report(Report(breakers=((key, False, FAILED, "expired"),)))
        refused = await taken(context, plan(demand))
        assert (refused.word, refused.reason, refused.key) == ("no", FAILED, key)
    assert (await taken(context, plan("opportunistic"))).word == "ok"


@pytest.mark.parametrize(
    ("failed", "other"),
    [
        ("opportunistic+dane.a.test", "opportunistic+dane.b.test"),
        ("verified+mta-sts.0a1b2c3d", "verified+mta-sts.4e5f6a7b"),
        ("verified+mta-sts.0a1b2c3d", "verified+mta-sts"),
    ],
)
async def test_tls_that_fails_what_one_domain_publishes_keeps_no_other_domain_back(
    context: Context, failed: str, other: str
) -> None:
    key = context.tls_breaker(plan(failed))
    await context.work.report(Report(breakers=((key, False, FAILED, "expired"),)))
    assert (await taken(context, plan(failed))).reason == FAILED
    assert (await taken(context, plan(other))).word == "ok"


async def test_site_that_fails_mail_without_demands_keeps_all_back(context: Context) -> None:
    key = context.tls_breaker(plan("opportunistic"))
    await context.work.report(Report(breakers=((key, False, FAILED, "expired"),)))
    for demand in ("opportunistic", "required", "verified", "verified+mta-sts"):
        assert (await taken(context, plan(demand))).reason == FAILED


@pytest.mark.parametrize(
    ("demand", "reason", "narrows"),
    [
        ("verified+mta-sts", FAILED, False),
        ("opportunistic+dane.a.test", FAILED, False),
        ("required", FAILED, False),
        ("opportunistic", FAILED, True),
        ("verified+mta-sts", "connection_refused", True),
    ],
)
async def test_tls_that_fails_a_demand_leaves_the_sites_window_alone(
    context: Context, demand: str, reason: str, narrows: bool
) -> None:
    failed = plan(demand)
    verdict = Verdict(Severity.TRANSIENT, Scope.HOST, reason, "It failed.")
    for _ in range(20):  # more than a window outlives
        await Carrier(failed, context, context.work.new_token()).fail(verdict)
    other = await taken(context, plan("opportunistic"))
    assert (other.word == "ok") is not narrows, other
    windows = await context.work.store.wire.call("KEYS", f"{context.work.store.p}fb:*")
    assert bool(windows) is narrows


@pytest.mark.parametrize("by_demand", [True, False])
async def test_hosts_without_what_a_lane_demands_are_hosts_to_other_lanes(
    context: Context, by_demand: bool
) -> None:
    lane = str(plan("opportunistic+dane").lane)
    verdict = Verdict(Severity.TRANSIENT, Scope.DOMAIN, "dns_unavailable", "No answer.")
    for _ in range(5):
        await context.rest(lane, Unroutable(verdict, 60.0, by_demand))
    other = await taken(context, plan("opportunistic"))
    assert (other.word == "ok") is by_demand, other
