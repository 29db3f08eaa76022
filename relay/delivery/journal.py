"""Outcomes as log lines: one a recipient, with the contract's fields."""

from collections.abc import Iterable
from typing import Any

import structlog

from relay.model.message import Outcome

_log = structlog.get_logger("relay.delivery")


def log_outcomes(outcomes: Iterable[Outcome]) -> None:
    """Log each outcome under its event's name; what was given back only at debug."""
    for outcome in outcomes:
        if outcome.events:
            _log.info(outcome.events[0], **_fields(outcome))
        else:
            _log.debug(
                "recipient.given_back",
                recipient_id=f"{outcome.queue_id}.{outcome.number}",
                reason=outcome.verdict.reason,
            )


def _fields(outcome: Outcome) -> dict[str, Any]:
    event, remote = outcome.event, outcome.event.get("remote", {})
    fields: dict[str, Any] = {
        "queue_id": outcome.queue_id,
        "recipient_id": event["recipient_id"],
        "forward_path": event["address"],
        "reverse_path": event["reverse_path"],
        "attempt": outcome.attempt,
        "severity": event["severity"],
        "scope": event["scope"],
        "reason": event["reason"],
        "site": remote.get("site", ""),
        "mx_host": remote.get("host", ""),
        "mx_ip": remote.get("ip", ""),
        "source": event["source"],
        "delays": event["delays"],
    }
    reply = outcome.verdict.reply
    if reply is not None:
        fields |= {
            "reply_code": reply.code,
            "reply_enhanced": reply.enhanced,
            "reply_text": reply.text,
            "reply_command": reply.command,
        }
    if event["campaign"]:
        fields["campaign"] = event["campaign"]
    if "next_attempt_at" in event:
        fields["next_attempt_at"] = event["next_attempt_at"]
    return fields
