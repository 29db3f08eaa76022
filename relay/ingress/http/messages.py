"""`/v1/messages`: sending, looking, and the verbs on a message or one of its recipients."""

from typing import Annotated
from urllib.parse import urlencode

from fastapi import APIRouter
from fastapi import Query as QueryParameters
from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import Route

from relay.delivery.deadlines import do_what_is_due
from relay.ingress.draft import RawMessage, draft_of_message, draft_of_raw
from relay.ingress.http.body import (
    decode_json,
    json_response,
    read_body,
    read_json,
    require_media_type,
)
from relay.ingress.http.door import Door
from relay.ingress.http.filters import MessageQuery, VerbRequest, reason_of
from relay.ingress.http.openapi import answers, takes
from relay.ingress.http.problem import Problem, unknown_field
from relay.ingress.http.shapes import AcceptedShape, ChangedShape, MessageShape, MessagesShape
from relay.ingress.labels import Labels, is_idempotency_key
from relay.ingress.message import Message
from relay.ingress.report_fields import ReportFields
from relay.ingress.submit import Draft
from relay.model.ids import is_recipient_id, split_recipient_id
from relay.store.deadlines import Deadlines
from relay.telemetry.log import get_logger

_RAW_PARAMETERS = (
    *("from", "to", "header_recipients", "class", "campaign", "tag", "trace"),
    *("notify", "report_content", "envelope_id"),
)
_REPEATED = ("to", "tag", "notify")
_RAW_FLAGS = ("header_recipients", "trace")
_YES = ("true", "1", "yes")
_SEND_HEADERS = ("Idempotency-Key", "X-Request-Id")


class Messages:
    """The endpoints; `send` and `send_raw` are plain Starlette routes, for speed."""

    def __init__(self, door: Door) -> None:
        self._door = door
        size = door.settings.limits.message_size
        self._raw_limit = size
        # Base64 in JSON, escapes, and the fields around it: only beyond this a message is known to
        # be too large before it was put together.
        self._json_limit = size + size // 2 + 1024 * 1024
        self._log = get_logger()

    def fast_routes(self) -> list[Route]:
        """The routes that serve sends, to be looked at before all others."""
        return [
            Route("/v1/messages", self.send, methods=["POST"]),
            Route("/v1/messages/raw", self.send_raw, methods=["POST"]),
        ]

    def router(self) -> APIRouter:
        """All endpoints, the sends for the document only."""
        router = APIRouter(prefix="/v1/messages", tags=["messages"])
        accepted = answers(AcceptedShape, 400, 413, 415, 422, status=202)
        router.add_api_route(
            "",
            self.send,
            methods=["POST"],
            status_code=202,
            summary="Send a message",
            responses=accepted,
            openapi_extra=takes(Message, required=True, headers=_SEND_HEADERS),
        )
        router.add_api_route(
            "/raw",
            self.send_raw,
            methods=["POST"],
            status_code=202,
            summary="Send a finished RFC 5322 message",
            responses=accepted,
            openapi_extra=_RAW_DOCUMENT,
        )
        router.add_api_route(
            "",
            self.list,
            methods=["GET"],
            summary="List messages",
            responses=answers(MessagesShape, 422),
        )
        router.add_api_route(
            "/{id}",
            self.show,
            methods=["GET"],
            summary="Show a message",
            responses=answers(MessageShape, 404),
        )
        router.add_api_route(
            "/{id}",
            self.cancel,
            methods=["DELETE"],
            summary="Cancel a message or a recipient",
            responses=answers(ChangedShape, 404, 409),
        )
        router.add_api_route(
            "/{id}/content",
            self.content,
            methods=["GET"],
            summary="The message as it will be sent",
            response_class=Response,
        )
        router.add_api_route(
            "/{id}/{verb}",
            self.verb,
            methods=["POST"],
            summary="retry, hold, release, cancel or bounce a message or a recipient",
            responses=answers(ChangedShape, 404, 409, 422),
            openapi_extra=takes(VerbRequest),
        )
        return router

    async def send(self, request: Request) -> Response:
        """Accept one message for all its recipients or refuse it as a whole."""
        require_media_type(request, "application/json")
        key = _idempotency_key(request)
        body = await read_body(request, self._json_limit)
        message = decode_json(body, Message)
        draft = draft_of_message(
            message,
            ingress="http",
            hostname=self._door.submitter.hostname,
            idempotency_key=key,
        )
        return await self._accept(draft)

    async def send_raw(self, request: Request) -> Response:
        """Accept a finished message; the envelope is in the query, else in its header."""
        require_media_type(request, "message/rfc822")
        raw = _raw_message(request, await read_body(request, self._raw_limit))
        return await self._accept(draft_of_raw(raw, ingress="http"))

    async def _accept(self, draft: Draft) -> Response:
        submitter = self._door.submitter
        prepared = submitter.prepare(draft)
        receipt = await submitter.accept(prepared.submission)
        headers = {"Location": f"/v1/messages/{receipt.id}"}
        if receipt.replayed:
            headers["Idempotency-Replayed"] = "true"
        else:
            self._log.info(
                "message.accepted",
                queue_id=receipt.id,
                message_id=receipt.message_id,
                ingress=draft.ingress,
                reverse_path=str(draft.reverse_path or ""),
                recipients=receipt.accepted,
                size_octets=len(prepared.submission.content),
            )
        return json_response(AcceptedShape.of(receipt, prepared.warnings), 202, headers)

    async def list(self, query: Annotated[MessageQuery, QueryParameters()]) -> Response:
        """Messages that fit, live ones first, newest first.

        A page may have fewer than `limit`, even none, and still a next one: how much is looked at
        for one page is bounded.
        """
        views, cursor = await self._door.store.messages(
            query.filter(), limit=query.limit, cursor=query.cursor
        )
        shape = MessagesShape([MessageShape.of(view) for view in views], cursor or None)
        headers = {}
        if cursor:
            given = query.model_dump(by_alias=True, exclude_defaults=True)
            headers["Link"] = f'</v1/messages?{urlencode({**given, "cursor": cursor})}>; rel="next"'
        return json_response(shape, headers=headers)

    async def show(self, id: str) -> Response:
        """One message; the id may be a recipient's."""
        return json_response(MessageShape.of(await self._door.store.message(_queue_id(id))))

    async def content(self, id: str) -> Response:
        """The octets, as a download."""
        content = await self._door.store.content(_queue_id(id))
        name = f'attachment; filename="{_queue_id(id)}.eml"'
        headers = {"Content-Disposition": name, "X-Content-Type-Options": "nosniff"}
        return Response(content, headers=headers, media_type="message/rfc822")

    async def cancel(self, id: str) -> Response:
        """End recipients that are not finished."""
        return json_response(ChangedShape(id, await self._door.store.cancel(id, actor="http")))

    async def verb(self, id: str, verb: str, request: Request) -> Response:
        """Apply a verb; `changed` counts the recipients to which it applied."""
        store = self._door.store
        reason = reason_of((await read_json(request, VerbRequest)).reason)
        if verb == "retry":
            changed = await store.retry(id, actor="http")
        elif verb == "release":
            changed = await store.release(id, actor="http")
        elif verb == "hold":
            changed = await store.hold(id, reason, actor="http")
        elif verb == "cancel":
            changed = await store.cancel(id, reason, actor="http")
        elif verb == "bounce":
            changed = await store.bounce(id, reason, actor="http")
            # What its senders are told: now, else by the ticker of a worker.
            await do_what_is_due(Deadlines(store), _queue_id(id), self._door)
        else:
            detail = "known are retry, hold, release, cancel, bounce"
            raise Problem(404, "verb_unknown", f"{verb[:40]!r} is no verb: {detail}")
        self._log.info("message.verb", verb=verb, target=id, changed=changed)
        return json_response(ChangedShape(id, changed))


