"""Errors as RFC 9457 problem details: one place where every exception becomes a status."""

import difflib
import re
from collections.abc import Sequence
from http import HTTPStatus

import msgspec
from starlette.responses import Response

from relay.model.errors import (
    Finding,
    IdempotencyConflict,
    MessageTooLarge,
    NotFound,
    RelayError,
    ScriptMismatch,
    StateConflict,
    StoreFull,
    StoreUnavailable,
    SubmissionRefused,
)

_AT = re.compile(r" - at `(.*)`$")
_UNKNOWN = re.compile(r"Object contains unknown field `(.*)`")
_MISSING = re.compile(r"Object missing required field `(.*)`")


class ErrorShape(msgspec.Struct, frozen=True):
    """One fault: where it is, a stable code, what is wrong, what to do."""

    field: str
    code: str
    message: str
    fix: str = ""


class ProblemShape(msgspec.Struct, frozen=True, kw_only=True):
    """The body of every error reply (application/problem+json)."""

    type: str
    title: str
    status: int
    detail: str
    code: str
    instance: str = ""
    errors: tuple[ErrorShape, ...] = ()


class Problem(RelayError):
    """Raised when a request is answered with an error."""

    def __init__(
        self,
        status: int,
        code: str,
        detail: str,
        *,
        findings: Sequence[Finding] = (),
        headers: dict[str, str] | None = None,
    ) -> None:
        super().__init__(detail)
        self.status = status
        self.code = code
        self.detail = detail
        self.findings = tuple(findings)
        self.headers = headers or {}


def problem_of(error: Exception) -> Problem | None:
    """The problem that an exception of ours is; None where it is nobody's plan."""
    if isinstance(error, Problem):
        return error
    if isinstance(error, MessageTooLarge):
        return Problem(413, "message_too_large", str(error), findings=error.findings)
    if isinstance(error, SubmissionRefused):
        findings = error.findings
        code = findings[0].code if len(findings) == 1 else "submission_refused"
        return Problem(422, code.replace(".", "_"), str(error), findings=findings)
    if isinstance(error, IdempotencyConflict):
        return Problem(422, "idempotency_key_reused", str(error))
    if isinstance(error, NotFound):
        return Problem(404, "not_found", str(error))
    if isinstance(error, StateConflict):
        return Problem(409, "state_conflict", str(error))
    if isinstance(error, ScriptMismatch):  # this process is about to end
        error = StoreUnavailable(str(error))
    if isinstance(error, StoreUnavailable):
        code = "store_full" if isinstance(error, StoreFull) else "store_unavailable"
        retry_after = {"Retry-After": str(error.retry_after_s)}
        return Problem(503, code, str(error), headers=retry_after)
    return None


def problem_response(problem: Problem, path: str) -> Response:
    """The reply for a problem."""
    shape = ProblemShape(
        type=f"urn:relay:problem:{problem.code}",
        title=HTTPStatus(problem.status).phrase,
        status=problem.status,
        detail=problem.detail,
        code=problem.code,
        instance=path,
        errors=tuple(
            ErrorShape(finding.field, finding.code, finding.message, finding.fix)
            for finding in problem.findings
        ),
    )
    return Response(
        msgspec.json.encode(shape),
        problem.status,
        headers=problem.headers,
        media_type="application/problem+json",
    )


def unknown_field(field: str, known: Sequence[str]) -> Finding:
    """The finding for a name that we do not know, with the one that was meant if we can tell."""
    close = difflib.get_close_matches(field.rpartition(".")[2], known, n=1)
    fix = f"did you mean {close[0]}?" if close else "remove it"
    return Finding(field or '""', "unknown_field", "is no field here", fix)


def json_problem(error: msgspec.DecodeError, known: Sequence[str]) -> Problem:
    """The problem with a JSON body: not JSON at all (400), or not of the expected shape (422)."""
    text = str(error)
    if not isinstance(error, msgspec.ValidationError):
        return Problem(400, "malformed_json", f"the body is not JSON: {text}")
    at = _AT.search(text)
    place = at[1].removeprefix("$").removeprefix(".") if at else ""
    fault = _AT.sub("", text)
    unknown, missing = _UNKNOWN.fullmatch(fault), _MISSING.fullmatch(fault)
    prefix = f"{place}." if place else ""
    if unknown:
        finding = unknown_field(prefix + unknown[1], known if not place else ())
    elif missing:
        finding = Finding(prefix + missing[1], "missing_field", "is missing", "give it")
    else:
        finding = Finding(place or "body", "invalid_value", fault.replace("`", "'"))
    return Problem(422, finding.code, str(finding), findings=[finding])
