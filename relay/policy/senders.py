"""What the settings say of a sender's mail: how its reverse-path is written, and its Feedback-ID.

The `[[senders]]` tables are tried in their order; of each value the first table that matches and
gives it counts, then [envelope] and [headers].
"""

import re
import string
from functools import lru_cache

import msgspec

from relay.model.errors import ConfigError
from relay.settings.schema import MailClass, Sender, Settings, Verp

_PLACEHOLDERS = frozenset({"campaign", "tenant", "class", "domain"})
_UNFIT = re.compile(r"[^A-Za-z0-9._\-]")
#: Google: the last part names the sender in 5 to 15 characters, before it stand at most three.
_SENDER_ID = re.compile(r"[A-Za-z0-9._\-]{5,15}")
_FEEDBACK_PARTS = 4


class SenderRule(msgspec.Struct, frozen=True):
    """What holds for one sender."""

    verp: Verp
    bounce_domain: str
    feedback_id: str


class Senders:
    """The rules of the settings, ready to be asked by reverse-path domain, tenant and class."""

    def __init__(self, settings: Settings) -> None:
        """ConfigError where a pattern or a template is none, or VERP has no domain."""
        self._settings = settings
        for number, table in enumerate(settings.senders, 1):
            _check_domain(table.domain, f"senders[{number}].domain")
            _check_template(table.feedback_id, f"senders[{number}].feedback_id")
        _check_template(settings.headers.feedback_id, "headers.feedback_id")
        self._check_bounce_domains()
        self.rule = lru_cache(maxsize=4096)(self._rule)

    @property
    def use_verp(self) -> bool:
        """Whether anybody's mail gets a token; a route may ask for it where this does not."""
        envelope = self._settings.envelope
        asked = {envelope.verp_transactional, envelope.verp_bulk}
        asked |= {table.verp for table in self._settings.senders if table.verp is not None}
        return asked != {Verp.OFF}

    @property
    def use_feedback_id(self) -> bool:
        """Whether anybody's mail gets a Feedback-ID."""
        templates = [table.feedback_id for table in self._settings.senders]
        return any([self._settings.headers.feedback_id, *templates])

    def feedback_id(self, domain: str, tenant: str, mail_class: str, campaign: str) -> str:
        """The value of Feedback-ID; empty: it gets none."""
        template = self.rule(domain, tenant, mail_class).feedback_id
        values = {"campaign": campaign, "tenant": tenant, "class": mail_class, "domain": domain}
        return template.format_map({name: _fit(value) for name, value in values.items()})

    def _rule(self, domain: str, tenant: str, mail_class: str) -> SenderRule:
        """What holds for mail of this domain (of the reverse-path), tenant and class."""
        envelope = self._settings.envelope
        is_bulk = mail_class == MailClass.BULK
        tables = [t for t in self._settings.senders if _matches(t, domain, tenant, mail_class)]
        of_class = envelope.verp_bulk if is_bulk else envelope.verp_transactional
        return SenderRule(
            verp=next((t.verp for t in tables if t.verp is not None), of_class),
            bounce_domain=next(
                (t.bounce_domain for t in tables if t.bounce_domain), envelope.bounce_domain
            ),
            feedback_id=next(
                (t.feedback_id for t in tables if t.feedback_id),
                self._settings.headers.feedback_id,
            ),
        )

    def _check_bounce_domains(self) -> None:
        envelope = self._settings.envelope
        if envelope.bounce_domain:
            return
        needing = [
            f"envelope.{key}"
            for key in ("verp_transactional", "verp_bulk")
            if getattr(envelope, key) is not Verp.OFF
        ]
        for number, table in enumerate(self._settings.senders, 1):
            if table.verp not in (None, Verp.OFF) and not table.bounce_domain:
                needing.append(f"senders[{number}].verp")
        for number, route in enumerate(self._settings.routes, 1):
            if route.verp not in (None, Verp.OFF):
                needing.append(f"routes[{number}].verp")
        if needing:
            raise ConfigError(
                f"{needing[0]}: reverse-paths with a token need a domain of their own, whose mail "
                "comes to us; set envelope.bounce_domain"
            )


def _matches(table: Sender, domain: str, tenant: str, mail_class: str) -> bool:
    pattern = table.domain
    return (
        (
            pattern in ("*", domain)
            or (pattern.startswith(".") and domain.endswith(pattern) and domain != pattern)
        )
        and table.tenant in ("", tenant)
        and table.mail_class in (None, mail_class)
    )


def _fit(value: str) -> str:
    """A value as it may stand between the colons."""
    return _UNFIT.sub("_", value)[:60]


def _check_domain(pattern: str, where: str) -> None:
    if pattern != "*" and not pattern.strip("."):
        raise ConfigError(f'{where}: {pattern!r} is no pattern; write "*" or "example.org"')


def _check_template(template: str, where: str) -> None:
    if not template:
        return
    try:
        parts = list(string.Formatter().parse(template))
    except ValueError as error:
        raise ConfigError(f"{where}: {error}; write such as {{campaign}}:acme1") from None
    for text, name, form, conversion in parts:
        if name is not None and (name not in _PLACEHOLDERS or form or conversion):
            known = ", ".join(f"{{{known}}}" for known in sorted(_PLACEHOLDERS))
            raise ConfigError(f"{where}: there is no {{{name}}}; there are {known}")
        if _UNFIT.search(text.replace(":", "")):
            raise ConfigError(f"{where}: {text!r} has more than letters, digits and . _ - :")
    pieces = template.split(":")
    if len(pieces) > _FEEDBACK_PARTS or _SENDER_ID.fullmatch(pieces[-1]) is None:
        raise ConfigError(
            f"{where}: wants up to three parts and then, as the last, a name of yours of 5 to 15 "
            "letters and digits, with colons between; write such as {campaign}:{tenant}:acme1"
        )
