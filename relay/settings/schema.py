"""Every setting as a typed value; `config/relay.toml` documents each with its default.

Durations are seconds, sizes octets here; the loader reads `5m` and `25 MiB`.
"""

from enum import StrEnum
from typing import Literal

import msgspec

from relay.settings.kinds import (
    Count,
    DomainName,
    Duration,
    FieldName,
    Listen,
    Nameserver,
    Network,
    OptionalAddress,
    OptionalListen,
    Port,
    PositiveCount,
    PositiveDuration,
    PositiveSize,
    RedisUrl,
    Schedule,
    Secret,
    Share,
    ShortDuration,
    Size,
    SmarthostUrl,
    SourceAddress,
)


class Mode(StrEnum):
    """Where mail goes: nowhere but the simulated internet, or to the world."""

    SINK = "sink"
    LIVE = "live"


class TlsPolicy(StrEnum):
    """What a route demands of TLS; `dane` of the domain's own MX hosts only (RFC 7672 §6)."""

    OFF = "off"
    OPPORTUNISTIC = "opportunistic"
    REQUIRED = "required"
    VERIFIED = "verified"
    DANE = "dane"


class SaslMechanism(StrEnum):
    """How a login may be done; those of OAuth take tokens, the others passwords."""

    SCRAM_SHA_256_PLUS = "SCRAM-SHA-256-PLUS"
    SCRAM_SHA_256 = "SCRAM-SHA-256"
    SCRAM_SHA_1_PLUS = "SCRAM-SHA-1-PLUS"
    SCRAM_SHA_1 = "SCRAM-SHA-1"
    CRAM_MD5 = "CRAM-MD5"
    PLAIN = "PLAIN"
    LOGIN = "LOGIN"
    OAUTHBEARER = "OAUTHBEARER"
    XOAUTH2 = "XOAUTH2"


class UncertainPolicy(StrEnum):
    """What happens to a recipient whose final dot was sent and whose reply is unknown."""

    RETRY = "retry"
    HOLD = "hold"
    ASSUME_DELIVERED = "assume-delivered"


class Without8BitMime(StrEnum):
    """What becomes of 8-bit content where the host does not offer 8BITMIME."""

    CONVERT = "convert"
    CONVERT_OR_REFUSE = "convert-or-refuse"
    SEND = "send"
    REFUSE = "refuse"

    @property
    def converts(self) -> bool:
        """Whether it is made 7-bit where that can be done."""
        return self in (Without8BitMime.CONVERT, Without8BitMime.CONVERT_OR_REFUSE)

    @property
    def refuses(self) -> bool:
        """Whether what is still 8-bit does not go."""
        return self in (Without8BitMime.REFUSE, Without8BitMime.CONVERT_OR_REFUSE)


class BounceReason(StrEnum):
    """Reasons of a failure that say that the mailbox is not there, or takes mail no more."""

    NO_SUCH_MAILBOX = "no_such_mailbox"
    MAILBOX_DISABLED = "mailbox_disabled"
    MAILBOX_MOVED = "mailbox_moved"
    MAILBOX_CHANGED_OWNER = "mailbox_changed_owner"
    ADDRESS_INVALID = "address_invalid"
    NO_SUCH_DOMAIN = "no_such_domain"
    NULL_MX = "null_mx"
    DOMAIN_REFUSES_MAIL = "domain_refuses_mail"


class MailClass(StrEnum):
    """Transactional mail goes before bulk mail at every destination."""

    TRANSACTIONAL = "transactional"
    BULK = "bulk"


class Section(msgspec.Struct, frozen=True, forbid_unknown_fields=True, kw_only=True):
    """A table of the configuration file."""


class Redis(Section, frozen=True):
    url: RedisUrl = ""  # empty: `relay up` starts a private child
    max_memory: Size = 0  # octets for the private child; 0: half of RAM or cgroup
    fsync: Literal["always", "everysec"] = "always"  # of the private child
    accept_watermark: Share = 0.85  # share of maxmemory above which nothing is accepted
    disk_watermark: Size = 512 * 1024 * 1024  # octets free below which nothing is accepted
    replicas: Count = 0  # that must have an accept or a settle before it counts
    replica_timeout: ShortDuration = 1.0  # for them to have it


class Delivery(Section, frozen=True):
    mode: Mode | None = None  # only `relay up` has a default (sink)
    hostname: str = ""  # EHLO name; empty: the machine's FQDN
    smtp_port: Port = 25
    allow_private: bool = False
    source_address: SourceAddress = ""
    without_8bitmime: Without8BitMime = Without8BitMime.CONVERT
    convert_signed: bool = False  # also what another's DKIM or ARC signature covers
    chunking: bool = True  # large content by BDAT (RFC 3030) where offered
    smarthost: SmarthostUrl = ""  # URL; a shortcut for one [[routes]] table with domain = "*"


