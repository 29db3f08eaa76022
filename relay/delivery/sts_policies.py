"""The MTA-STS policies of recipient domains: discovered, fetched, kept for their age (RFC 8461).

A policy that was once fetched holds until its age ends, whatever becomes of the domain's DNS or of
its policy host: that is what protects from who can forge either. Where none was ever fetched, a
domain whose policy cannot be had is one without (§5.1).
"""

import asyncio
import time
from collections import OrderedDict
from random import Random

import msgspec
import structlog

from relay.delivery.addresses import AddressRules, find_addresses
from relay.model.errors import ConfigError, ResolverUnavailable
from relay.net.dns_cache import DnsCache
from relay.net.mta_sts import PolicyUnavailable, fetch_policy
from relay.net.resolver import Resolver
from relay.policy.mta_sts import POLICY_OCTETS, StsPolicy, read_policy, read_record
from relay.policy.tls_report import STS_INVALID, STS_UNFETCHED, STS_UNTRUSTED
from relay.settings.kinds import parse_listen
from relay.settings.schema import Mode, Settings

#: After a fetch that failed the next one is not begun for so long.
FAILED_REST_S = 300.0
#: A policy is fetched again when so much of its age has passed, and at least so often.
REFRESH_SHARE, REFRESH_S = 0.5, 86_400.0
#: Policies kept in process, and fetches under way at a time.
POLICIES_KEPT, FETCHES = 10_000, 50
_ADDRESSES_TRIED = 2
_HTTPS = 443

_log = structlog.get_logger("relay.mta_sts")


class Kept(msgspec.Struct, frozen=True, array_like=True):
    """What is known of a domain: the id and policy fetched last, and when (epoch seconds).

    `failed`: when the last fetch, of the policy with the id `failed_id`, did not come about; 0.0
    where the last one did; `result` is what a TLS report calls that.
    """

    id: str = ""
    policy: StsPolicy | None = None
    fetched: float = 0.0
    failed: float = 0.0
    failed_id: str = ""
    problem: str = ""
    result: str = ""

    def valid(self, now: float) -> StsPolicy | None:
        """The policy, while its age lasts."""
        if self.policy is None or now >= self.fetched + self.policy.max_age_s:
            return None
        return self.policy

    def is_resting(self, wanted: str, now: float) -> bool:
        """Whether a fetch of this id has just failed."""
        return self.failed_id == wanted and now < self.failed + FAILED_REST_S

    def is_due(self, now: float) -> bool:
        """Whether the policy should be fetched again before it ends."""
        if self.policy is None:
            return False
        return now >= self.fetched + min(self.policy.max_age_s * REFRESH_SHARE, REFRESH_S)


_decoder = msgspec.msgpack.Decoder(Kept)
_encoder = msgspec.msgpack.Encoder()
_UNKNOWN = Kept()


