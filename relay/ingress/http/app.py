"""The application: guard, endpoints, errors as problem details, the OpenAPI document."""

import asyncio

from fastapi import FastAPI
from fastapi.exceptions import RequestValidationError
from starlette.exceptions import HTTPException
from starlette.requests import Request
from starlette.responses import Response

from relay import __version__
from relay.ingress.http.door import Door
from relay.ingress.http.events import Events
from relay.ingress.http.guard import Guard
from relay.ingress.http.messages import Messages
from relay.ingress.http.openapi import describe
from relay.ingress.http.probe import Probes
from relay.ingress.http.problem import Problem, problem_of, problem_response, unknown_field
from relay.ingress.http.queues import Queues
from relay.ingress.http.status import Status
from relay.ingress.http.suppressions import SuppressionList
from relay.ingress.http.tls_reports import TlsReports
from relay.ingress.store_link import StoreLink
from relay.ingress.submit import Submitter
from relay.model.errors import Finding, RelayError
from relay.policy.route import RouteTable
from relay.settings.kinds import parse_listen
from relay.settings.schema import Settings
from relay.telemetry.log import get_logger

_QUERY_NAMES = (
    "after",
    "campaign",
    "class",
    "cursor",
    "day",
    "destination",
    "domain",
    "from",
    "limit",
    "older_than",
    "origin",
    "queue_id",
    "reason",
    "state",
    "tenant",
    "to",
    "type",
    "wait",
)


def create_app(settings: Settings, link: StoreLink, stopping: asyncio.Event) -> FastAPI:
    """The ASGI application over a link that somebody else starts and closes.

    `stopping` ends waits and streams, which would otherwise outlast the server.
    """
    routes = RouteTable.from_settings(settings)
    submitter = Submitter(settings, link, routes, meter=link.meter)
    door = Door(settings, link, submitter, routes, stopping)

    app = FastAPI(
        title="relay",
        version=__version__,
        docs_url=None,
        redoc_url=None,
    )
    messages = Messages(door)
    app.router.routes[:0] = messages.fast_routes()
    for router in (messages.router(), Queues(door).router(), Events(door).router()):
        app.include_router(router)
    app.include_router(Status(door).router())
    app.include_router(Probes(door).router())
    app.include_router(TlsReports(door).router())
    app.include_router(SuppressionList(door).router())
    app.add_exception_handler(RelayError, _on_relay_error)
    app.add_exception_handler(RequestValidationError, _on_invalid_request)
    app.add_exception_handler(HTTPException, _on_http_error)
    app.add_exception_handler(Exception, _on_unforeseen)
    host = parse_listen(settings.http.listen).host
    name = f"[{host}]" if ":" in host else host
    app.add_middleware(Guard, keys=settings.http.keys, names=(name,))
    describe(app)
    return app


async def _on_relay_error(request: Request, error: Exception) -> Response:
    problem = problem_of(error)
    if problem is None:
        return await _on_unforeseen(request, error)
    if problem.status >= 500:
        get_logger().warning("http.unavailable", path=request.url.path, reason=problem.detail)
    return problem_response(problem, request.url.path)


async def _on_invalid_request(request: Request, error: Exception) -> Response:
    """FastAPI found a fault in path or query."""
    assert isinstance(error, RequestValidationError)
    findings = []
    for fault in error.errors():
        name = ".".join(str(part) for part in fault["loc"][1:]) or "query"
        if fault["type"] == "extra_forbidden":
            findings.append(unknown_field(name, _QUERY_NAMES))
        else:
            findings.append(Finding(name, "invalid_value", str(fault["msg"])))
    problem = Problem(422, findings[0].code, str(findings[0]), findings=findings)
    return problem_response(problem, request.url.path)


async def _on_http_error(request: Request, error: Exception) -> Response:
    """Starlette's own: no such path, no such method."""
    assert isinstance(error, HTTPException)
    code = {404: "no_such_path", 405: "method_not_allowed"}.get(error.status_code, "http_error")
    problem = Problem(error.status_code, code, str(error.detail), headers=dict(error.headers or {}))
    return problem_response(problem, request.url.path)


async def _on_unforeseen(request: Request, error: Exception) -> Response:
    """What nobody foresaw: 500 with an id that stands in the log, nothing of the inside."""
    incident = request.scope.get("relay.request_id", "")
    get_logger().error("http.failed", incident=incident, path=request.url.path, exc_info=error)
    return problem_response(
        Problem(500, "internal_error", f"an internal error; the log knows it as {incident}"),
        request.url.path,
    )
