"""Whose limit, window or breaker a key of `take` and `report` is, in words that people use."""

import re

import msgspec

#: Keys of rates have a letter before them.
_KEY = re.compile(r"(?:[cm]:)?(site|provider|host|route):(.*)", re.DOTALL)
#: `<source>:<site>`: the source may be an IPv6 address, the site is `<host>~…` or `<host>:<port>`.
_SITE = re.compile(r"(.*):((?:\[[^\]]*\]|[^:\[\]]*):\d{1,5}|[^:]*~[^:]*)", re.DOTALL)
#: Behind a site: what the mail that the key binds demands of TLS (`policy.tls.Security.demands`).
_DEMANDS = re.compile(
    r"(?:~(?:required|verified|mta-sts(?:\.[0-9a-f]{8})?|dane(?:-only)?(?:\.[a-z0-9_.-]+)?))+\Z"
)
_PORT = re.compile(r":\d{1,5}\Z")


class LimitKey(msgspec.Struct, frozen=True):
    """A key in its parts; what does not apply is empty.

    `site` is the identity that events of recipients have as `remote.site`; `account` the short
    name of a smarthost's account, as in lanes.
    """

    site: str = ""
    provider: str = ""
    source: str = ""
    account: str = ""

    @classmethod
    def parse(cls, key: str) -> "LimitKey":
        """The parts of `site:…`, `provider:…`, `host:…`, `route:…`; else the whole is the site."""
        match = _KEY.fullmatch(key)
        if match is None:
            return cls(site=key)
        kind, rest = match.groups()
        if kind == "route":
            site, _, account = rest.rpartition(":")
            return cls(site=site, account=account)
        if kind == "provider":
            source, _, provider = rest.rpartition(":")
            return cls(provider=provider, source=source)
        rest = _DEMANDS.sub("", rest)
        parts = _SITE.fullmatch(rest) if kind == "site" else None
        source, site = parts.groups() if parts is not None else rest.split(":", 1)
        return cls(site=site, source=source)

    @property
    def host(self) -> str:
        """The site's first MX host, or the smarthost."""
        return _PORT.sub("", self.site.partition("~")[0])

    @property
    def name(self) -> str:
        """The provider, else the host (a smarthost with its port)."""
        return self.provider or self.site.partition("~")[0]
