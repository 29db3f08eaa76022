"""What a program says of reports to its sender, and the DSN parameters that come of it."""

import msgspec

from relay.model.dsn import (
    ENVID_LENGTH,
    FULL,
    HEADERS,
    Dsn,
    RecipientDsn,
    encode_xtext,
    is_envid,
    notify_letters,
)
from relay.model.errors import Finding, SubmissionRefused

_RET = {None: "", "full": FULL, "headers": HEADERS}


class ReportFields(msgspec.Struct, frozen=True):
    """The fields of one message: `notify` of all its recipients, empty where nothing was said."""

    notify: tuple[str, ...] = ()
    report_content: str | None = None
    envelope_id: str = ""


def dsn_of(fields: ReportFields, recipients: int) -> Dsn | None:
    """The parameters for so many recipients, None where nothing is asked.

    SubmissionRefused carries every fault.
    """
    if fields == ReportFields():
        return None
    findings = []
    letters = envid = ""
    try:
        letters = notify_letters(",".join(fields.notify)) if fields.notify else ""
    except ValueError:
        fix = "use never, or some of success, failure and delay, each once"
        findings.append(
            Finding("notify", "notify_invalid", "is not what reports are sent for", fix)
        )
    if fields.report_content not in _RET:
        findings.append(
            Finding("report_content", "report_content_unknown", "is neither", "use full or headers")
        )
    if fields.envelope_id:
        envid = encode_xtext(fields.envelope_id) if fields.envelope_id.isascii() else ""
        if not is_envid(envid):
            findings.append(
                Finding(
                    "envelope_id",
                    "envelope_id_invalid",
                    "cannot be told to mail servers",
                    f"use at most {ENVID_LENGTH} printable ASCII characters; a blank, + or = counts"
                    " for three",
                )
            )
    if findings:
        raise SubmissionRefused(*findings)
    asked = (RecipientDsn(letters),) * recipients if letters else ()
    return Dsn(_RET[fields.report_content], envid, asked)
