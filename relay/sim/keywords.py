"""The vocabulary of scripted names: local-part keywords and domain keywords, only under `.test`.

`tempfail+2@a.test`: keyword, then parameters between plus signs: a bare number is how many attempts
are affected, a duration (`200ms`, `30s`) how long, anything else just makes the address unique.
`limit5.a.test`: every label is looked at, a number at its end is the keyword's parameter.
A name outside `.test` never carries a meaning: mail for real addresses is simply accepted.
"""

import re
from functools import lru_cache

import msgspec

from relay.model.units import parse_duration_s
from relay.sim.effects import Action, Command, Effect


class Script(msgspec.Struct, frozen=True):
    """What a local-part means: an effect at a command, for the first `attempts` (None: always)."""

    command: Command
    effect: Effect
    attempts: int | None = None


def _reply(command: Command, text: str) -> Script:
    return Script(command, Effect(Action.REPLY, text))


#: Local-part keyword -> what happens to mail for it.
LOCAL_PARTS: dict[str, Script] = {
    "tempfail": _reply(Command.RCPT, "451 4.3.0 Mailbox temporarily unavailable"),
    "reject": _reply(Command.RCPT, "550 5.1.1 No such user here"),
    "disabled": _reply(Command.RCPT, "550 5.2.1 Mailbox disabled"),
    "ratelimit": _reply(Command.RCPT, "450 4.2.1 Mailbox receives mail at too high a rate"),
    "full": _reply(Command.RCPT, "452 4.2.2 Mailbox full"),
    "overquota": _reply(Command.RCPT, "552 5.2.2 Mailbox over quota"),
    "blocked": _reply(Command.RCPT, "550 5.7.1 Sender blocked"),
    "moved": _reply(Command.RCPT, "551 5.1.6 User not local; try <new@example.test>"),
    "forward": _reply(Command.RCPT, "251 2.1.5 User not local; will forward"),
    "greylist": Script(Command.RCPT, Effect(Action.GREYLIST)),
    "toomany": Script(Command.RCPT, Effect(Action.CROWD)),
    "slow": Script(Command.RCPT, Effect(Action.DELAY, delay_s=1.0)),
    "shutdown": Script(Command.RCPT, Effect(Action.SHUT_DOWN)),
    "drop-at-rcpt": Script(Command.RCPT, Effect(Action.CLOSE)),
    "stall": Script(Command.RCPT, Effect(Action.STALL)),
    "garbage": Script(Command.RCPT, Effect(Action.GARBAGE)),
    "split": Script(Command.RCPT, Effect(Action.SPLIT, delay_s=0.002)),
    "tempfail-data": _reply(Command.DATA, "451 4.3.0 Try again later"),
    "reject-data": _reply(Command.DATA, "554 5.5.0 Transaction refused"),
    "drop-in-data": Script(Command.BODY, Effect(Action.CLOSE)),
    "reject-in-data": Script(Command.BODY, Effect(Action.PERMANENT)),
    "stall-in-data": Script(Command.BODY, Effect(Action.STALL)),
    "drop-after-dot": Script(Command.END_OF_DATA, Effect(Action.CLOSE)),
    "lose-reply": Script(Command.END_OF_DATA, Effect(Action.LOSE_REPLY)),
    "tempfail-dot": _reply(Command.END_OF_DATA, "451 4.3.0 Try again later"),
    "reject-dot": _reply(Command.END_OF_DATA, "554 5.7.1 Message refused"),
    "slow-dot": Script(Command.END_OF_DATA, Effect(Action.DELAY, delay_s=1.0)),
    "stall-dot": Script(Command.END_OF_DATA, Effect(Action.STALL)),
    "garbage-dot": Script(Command.END_OF_DATA, Effect(Action.GARBAGE)),
    "shutdown-dot": Script(Command.END_OF_DATA, Effect(Action.SHUT_DOWN)),
}

_CODED = re.compile(r"(rcpt|data|dot)([245][0-9][0-9])")
_STAGES = {"rcpt": Command.RCPT, "data": Command.DATA, "dot": Command.END_OF_DATA}
_DURATION = re.compile(r"\d+(?:\.\d+)?(?:ms|s|m|h)")


def _coded(word: str) -> Script | None:
    """`rcpt452`, `data451`, `dot554`: that code at that command; a 421 also closes."""
    match = _CODED.fullmatch(word)
    if match is None:
        return None
    text = f"{match[2]} {match[2][0]}.0.0 Scripted by the recipient's name"
    action = Action.SHUT_DOWN if match[2] == "421" else Action.REPLY
    return Script(_STAGES[match[1]], Effect(action, text))


def recipient_script(address: str) -> Script | None:
    """What this forward-path is scripted to do, None for an ordinary one."""
    local, _, domain = address.rpartition("@")
    if not domain.endswith(".test"):
        return None
    word, *parameters = local.lower().split("+")
    script = LOCAL_PARTS.get(word) or _coded(word)
    if script is None or not parameters:
        return script
    effect, attempts = script.effect, script.attempts
    for parameter in parameters:
        if parameter.isdigit():
            if effect.action in (Action.CROWD, Action.GREYLIST):
                effect = msgspec.structs.replace(effect, limit=int(parameter))
            else:
                attempts = int(parameter)
        elif _DURATION.fullmatch(parameter):
            effect = msgspec.structs.replace(effect, delay_s=parse_duration_s(parameter))
    return Script(script.command, effect, attempts)


