"""Which failures and complaints put a recipient on the suppression list, and for how long.

Rules of this file
- Only what is wrong with the mailbox or its domain counts: `suppression.bounce_reasons` can name
  nothing else. A block, a policy, spam or a full mailbox says nothing about whether it exists.
- A complaint counts always, and for good.
"""

from relay.model.suppression import Consequence, Origin, SuppressionReason
from relay.settings.schema import Mode, Settings

#: Not the mailbox alone is missing but where it could be.
_WITHOUT_DOMAIN = frozenset({"no_such_domain", "null_mx", "domain_refuses_mail", "address_invalid"})


class Suppressing:
    """What of [suppression] says when an entry is made."""

    def __init__(self, settings: Settings) -> None:
        own = settings.suppression
        is_on = own.bounces == "on" or (
            own.bounces == "live" and settings.delivery.mode is Mode.LIVE
        )
        self._reasons = frozenset(map(str, own.bounce_reasons)) if is_on else frozenset()
        self._keep_s = own.keep_bounces
        self._most = own.entries

    def after_failure(self, reason: str) -> Consequence | None:
        """What a failure for good with this reason (`policy/reasons.py`) means for the list."""
        if reason not in self._reasons:
            return None
        is_invalid = reason in _WITHOUT_DOMAIN
        word = SuppressionReason.INVALID if is_invalid else SuppressionReason.BOUNCED
        return Consequence(word, Origin.BOUNCE, self._keep_s, self._most)

    def after_complaint(self, feedback_type: str) -> Consequence:
        """What a complaint means; one of the type opt-out (RFC 5965 §7.3) is none about spam."""
        is_opt_out = feedback_type.startswith("opt-out")
        word = SuppressionReason.UNSUBSCRIBED if is_opt_out else SuppressionReason.SPAM
        return Consequence(word, Origin.COMPLAINT, 0.0, self._most)
