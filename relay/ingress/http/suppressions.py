"""`/v1/suppressions`: who gets no mail, and why; see `docs/suppression.md`."""

from typing import Annotated
from urllib.parse import urlencode

from fastapi import APIRouter
from fastapi import Query as QueryParameters
from starlette.requests import Request
from starlette.responses import Response

from relay.ingress.http.body import json_response, read_json
from relay.ingress.http.door import Door
from relay.ingress.http.filters import (
    SuppressionImport,
    SuppressionQuery,
    SuppressionRequest,
    duration_s,
    entries_of,
)
from relay.ingress.http.openapi import answers, takes
from relay.ingress.http.shapes import (
    ImportedShape,
    RemovedShape,
    SuppressionShape,
    SuppressionsShape,
)
from relay.model.errors import NotFound
from relay.model.suppression import Suppression, suppression_name
from relay.store.suppressions import Suppressions

#: An import of 1,000 entries with all that may stand in them.
_IMPORT_OCTETS = 4 * 1024 * 1024


class SuppressionList:
    """The endpoints."""

    def __init__(self, door: Door) -> None:
        self._door = door
        self._most = door.settings.suppression.entries

    def router(self) -> APIRouter:
        """All endpoints."""
        router = APIRouter(prefix="/v1/suppressions", tags=["suppressions"])
        router.add_api_route(
            "",
            self.list,
            methods=["GET"],
            summary="List who gets no mail",
            responses=answers(SuppressionsShape, 422),
        )
        router.add_api_route(
            "",
            self.add,
            methods=["POST"],
            status_code=201,
            summary="Suppress an address or a domain",
            responses=answers(SuppressionShape, 409, 422, status=201),
            openapi_extra=takes(SuppressionRequest, required=True),
        )
        router.add_api_route(
            "/import",
            self.take,
            methods=["POST"],
            summary="Take over entries of another list",
            responses=answers(ImportedShape, 409, 422),
            openapi_extra=takes(SuppressionImport, required=True),
        )
        router.add_api_route(
            "/{address:path}",
            self.show,
            methods=["GET"],
            summary="Show what keeps an address from mail: its entry, or that of its domain",
            responses=answers(SuppressionShape, 404, 422),
        )
        router.add_api_route(
            "/{address:path}",
            self.remove,
            methods=["DELETE"],
            summary="Take an address or a domain off the list",
            responses=answers(RemovedShape, 404, 422),
        )
        return router

    @property
    def _list(self) -> Suppressions:
        return Suppressions(self._door.store)

    async def list(self, query: Annotated[SuppressionQuery, QueryParameters()]) -> Response:
        """Entries that fit, newest first.

        A page may have fewer than `limit`, even none, and still a next one.
        """
        found, cursor = await self._list.page(
            query.filter(), limit=query.limit, cursor=query.cursor
        )
        headers = {}
        if cursor:
            given = query.model_dump(exclude_defaults=True)
            path = f"/v1/suppressions?{urlencode({**given, 'cursor': cursor})}"
            headers["Link"] = f'<{path}>; rel="next"'
        shape = SuppressionsShape([SuppressionShape.of(item) for item in found], cursor or None)
        return json_response(shape, headers=headers)

    async def add(self, request: Request) -> Response:
        """Put an entry on the list, or in the place of the one that is there."""
        wanted = await read_json(request, SuppressionRequest)
        entry = wanted.entry()
        keep_s = duration_s("duration", wanted.duration) if wanted.duration else 0.0
        await self._list.add([entry], most=self._most, keep_s=keep_s, actor="http")
        return json_response(SuppressionShape.of(await self._found(entry.name)), 201)

    async def take(self, request: Request) -> Response:
        """Put all of them on the list with the times that they have; none where one is at fault."""
        entries = entries_of(await read_json(request, SuppressionImport, _IMPORT_OCTETS))
        done = await self._list.add(entries, most=self._most, actor="http", is_import=True)
        return json_response(ImportedShape(done.added, done.changed))

    async def show(self, address: str) -> Response:
        """The entry in force."""
        return json_response(SuppressionShape.of(await self._found(suppression_name(address))))

    async def _found(self, name: str) -> Suppression:
        found = await self._list.find(name)
        if not found:
            raise NotFound(f"{name} is not on the suppression list")
        return found[0]

    async def remove(self, address: str) -> Response:
        """Take the entry off; that of its domain stays."""
        name = suppression_name(address)
        removed = await self._list.remove([name], actor="http")
        if not removed:
            raise NotFound(f"{name} is not on the suppression list")
        return json_response(RemovedShape(removed))
