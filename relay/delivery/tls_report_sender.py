"""Makes and sends the daily TLS reports: by mail, and by HTTPS (RFC 8460 §5).

Each report of a domain and day is made by one worker. A report by mail is mail like any other, and
the store knows it again; one by HTTPS waits in the store until it is taken, for a day at most.
"""

import asyncio
import gzip
import hashlib
from random import Random
from urllib.parse import urlsplit

import msgspec
import structlog

from relay.delivery.addresses import AddressRules, find_addresses
from relay.delivery.directory import Directory
from relay.delivery.tls_report_mail import compose_tls_report
from relay.model.address import parse_address
from relay.model.destination import in_spite_of_tls
from relay.model.errors import ConfigError, IdempotencyConflict, ResolverUnavailable
from relay.model.ids import new_queue_id
from relay.model.message import Submission
from relay.net.resolver import Resolver
from relay.net.tls_report_post import PostFailed, post_report
from relay.policy.tls_report import (
    DomainReport,
    Policy,
    Rua,
    Tally,
    day_of,
    delay_of,
    make_report,
    read_rua,
)
from relay.settings.schema import Settings
from relay.store.tls_counts import TlsCounts
from relay.store.tls_posts import Post, TlsPosts
from relay.store.work import Work

#: Reports made in one go, domains looked at for that, and days that are looked back at.
REPORTS_AT_ONCE, DOMAINS_LOOKED_AT, DAYS_BACK = 20, 500, 2
#: Reports posted in one go, and the longest that one may take with all look-ups.
POSTS_AT_ONCE, POST_WITHIN_S = 20, 90.0
#: A report that is not taken is posted again after so long, each time twice as long, up to …
POST_AGAIN_S, POST_AGAIN_AT_MOST_S = 300.0, 4 * 3600.0
#: … and for so long in all (RFC 8460 §5.5).
POST_FOR_S = 86400.0
REPORT_LIFETIME_S = 2 * 86400.0
_ADDRESSES_TRIED = 2
_HTTPS = 443
_DAY_S = 86400.0

_log = structlog.get_logger("relay.tls_report")


