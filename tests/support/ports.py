"""Ports for servers that are given one: below the range from which the system takes its own.

A port of that range that is free now may be the local end of somebody's connection a moment later.
"""

import contextlib
import random
import socket

_FROM, _TO = 20_000, 32_000
_random = random.SystemRandom()


def free_ports(count: int) -> list[int]:
    """Ports of 127.0.0.1 that are free for TCP and UDP now, all different."""
    with contextlib.ExitStack() as stack:
        found: list[int] = []
        while len(found) < count:
            port = _random.randrange(_FROM, _TO)
            with contextlib.suppress(OSError):
                for kind in (socket.SOCK_STREAM, socket.SOCK_DGRAM):
                    stack.enter_context(socket.socket(type=kind)).bind(("127.0.0.1", port))
                found.append(port)
        return found


def free_port() -> int:
    """One of them."""
    return free_ports(1)[0]