class Dns(Section, frozen=True):
    nameservers: tuple[Nameserver, ...] = ()  # "127.0.0.53:53"; empty: the system's
    timeout: PositiveDuration = 5.0  # one try
    lifetime: PositiveDuration = 15.0  # all tries of one question
    max_ttl: PositiveDuration = 3600.0
    min_ttl: Duration = 30.0
    negative_ttl: Duration = 300.0  # NXDOMAIN, NODATA: at most
    trust_ad: bool = False  # of resolvers that are not on loopback


class Verp(StrEnum):
    """Whether reverse-paths bear a token, and what it stands for."""

    OFF = "off"
    MESSAGE = "message"
    RECIPIENT = "recipient"


class Route(Section, frozen=True):
    domain: str  # "*", "example.org" or ".example.org"
    name: str = ""  # default: the smarthost's host:port
    smarthost: SmarthostUrl = ""  # smtp://host:port, smtps://user:pass@host; empty: direct to MX
    username: str = ""
    password: Secret = ""
    password_file: str = ""  # read anew for each login, as those below
    password_env: str = ""
    token_file: str = ""  # an OAuth 2 access token
    token_env: str = ""
    auth: tuple[SaslMechanism, ...] = ()  # empty: the strongest that both know
    tls: TlsPolicy | None = None  # default: by scheme and credentials
    verp: Verp | None = None  # default: as senders and classes say


class Tls(Section, frozen=True):
    """TLS of outbound sessions, besides the `tls` of routes and shaping."""

    remember_broken: Duration = 3600.0  # 0: TLS is tried with every connection
    mta_sts: bool = True  # RFC 8461
    dane: bool = False  # RFC 7672; needs a resolver that validates
    reports: bool = False  # RFC 8460
    report_contact: OptionalAddress = ""  # empty: postmaster at our own name


class Dkim(Section, frozen=True):
    """What DKIM signatures cover and how; the keys are `dkim_keys`."""

    canonicalization: Literal[
        "relaxed/relaxed", "relaxed/simple", "simple/relaxed", "simple/simple"
    ] = "relaxed/relaxed"
    oversign: tuple[FieldName, ...] = (
        "from",
        "reply-to",
        "subject",
        "date",
        "message-id",
        "to",
        "cc",
        "mime-version",
        "content-type",
        "content-transfer-encoding",
        "list-unsubscribe",
        "list-unsubscribe-post",
        "feedback-id",
    )
    sign: tuple[FieldName, ...] = (
        "sender",
        "in-reply-to",
        "references",
        "list-id",
        "list-help",
        "list-owner",
        "list-post",
        "list-subscribe",
        "list-archive",
        "auto-submitted",
        "precedence",
    )
    lifetime: Duration = 0.0  # 0: signatures do not end
    default_domain: DomainName = ""  # who signs for domains without a key; empty: nobody


class DkimKey(Section, frozen=True):
    """Where one private key lies, and for whom it signs."""

    domain: DomainName
    selector: str = "relay"
    file: str = ""  # PEM
    variable: str = ""  # an environment variable that holds the PEM text
    tenant: str = ""  # empty: every tenant without a key of its own


class Envelope(Section, frozen=True):
    """Reverse-paths with a token (VERP), so that reports name their recipient."""

    verp_transactional: Verp = Verp.OFF
    verp_bulk: Verp = Verp.OFF
    bounce_domain: DomainName = ""  # the domain of such reverse-paths
    verp_prefix: str = "b-"
    verp_secrets: tuple[Secret, ...] = ()  # the first signs, all verify
    verp_lifetime: PositiveDuration = 30 * 86400.0  # of a token, from the message's acceptance


class Headers(Section, frozen=True):
    """Fields that the doors add where a message has none."""

    feedback_id: str = ""  # a template; empty: none


class Sender(Section, frozen=True):
    """What differs for the mail of some senders; the first table that matches counts."""

    domain: str = "*"  # of the reverse-path: "*", "example.org" or ".example.org"
    tenant: str = ""  # empty: any
    mail_class: MailClass | None = None  # None: any
    verp: Verp | None = None
    bounce_domain: DomainName = ""
    feedback_id: str = ""


class Smtp(Section, frozen=True):
    listen: tuple[Listen, ...] = ("127.0.0.1:2525",)
    allowed_networks: tuple[Network, ...] = ("127.0.0.0/8", "::1/128")
    max_connections: PositiveCount = 1000
    max_connections_per_address: PositiveCount = 100
    max_recipients: PositiveCount = 1000
    max_errors: PositiveCount = 20
    idle_timeout: PositiveDuration = 300.0
    data_timeout: PositiveDuration = 300.0  # a silence inside DATA
    max_content: PositiveSize = 256 * 1024 * 1024  # octets being read, in each process
    processes: PositiveCount = 1


class Intake(Section, frozen=True):
    """Where reports about our mail are taken: bounces, complaints."""

    listen: tuple[Listen, ...] = ()
    addresses: tuple[str, ...] = ()  # besides those with a token: for complaints


