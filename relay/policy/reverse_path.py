"""The reverse-path that mail leaves with: the sender's own, or one with a token (VERP)."""

from relay.policy.route import RouteTable
from relay.policy.senders import Senders
from relay.policy.verp import VerpCodec
from relay.settings.schema import Settings, Verp


class ReversePaths:
    """Writes reverse-paths as routes, senders and classes ask for it."""

    def __init__(self, senders: Senders, routes: RouteTable, codec: VerpCodec) -> None:
        self._senders = senders
        self._routes = routes
        self._codec = codec

    @classmethod
    def from_settings(cls, settings: Settings, routes: RouteTable) -> "ReversePaths | None":
        """None where nobody's mail gets a token; ConfigError where it could not."""
        senders = Senders(settings)
        by_route = any(route.verp not in (None, Verp.OFF) for route in settings.routes)
        if not (by_route or senders.use_verp):
            return None
        return cls(senders, routes, VerpCodec.from_settings(settings))

    def manner(
        self, reverse_path: str, *, tenant: str, mail_class: str, destination: str
    ) -> tuple[Verp, str]:
        """Whether a token stands for the message or for each recipient, and its domain.

        The null reverse-path stays what it is: nothing comes back to it.
        """
        if not reverse_path:
            return Verp.OFF, ""
        rule = self._senders.rule(reverse_path.rpartition("@")[2], tenant, mail_class)
        return self._routes.verp(destination) or rule.verp, rule.bounce_domain

    def encode(self, queue_id: str, number: int, domain: str, recipient: str = "") -> str:
        """The reverse-path for a recipient (with his address), or with number 0 for the message."""
        return self._codec.encode(queue_id, number, domain, recipient)