class StsPolicies:
    """`await policies.of(domain)`; one fetch at a time for each domain."""

    def __init__(
        self, resolver: Resolver, rules: AddressRules, cache: DnsCache | None, port: int
    ) -> None:
        self._resolver = resolver
        self._rules = rules
        self._shared = cache
        self._port = port
        self._kept: OrderedDict[str, Kept] = OrderedDict()
        self._fetches: dict[str, asyncio.Task[Kept]] = {}
        self._places = asyncio.Semaphore(FETCHES)
        self._random = Random()

    @classmethod
    def from_settings(
        cls, settings: Settings, resolver: Resolver, cache: DnsCache | None
    ) -> "StsPolicies | None":
        """None where policies are not asked for, or the simulated internet serves none."""
        is_live = settings.delivery.mode is Mode.LIVE
        if not settings.tls.mta_sts or not (is_live or settings.sink.https):
            return None
        port = _HTTPS if is_live else parse_listen(settings.sink.https).port
        return cls(resolver, AddressRules.for_mx(settings, port), cache, port)

    async def aclose(self) -> None:
        """Abandon what is under way."""
        fetches = list(self._fetches.values())
        for fetch in fetches:
            fetch.cancel()
        await asyncio.gather(*fetches, return_exceptions=True)

    async def of(self, domain: str) -> StsPolicy | None:
        """The policy that holds for the domain now, fetched where need be; None: it has none."""
        now = time.time()
        wanted = await self._published(domain)
        kept = await self._recall(domain)
        policy = kept.valid(now)
        if not wanted or kept.is_resting(wanted, now):
            return policy
        if policy is not None and kept.id == wanted:
            if kept.is_due(now):
                self._start(domain, wanted, kept)
            return policy
        return (await asyncio.shield(self._start(domain, wanted, kept))).valid(now)

    async def known(self, domain: str) -> tuple[StsPolicy | None, str, str]:
        """The policy that was found last, and why the one in DNS could not be had: a result type
        and words, or empty. Nothing is fetched."""
        kept, wanted = await self._recall(domain), await self._published(domain)
        policy = kept.valid(time.time())
        is_unfetched = bool(kept.failed and wanted == kept.failed_id)
        return (policy, kept.result, kept.problem) if is_unfetched else (policy, "", "")

    async def look_up(self, domain: str) -> tuple[str, Kept]:
        """For who wants to see it: the id in DNS now, and what is known of the policy."""
        await self.of(domain)
        return await self._published(domain), await self._recall(domain)

    async def _published(self, domain: str) -> str:
        """The id in DNS; empty where there is none, or none is to be had."""
        try:
            return read_record(await self._resolver.texts(f"_mta-sts.{domain}"))
        except ResolverUnavailable:
            return ""

    def _start(self, domain: str, wanted: str, kept: Kept) -> asyncio.Task[Kept]:
        fetch = self._fetches.get(domain)
        if fetch is None:
            fetch = asyncio.create_task(self._renew(domain, wanted, kept), name=f"mta-sts:{domain}")
            self._fetches[domain] = fetch
        return fetch

    async def _renew(self, domain: str, wanted: str, kept: Kept) -> Kept:
        try:
            async with self._places:
                policy = read_policy(await self._fetch(domain))
        except (PolicyUnavailable, ConfigError, ValueError) as error:
            problem = str(error)[:200]
            _log.info("mta_sts.not_fetched", domain=domain, detail=problem)
            renewed = msgspec.structs.replace(
                kept,
                failed=time.time(),
                failed_id=wanted,
                problem=problem,
                result=_result_of(error),
            )
        else:
            _log.info("mta_sts.fetched", domain=domain, mode=policy.mode.value)
            renewed = Kept(wanted, policy, time.time())
        finally:
            del self._fetches[domain]
        await self._remember(domain, renewed)
        return renewed

    async def _fetch(self, domain: str) -> str:
        """The text of the policy, from the first address that gives it."""
        host = f"mta-sts.{domain}"
        found = await find_addresses(
            [[host]],
            self._rules,
            resolver=self._resolver,
            wanted=_ADDRESSES_TRIED,
            random=self._random,
        )
        if not found.addresses:
            trouble = found.unavailable or found.refused or found.missing
            raise PolicyUnavailable(trouble or f"{host} is an address of our own")
        problem = PolicyUnavailable("no address was asked")
        for _, address in found.addresses:
            try:
                return await fetch_policy(
                    domain,
                    address,
                    self._port,
                    limit=POLICY_OCTETS,
                    source_address=self._rules.source_address,
                )
            except PolicyUnavailable as error:
                problem = error
        raise problem

    async def _recall(self, domain: str) -> Kept:
        kept = self._kept.get(domain)
        if kept is not None or self._shared is None:
            return kept or _UNKNOWN
        try:
            value = await self._shared.get(_key(domain))
            return _UNKNOWN if value is None else _decoder.decode(value)
        except Exception:  # whatever is wrong with a cache is a miss
            return _UNKNOWN

    async def _remember(self, domain: str, kept: Kept) -> None:
        self._kept.pop(domain, None)
        if len(self._kept) >= POLICIES_KEPT:
            self._kept.popitem(last=False)
        self._kept[domain] = kept
        if self._shared is None:
            return
        life_s = FAILED_REST_S
        if kept.policy is not None:
            life_s = max(life_s, kept.fetched + kept.policy.max_age_s - time.time())
        try:
            await self._shared.put(_key(domain), _encoder.encode(kept), life_s)
        except Exception:  # as above
            return


def _result_of(error: Exception) -> str:
    """What RFC 8460 §4.3.2.2 calls a fetch that failed."""
    if isinstance(error, PolicyUnavailable):
        return STS_UNTRUSTED if error.is_untrusted else STS_UNFETCHED
    return STS_UNFETCHED if isinstance(error, ConfigError) else STS_INVALID


def _key(domain: str) -> str:
    return f"MTA-STS:{domain}"