class Http(Section, frozen=True):
    listen: Listen = "127.0.0.1:8425"
    keys: tuple[Secret, ...] = ()  # bearer keys; without any, only loopback is served


class Sink(Section, frozen=True):
    dns: Listen = "127.0.0.1:8453"
    smtp: Listen = "127.0.0.1:8454"
    smtps: OptionalListen = ""  # implicit TLS, as host smarthost.test; empty: none
    https: OptionalListen = ""  # MTA-STS policies of its domains; empty: none
    control: Listen = "127.0.0.1:8455"  # receipts and faults over HTTP


class Timeouts(Section, frozen=True):
    """RFC 5321 §4.5.3.2; the phase names are those of `smtp.client.Phase`."""

    connect: PositiveDuration = 30.0
    greeting: PositiveDuration = 300.0
    tls: PositiveDuration = 60.0
    command: PositiveDuration = 300.0
    data: PositiveDuration = 120.0
    data_block: PositiveDuration = 180.0
    data_done: PositiveDuration = 600.0
    quit: PositiveDuration = 5.0
    attempt: PositiveDuration = 1800.0  # mox 30 min; RFC 5321's own, added up, come to hours


class Retry(Section, frozen=True):
    """Delays from attempt to attempt: a list such as "5m 15m 30m 1h 2h 4h*"; `*`: repeats."""

    transactional: Schedule = "5m 15m 30m 1h 2h 4h*"
    bulk: Schedule = "5m 15m 30m 1h 2h 4h*"
    first_after_rcpt: PositiveDuration = 60.0
    jitter: Share = 0.1
    expire_transactional: PositiveDuration = 2 * 86400.0
    expire_bulk: PositiveDuration = 3 * 86400.0
    delay_notice: Duration = 4 * 3600.0  # 0: none


class Reports(Section, frozen=True):
    per_sender: Count = 200  # reports to one address within an hour; 0: no bound
    full_message: Size = 50 * 1024  # octets; Postfix bounce_size_limit 50,000


class Suppression(Section, frozen=True):
    """What puts addresses on the suppression list, besides people."""

    bounces: Literal["live", "on", "off"] = "live"  # live: in that mode only
    bounce_reasons: tuple[BounceReason, ...] = (
        BounceReason.NO_SUCH_MAILBOX,
        BounceReason.MAILBOX_DISABLED,
        BounceReason.NO_SUCH_DOMAIN,
        BounceReason.NULL_MX,
    )
    keep_bounces: Duration = 30 * 86400.0  # 0: for good
    entries: PositiveCount = 1_000_000


class Worker(Section, frozen=True):
    processes: Count = 0  # 0: one per core
    max_sessions: PositiveCount = 500
    max_content: PositiveSize = 256 * 1024 * 1024  # octets of claimed content
    idle_session: Duration = 5.0  # an idle session is kept warm so long
    mails_per_session: PositiveCount = 1000
    lease: PositiveDuration = 15.0
    pools: tuple[str, ...] = ("default",)
    uncertain_transactional: UncertainPolicy = UncertainPolicy.RETRY
    uncertain_bulk: UncertainPolicy = UncertainPolicy.RETRY


class Limits(Section, frozen=True):
    message_size: PositiveSize = 25 * 1024 * 1024
    recipients: PositiveCount = 10_000  # of one message at the HTTP and Python doors


class Events(Section, frozen=True):
    keep: PositiveCount = 100_000


class Log(Section, frozen=True):
    level: Literal["debug", "info", "warning", "error"] = "info"
    format: Literal["auto", "json", "human"] = "auto"  # auto: human on a terminal
    redact_addresses: bool = False


class Files(Section, frozen=True):
    """Paths of the two data files; empty: beside the configuration file, else as shipped."""

    shaping: str = ""
    replies: str = ""


class Up(Section, frozen=True):
    data_dir: str = ""  # empty: $XDG_STATE_HOME/relay
    drain: Duration = 30.0  # how long the doors and the workers may finish what they hold


class Settings(Section, frozen=True):
    """The whole configuration."""

    redis: Redis = Redis()
    delivery: Delivery = Delivery()
    dns: Dns = Dns()
    routes: tuple[Route, ...] = ()
    tls: Tls = Tls()
    dkim: Dkim = Dkim()
    dkim_keys: tuple[DkimKey, ...] = ()
    envelope: Envelope = Envelope()
    headers: Headers = Headers()
    senders: tuple[Sender, ...] = ()
    smtp: Smtp = Smtp()
    intake: Intake = Intake()
    http: Http = Http()
    sink: Sink = Sink()
    timeouts: Timeouts = Timeouts()
    retry: Retry = Retry()
    reports: Reports = Reports()
    suppression: Suppression = Suppression()
    worker: Worker = Worker()
    limits: Limits = Limits()
    events: Events = Events()
    log: Log = Log()
    files: Files = Files()
    up: Up = Up()
