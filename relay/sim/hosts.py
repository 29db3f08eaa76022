"""The script of one MX host, read from the keywords in its name: limits, extensions, effects."""

from functools import lru_cache

import msgspec

from relay.sim.effects import Action, Command, Effect
from relay.sim.keywords import domain_keywords
from relay.sim.profiles import PROFILES, Likely

#: SIZE offered by a host without the keyword `size`.
DEFAULT_SIZE_OCTETS = 64 * 1024 * 1024

_PROFILE_KEYWORDS = {
    "badday": "bad-day",
    "greylisting": "greylisting",
    "throttling": "throttling",
    "outage": "outage",
    "spamwall": "spamwall",
}
_EVERY_REPLY = (
    Command.GREETING,
    Command.EHLO,
    Command.HELO,
    Command.STARTTLS,
    Command.AUTH,
    Command.MAIL,
    Command.RCPT,
    Command.DATA,
    Command.END_OF_DATA,
    Command.RSET,
    Command.NOOP,
    Command.QUIT,
)


class HostScript(msgspec.Struct, frozen=True):
    """How a host behaves; 0 means no limit, `listens` is live, dead or blackhole."""

    listens: str = "live"
    max_connections: int = 0
    messages_per_s: int = 0
    mails_per_connection: int = 0
    recipients_per_transaction: int = 0
    size_octets: int = DEFAULT_SIZE_OCTETS
    hidden: frozenset[str] = frozenset()
    certificate: str = "good"
    requires_tls: bool = False
    requires_auth: bool = False
    announces_limits: bool = False
    keeps_tls: bool = False
    offers_chunking: bool = False
    takes_chunks: bool = False
    offers_dsn: bool = False
    domains_per_connection: int = 0
    effects: tuple[Likely, ...] = ()

    @property
    def limits(self) -> list[str]:
        """The limits as EHLO announces them (RFC 9422)."""
        found = {
            "MAILMAX": self.mails_per_connection,
            "RCPTMAX": self.recipients_per_transaction,
            "RCPTDOMAINMAX": self.domains_per_connection,
        }
        return [f"{name}={value}" for name, value in found.items() if value]


def _effects(words: dict[str, float | None]) -> tuple[Likely, ...]:
    found: list[Likely] = []
    single = {
        "tarpit": (Command.CONNECT, Effect(Action.STALL)),
        "hangup": (Command.CONNECT, Effect(Action.CLOSE)),
        "greeting4": (Command.GREETING, Effect(Action.TRANSIENT)),
        "greeting5": (Command.GREETING, Effect(Action.PERMANENT)),
        "greeting421": (Command.GREETING, Effect(Action.SHUT_DOWN)),
        "noehlo": (Command.EHLO, Effect(Action.PERMANENT)),
        "badtls": (Command.HANDSHAKE, Effect(Action.GARBAGE)),
        "slowdot": (
            Command.END_OF_DATA,
            Effect(Action.DELAY, delay_s=words.get("slowdot") or 0.0),
        ),
    }
    found += [Likely(*single[word]) for word in single if word in words]
    if "slow" in words:
        delay = Effect(Action.DELAY, delay_s=words["slow"] or 0.0)
        found += [Likely(command, delay) for command in _EVERY_REPLY]
    if "split" in words or "drip" in words:
        split = Effect(Action.SPLIT, delay_s=words.get("drip") or 0.001)
        found += [Likely(command, split) for command in _EVERY_REPLY]
    for word, profile in _PROFILE_KEYWORDS.items():
        if word in words:
            found += PROFILES[profile]
    return tuple(found)


def _listens(name: str, words: dict[str, float | None]) -> str:
    if "dead" in words or ("firstdead" in words and name.startswith("mx1.")):
        return "dead"
    return "blackhole" if "blackhole" in words else "live"


_HIDING = {
    "notls": ("STARTTLS",),
    "nopipelining": ("PIPELINING",),
    "no8bitmime": ("8BITMIME", "SMTPUTF8"),  # which brings the other (RFC 6531 §3.1)
    "nosmtputf8": ("SMTPUTF8",),
    "noenhanced": ("ENHANCEDSTATUSCODES",),
}


@lru_cache(maxsize=65536)
def host_script(name: str) -> HostScript:
    """The script of the host with this name."""
    words = domain_keywords(name)
    if not words:
        return HostScript()

    def number(word: str) -> int:
        return int(words.get(word) or 0)

    certificate = "wrong-name" if "badcert" in words else "good"
    return HostScript(
        listens=_listens(name, words),
        max_connections=number("limit"),
        messages_per_s=number("rate"),
        mails_per_connection=number("mails"),
        recipients_per_transaction=number("rcpts"),
        size_octets=number("size") or DEFAULT_SIZE_OCTETS,
        hidden=frozenset(name for word in words for name in _HIDING.get(word, ())),
        certificate="expired" if "expiredcert" in words else certificate,
        requires_tls="requiretls" in words,
        requires_auth="smarthost" in words,
        announces_limits="announced" in words,
        keeps_tls="keepstls" in words,
        offers_chunking="chunking" in words or "badchunking" in words,
        takes_chunks="chunking" in words,
        offers_dsn="dsn" in words,
        domains_per_connection=number("domains"),
        effects=_effects(words),
    )
