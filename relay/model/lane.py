"""A lane: what one session may claim from.

Two destinations share a lane when they share everything that a connection is made of: the peer
(site), the source addresses (pool), what is demanded of TLS (security) and the account at the
peer (credentials, by name: never a secret). The text form is what the store keys lanes by.
"""

import re

import msgspec

#: Printable and neither white space nor the separator: a part may stand in keys, logs and URLs.
_PART = re.compile(r"[^\s|\x00-\x1f\x7f-\x9f\u2028\u2029\ud800-\udfff]*")


class Lane(msgspec.Struct, frozen=True, order=True):
    """(site, source pool, security profile, credentials); text form `site|pool|security|name`.

    `security` is what `policy.tls.Security` says ("opportunistic"); `credentials` is the name of
    an account or empty. ValueError where a part cannot stand in the text form.
    """

    site: str
    pool: str = "default"
    security: str = "opportunistic"
    credentials: str = ""

    def __post_init__(self) -> None:
        for field in ("site", "pool", "security", "credentials"):
            value = getattr(self, field)
            if _PART.fullmatch(value) is None:
                raise ValueError(f"lane {field} contains a separator or white space: {value!r}")
        if not self.site or not self.pool or not self.security:
            raise ValueError(f"lane without site, pool or security: {self!s}")

    def __str__(self) -> str:
        return f"{self.site}|{self.pool}|{self.security}|{self.credentials}"

    @classmethod
    def parse(cls, text: str) -> "Lane":
        """The lane of a text form; ValueError where it is none."""
        parts = text.split("|")
        if len(parts) != 4:
            raise ValueError(f"not a lane: {text!r}")
        return cls(*parts)
