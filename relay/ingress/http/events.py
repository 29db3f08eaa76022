"""`/v1/events`: what happened, in order, by pages, by waiting, or as a stream."""

import asyncio
from collections.abc import AsyncIterator
from typing import Annotated

import msgspec
from fastapi import APIRouter
from fastapi import Query as QueryParameters
from pydantic import Field
from starlette.requests import Request
from starlette.responses import Response, StreamingResponse

from relay.ingress.http.body import json_response
from relay.ingress.http.door import Door
from relay.ingress.http.filters import Query, duration_s, invalid
from relay.ingress.http.openapi import answers
from relay.ingress.http.shapes import EventShape, EventsShape
from relay.model.errors import StoreUnavailable
from relay.store.events import StoredEvent
from relay.store.queue import Store

_PAUSE_S = 0.1
_PAGE = 500
_LONGEST_WAIT_S = 60.0


class EventQuery(Query):
    """Which events."""

    after: Annotated[
        str, Field(pattern=r"^(\$|\d{1,20}(-\d{1,20})?)$", description="cursor; $: from now on")
    ] = "0"
    limit: Annotated[int, Field(ge=1, le=1000)] = 100
    type: Annotated[str, Field(description="such as recipient.delivered")] = ""
    queue_id: str = ""
    wait: Annotated[str, Field(description="how long to wait for one, such as 20s")] = ""

    def fits(self, event: StoredEvent) -> bool:
        """Whether the event is wanted."""
        return self.type in ("", event.type) and self.queue_id in ("", event.data.get("queue_id"))


class Events:
    """The endpoint of events."""

    def __init__(self, door: Door) -> None:
        self._door = door

    def router(self) -> APIRouter:
        """The one endpoint."""
        router = APIRouter(prefix="/v1", tags=["events"])
        router.add_api_route(
            "/events",
            self.read,
            methods=["GET"],
            summary="Read events; with Accept: text/event-stream as a stream",
            responses=answers(EventsShape, 422),
        )
        return router

    async def read(
        self, query: Annotated[EventQuery, QueryParameters()], request: Request
    ) -> Response:
        """A page of events after a cursor."""
        store = self._door.store
        after = request.headers.get("last-event-id", "") or query.after
        if after == "$":
            after = await _latest_cursor(store)
        if "text/event-stream" in request.headers.get("accept", ""):
            return StreamingResponse(
                _stream(self._door, query, after),
                media_type="text/event-stream",
                headers={"Cache-Control": "no-store"},
            )
        wait_s = duration_s("wait", query.wait) if query.wait else 0.0
        if wait_s > _LONGEST_WAIT_S:
            raise invalid("wait", "is over a minute", "wait 60s at most, then ask again")
        end = asyncio.get_running_loop().time() + wait_s
        while True:
            found, after = await _page(store, query, after)
            is_over = asyncio.get_running_loop().time() >= end or self._door.stopping.is_set()
            if found or is_over:
                shapes = [EventShape.of(event) for event in found]
                return json_response(EventsShape(shapes, after))
            await asyncio.sleep(_PAUSE_S)


async def _latest_cursor(store: Store) -> str:
    newest = await store.latest_events(1)
    return newest[0].cursor if newest else "0"


async def _page(store: Store, query: EventQuery, after: str) -> tuple[list[StoredEvent], str]:
    """Up to `limit` wanted events, and the cursor behind all that were looked at."""
    found: list[StoredEvent] = []
    while True:
        events = await store.events(after, limit=_PAGE)
        for event in events:
            after = event.cursor
            if query.fits(event):
                found.append(event)
                if len(found) == query.limit:
                    return found, after
        if len(events) < _PAGE:
            return found, after


async def _stream(door: Door, query: EventQuery, after: str) -> AsyncIterator[bytes]:
    """Server-sent events without end; a comment now and then keeps proxies from closing."""
    idle_s = 0.0
    while not door.stopping.is_set():
        try:
            found, after = await _page(door.store, query, after)
        except StoreUnavailable:
            return  # the client connects again with Last-Event-ID
        for event in found:
            data = msgspec.json.encode(EventShape.of(event)).decode()
            yield f"id: {event.cursor}\nevent: {event.type}\ndata: {data}\n\n".encode()
        idle_s = 0.0 if found else idle_s + _PAUSE_S
        if idle_s >= 15.0:
            idle_s = 0.0
            yield b": still here\n\n"
        await asyncio.sleep(_PAUSE_S)
