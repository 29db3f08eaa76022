"""Outcomes as log lines: one a recipient, with the contract's fields."""

from collections.abc import Iterable
from typing import Any

import structlog

from relay.model.message import Outcome
from relay.model.units import rfc3339

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
    """Every field of the contract, in its order; empty where there is nothing to tell."""
    event, told = outcome.event, outcome.told
    remote, tls, reply = event["remote"], event["tls"], outcome.verdict.reply
    fields: dict[str, Any] = {
        "queue_id": outcome.queue_id,
        "recipient_id": event["recipient_id"],
        "message_id": event["message_id"],
        "campaign": event["campaign"],
        "tenant": event["tenant"],
        "reverse_path": event["reverse_path"],
        "forward_path": event["address"],
        "domain": told["domain"],
        "site": remote.get("site", ""),
        "mx_host": remote.get("host", ""),
        "mx_ip": remote.get("ip", ""),
        "source": event["source"],
        "attempt": outcome.attempt,
        "severity": event["severity"],
        "scope": event["scope"],
        "reason": event["reason"],
        "text": outcome.verdict.text,
        "reply_code": reply.code if reply is not None else None,
        "reply_enhanced": reply.enhanced if reply is not None else None,
        "reply_text": reply.text if reply is not None else None,
        "reply_command": reply.command if reply is not None else None,
        "tls_version": tls.get("version", ""),
        "tls_verified": tls.get("verified", False),
        "size_octets": told["size_octets"],
        "delay_s": told["delay_s"],
        "delays": told["delays"],
        "session_id": told["session_id"],
    }
    moment = event.get("next_attempt_at")
    fields["next_attempt_at"] = rfc3339(moment) if moment is not None else None
    return fields