class TlsReportSender:
    """One for a process: `await sender.send_due()` now and then."""

    def __init__(self, directory: Directory, work: Work) -> None:
        self._directory = directory
        self._work = work
        self._counts = TlsCounts(work.store)
        self._posts = TlsPosts(work.store)
        self._random = Random()

    async def send_due(self) -> bool:
        """Make some reports of days that are over and post what is due; whether more may be."""
        now = await self._work.store.now()
        made = 0
        for back in range(1, DAYS_BACK + 1):
            day = day_of(now - back * _DAY_S)
            ended = now - now % _DAY_S - (back - 1) * _DAY_S
            for domain in await self._counts.some(day, DOMAINS_LOOKED_AT):
                if made < REPORTS_AT_ONCE and now >= ended + delay_of(domain):
                    made += await self._make(day, domain, now)
        posts: list[Post] = []
        while len(posts) < POSTS_AT_ONCE and (post := await self._posts.claim(now)) is not None:
            posts.append(post)
        await asyncio.gather(*map(self._post, posts))
        return made >= REPORTS_AT_ONCE or len(posts) >= POSTS_AT_ONCE

    async def _make(self, day: str, domain: str, now: float) -> bool:
        """Make and send a report, if it is ours to make; whether it was."""
        if not await self._counts.claim(day, domain):
            if await self._counts.is_made(day, domain):
                await self._counts.forget(day, domain)
            return False
        try:
            wanted = await wanted_by(domain, self._directory.resolver)
        except ResolverUnavailable:
            return False  # the claim ends by itself, then it is tried again
        tallies = tallies_of(await self._counts.read(day, domain))
        if wanted and tallies:
            report = report_of(domain, day, tallies, self._directory)
            for address in wanted.addresses:
                await self._mail(report, domain, day, address, now)
            for url in wanted.urls:
                await self._await_post(report, domain, day, url, now)
        await self._counts.end(day, domain)
        return True

    async def _mail(
        self, report: DomainReport, domain: str, day: str, address: str, now: float
    ) -> None:
        directory, to = self._directory, parse_address(address)
        message_id, content = compose_tls_report(
            report, domain, to, hostname=directory.hello_name, now=now
        )
        key = f"tls-report:{day}:{domain}:{to}"
        submission = Submission(
            queue_id=new_queue_id(),
            reverse_path=None,
            forward_paths=(to,),
            destinations=(in_spite_of_tls(directory.routes.destination_for(to.domain)),),
            content=content,
            message_id=message_id,
            ingress="report",
            expires_after_s=REPORT_LIFETIME_S,
            idempotency_key=key,
            digest=key,
        )
        try:
            receipt = await self._work.store.accept(submission)
        except IdempotencyConflict:
            return
        _log.info("tls_report.sent", domain=domain, day=day, to=address, queue_id=receipt.id)

    async def _await_post(
        self, report: DomainReport, domain: str, day: str, url: str, now: float
    ) -> None:
        name = hashlib.sha256(url.encode()).hexdigest()[:8]
        content = gzip.compress(msgspec.json.encode(report), mtime=0)
        await self._posts.add(
            f"{day}:{domain}:{name}", day=day, domain=domain, url=url, content=content, now=now
        )

    async def _post(self, post: Post) -> None:
        """Post a report that we have claimed; it is put off, or ended."""
        if post.vanished > 1:
            await self._give_up(post, "workers ended twice while they posted it")
            return
        told = {"domain": post.domain, "day": post.day, "to": post.url}
        if post.vanished:
            _log.warning("tls_report.uncertain", **told, text="it may have been posted already")
        try:
            async with asyncio.timeout(POST_WITHIN_S):
                await self._deliver(post)
        except TimeoutError:
            await self._put_off(post, f"not posted within {POST_WITHIN_S:g} s")
        except (PostFailed, ConfigError) as error:
            await self._put_off(post, str(error)[:200])
        else:
            await self._posts.end(post)
            _log.info("tls_report.sent", **told)

    async def _deliver(self, post: Post) -> None:
        """Post it to the first address that can be asked; PostFailed."""
        parts = urlsplit(post.url)
        host, port = parts.hostname or "", parts.port or _HTTPS
        path = parts.path + (f"?{parts.query}" if parts.query else "")
        rules = AddressRules.for_mx(self._directory.settings, port)
        found = await find_addresses(
            [[host]],
            rules,
            resolver=self._directory.resolver,
            wanted=_ADDRESSES_TRIED,
            random=self._random,
        )
        trouble = found.unavailable or found.refused or found.missing
        problem = PostFailed(trouble or f"{host} is an address of our own")
        for _, address in found.addresses:
            try:
                source = rules.source_address
                await post_report(post.content, host, address, port, path, source_address=source)
                return
            except PostFailed as error:
                problem = error
        raise problem

    async def _put_off(self, post: Post, why: str) -> None:
        now = await self._work.store.now()
        wait_s = min(POST_AGAIN_S * 2.0**post.tries, POST_AGAIN_AT_MOST_S)
        if now + wait_s > post.began + POST_FOR_S:
            await self._give_up(post, why)
            return
        _log.info("tls_report.put_off", domain=post.domain, day=post.day, to=post.url, detail=why)
        await self._posts.put_off(post, now + wait_s)

    async def _give_up(self, post: Post, why: str) -> None:
        await self._posts.end(post)
        _log.warning("tls_report.given_up", domain=post.domain, day=post.day, to=post.url, text=why)


async def wanted_by(domain: str, resolver: Resolver) -> Rua:
    """Who wants the domain's reports; ResolverUnavailable."""
    return read_rua(await resolver.texts(f"_smtp._tls.{domain}"))


def report_of(domain: str, day: str, tallies: list[Tally], directory: Directory) -> DomainReport:
    """The report of what was counted, in our name."""
    name = directory.hello_name
    contact = contact_of(directory.settings, name)
    return make_report(domain, day, tallies, organization=name, contact=contact)


def tallies_of(raw: list[tuple[bytes, dict[str, int]]]) -> list[Tally]:
    """What the store counted, by policy."""
    return [Tally(_read_policy(policy), counts) for policy, counts in raw]


def _read_policy(octets: bytes) -> Policy:
    try:
        return msgspec.json.decode(octets, type=Policy)
    except (msgspec.DecodeError, ValueError):
        return Policy()


def contact_of(settings: Settings, hostname: str) -> str:
    """Whom to ask about our reports."""
    return settings.tls.report_contact or f"postmaster@{hostname}"
