"""The resolver: MX hosts and addresses of domains, by real DNS packets, through a TTL cache.

Every question is asked once at a time however many wait for it (single-flight); answers are kept
by TTL in process and, where a `DnsCache` is given, shared between processes. It knows nothing of
the operating system's resolver, search lists or /etc/hosts. One Resolver belongs to one event loop.

RFC 5321 §5.1 (MX, implicit MX), RFC 7505 (null MX), RFC 2308 (negative caching), RFC 2181 §10.3.
"""

import asyncio
import time
from collections.abc import Iterable

import dns.rcode
import msgspec
from dns.rcode import Rcode
from dns.rdatatype import RdataType

from relay.model.address import normalize_domain
from relay.model.errors import NoMailHost, NoSuchDomain, NullMx, ResolverUnavailable
from relay.net.dns_cache import (
    Answer,
    DnsCache,
    MemoryCache,
    Status,
    decode_shared,
    encode_shared,
)
from relay.net.dns_message import MalformedPacket, Question, Response
from relay.net.dns_transport import Nameserver
from relay.net.system_dns import system_nameservers
from relay.settings.schema import Dns, Mode, Settings, TlsPolicy
from relay.telemetry.meter import Meter

#: Links of a CNAME chain that are followed (Postfix and mox 16).
CNAME_LINKS = 16
#: Records of one answer that are kept, best preference first (Postfix 100).
RECORDS_KEPT = 100
#: How long a failure is remembered (RFC 2308 §7.1 allows 5 min): it only keeps storms away.
FAILURE_TTL_S = 10.0
#: TTL of a negative answer without SOA.
NEGATIVE_TTL_WITHOUT_SOA_S = 60.0
#: With addresses of one family at hand, the other family's answer is awaited so long.
FAMILY_GRACE_S = 0.5
#: What is left of the lifetime is no try if it is shorter.
SHORTEST_TRY_S = 0.01
QUESTIONS_IN_FLIGHT = 1024
ANSWERS_KEPT = 50_000

_LOCALHOST = ("127.0.0.1", "::1")


class MxAnswer(msgspec.Struct, frozen=True):
    """The MX hosts of a domain as (preference, host), best first, and for how long they hold.

    `implicit`: the domain has no MX records and is its own host (RFC 5321 §5.1). `authentic`: a
    resolver that we trust says that DNSSEC vouches for all of this. `target`: whose MX records
    these are, where the domain is an alias.
    """

    records: tuple[tuple[int, str], ...]
    ttl_s: float
    implicit: bool = False
    authentic: bool = False
    target: str = ""


