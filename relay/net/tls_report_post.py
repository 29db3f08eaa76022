"""Posts one TLS report over HTTPS, to an address that the caller allows (RFC 8460 §5.4).

Rules of this file: those of `net.https`; what the server says besides its status is not read.
"""

import asyncio

from relay.net.https import HttpsFailed, ask

#: Seconds for a post with all that belongs to it.
POST_S = 30.0
MEDIA_TYPE = "application/tlsrpt+gzip"


class PostFailed(Exception):
    """Raised when a report was not taken: what went wrong, in words."""


async def post_report(
    content: bytes, host: str, address: str, port: int, path: str, *, source_address: str = ""
) -> None:
    """Post compressed JSON; returns when the server has taken it (2xx), PostFailed otherwise."""
    try:
        async with (
            asyncio.timeout(POST_S),
            ask(
                "POST",
                host,
                address,
                port,
                path,
                headers={"Content-Type": MEDIA_TYPE},
                content=content,
                source_address=source_address,
            ) as response,
        ):
            status = response.status_code
    except TimeoutError:
        raise PostFailed(f"no answer within {POST_S:g} s") from None
    except HttpsFailed as failed:
        raise PostFailed(str(failed)) from failed
    if not 200 <= status < 300:
        raise PostFailed(f"the server answered {status}")
