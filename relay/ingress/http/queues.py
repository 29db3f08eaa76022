"""`/v1/queues` and `/v1/suspensions`: what waits where, and the verbs on queues."""

from typing import Annotated

from fastapi import APIRouter
from fastapi import Query as QueryParameters
from starlette.requests import Request
from starlette.responses import Response

from relay.ingress.http.body import json_response, read_json
from relay.ingress.http.door import Door
from relay.ingress.http.filters import (
    QueueQuery,
    QueueSelection,
    SuspensionRequest,
    duration_s,
    invalid,
    match_of,
    reason_of,
)
from relay.ingress.http.openapi import answers, takes
from relay.ingress.http.shapes import (
    FlushedShape,
    QueueShape,
    QueuesShape,
    ResumedShape,
    SuspensionShape,
    SuspensionsShape,
)
from relay.store.views import QueueMatch


class Queues:
    """The endpoints of queues and suspensions."""

    def __init__(self, door: Door) -> None:
        self._door = door

    def router(self) -> APIRouter:
        """All endpoints."""
        router = APIRouter(prefix="/v1", tags=["queues"])
        router.add_api_route(
            "/queues",
            self.list,
            methods=["GET"],
            summary="List queues",
            responses=answers(QueuesShape, 422),
        )
        router.add_api_route(
            "/queues/flush",
            self.flush,
            methods=["POST"],
            summary="Try deferred recipients now",
            responses=answers(FlushedShape, 422),
            openapi_extra=takes(QueueSelection, required=True),
        )
        router.add_api_route(
            "/suspensions",
            self.suspensions,
            methods=["GET"],
            summary="List suspensions",
            responses=answers(SuspensionsShape),
        )
        router.add_api_route(
            "/suspensions",
            self.suspend,
            methods=["POST"],
            status_code=201,
            summary="Suspend queues",
            responses=answers(SuspensionShape, 422, status=201),
            openapi_extra=takes(SuspensionRequest, required=True),
        )
        router.add_api_route(
            "/suspensions",
            self.resume_match,
            methods=["DELETE"],
            summary="Resume by the match of the suspension",
            responses=answers(ResumedShape, 404, 422),
        )
        router.add_api_route(
            "/suspensions/{id}",
            self.resume,
            methods=["DELETE"],
            summary="Resume by the suspension's id",
            responses=answers(ResumedShape, 404),
        )
        return router

    async def list(self, query: Annotated[QueueQuery, QueryParameters()]) -> Response:
        """The matching queues, by name."""
        views = await self._door.store.queues(query.match(), limit=query.limit)
        return json_response(QueuesShape([QueueShape.of(view) for view in views]))

    async def flush(self, request: Request) -> Response:
        """Deferred recipients of the matching queues become ready."""
        match = match_of(await read_json(request, QueueSelection))
        return json_response(FlushedShape(await self._door.store.flush(match)))

    async def suspensions(self) -> Response:
        """Suspensions in force, the next to end first."""
        found = await self._door.store.suspensions()
        return json_response(SuspensionsShape([SuspensionShape.of(item) for item in found]))

    async def suspend(self, request: Request) -> Response:
        """Stop attempts of the matching queues, present and to come."""
        wanted = await read_json(request, SuspensionRequest)
        suspension = await self._door.store.suspend(
            match_of(wanted),
            reason=reason_of(wanted.reason) or "suspended by an operator",
            duration_s=duration_s("duration", wanted.duration),
            actor="http",
        )
        return json_response(SuspensionShape.of(suspension), 201)

    async def resume(self, id: str) -> Response:
        """End one suspension."""
        return json_response(ResumedShape(await self._door.store.resume(id)))

    async def resume_match(self, query: Annotated[QueueQuery, QueryParameters()]) -> Response:
        """End the suspensions that were made with exactly these fields."""
        match = query.match()
        if match == QueueMatch():
            raise invalid("destination", "no filter is given", "give a filter, or the id")
        return json_response(ResumedShape(await self._door.store.resume(match)))
