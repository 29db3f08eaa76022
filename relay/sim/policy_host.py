"""The policy hosts of the simulated internet: MTA-STS policies over HTTPS (RFC 8461 §3.3).

One listener stands for `mta-sts.<domain>` of every domain; the name in the handshake chooses the
certificate. What a policy says follows from the keywords in the domain's name.
"""

import asyncio
import ssl
from collections.abc import Callable, Collection

from relay.sim.certificates import Certificates
from relay.sim.keywords import domain_keywords

#: Domain keyword -> the mode of the policy.
MODES = {"mtasts": "enforce", "mtaststesting": "testing", "mtastswrong": "enforce"}
_OF_OTHERS = {"mtaststesting", "mtastswrong"}
_PREFIX = "mta-sts."
_PATH = "/.well-known/mta-sts.txt"
_REQUEST_OCTETS = 8192
_WAIT_S = 10.0


def policy_text(domain: str, hosts: Collection[str]) -> str:
    """The policy of a domain with these MX hosts; empty where it has none."""
    word = next((word for word in MODES if word in domain_keywords(domain)), "")
    if not word:
        return ""
    names = ["mx.another.test"] if word in _OF_OTHERS else sorted(hosts)
    lines = ["version: STSv1", f"mode: {MODES[word]}", *(f"mx: {name}" for name in names)]
    return "".join(f"{line}\r\n" for line in [*lines, "max_age: 86400"])


class PolicyHost:
    """Serves policies; `hosts_of` gives the MX hosts of a domain."""

    def __init__(
        self, certificates: Certificates, hosts_of: Callable[[str], Collection[str]]
    ) -> None:
        self._certificates = certificates
        self._hosts_of = hosts_of
        self._server: asyncio.Server | None = None
        self.port = 0

    async def start(self, host: str, port: int) -> None:
        """Listen; OSError where the port is taken."""
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        context.sni_callback = self._choose
        server = await asyncio.start_server(
            self._serve, host, port, ssl=context, limit=_REQUEST_OCTETS
        )
        self._server, self.port = server, server.sockets[0].getsockname()[1]

    def stop(self) -> None:
        """Take no more connections."""
        if self._server is not None:
            self._server.close()

    def _choose(
        self, connection: ssl.SSLObject | ssl.SSLSocket, name: str | None, _: ssl.SSLContext
    ) -> None:
        connection.context = self._certificates.context_for(name or "no-name.test")

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        try:
            async with asyncio.timeout(_WAIT_S):
                head = (await reader.readuntil(b"\r\n\r\n")).decode("latin-1")
                writer.write(self._answer(head).encode())
                await writer.drain()
        except (OSError, EOFError, asyncio.LimitOverrunError, TimeoutError):
            pass
        finally:
            writer.close()

    def _answer(self, head: str) -> str:
        request, *fields = head.split("\r\n")
        hosts = [line[5:].strip().lower() for line in fields if line.lower().startswith("host:")]
        domain = hosts[0].partition(":")[0].removeprefix(_PREFIX) if hosts else ""
        text = policy_text(domain, self._hosts_of(domain)) if domain else ""
        is_asked = request.startswith(f"GET {_PATH} ")
        status = "200 OK" if is_asked and text else "404 Not Found"
        body = text if is_asked and text else "there is no policy here\r\n"
        return (
            f"HTTP/1.1 {status}\r\nContent-Type: text/plain\r\nContent-Length: {len(body)}\r\n"
            f"Connection: close\r\n\r\n{body}"
        )
