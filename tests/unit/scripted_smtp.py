"""A real SMTP server on loopback that does what a coroutine says, one per connection."""

import asyncio
import contextlib
import datetime
import ipaddress
import ssl
from collections.abc import AsyncIterator, Awaitable, Callable
from pathlib import Path

from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import NameOID

from relay.net.tls import abort_transport


class Peer:
    """The server's side of one connection."""

    def __init__(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.reader = reader
        self.writer = writer
        self.heard: list[bytes] = []

    async def say(self, *lines: str) -> None:
        self.writer.write("".join(f"{line}\r\n" for line in lines).encode())
        await self.writer.drain()

    async def hear(self, start: str = "") -> str:
        line = await self.reader.readuntil(b"\n")
        self.heard.append(line)
        text = line.decode().rstrip("\r\n")
        assert text.upper().startswith(start.upper()), f"{start!r} expected, got {text!r}"
        return text

    async def content(self) -> bytes:
        """The content up to the final dot, as it is on the wire."""
        octets = b""
        while not octets.endswith(b"\r\n.\r\n") and octets != b".\r\n":
            octets += await self.reader.readuntil(b"\n")
        return octets

    async def hello(self, *offers: str) -> None:
        """Greeting and EHLO."""
        await self.say("220 mx.test ESMTP")
        await self.hello_again(*offers)

    async def hello_again(self, *offers: str) -> None:
        await self.hear("EHLO")
        lines = ["mx.test", *offers]
        await self.say(*(f"250{' ' if n == len(offers) else '-'}{t}" for n, t in enumerate(lines)))

    async def envelope(self, recipients: int = 1) -> None:
        """Accept a pipelined envelope up to 354."""
        await self.hear("MAIL")
        for _ in range(recipients):
            await self.hear("RCPT")
        await self.hear("DATA")
        await self.say("250 2.1.0 ok", *["250 2.1.5 ok"] * recipients, "354 go")

    async def take(self, recipients: int = 1) -> bytes:
        """Accept a whole pipelined transaction."""
        await self.envelope(recipients)
        content = await self.content()
        await self.say("250 2.0.0 queued as 1")
        return content

    async def starttls(self, context: ssl.SSLContext) -> None:
        await self.hear("STARTTLS")
        await self.say("220 go")
        await self.writer.start_tls(context)

    async def goodbye(self) -> None:
        await self.hear("QUIT")
        await self.say("221 bye")

    async def gone(self) -> bytes:
        """Wait until the client is gone; what it said until then."""
        said = b""
        with contextlib.suppress(OSError):
            while data := await self.reader.read(65536):
                said += data
        return said

    def reset(self) -> None:
        """Close with a reset, as a crashed host does."""
        self.writer.transport.abort()


Script = Callable[[Peer], Awaitable[None]]


class ScriptedServer:
    """Runs `scripts[n]` on its n-th connection, the last one on every later connection."""

    def __init__(self, *scripts: Script, tls: ssl.SSLContext | None = None) -> None:
        self.scripts = scripts
        self.tls = tls
        self.connections = 0
        self.peers: list[Peer] = []
        self.failures: list[BaseException] = []
        self.port = 0
        self._tasks: set[asyncio.Task[None]] = set()

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        task = asyncio.current_task()
        assert task is not None
        self._tasks.add(task)
        peer = Peer(reader, writer)
        self.peers.append(peer)
        script = self.scripts[min(self.connections, len(self.scripts) - 1)]
        self.connections += 1
        try:
            await script(peer)
        except (OSError, asyncio.IncompleteReadError, asyncio.CancelledError):
            pass  # the client went, or the test is over
        except AssertionError as failure:
            self.failures.append(failure)
        finally:
            peer.writer.close()
            with contextlib.suppress(Exception):
                await peer.writer.wait_closed()

    @contextlib.asynccontextmanager
    async def running(self, host: str = "127.0.0.1") -> AsyncIterator["ScriptedServer"]:
        server = await asyncio.start_server(self._serve, host, 0, ssl=self.tls, limit=2**22)
        self.port = server.sockets[0].getsockname()[1]
        try:
            yield self
        finally:
            server.close()
            if self._tasks:
                await asyncio.wait(self._tasks, timeout=0.3)
            for peer in self.peers:
                abort_transport(peer.writer.transport)
            for task in self._tasks:
                task.cancel()
            await asyncio.gather(*self._tasks, return_exceptions=True)
            await server.wait_closed()
        if self.failures:
            raise self.failures[0]


class Certificate:
    """A self-signed certificate for names, and the contexts around it."""

    def __init__(
        self, folder: Path, *names: str, days: int = 30, version: ssl.TLSVersion | None = None
    ) -> None:
        key = ec.generate_private_key(ec.SECP256R1())
        name = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, names[0])])
        now = datetime.datetime.now(datetime.UTC)
        alternatives: list[x509.GeneralName] = []
        for text in names:
            try:
                alternatives.append(x509.IPAddress(ipaddress.ip_address(text)))
            except ValueError:
                alternatives.append(x509.DNSName(text))
        certificate = (
            x509.CertificateBuilder()
            .subject_name(name)
            .issuer_name(name)
            .public_key(key.public_key())
            .serial_number(x509.random_serial_number())
            .not_valid_before(now - datetime.timedelta(days=60))
            .not_valid_after(now + datetime.timedelta(days=days))
            .add_extension(x509.SubjectAlternativeName(alternatives), critical=False)
            .add_extension(x509.BasicConstraints(ca=True, path_length=None), critical=True)
            .sign(key, hashes.SHA256())
        )
        self.file = folder / f"{names[0]}-{days}.pem"
        pem = certificate.public_bytes(serialization.Encoding.PEM)
        private = key.private_bytes(
            serialization.Encoding.PEM,
            serialization.PrivateFormat.PKCS8,
            serialization.NoEncryption(),
        )
        self.file.write_bytes(pem + private)
        self.server = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        self.server.load_cert_chain(self.file)
        if version is not None:
            self.server.maximum_version = version