#: Domain keyword -> (default parameter or None, what it means); the manual is checked against it.
DOMAINS: dict[str, tuple[float | None, str]] = {
    "nullmx": (None, "null MX (RFC 7505)"),
    "nxdomain": (None, "the domain does not exist"),
    "servfail": (None, "SERVFAIL; with a number: only for the first n questions of a type"),
    "dnstimeout": (None, "DNS never answers; with a number: only the first n questions"),
    "lamedns": (None, "DNS refers to other servers; with a number: for the first n questions"),
    "garbagedns": (None, "DNS answers octets that are no answer; with a number: as above"),
    "wrongid": (None, "DNS answers under a wrong id; with a number: as above"),
    "notcp": (None, "UDP answers are truncated, TCP gives none; with a number: as above"),
    "flapdns": (None, "every other question of a type: the domain does not exist"),
    "slowdns": (1.0, "DNS answers after a delay"),
    "nomx": (None, "no MX record: implicit MX"),
    "noaddress": (None, "MX hosts that do not resolve"),
    "cname": (None, "the domain is an alias"),
    "cnameloop": (None, "two aliases that point at each other"),
    "mxip": (None, "the MX record holds an IP address as its name"),
    "mxprivate": (None, "the MX host resolves to 10.0.0.1, which no sink connects to"),
    "manymx": (200.0, "that many MX records: UDP answers are truncated"),
    "truncate": (None, "UDP answers are truncated, TCP answers are whole; with a number: as above"),
    "onemx": (None, "one MX host instead of two"),
    "deadv6": (None, "hosts also have an IPv6 address that refuses connections"),
    "ipv6only": (None, "hosts have only the IPv6 address ::1"),
    "dead": (None, "connections are refused"),
    "firstdead": (None, "the first MX host refuses connections, the second is good"),
    "blackhole": (None, "connection attempts get no answer at all"),
    "tarpit": (None, "accepts connections and never speaks"),
    "hangup": (None, "accepts connections and closes them"),
    "greeting4": (None, "greets with 450"),
    "greeting5": (None, "greets with 554"),
    "greeting421": (None, "greets with 421 and closes"),
    "limit": (5.0, "at most n connections at a time to a host, more get 421 and are closed"),
    "rate": (10.0, "at most n messages a second at a host, more get 421 4.7.28 and are closed"),
    "mails": (10.0, "at most n messages a connection, then 421 and closed"),
    "rcpts": (10.0, "at most n recipients a transaction, more get 452 4.5.3"),
    "domains": (1.0, "at most n recipient domains a connection, more get 452 4.5.3"),
    "announced": (None, "announces what mails, rcpts and domains say (LIMITS, RFC 9422)"),
    "slow": (1.0, "every reply is delayed"),
    "slowdot": (1.0, "only the reply to the final dot is delayed"),
    "split": (None, "replies arrive one octet a segment"),
    "drip": (1.0, "replies arrive one octet a second"),
    "noehlo": (None, "EHLO is answered 502, only HELO works"),
    "notls": (None, "no STARTTLS"),
    "requiretls": (None, "MAIL before STARTTLS is answered 530"),
    "badtls": (None, "the TLS handshake breaks"),
    "badcert": (None, "the certificate is for another name"),
    "expiredcert": (None, "the certificate has expired"),
    "mtasts": (None, "publishes an MTA-STS policy, enforced, for its hosts"),
    "mtaststesting": (None, "publishes an MTA-STS policy in testing mode, for another host"),
    "mtastswrong": (None, "publishes an MTA-STS policy, enforced, for another host"),
    "dane": (None, "signed by DNSSEC, with TLSA records of its hosts"),
    "danewrong": (None, "signed by DNSSEC, with TLSA records of another key"),
    "danefail": (None, "signed by DNSSEC; the look-up of TLSA records is answered SERVFAIL"),
    "nopipelining": (None, "no PIPELINING"),
    "no8bitmime": (None, "no 8BITMIME, and so no SMTPUTF8"),
    "nosmtputf8": (None, "no SMTPUTF8"),
    "noenhanced": (None, "no enhanced status codes"),
    "keepstls": (None, "offers REQUIRETLS under TLS (RFC 8689)"),
    "chunking": (None, "offers CHUNKING and takes BDAT (RFC 3030)"),
    "badchunking": (None, "offers CHUNKING and does not know BDAT"),
    "dsn": (None, "offers DSN (RFC 3461); receipts show what was asked"),
    "size": (10_000.0, "SIZE limit of n octets"),
    "smarthost": (None, "offers AUTH by every mechanism and requires it before MAIL"),
    "badday": (None, "profile bad-day: a large provider on a bad day"),
    "greylisting": (None, "profile greylisting"),
    "throttling": (None, "profile throttling"),
    "outage": (None, "profile outage"),
    "spamwall": (None, "profile spamwall"),
}

_LABEL = re.compile(r"([a-z0-9]*?[a-z])(\d+)(ms|s)?")


@lru_cache(maxsize=65536)
def domain_keywords(name: str) -> dict[str, float | None]:
    """The keywords in the labels of a domain or host name with their parameters (ms as s)."""
    labels = name.lower().rstrip(".").split(".")
    found: dict[str, float | None] = {}
    if labels[-1] != "test":
        return found
    for label in labels[:-1]:
        if label in DOMAINS:
            found[label] = DOMAINS[label][0]
        elif (match := _LABEL.fullmatch(label)) and match[1] in DOMAINS:
            found[match[1]] = float(match[2]) * (0.001 if match[3] == "ms" else 1.0)
    return found
