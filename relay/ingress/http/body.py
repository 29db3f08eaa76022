"""Reading request bodies: bounded before they are read whole, decoded into structs."""

from typing import TypeVar

import msgspec
from starlette.requests import ClientDisconnect, Request
from starlette.responses import Response

from relay.ingress.http.problem import Problem, json_problem

Shape = TypeVar("Shape", bound=msgspec.Struct)

#: Verbs say little; messages have a limit of their own.
SMALL_OCTETS = 65536


async def read_body(request: Request, limit: int) -> bytes:
    """The body; 413 as soon as it is known to be larger than the limit."""
    declared = request.headers.get("content-length", "")
    if declared.isdigit() and int(declared) > limit:
        raise _too_large(limit)
    body = bytearray()
    try:
        async for chunk in request.stream():
            body += chunk
            if len(body) > limit:
                raise _too_large(limit)
    except ClientDisconnect:
        raise Problem(400, "incomplete_body", "the connection ended within the body") from None
    return bytes(body)


async def read_json(request: Request, shape: type[Shape], limit: int = SMALL_OCTETS) -> Shape:
    """The JSON body as a struct; an empty one counts as `{}`."""
    require_media_type(request, "application/json")
    return decode_json(await read_body(request, limit) or b"{}", shape)


def decode_json(body: bytes, shape: type[Shape]) -> Shape:
    """JSON octets as a struct; Problem says what does not fit."""
    try:
        return msgspec.json.decode(body, type=shape)
    except msgspec.DecodeError as error:
        known = [field.encode_name for field in msgspec.structs.fields(shape)]
        raise json_problem(error, known) from None
    except UnicodeDecodeError:
        raise Problem(400, "malformed_json", "the body is not UTF-8") from None


def require_media_type(request: Request, wanted: str) -> None:
    """415 where the body says that it is something else."""
    given = request.headers.get("content-type", wanted).partition(";")[0].strip().lower()
    if given != wanted:
        raise Problem(415, "media_type_unsupported", f"send it with Content-Type: {wanted}")


def json_response(
    shape: object, status: int = 200, headers: dict[str, str] | None = None
) -> Response:
    """A struct as JSON."""
    return Response(
        msgspec.json.encode(shape), status, headers=headers, media_type="application/json"
    )


def _too_large(limit: int) -> Problem:
    detail = f"the body has over {limit} octets"
    return Problem(413, "message_too_large", detail, headers={"Connection": "close"})
