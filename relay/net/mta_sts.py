"""Fetches one MTA-STS policy over HTTPS, from an address that the caller allows (RFC 8461 §3.3).

Rules of this file: whoever owns a recipient domain chooses what answers here. One fixed URL, at
most 64 KiB and `FETCH_S` seconds in all, and the rules of `net.https`; what is not exactly a
policy's answer is none.
"""

import asyncio
from collections.abc import Mapping

from relay.net.https import HttpsFailed, ask

#: Seconds for a fetch with all that belongs to it (RFC 8461 §3.3 suggests a minute).
FETCH_S = 30.0


class PolicyUnavailable(Exception):
    """Raised when no policy could be fetched: what went wrong, in words.

    `is_untrusted`: it was the certificate of the policy host.
    """

    def __init__(self, text: str, *, is_untrusted: bool = False) -> None:
        super().__init__(text)
        self.is_untrusted = is_untrusted


async def fetch_policy(
    domain: str, address: str, port: int, *, limit: int, source_address: str = ""
) -> str:
    """The text at `https://mta-sts.<domain>/.well-known/mta-sts.txt`.

    PolicyUnavailable where there is none; ValueError where it can be no policy, whatever it says.
    """
    try:
        async with asyncio.timeout(FETCH_S):
            octets = await _fetch(domain, address, port, limit, source_address)
    except TimeoutError:
        raise PolicyUnavailable(f"no policy within {FETCH_S:g} s") from None
    except HttpsFailed as failed:
        raise PolicyUnavailable(str(failed), is_untrusted=failed.is_untrusted) from failed
    try:
        return octets.decode("utf-8")
    except UnicodeDecodeError:
        raise ValueError("it is no text") from None


async def _fetch(domain: str, address: str, port: int, limit: int, source_address: str) -> bytes:
    octets = b""
    async with ask(
        "GET",
        f"mta-sts.{domain}",
        address,
        port,
        "/.well-known/mta-sts.txt",
        headers={"Accept": "text/plain"},
        source_address=source_address,
    ) as response:
        _check(response.status_code, response.headers)
        async for chunk in response.aiter_raw():
            octets += chunk
            if len(octets) > limit:
                raise ValueError(f"it is larger than {limit} octets")
    return octets


def _check(status: int, headers: Mapping[str, str]) -> None:
    """Refuse what is no policy before any of it is read."""
    if status != 200:
        raise PolicyUnavailable(f"the server answered {status}, not 200")
    media_type = headers.get("content-type", "").partition(";")[0].strip().lower()
    if media_type != "text/plain":
        raise PolicyUnavailable(f"its media type is {media_type[:60]!r}, not text/plain")
    if headers.get("content-encoding", "identity").strip().lower() not in ("", "identity"):
        raise PolicyUnavailable("it is compressed, which was not asked for")
