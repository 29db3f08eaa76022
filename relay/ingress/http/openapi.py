"""The OpenAPI document: FastAPI's, with the schemas of our structs put in."""

from typing import Any

import msgspec
from fastapi import FastAPI

from relay.delivery.probe_report import ProbeReport
from relay.ingress.http import filters, shapes
from relay.ingress.http.filters import ProbeRequest
from relay.ingress.http.problem import ProblemShape
from relay.ingress.message import Message
from relay.policy.tls_report import DomainReport

_REF = "#/components/schemas/{name}"
_STRUCTS = (
    Message,
    ProblemShape,
    filters.QueueSelection,
    filters.SuspensionRequest,
    filters.VerbRequest,
    filters.SuppressionRequest,
    filters.SuppressionImport,
    ProbeReport,
    ProbeRequest,
    DomainReport,
    *(
        value
        for name, value in vars(shapes).items()
        if name.endswith("Shape") and isinstance(value, type)
    ),
)
_MEANING = {
    400: "not JSON, or a malformed header",
    404: "unknown, or finished over an hour ago",
    409: "it does not apply to the present state",
    413: "too large",
    415: "wrong media type",
    422: "understood and refused; `errors` says field by field why",
    504: "took too long",
    503: "the store is absent or full; try again after `Retry-After` seconds",
}


def ref(struct: type[msgspec.Struct]) -> dict[str, str]:
    """A reference to the schema of a struct."""
    return {"$ref": _REF.format(name=struct.__name__)}


def answers(
    struct: type[msgspec.Struct], *problems: int, status: int = 200
) -> dict[int | str, dict[str, Any]]:
    """The `responses` of an endpoint."""
    said: dict[int | str, dict[str, Any]] = {
        status: {
            "description": (struct.__doc__ or "").partition("\n")[0],
            "content": {"application/json": {"schema": ref(struct)}},
        }
    }
    for code in (*problems, 503):
        said[code] = {
            "description": _MEANING[code],
            "content": {"application/problem+json": {"schema": ref(ProblemShape)}},
        }
    return said


def takes(
    struct: type[msgspec.Struct], *, required: bool = False, headers: tuple[str, ...] = ()
) -> dict[str, Any]:
    """The `openapi_extra` of an endpoint with a JSON body."""
    extra: dict[str, Any] = {
        "requestBody": {
            "required": required,
            "content": {"application/json": {"schema": ref(struct)}},
        }
    }
    if headers:
        extra["parameters"] = [
            {"name": name, "in": "header", "schema": {"type": "string"}} for name in headers
        ]
    return extra


def describe(app: FastAPI) -> None:
    """Have the application's document carry our schemas."""
    plain = app.openapi

    def document() -> dict[str, Any]:
        if app.openapi_schema is None:
            made = plain()
            _, components = msgspec.json.schema_components(_STRUCTS, ref_template=_REF)
            made.setdefault("components", {}).setdefault("schemas", {}).update(components)
            for path in made["paths"].values():
                for operation in path.values():
                    _tell_our_422(operation)
            app.openapi_schema = made
        return app.openapi_schema

    app.openapi = document  # type: ignore[method-assign]


def _tell_our_422(operation: dict[str, Any]) -> None:
    """FastAPI announces its own error shape wherever there are parameters; ours is another."""
    said = operation.get("responses", {}).get("422")
    if said is not None:
        said["description"] = _MEANING[422]
        said["content"] = {"application/problem+json": {"schema": ref(ProblemShape)}}
