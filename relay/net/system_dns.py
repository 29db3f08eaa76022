"""What the operating system knows of DNS: its nameservers, and names of its own making.

A smarthost may be called something that only this machine resolves (a container's neighbour, a
line of /etc/hosts); recipient domains never come here.
"""

import asyncio
import contextlib
import ipaddress
import socket
from functools import cache
from pathlib import Path

from relay.model.errors import NoSuchDomain, ResolverUnavailable


def system_nameservers(path: Path = Path("/etc/resolv.conf")) -> tuple[str, ...]:
    """The nameservers of resolv.conf; the local one where the file names none (resolv.conf(5))."""
    try:
        lines = path.read_text(errors="replace").splitlines()
    except OSError:
        lines = []
    found = []
    for line in lines:
        words = line.split()
        if len(words) >= 2 and words[0] == "nameserver":
            with contextlib.suppress(ValueError):
                ipaddress.ip_address(words[1])
                found.append(words[1])
    return tuple(dict.fromkeys(found))[:3] or ("127.0.0.1",)


async def system_addresses(host: str, *, timeout_s: float) -> tuple[str, ...]:
    """The addresses that the machine's own resolver has; NoSuchDomain, ResolverUnavailable."""
    loop = asyncio.get_running_loop()
    try:
        async with asyncio.timeout(timeout_s):
            found = await loop.getaddrinfo(host, None, type=socket.SOCK_STREAM)
    except TimeoutError:
        raise ResolverUnavailable(f"the system's resolver did not answer for {host}") from None
    except socket.gaierror as error:
        if error.errno == socket.EAI_AGAIN:
            raise ResolverUnavailable(f"the system's resolver failed for {host}") from None
        raise NoSuchDomain(f"{host} does not exist") from None
    except (OSError, UnicodeError):
        raise ResolverUnavailable(f"the system's resolver failed for {host}") from None
    return tuple(dict.fromkeys(str(entry[4][0]) for entry in found))


@cache
def machine_name() -> str:
    """The machine's fully qualified name, asked for once; may block: call it at the start."""
    return socket.getfqdn() or "localhost"
