"""Every setting as a typed value; `config/relay.toml` documents each with its default.

Durations are seconds, sizes octets here; the loader reads `5m` and `25 MiB`.
"""

from enum import StrEnum

import msgspec


class Mode(StrEnum):
    """Where mail goes: nowhere but the simulated internet, or to the world."""

    SINK = "sink"
    LIVE = "live"


class TlsPolicy(StrEnum):
    """What a route demands of TLS."""

    OFF = "off"
    OPPORTUNISTIC = "opportunistic"
    REQUIRED = "required"
    VERIFIED = "verified"


class UncertainPolicy(StrEnum):
    """What happens to a recipient whose final dot was sent and whose reply is unknown."""

    RETRY = "retry"
    HOLD = "hold"
    ASSUME_DELIVERED = "assume-delivered"


class MailClass(StrEnum):
    """Transactional mail goes before bulk mail at every destination."""

    TRANSACTIONAL = "transactional"
    BULK = "bulk"


class Section(msgspec.Struct, frozen=True, forbid_unknown_fields=True, kw_only=True):
    """A table of the configuration file."""


class Redis(Section):
    url: str = ""  # empty: `relay up` starts a private child
    max_memory: int = 0  # octets for the private child; 0: half of RAM or cgroup
    fsync: str = "always"  # of the private child: always | everysec
    accept_watermark: float = 0.85  # share of maxmemory above which nothing is accepted
    disk_watermark: int = 512 * 1024 * 1024  # octets free below which nothing is accepted


class Delivery(Section):
    mode: Mode | None = None  # only `relay up` has a default (sink)
    hostname: str = ""  # EHLO name; empty: the machine's FQDN
    smtp_port: int = 25
    allow_private: bool = False
    source_address: str = ""
    smarthost: str = ""  # URL; a shortcut for one [[routes]] table with domain = "*"


class Dns(Section):
    nameservers: tuple[str, ...] = ()  # "127.0.0.53:53"; empty: the system's
    timeout: float = 5.0  # one try
    lifetime: float = 15.0  # all tries of one question
    max_ttl: float = 3600.0
    min_ttl: float = 30.0
    negative_ttl: float = 300.0  # NXDOMAIN, NODATA: at most


class Route(Section):
    domain: str  # "*", "example.org" or ".example.org"
    name: str = ""  # default: the smarthost's host:port
    smarthost: str = ""  # smtp://host:port, smtps://user:pass@host; empty: direct to MX
    tls: TlsPolicy | None = None  # default: by scheme and credentials


class Smtp(Section):
    listen: tuple[str, ...] = ("127.0.0.1:2525",)
    allowed_networks: tuple[str, ...] = ("127.0.0.0/8", "::1/128")
    max_connections: int = 1000
    max_connections_per_address: int = 100
    max_recipients: int = 1000
    max_errors: int = 20
    idle_timeout: float = 300.0
    data_timeout: float = 300.0  # a silence inside DATA
    processes: int = 1


class Http(Section):
    listen: str = "127.0.0.1:8425"


class Sink(Section):
    dns: str = "127.0.0.1:8453"
    smtp: str = "127.0.0.1:8454"


class Timeouts(Section):
    """RFC 5321 §4.5.3.2; the phase names are those of `smtp.client.Phase`."""

    connect: float = 30.0
    greeting: float = 300.0
    tls: float = 60.0
    command: float = 300.0
    data: float = 120.0
    data_block: float = 180.0
    data_done: float = 600.0
    quit: float = 5.0


class Retry(Section):
    """Delays from attempt to attempt: a list such as "5m 15m 30m 1h 2h 4h*"; `*`: repeats."""

    transactional: str = "5m 15m 30m 1h 2h 4h*"
    bulk: str = "5m 15m 30m 1h 2h 4h*"
    first_after_rcpt: float = 60.0
    jitter: float = 0.1
    expire_transactional: float = 2 * 86400.0
    expire_bulk: float = 3 * 86400.0
    delay_notice: float = 4 * 3600.0  # 0: none


class Worker(Section):
    processes: int = 0  # 0: one per core
    max_sessions: int = 500
    max_content: int = 256 * 1024 * 1024  # octets of claimed content
    idle_session: float = 5.0  # an idle session is kept warm so long
    mails_per_session: int = 1000
    lease: float = 15.0
    pools: tuple[str, ...] = ("default",)
    uncertain_transactional: UncertainPolicy = UncertainPolicy.RETRY
    uncertain_bulk: UncertainPolicy = UncertainPolicy.RETRY


class Limits(Section):
    message_size: int = 25 * 1024 * 1024
    recipients: int = 10_000  # of one message at the HTTP and Python doors


class Events(Section):
    keep: int = 100_000


class Log(Section):
    level: str = "info"
    format: str = "auto"  # auto | json | human
    redact_addresses: bool = False


class Up(Section):
    data_dir: str = ""  # empty: $XDG_STATE_HOME/relay


class Settings(Section):
    """The whole configuration."""

    redis: Redis = Redis()
    delivery: Delivery = Delivery()
    dns: Dns = Dns()
    routes: tuple[Route, ...] = ()
    smtp: Smtp = Smtp()
    http: Http = Http()
    sink: Sink = Sink()
    timeouts: Timeouts = Timeouts()
    retry: Retry = Retry()
    worker: Worker = Worker()
    limits: Limits = Limits()
    events: Events = Events()
    log: Log = Log()
    up: Up = Up()