class Resolver:
    """Asks the given nameservers, else those of `dns`, else the system's; see the module."""

    def __init__(
        self,
        dns: Dns,
        cache: DnsCache | None = None,
        *,
        nameservers: tuple[str, ...] = (),
        meter: Meter | None = None,
        heeds_dnssec: bool = False,
    ) -> None:
        """`heeds_dnssec`: where a nameserver's word on DNSSEC counts, no other is asked: what a
        validating one refuses as forged another would give out."""
        self._dns = dns
        self._meter = meter if meter is not None else Meter()
        self._shared = cache
        self._heeds_dnssec = heeds_dnssec
        self._follows_system = not (nameservers or dns.nameservers)
        self._names = nameservers or dns.nameservers or system_nameservers()
        self._known = {name: Nameserver(name) for name in self._names}
        self._nameservers = list(self._known.values())
        self._memory = MemoryCache(ANSWERS_KEPT)
        self._flights: dict[tuple[str, int], asyncio.Task[Answer]] = {}
        self._places = asyncio.Semaphore(QUESTIONS_IN_FLIGHT)

    @classmethod
    def from_settings(
        cls, settings: Settings, cache: DnsCache | None = None, *, meter: Meter | None = None
    ) -> "Resolver":
        """The resolver that the mode demands: in sink mode it asks nobody but the sink."""
        sink = settings.delivery.mode is not Mode.LIVE
        nameservers = (settings.sink.dns,) if sink else ()
        by_route = any(route.tls is TlsPolicy.DANE for route in settings.routes)
        return cls(
            settings.dns,
            cache,
            nameservers=nameservers,
            meter=meter,
            heeds_dnssec=settings.tls.dane or by_route,
        )

    @property
    def lifetime_s(self) -> float:
        """The longest that one question may take."""
        return self._dns.lifetime

    async def aclose(self) -> None:
        """Abandon what is under way and close all sockets."""
        flights = list(self._flights.values())
        for flight in flights:
            flight.cancel()
        await asyncio.gather(*flights, return_exceptions=True)
        for nameserver in self._known.values():
            nameserver.close()

    async def mx(self, domain: str) -> MxAnswer:
        """The MX hosts of a domain; NoSuchDomain, NoMailHost, NullMx, ResolverUnavailable."""
        name = _host_name(domain)
        answer = await self._answer(name, RdataType.MX)
        if answer.status is Status.FAILED:
            raise ResolverUnavailable(answer.text)
        if answer.status is not Status.FOUND:
            return await self._implicit_mx(name, authentic=answer.authentic)
        hosts = tuple(record for record in answer.records if record[1])
        if not hosts:
            raise NullMx(f"{name} accepts no mail (null MX)")
        ttl_s = self._ttl_left(name, RdataType.MX)
        return MxAnswer(hosts, ttl_s, authentic=answer.authentic, target=answer.target)

    async def addresses(self, host: str) -> tuple[str, ...]:
        """IPv4 and IPv6 addresses in turn; () where the name has none.

        NoSuchDomain where it does not exist; ResolverUnavailable where no address was found and
        one of the two look-ups failed (soft beats hard).
        """
        name = _host_name(host)
        if name == "localhost" or name.endswith(".localhost"):  # RFC 6761 §6.3
            return _LOCALHOST
        v4, v6 = await self._both_families(name)
        found = _interleave(
            [address for _, address in v4.records], [address for _, address in v6.records]
        )
        if found:
            return found
        for answer in (v4, v6):
            if answer.status is Status.FAILED:
                raise ResolverUnavailable(answer.text)
        if Status.NO_NAME in (v4.status, v6.status):
            raise NoSuchDomain(f"{name} does not exist")
        return ()

    async def texts(self, name: str) -> tuple[str, ...]:
        """The TXT records of a name of A-labels, () where there are none; ResolverUnavailable."""
        answer = await self._answer(name, RdataType.TXT)
        if answer.status is Status.FAILED:
            raise ResolverUnavailable(answer.text)
        return tuple(text for _, text in answer.records)

    async def tlsa(self, host: str, port: int) -> tuple[str, ...]:
        """The authentic TLSA records of a service, as `3 1 1 <hex>`; ResolverUnavailable."""
        records, authentic = await self.published_tlsa(host, port)
        return records if authentic else ()

    async def published_tlsa(self, host: str, port: int) -> tuple[tuple[str, ...], bool]:
        """All TLSA records of a service, and whether DNSSEC vouches; ResolverUnavailable."""
        answer = await self._answer(f"_{port}._tcp.{_host_name(host)}", RdataType.TLSA)
        if answer.status is Status.FAILED:
            raise ResolverUnavailable(answer.text)
        return tuple(text for _, text in answer.records), answer.authentic

    async def is_authentic(self, host: str) -> bool:
        """Whether DNSSEC vouches for all addresses of a host that are known."""
        answers = await self._both_families(_host_name(host))
        found = [answer for answer in answers if answer.status is Status.FOUND]
        return bool(found) and all(answer.authentic for answer in found)

    async def alias_of(self, host: str) -> str:
        """Where the aliases lead that the addresses of a host were found by; empty: nowhere."""
        answers = await self._both_families(_host_name(host))
        return next((one.target for one in answers if one.status is Status.FOUND), "")

    async def is_authentic_alias(self, host: str) -> bool:
        """Whether DNSSEC vouches that a host is an alias, whatever of; ResolverUnavailable."""
        answer = await self._answer(_host_name(host), RdataType.CNAME)
        if answer.status is Status.FAILED:
            raise ResolverUnavailable(answer.text)
        return answer.status is Status.FOUND and answer.authentic

    @property
    def is_trusted(self) -> bool:
        """Whether there is a nameserver whose word on DNSSEC counts."""
        return any(map(self._is_trusted, self._nameservers))

    @property
    def lacks_dnssec(self) -> bool:
        """Whether DNSSEC is to be heeded, and there is no such nameserver."""
        return self._heeds_dnssec and not self.is_trusted

    @property
    def _believed(self) -> list[Nameserver]:
        """The nameservers whose word counts, where DNSSEC is heeded; mostly not."""
        return list(filter(self._is_trusted, self._nameservers)) if self._heeds_dnssec else []

    def _is_trusted(self, nameserver: Nameserver) -> bool:
        return self._dns.trust_ad or nameserver.is_local

    async def _implicit_mx(self, name: str, *, authentic: bool) -> MxAnswer:
        if not await self.addresses(name):
            raise NoMailHost(f"{name} has neither MX nor address records")
        ttls = (self._ttl_left(name, kind) for kind in (RdataType.A, RdataType.AAAA))
        ttl_s = min((ttl for ttl in ttls if ttl > 0), default=0.0)
        return MxAnswer(((0, name),), ttl_s, implicit=True, authentic=authentic)

    async def _both_families(self, name: str) -> tuple[Answer, Answer]:
        """A and AAAA side by side; a slow second family is not awaited once the first is found."""
        started = [self._start(name, RdataType.A), self._start(name, RdataType.AAAA)]
        flights = [flight for flight in started if isinstance(flight, asyncio.Task)]
        if flights:
            await asyncio.wait(flights, return_when=asyncio.FIRST_COMPLETED)
            late = [flight for flight in flights if not flight.done()]
            if late:
                found = any(_result(one).status is Status.FOUND for one in started)
                await asyncio.wait(late, timeout=FAMILY_GRACE_S if found else None)
        return _result(started[0]), _result(started[1])

    async def _answer(self, name: str, kind: RdataType) -> Answer:
        started = self._start(name, kind)
        return started if isinstance(started, Answer) else await asyncio.shield(started)

    def _start(self, name: str, kind: RdataType) -> Answer | asyncio.Task[Answer]:
        """The answer kept in process, else the flight that will bring it."""
        key = (name, int(kind))
        loop = asyncio.get_running_loop()
        kept = self._memory.get(key, now=loop.time())
        if kept is not None:
            return kept
        flight = self._flights.get(key)
        if flight is None:
            flight = loop.create_task(self._fly(name, kind))
            self._flights[key] = flight
        return flight

    async def _fly(self, name: str, kind: RdataType) -> Answer:
        key = (name, int(kind))
        try:
            answer = await self._recall(name, kind)
            if answer is None:
                async with self._places:
                    answer = await self._look_up(name, kind)
                await self._share(name, kind, answer)
            self._memory.put(key, answer, now=asyncio.get_running_loop().time())
            return answer
        finally:
            del self._flights[key]

    async def _look_up(self, name: str, kind: RdataType) -> Answer:
        """Ask, follow CNAMEs (RFC 1034 §3.6.2) and clamp the TTL; never raises for DNS' sake."""
        began = time.monotonic()
        try:
            answer = await self._follow(name, kind)
        except ResolverUnavailable as error:
            ttl_s = min(FAILURE_TTL_S, self._dns.negative_ttl)
            answer = Answer(Status.FAILED, (), ttl_s, f"{kind.name} of {name}: {error}")
        took_s = time.monotonic() - began
        self._meter.observe("look_up", took_s, kind.name, answer.status.name.lower())
        return answer

    async def _follow(self, name: str, kind: RdataType) -> Answer:
        seen, ttl_s, current = {name}, self._dns.max_ttl, name
        authentic = True
        while True:
            asked = current
            response = await self._exchange(asked, kind)
            authentic = authentic and response.authentic
            links = {
                record.name: record for record in response.records if record.type == RdataType.CNAME
            }
            while kind != RdataType.CNAME and (link := links.get(current)) is not None:
                current, ttl_s = link.data, min(ttl_s, link.ttl_s)
                if current in seen:
                    raise ResolverUnavailable("the CNAME chain is a loop")
                if len(seen) > CNAME_LINKS:
                    raise ResolverUnavailable(f"the CNAME chain has over {CNAME_LINKS} links")
                seen.add(current)
            found = [one for one in response.records if one.type == kind and one.name == current]
            if found:
                ttl_s = min(ttl_s, *(record.ttl_s for record in found))
                records = sorted((record.preference, record.data) for record in found)
                return Answer(
                    Status.FOUND,
                    tuple(records[:RECORDS_KEPT]),
                    self._clamp(ttl_s),
                    authentic=authentic,
                    target=current if current != name else "",
                )
            if response.rcode == Rcode.NXDOMAIN or "\\" in current:
                return self._negative(Status.NO_NAME, response, authentic)
            if current == asked:  # else the alias' target has not been asked for yet
                return self._negative(Status.NO_DATA, response, authentic)

    async def _exchange(self, name: str, kind: RdataType) -> Response:
        """One question to the nameservers in turn until one answers; ResolverUnavailable."""
        question = Question(name, kind)
        loop = asyncio.get_running_loop()
        ends = loop.time() + self._dns.lifetime
        problem = "no nameserver was asked"
        while True:
            was_silent = False
            now = loop.time()
            asked = self._believed or self._nameservers
            for nameserver in sorted(asked, key=lambda one: one.is_resting(now)):
                left_s = ends - loop.time()
                if left_s < SHORTEST_TRY_S:
                    raise ResolverUnavailable(problem)
                try:
                    response = await nameserver.ask(question, min(self._dns.timeout, left_s))
                except TimeoutError:
                    was_silent, problem = True, f"nameserver {nameserver} did not answer"
                except OSError as error:
                    problem = f"nameserver {nameserver} is unreachable ({error.strerror or error})"
                except MalformedPacket as error:
                    problem = f"nameserver {nameserver} answered garbage ({error})"
                else:
                    if response.rcode == Rcode.NXDOMAIN or _is_usable(response):
                        if response.authentic and not self._is_trusted(nameserver):
                            response = msgspec.structs.replace(response, authentic=False)
                        return response
                    problem = f"nameserver {nameserver} answered {_shown(response)}"
            if not was_silent:
                self._reread_system()
                raise ResolverUnavailable(problem)

    async def _recall(self, name: str, kind: RdataType) -> Answer | None:
        """The shared cache's answer; whatever is wrong with that cache is a miss."""
        if self._shared is None:
            return None
        try:
            value = await self._shared.get(self._shared_key(name, kind))
        except Exception:
            return None
        return None if value is None else decode_shared(value, now=time.time())

    async def _share(self, name: str, kind: RdataType, answer: Answer) -> None:
        """Give an answer to the shared cache; failures stay here: they may be ours alone."""
        if self._shared is None or answer.status is Status.FAILED:
            return
        value = encode_shared(answer, now=time.time())
        try:
            await self._shared.put(self._shared_key(name, kind), value, answer.ttl_s)
        except Exception:
            return

    def _shared_key(self, name: str, kind: RdataType) -> str:
        """Of answers that tell of DNSSEC another one than of answers that cannot."""
        return f"{'AD:' if self._believed else ''}{kind.name}:{name}"

    def _reread_system(self) -> None:
        """Follow a changed resolv.conf once the nameservers known so far fail."""
        if not self._follows_system or (names := system_nameservers()) == self._names:
            return
        self._names = names
        for name in names:
            self._known.setdefault(name, Nameserver(name))
        self._nameservers = [self._known[name] for name in names]

    def _clamp(self, ttl_s: float) -> float:
        return min(max(ttl_s, self._dns.min_ttl), self._dns.max_ttl)

    def _negative(self, status: Status, response: Response, authentic: bool) -> Answer:
        soa = response.negative_ttl_s
        ttl_s = NEGATIVE_TTL_WITHOUT_SOA_S if soa is None else soa
        ttl_s = min(max(ttl_s, self._dns.min_ttl), self._dns.negative_ttl)
        return Answer(status, (), ttl_s, authentic=authentic)

    def _ttl_left(self, name: str, kind: RdataType) -> float:
        now = asyncio.get_running_loop().time()
        return self._memory.ttl_left((name, int(kind)), now=now)


def _host_name(text: str) -> str:
    try:
        return normalize_domain(text)
    except ValueError as error:
        raise NoSuchDomain(f"'{text[:80]}' {error}") from None


def _result(started: Answer | asyncio.Task[Answer]) -> Answer:
    if isinstance(started, Answer):
        return started
    return started.result() if started.done() else Answer(Status.NO_DATA)


def _interleave(first: Iterable[str], second: Iterable[str]) -> tuple[str, ...]:
    one, other = list(first), list(second)
    mixed = [address for pair in zip(one, other, strict=False) for address in pair]
    shorter = min(len(one), len(other))
    return (*mixed, *one[shorter:], *other[shorter:])


def _is_usable(response: Response) -> bool:
    return response.rcode == Rcode.NOERROR and not response.is_referral


def _shown(response: Response) -> str:
    if response.rcode == Rcode.NOERROR:
        return "with a referral (it does not resolve for us)"
    return dns.rcode.to_text(response.rcode)
