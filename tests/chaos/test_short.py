"""The standing fault suite in its short form; each scenario's module has the long one."""

from collections.abc import Callable
from pathlib import Path

import pytest

from tests.chaos import (
    f01_processes_killed,
    f02_redis_killed,
    f02b_power_lost,
    f03_full,
    f04_redis_away,
    f05_stolen_leases,
    f06_random_deferrals,
    f07_limiter,
    f08_dead_domain,
    f09_dns_failures,
    f10_slow_drip,
    f14_clock_steps,
    f15_rolling_restarts,
    f17_backlog,
    f18_two_hosts,
    f19_paused_worker,
    f20_sentinel,
)
from tests.support.hosts import why_not

Tell = Callable[[object], None]


async def test_kills_of_processes_lose_nothing_and_hide_no_duplicate(
    tmp_path: Path, tell: Tell
) -> None:
    tell(await f01_processes_killed.run(tmp_path, f01_processes_killed.SHORT))


async def test_kills_of_redis_lose_nothing_and_hide_no_duplicate(
    tmp_path: Path, tell: Tell
) -> None:
    tell(await f02_redis_killed.run(tmp_path, f02_redis_killed.SHORT))


async def test_losses_of_power_lose_nothing_where_redis_always_syncs(
    tmp_path: Path, tell: Tell
) -> None:
    tell(await f02b_power_lost.run(tmp_path, f02b_power_lost.SHORT))


async def test_worker_whose_lease_is_stolen_at_data_writes_no_dot(
    tmp_path: Path, tell: Tell
) -> None:
    tell(await f05_stolen_leases.run(tmp_path, f05_stolen_leases.SHORT))


async def test_deliveries_at_their_dot_outlive_the_absence_of_redis(
    tmp_path: Path, tell: Tell
) -> None:
    tell(await f04_redis_away.run(tmp_path, f04_redis_away.SHORT))


async def test_full_memory_and_full_disks_lose_nothing_and_take_nothing(
    tmp_path: Path, tell: Tell
) -> None:
    tell(await f03_full.run(tmp_path, f03_full.SHORT))


async def test_messages_deferred_at_random_arrive_once_each(tmp_path: Path, tell: Tell) -> None:
    tell(await f06_random_deferrals.run(tmp_path, f06_random_deferrals.SHORT))


async def test_receiver_of_few_connections_gets_all_its_mail_by_them(
    tmp_path: Path, tell: Tell
) -> None:
    tell(await f07_limiter.run(tmp_path, f07_limiter.SHORT))


async def test_dead_domain_costs_live_ones_nothing(tmp_path: Path, tell: Tell) -> None:
    tell(await f08_dead_domain.run(tmp_path, f08_dead_domain.SHORT))


async def test_failing_dns_loses_denies_and_doubles_nothing(tmp_path: Path, tell: Tell) -> None:
    tell(await f09_dns_failures.run(tmp_path, f09_dns_failures.SHORT))


async def test_dripping_servers_take_no_place_from_others(tmp_path: Path, tell: Tell) -> None:
    tell(await f10_slow_drip.run(tmp_path, f10_slow_drip.SHORT))


async def test_clocks_that_are_set_expire_nothing_and_lose_no_lease(
    tmp_path: Path, tell: Tell
) -> None:
    tell(await f14_clock_steps.run(tmp_path, f14_clock_steps.SHORT))


async def test_workers_told_to_stop_lose_nothing_and_leave_nothing_uncertain(
    tmp_path: Path, tell: Tell
) -> None:
    tell(await f15_rolling_restarts.run(tmp_path, f15_rolling_restarts.SHORT))


async def test_tick_and_pages_cost_the_same_however_much_is_queued(
    tmp_path: Path, tell: Tell
) -> None:
    tell(await f17_backlog.run(tmp_path, f17_backlog.SHORT))


@pytest.mark.skipif(bool(why_not()), reason=why_not())
async def test_host_that_is_cut_off_loses_nothing_and_keeps_no_connection(
    tmp_path: Path, tell: Tell
) -> None:
    tell(await f18_two_hosts.run(tmp_path, f18_two_hosts.SHORT))


async def test_worker_that_stood_still_loses_nothing_and_hides_no_duplicate(
    tmp_path: Path, tell: Tell
) -> None:
    tell(await f19_paused_worker.run(tmp_path, f19_paused_worker.SHORT))


async def test_failover_of_redis_loses_nothing_that_replicas_had_to_have(
    tmp_path: Path, tell: Tell
) -> None:
    tell(await f20_sentinel.run(tmp_path, f20_sentinel.SHORT))
