"""What to demand of TLS for a next hop: the operator's word, the account's safety, the shape."""

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
    """The TLS policy of a hop; `demanded` is that of a route to the domain's own MX.

    `smtp://user:password@` and `smtps://` mean required, or more where the shape demands more;
    all other mail follows the shape of its site where no route says anything.
    """
    if route is None:
        return demanded or shape.tls
    account = credentials or route.credentials
    if route.tls is not None:
        if account and not is_loopback(route.host) and route.tls in _WEAK:
            return TlsPolicy.REQUIRED
        return route.tls
    if (route.implicit_tls or account) and shape.tls in _WEAK:
        return TlsPolicy.REQUIRED
    return shape.tls


_WEAK = frozenset({TlsPolicy.OFF, TlsPolicy.OPPORTUNISTIC})
