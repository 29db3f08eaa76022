"""What to demand of TLS for a next hop: the operator's word, the account's safety, the shape, and
what the recipient domain publishes."""

import hashlib
from collections.abc import Iterable

import msgspec

from relay.model.credentials import Credentials
from relay.policy.route import StaticRoute
from relay.policy.shape import Shape
from relay.policy.smarthost import is_loopback
from relay.settings.schema import TlsPolicy


def tls_for(
    route: StaticRoute | None,
    shape: Shape,
    credentials: Credentials | None = None,
    *,
    demanded: TlsPolicy | None = None,
) -> TlsPolicy:
    """The TLS policy of a hop; `demanded` is that of a route to the domain's own MX, where DANE
    means at least required.

    `smtp://user:password@` and `smtps://` mean required, or more where the shape demands more;
    all other mail follows the shape of its site where no route says anything.
    """
    if route is None:
        return TlsPolicy.REQUIRED if demanded is TlsPolicy.DANE else demanded or shape.tls
    if route.is_socket:
        return TlsPolicy.OFF
    account = credentials or route.credentials
    if route.tls is not None:
        if account and not is_loopback(route.host) and route.tls in _WEAK:
            return TlsPolicy.REQUIRED
        return route.tls
    if (route.implicit_tls or account) and shape.tls in _WEAK:
        return TlsPolicy.REQUIRED
    return shape.tls


_WEAK = frozenset({TlsPolicy.OFF, TlsPolicy.OPPORTUNISTIC})


class Security(msgspec.Struct, frozen=True):
    """What a lane demands of TLS; text form `tls`, `tls+mta-sts`, `tls+mta-sts.<digest>+dane`,
    `tls+dane.<domain>`, `required+dane-only`.

    `mta_sts`: demanded by MTA-STS policies, which admit the hosts of this digest; "all": all hosts
    of the site; "testing": how hosts would fare is to be reported, no more (RFC 8461 §5). Empty: no
    policy has a word. `dane`: hosts may demand more by TLSA records; `next_hop`: the domain whose
    name their certificates may have instead of their own (RFC 7672 §3.2.2), so that it shares no
    sessions with others. `dane_only`: hosts without usable records are not used (§6).
    """

    tls: TlsPolicy
    mta_sts: str = ""
    dane: bool = False
    next_hop: str = ""
    dane_only: bool = False

    def __str__(self) -> str:
        return "+".join((self.tls.value, *self._by_policy, *self._by_records))

    @classmethod
    def parse(cls, text: str) -> "Security":
        """The security of a lane; ValueError where it is none."""
        first, *others = text.split("+")
        security = cls(TlsPolicy(first))
        for part in others:
            word, _, digest = part.partition(".")
            if word in (_DANE, _DANE_ONLY):
                security = msgspec.structs.replace(
                    security, dane=True, next_hop=digest, dane_only=word == _DANE_ONLY
                )
            elif word == "mta-sts":
                security = msgspec.structs.replace(security, mta_sts=digest or _ALL)
            else:
                raise ValueError(f"not a lane's security: {text!r}")
        return security

    def by_mta_sts(self, hosts: Iterable[str], admitted: Iterable[str]) -> "Security":
        """With the demand of an MTA-STS policy that admits these of the hosts (RFC 8461 §5)."""
        names = sorted(admitted)
        digest = hashlib.sha256("\n".join(names).encode()).hexdigest()[:8]
        return msgspec.structs.replace(
            self,
            tls=TlsPolicy.VERIFIED,
            mta_sts=_ALL if names == sorted(hosts) else digest,
        )

    def by_testing(self) -> "Security":
        """With an MTA-STS policy in testing mode."""
        return msgspec.structs.replace(self, mta_sts=_TESTING)

    @property
    def is_testing(self) -> bool:
        return self.mta_sts == _TESTING

    @property
    def is_by_mta_sts(self) -> bool:
        """Whether an MTA-STS policy that is enforced demands it."""
        return bool(self.mta_sts) and not self.is_testing

    @property
    def demands(self) -> tuple[str, ...]:
        """What is demanded beyond TLS where it is offered: by whom (`mta-sts`, with the digest of
        the hosts that are left; `dane`), else how much."""
        demanded = () if self.is_by_mta_sts or self.tls in _WEAK else (self.tls.value,)
        by_policy = self._by_policy if self.is_by_mta_sts else ()
        return (*demanded, *by_policy, *self._by_records)

    @property
    def _by_policy(self) -> tuple[str, ...]:
        if not self.mta_sts:
            return ()
        return ("mta-sts" if self.mta_sts == _ALL else f"mta-sts.{self.mta_sts}",)

    @property
    def _by_records(self) -> tuple[str, ...]:
        if not self.dane:
            return ()
        word = _DANE_ONLY if self.dane_only else _DANE
        return (f"{word}.{self.next_hop}" if self.next_hop else word,)


_DANE, _DANE_ONLY = "dane", "dane-only"
_ALL, _TESTING = "all", "testing"
