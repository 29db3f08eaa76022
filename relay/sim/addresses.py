"""The addresses of the simulated hosts: 127.x.y.z from the host's name, bound when DNS tells it.

Linux answers on all of 127.0.0.0/8, but a listener on 0.0.0.0 would be reachable from outside; so
each address gets its own listening socket, when first asked for. Beyond `max_addresses` hosts
with the same script share addresses. Dead hosts get addresses that nobody ever listens on.
"""

import asyncio
import ctypes
import errno
import hashlib
import resource
import socket
import struct
from collections.abc import Callable

from relay.sim.hosts import HostScript, host_script
from relay.sim.keywords import domain_keywords

#: Listening sockets of one sink; each costs a file descriptor and about 4 KiB.
MAX_ADDRESSES = 4096
_BACKLOG = 1024
_SO_ATTACH_FILTER = 26  # Linux; the socket module does not name it
_DROP_ALL = struct.pack("HBBI", 0x06, 0, 0, 0)  # BPF "return 0": no packet passes
_LOOPBACK6 = "::1"


def _address(name: str, script: HostScript, step: int) -> str:
    """127.1–126 for hosts that listen, 127.128–191 for dead ones; the same name, the same one."""
    a, b, c, d = hashlib.blake2b(f"{name}/{step}".encode(), digest_size=4).digest()
    first = 128 + a % 64 if script.listens == "dead" else 1 + a % 126
    return f"127.{first}.{b}.{1 + (c * 256 + d) % 254}"


def listening_socket(address: str, port: int, *, drops_packets: bool = False) -> socket.socket:
    """A socket that listens on one address; OSError when it is taken."""
    family = socket.AF_INET6 if ":" in address else socket.AF_INET
    # asyncio sets TCP_NODELAY only where the protocol is named, and accepted sockets inherit it
    sock = socket.socket(family, socket.SOCK_STREAM, socket.IPPROTO_TCP)
    try:
        sock.setblocking(False)
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        if drops_packets:
            program = ctypes.create_string_buffer(_DROP_ALL, len(_DROP_ALL))
            filter_ = struct.pack("HP", 1, ctypes.addressof(program))
            sock.setsockopt(socket.SOL_SOCKET, _SO_ATTACH_FILTER, filter_)
        sock.bind((address, port))
        sock.listen(_BACKLOG)
    except OSError:
        sock.close()
        raise
    return sock


class AddressPool:
    """Name ↔ address, and the listening sockets; all share one protocol factory and one port."""

    def __init__(
        self,
        factory: Callable[[], asyncio.Protocol],
        *,
        refuses: Callable[[str], bool],
        max_addresses: int = MAX_ADDRESSES,
    ) -> None:
        """`refuses` says whether connections to a host are to be refused at present."""
        self.port = 0
        self._factory = factory
        self._refuses = refuses
        soft, _ = resource.getrlimit(resource.RLIMIT_NOFILE)
        self._max = max(1, min(max_addresses, soft // 2))
        self._addresses: dict[str, str] = {}
        self._names: dict[str, list[str]] = {}
        self._by_script: dict[HostScript, list[str]] = {}
        self._sockets: dict[str, socket.socket] = {}
        self._servers: dict[str, asyncio.Server] = {}
        self._starting: set[asyncio.Task[None]] = set()

    async def start(self, address: str, port: int, name: str) -> None:
        """Listen for `name` on a given address; its port becomes the port of all hosts."""
        sock = listening_socket(address, port)
        self.port = sock.getsockname()[1]
        self._enter(name, address)
        self._sockets[address] = sock
        await self._serve(address, sock)

    async def stop(self) -> None:
        """Close every listener; open connections are the receiver's."""
        while starting := tuple(self._starting):
            await asyncio.gather(*starting)
            self._starting.difference_update(starting)
        for server in self._servers.values():
            server.close()  # from Python 3.12 on wait_closed() would wait for its connections, too
        for address, sock in self._sockets.items():
            if address not in self._servers:
                sock.close()
        self._servers.clear()
        self._sockets.clear()

    def names_at(self, address: str) -> tuple[str, ...]:
        """The hosts that have this address, the first one first."""
        return tuple(self._names.get(address, ()))

    def known(self) -> dict[str, str]:
        """Every host that was asked for so far, with its address."""
        return dict(self._addresses)

    def address_of(self, name: str) -> str | None:
        """The address of a host, listening from now on; None when none can be had."""
        name = name.lower()
        address = self._addresses.get(name)
        if address is not None:
            return address
        script = host_script(name)
        if script.listens == "dead":
            address = _address(name, script, 0)
        elif "ipv6only" in domain_keywords(name):
            address = self._bind_loopback6()
        else:
            address = self._bind(name, script)
        if address is not None:
            self._enter(name, address)
        return address

    def refresh(self) -> None:
        """Close and open listeners as the fault table now says."""
        for address, names in self._names.items():
            script = host_script(names[0])
            if script.listens != "live":
                continue
            is_refused = any(self._refuses(name) for name in names)
            if is_refused and address in self._sockets:
                self._close(address)
            elif not is_refused and address not in self._sockets:
                self._listen(address, script)

    def _enter(self, name: str, address: str) -> None:
        self._addresses[name] = address
        names = self._names.setdefault(address, [])
        if not names:
            self._by_script.setdefault(host_script(name), []).append(address)
        names.append(name)

    def _bind(self, name: str, script: HostScript) -> str | None:
        peers = self._by_script.get(script)
        for step in range(20):
            if peers and len(self._sockets) >= self._max:
                digest = hashlib.blake2b(name.encode(), digest_size=4).digest()
                return peers[int.from_bytes(digest, "big") % len(peers)]
            address = _address(name, script, step)
            if address in self._names:
                continue
            if self._refuses(name) or self._listen(address, script):
                return address
        return None

    def _bind_loopback6(self) -> str | None:
        if _LOOPBACK6 in self._names or self._listen(_LOOPBACK6, HostScript()):
            return _LOOPBACK6
        return None

    def _listen(self, address: str, script: HostScript) -> bool:
        """Bind at once, so that connections queue, and serve as soon as the loop turns."""
        try:
            sock = listening_socket(address, self.port, drops_packets=script.listens == "blackhole")
        except OSError as error:
            if error.errno in (errno.EMFILE, errno.ENFILE):
                self._max = min(self._max, len(self._sockets))
            return False
        self._sockets[address] = sock
        if script.listens == "live":
            task = asyncio.get_running_loop().create_task(self._serve(address, sock))
            self._starting.add(task)
            task.add_done_callback(self._starting.discard)
        return True

    async def _serve(self, address: str, sock: socket.socket) -> None:
        if self._sockets.get(address) is not sock:  # closed meanwhile
            sock.close()
            return
        server = await asyncio.get_running_loop().create_server(
            self._factory, sock=sock, backlog=_BACKLOG
        )
        if self._sockets.get(address) is sock:
            self._servers[address] = server
        else:
            server.close()

    def _close(self, address: str) -> None:
        """Refuse connections from now on; a listener still being set up is closed by `_serve`."""
        sock = self._sockets.pop(address)
        server = self._servers.pop(address, None)
        if server is not None:
            server.close()
        else:
            sock.shutdown(socket.SHUT_RDWR)
