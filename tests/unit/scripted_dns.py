"""A nameserver on loopback that answers from a little zone, or misbehaves as a test scripts it."""

import asyncio
import struct
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from typing import cast

import dns.flags
import dns.message
import dns.rcode
import dns.rdatatype
import dns.rrset

#: What a script answers with: packets to send, in order; none is silence.
Script = Callable[[dns.message.Message, str], list[bytes]]

SOA = "ns.test. hostmaster.test. 1 3600 600 86400 {minimum}"


class ScriptedDns:
    """Answers NXDOMAIN and NODATA with a SOA; `asked` holds (name, type, "udp" or "tcp")."""

    def __init__(self) -> None:
        self.asked: list[tuple[str, str, str]] = []
        self.sources: list[tuple[str, int]] = []
        self.ids: list[int] = []
        self.minimum = 120
        #: Whether DNSSEC vouches for what the zone says, but for these names, and these questions.
        self.is_signed = False
        self.unsigned: set[str | tuple[str, str]] = set()
        self.port = 0
        self._records: dict[tuple[str, str], list[dns.rrset.RRset]] = {}
        self._scripts: dict[tuple[str, str], Script] = {}

    @property
    def nameserver(self) -> str:
        return f"127.0.0.1:{self.port}"

    def add(self, name: str, kind: str, *texts: str, ttl: int = 300) -> None:
        """Records of one name and type, as in a zone file."""
        rrset = dns.rrset.from_text(f"{name}.", ttl, "IN", kind, *texts)
        self._records.setdefault((name, kind), []).append(rrset)

    def script(self, name: str, kind: str, script: Script) -> None:
        """Answer this question by a function."""
        self._scripts[name, kind] = script

    def fail(self, name: str, kind: str, rcode: str = "SERVFAIL") -> None:
        """Answer this question with a response code alone."""
        self.script(name, kind, lambda query, _: [reply_with(query, rcode=rcode).to_wire()])

    def silence(self, name: str, kind: str) -> None:
        """Never answer this question."""
        self.script(name, kind, lambda _query, _via: [])

    def count(self, name: str, kind: str) -> int:
        """How often this was asked."""
        return sum(one[:2] == (name, kind) for one in self.asked)

    def answer(self, packet: bytes, via: str) -> list[bytes]:
        """The packets that answer a packet."""
        query = dns.message.from_wire(packet)
        self.ids.append(query.id)
        name = query.question[0].name.to_text(omit_final_dot=True).lower()
        kind = dns.rdatatype.to_text(query.question[0].rdtype)
        self.asked.append((name, kind, via))
        script = self._scripts.get((name, kind))
        if script is not None:
            return script(query, via)
        response = self.plain(query, name, kind)
        is_vouched_for = self.is_signed and self.unsigned.isdisjoint({name, (name, kind)})
        if is_vouched_for and query.flags & dns.flags.AD:
            response.flags |= dns.flags.AD
        wire = response.to_wire(max_size=65535)
        if via == "udp" and len(wire) > 1232:
            response = reply_with(query)
            response.flags |= dns.flags.TC
            wire = response.to_wire()
        return [wire]

    def plain(self, query: dns.message.Message, name: str, kind: str) -> dns.message.Message:
        """What the zone says, following CNAMEs inside it."""
        response = reply_with(query)
        for _ in range(40):
            alias = self._records.get((name, "CNAME"))
            if alias is None:
                break
            response.answer.extend(alias)
            name = alias[0][0].target.to_text(omit_final_dot=True)
        found = self._records.get((name, kind))
        if found is not None:
            response.answer.extend(found)
            return response
        if not any(one[0] == name for one in self._records):
            response.set_rcode(dns.rcode.NXDOMAIN)
        soa = SOA.format(minimum=self.minimum)
        response.authority.append(dns.rrset.from_text("test.", 900, "IN", "SOA", soa))
        return response


def reply_with(
    query: dns.message.Message, *records: tuple[str, str, str], rcode: str = "NOERROR"
) -> dns.message.Message:
    """A response with (name, type, text) records in the answer."""
    response = dns.message.make_response(query, recursion_available=True)
    response.set_rcode(dns.rcode.from_text(rcode))
    for name, kind, text in records:
        response.answer.append(dns.rrset.from_text(name, 300, "IN", kind, text))
    return response


class _Udp(asyncio.DatagramProtocol):
    def __init__(self, server: ScriptedDns) -> None:
        self.server = server

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self.transport = cast(asyncio.DatagramTransport, transport)

    def datagram_received(self, data: bytes, addr: tuple[str, int]) -> None:
        self.server.sources.append(addr)
        for packet in self.server.answer(data, "udp"):
            self.transport.sendto(packet, addr)


@asynccontextmanager
async def serving() -> AsyncIterator[ScriptedDns]:
    """A ScriptedDns on a free port of 127.0.0.1, UDP and TCP."""
    server = ScriptedDns()
    loop = asyncio.get_running_loop()

    async def on_tcp(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        try:
            (length,) = struct.unpack("!H", await reader.readexactly(2))
            for packet in server.answer(await reader.readexactly(length), "tcp"):
                writer.write(struct.pack("!H", len(packet)) + packet)
            await writer.drain()
        except (asyncio.IncompleteReadError, ConnectionError):
            pass
        finally:
            writer.close()

    while True:
        transport, _ = await loop.create_datagram_endpoint(
            lambda: _Udp(server), local_addr=("127.0.0.1", 0)
        )
        server.port = transport.get_extra_info("sockname")[1]
        try:
            tcp = await asyncio.start_server(on_tcp, "127.0.0.1", server.port)
        except OSError:
            transport.close()
            continue
        break
    try:
        yield server
    finally:
        transport.close()
        tcp.close()
        await tcp.wait_closed()
        await asyncio.sleep(0)
