"""`/v1/status`, `/metrics` and the two probes."""

from fastapi import APIRouter
from starlette.responses import PlainTextResponse, Response

from relay import __version__
from relay.ingress.http.body import json_response
from relay.ingress.http.door import Door
from relay.ingress.http.metrics import exposition, take_snapshot
from relay.ingress.http.openapi import answers
from relay.ingress.http.shapes import StatusShape, moment_or_none
from relay.model.state import FINAL_STATES


class Status:
    """The endpoints that look at the whole."""

    def __init__(self, door: Door) -> None:
        self._door = door

    def router(self) -> APIRouter:
        """All endpoints."""
        router = APIRouter(tags=["status"])
        router.add_api_route(
            "/v1/status",
            self.status,
            methods=["GET"],
            summary="The state of the whole",
            responses=answers(StatusShape),
        )
        for path, endpoint, summary in (
            ("/metrics", self.metrics, "Counters for Prometheus"),
            ("/livez", self.livez, "Whether the process lives"),
            ("/readyz", self.readyz, "Whether mail is taken"),
        ):
            router.add_api_route(
                path, endpoint, methods=["GET"], summary=summary, response_class=PlainTextResponse
            )
        return router

    async def status(self) -> Response:
        """States, queues, workers, the oldest message."""
        store = self._door.store
        counters = await store.counters()
        return json_response(
            StatusShape(
                mode=store.mode,
                version=__version__,
                hostname=self._door.submitter.hostname,
                states=counters["states"],
                ended=_by_outcome(counters["recipients"]),
                queues=counters["queues"],
                unrouted=counters["unrouted"],
                workers=await store.workers(),
                oldest_at=moment_or_none(counters["oldest"]),
                suspensions=len(await store.suspensions()),
            )
        )

    async def metrics(self) -> Response:
        """All counters and gauges."""
        text, media_type = exposition(await take_snapshot(self._door.store))
        return Response(text, headers={"Content-Type": media_type})

    async def livez(self) -> Response:
        """Always: it answers, so it lives."""
        return PlainTextResponse("ok\n")

    async def readyz(self) -> Response:
        """200 when the store answers, 503 before."""
        await self._door.store.ping()
        return PlainTextResponse("ready\n")


def _by_outcome(counts: dict[tuple[str, ...], int]) -> dict[str, int]:
    """Final outcomes of all providers together."""
    totals: dict[str, int] = {}
    for (outcome, *_), count in counts.items():
        if outcome in FINAL_STATES:
            totals[outcome] = totals.get(outcome, 0) + count
    return totals
