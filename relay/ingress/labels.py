"""What a sender says about a message beside its content: class, campaign, tags, metadata, key.

Programs say it in fields of their own; mail clients in `X-Relay-*` header fields, which are
taken out before the message is queued.
"""

import re

import msgspec

from relay.model.errors import Finding
from relay.settings.schema import MailClass
from relay.smtp.header_block import HeaderBlock

PREFIX = "x-relay-"

#: A campaign is part of a queue's name and of URLs.
_CAMPAIGN = re.compile(r"[A-Za-z0-9][A-Za-z0-9._:+\-]{0,63}")
_KEY = re.compile(r"[!-~](?:[ -~]{0,254}[!-~])?")
_METADATA_KEY = re.compile(r"[A-Za-z0-9_][A-Za-z0-9_.\-]{0,63}")
_YES = frozenset({"yes", "true", "1"})
_MOST_TAGS = 20
_MOST_METADATA = 50
_TAG_LENGTH = 128
_VALUE_LENGTH = 512


class Labels(msgspec.Struct, frozen=True, kw_only=True):
    """The labels of one message; `mail_class` None: decided by the header.

    `trace`: the dialogues of its deliveries are told as events.
    """

    mail_class: str | None = None
    campaign: str = ""
    tags: tuple[str, ...] = ()
    metadata: dict[str, str] = {}
    idempotency_key: str = ""
    trace: bool = False


def labels_of(block: HeaderBlock, given: Labels) -> Labels:
    """The given labels, completed by the `X-Relay-*` fields; what was given stands first."""
    fields = [field for field in block.fields if field.name.startswith(PREFIX)]
    if not fields:
        return given
    said: dict[str, str] = {}
    tags = list(given.tags)
    metadata: dict[str, str] = {}
    for field in fields:
        word = field.name.removeprefix(PREFIX)
        if word in ("tag", "tags"):
            tags += [tag for tag in map(str.strip, field.value.split(",")) if tag]
        elif word.startswith("metadata-"):
            metadata[word.removeprefix("metadata-")] = field.value
        else:
            said[word] = field.value
    return Labels(
        mail_class=given.mail_class or said.get("class"),
        campaign=given.campaign or said.get("campaign", ""),
        tags=tuple(tags),
        metadata=metadata | given.metadata,
        idempotency_key=given.idempotency_key or said.get("idempotency-key", ""),
        trace=given.trace or said.get("trace", "").lower() in _YES,
    )


def check_labels(labels: Labels) -> list[Finding]:
    """Everything that is wrong with the labels."""
    findings = []
    if labels.mail_class is not None and labels.mail_class not in set(MailClass):
        findings.append(
            Finding("class", "class_unknown", "is no class", "use transactional or bulk")
        )
    if labels.campaign and _CAMPAIGN.fullmatch(labels.campaign) is None:
        findings.append(
            Finding(
                "campaign",
                "campaign_invalid",
                f"{labels.campaign[:64]!r} is not a campaign name",
                "use at most 64 of A-Z a-z 0-9 . _ : + -",
            )
        )
    if labels.idempotency_key and _KEY.fullmatch(labels.idempotency_key) is None:
        findings.append(idempotency_key_finding())
    if labels.tags:
        findings += _check_tags(labels.tags)
    if labels.metadata:
        findings += _check_metadata(labels.metadata)
    return findings


def is_idempotency_key(text: str) -> bool:
    """Whether the text may be an idempotency key."""
    return _KEY.fullmatch(text) is not None


def idempotency_key_finding() -> Finding:
    """The fault of a key that is none."""
    return Finding(
        "idempotency_key",
        "idempotency_key_invalid",
        "is not an idempotency key",
        "use 1 to 256 printable ASCII characters",
    )


def _check_tags(tags: tuple[str, ...]) -> list[Finding]:
    if len(tags) > _MOST_TAGS:
        return [Finding("tags", "too_many_tags", f"are over {_MOST_TAGS}", "use metadata")]
    return [
        Finding(
            f"tags[{index}]",
            "tag_invalid",
            "is not a tag",
            f"use 1 to {_TAG_LENGTH} printable characters",
        )
        for index, tag in enumerate(tags)
        if not tag or len(tag) > _TAG_LENGTH or not tag.isprintable()
    ]


def _check_metadata(metadata: dict[str, str]) -> list[Finding]:
    if len(metadata) > _MOST_METADATA:
        fix = "keep the rest on your side"
        return [Finding("metadata", "too_much_metadata", f"has over {_MOST_METADATA} keys", fix)]
    findings = []
    for key, value in metadata.items():
        if _METADATA_KEY.fullmatch(key) is None:
            fix = "use at most 64 of A-Z a-z 0-9 _ . -"
            findings.append(
                Finding("metadata", "metadata_key_invalid", f"{key[:64]!r} is not a key", fix)
            )
        elif len(value) > _VALUE_LENGTH or not value.isprintable():
            fix = f"use at most {_VALUE_LENGTH} printable characters"
            findings.append(
                Finding(f"metadata.{key}", "metadata_value_invalid", "is not a value", fix)
            )
    return findings
