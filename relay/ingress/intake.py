"""The bounce intake: an SMTP listener that takes reports about our mail and nothing else.

It takes mail for addresses that bear a token of ours (`envelope.verp_…`), and for those of
`intake.addresses`, whose reports must return a token. It relays nothing and keeps nothing: a report
becomes events before the 250, so a sender whom we cannot serve at present keeps it (451).
"""

import time
from collections.abc import Awaitable, Callable

from relay.delivery.directory import load_rule_files
from relay.delivery.intake.matching import Telling, tellings_of, token_of
from relay.delivery.intake.reader import read_report
from relay.delivery.intake.report import Report
from relay.ingress.store_link import StoreLink
from relay.ingress.submit import Draft
from relay.model.address import Address, parse_address
from relay.model.errors import ConfigError, SubmissionRefused
from relay.model.ids import new_queue_id
from relay.model.message import Receipt
from relay.policy.rules import Rules
from relay.policy.suppress import Suppressing
from relay.policy.verp import BounceToken, VerpCodec
from relay.settings.schema import Settings
from relay.store.incoming import Told, tell
from relay.telemetry.log import get_logger
from relay.telemetry.meter import Meter

Tell = Callable[[Telling, float], Awaitable[Told]]
_log = get_logger()


class Intake:
    """Takes reports: which addresses it knows, and what becomes of what is sent there."""

    def __init__(self, settings: Settings, rules: Rules, tell: Tell, meter: Meter) -> None:
        """ConfigError where envelope.verp_secrets are missing: nothing could be believed."""
        self._codec = VerpCodec.from_settings(settings)
        self._keep_s = settings.envelope.verp_lifetime
        self._fixed = frozenset(map(_fixed_address, settings.intake.addresses))
        self._rules = rules
        self._suppressing = Suppressing(settings)
        self._tell = tell
        self._meter = meter

    def refusal(self, address: Address) -> str:
        """Why mail for the address is not taken; empty: it is."""
        text = str(address)
        if text.lower() in self._fixed or self._codec.decode(text, time.time()) is not None:
            return ""
        self._count("none", "forged")
        return f"550 5.1.1 <{text}>: no such address here"

    async def take(self, draft: Draft) -> Receipt:
        """Read what came and tell what it says; nothing of it is kept."""
        report = read_report(draft.content)
        sent_to = [str(path) for path in draft.forward_paths]
        token = token_of(report, sent_to, self._codec, time.time())
        outcome = await self._take(report, token)
        self._count(str(report.kind), outcome)
        _log.info(
            "report.received",
            kind=str(report.kind),
            form=report.form,
            outcome=outcome,
            queue_id=token.queue_id if token is not None else "",
            reporter=report.reporter,
            remote=draft.origin.address,
        )
        return Receipt(id=new_queue_id(), message_id="", recipients=())

    async def _take(self, report: Report, token: BounceToken | None) -> str:
        """The outcome, in one word: forged, expired, ignored, or what the store says of it."""
        if token is None:
            return "forged"
        if token.is_expired:
            return "expired"
        tellings = tellings_of(report, token, self._rules, self._codec, self._suppressing)
        words = {(await self._tell(telling, self._keep_s)).word for telling in tellings}
        return next((word for word in ("new", "again", "unknown") if word in words), "ignored")

    def _count(self, kind: str, outcome: str) -> None:
        self._meter.count("incoming", kind, outcome)


def _fixed_address(text: str) -> str:
    try:
        return str(parse_address(text)).lower()
    except SubmissionRefused as refused:
        raise ConfigError(f"intake.addresses: {refused.findings[0].message}") from None


def intake_of(settings: Settings, link: StoreLink) -> Intake:
    """The bounce intake over this process's store; ConfigError where it could believe nobody."""
    _, rules = load_rule_files(settings)

    async def tell_store(telling: Telling, keep_s: float) -> Told:
        return await tell(
            link.store,
            telling.queue_id,
            telling.number,
            event=telling.event,
            address=telling.address,
            keep_s=keep_s,
            data=telling.data,
            consequence=telling.consequence,
            is_vouched=telling.is_vouched,
        )

    return Intake(settings, rules, tell_store, link.meter)