def _queue_id(text: str) -> str:
    return split_recipient_id(text)[0] if is_recipient_id(text) else text


def _idempotency_key(request: Request) -> str:
    key = request.headers.get("idempotency-key")
    if key is None:
        return ""
    if not is_idempotency_key(key):
        detail = "Idempotency-Key takes 1 to 256 printable ASCII characters"
        raise Problem(400, "idempotency_key_invalid", detail)
    return key


def _raw_message(request: Request, content: bytes) -> RawMessage:
    query = request.query_params
    findings = [
        unknown_field(name, _RAW_PARAMETERS) for name in query if name not in _RAW_PARAMETERS
    ]
    if findings:
        raise Problem(422, "unknown_field", str(findings[0]), findings=findings)
    return RawMessage(
        content=content,
        sender=query.get("from"),
        recipients=tuple(query.getlist("to")),
        recipients_from_header=query.get("header_recipients", "").lower() in _YES,
        labels=Labels(
            mail_class=query.get("class"),
            campaign=query.get("campaign", ""),
            tags=tuple(query.getlist("tag")),
            idempotency_key=_idempotency_key(request),
            trace=query.get("trace", "").lower() in _YES,
        ),
        reports=ReportFields(
            notify=tuple(query.getlist("notify")),
            report_content=query.get("report_content"),
            envelope_id=query.get("envelope_id", ""),
        ),
    )


_RAW_DOCUMENT = {
    "requestBody": {
        "required": True,
        "content": {"message/rfc822": {"schema": {"type": "string", "format": "binary"}}},
    },
    "parameters": [
        *({"name": name, "in": "header", "schema": {"type": "string"}} for name in _SEND_HEADERS),
        *(
            {
                "name": name,
                "in": "query",
                "schema": {"type": "array", "items": {"type": "string"}}
                if name in _REPEATED
                else {"type": "boolean" if name in _RAW_FLAGS else "string"},
            }
            for name in _RAW_PARAMETERS
        ),
    ],
}
