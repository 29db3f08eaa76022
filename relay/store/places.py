"""Where Redis is: a server's own address, or whatever the sentinels call the master now.

Both answer `dial` with a connection and `greeting` with the commands that come first on it.
"""

import asyncio
import ssl
from collections.abc import Callable
from typing import Any, TypeVar

import hiredis
import redis.connection

from relay.model.errors import ConfigError, StoreUnavailable
from relay.settings.sentinel import (
    FORM,
    Login,
    SentinelUrl,
    is_sentinel_url,
    parse_sentinel_url,
)

P = TypeVar("P", bound=asyncio.BaseProtocol)
Address = tuple[str, int]

#: A sentinel that does not answer so soon is passed over.
ASK_S = 1.0


class Server:
    """The server of a URL `redis://`, `rediss://` or `unix://`."""

    #: Whether another server may take over its part.
    is_elected = False

    def __init__(self, url: str) -> None:
        try:
            self._options = redis.connection.parse_url(url)  # type: ignore[no-untyped-call]
        except ValueError as error:
            raise ConfigError(
                f"redis.url: {error}; write redis://host:6379/0, rediss://…, unix:///path or {FORM}"
            ) from None

    @property
    def where(self) -> str:
        """The server's place without credentials, for messages."""
        if "path" in self._options:
            return f"unix:{self._options['path']}"
        return name_of((self._options.get("host", "localhost"), self._options.get("port", 6379)))

    async def dial(self, protocol: Callable[[], P]) -> P:
        """A connection to it; OSError where there is none."""
        loop = asyncio.get_running_loop()
        if "path" in self._options:
            return (await loop.create_unix_connection(protocol, self._options["path"]))[1]
        secure: ssl.SSLContext | None = None
        if self._options.get("connection_class") is redis.connection.SSLConnection:
            secure = ssl.create_default_context(cafile=self._options.get("ssl_ca_certs"))
        host, port = self._options.get("host", "localhost"), self._options.get("port", 6379)
        return (await loop.create_connection(protocol, host, port, ssl=secure))[1]

    def greeting(self) -> list[tuple[Any, ...]]:
        """Login and choice of the database."""
        user, password = self._options.get("username"), self._options.get("password")
        return _greeting(Login(user or "", password or ""), self._options.get("db") or 0)

    async def has_moved(self) -> bool:
        """Whether another server has its part now."""
        return False


class Sentinels:
    """The master of a name, for which the sentinels are asked anew at each connection."""

    is_elected = True

    def __init__(self, url: SentinelUrl) -> None:
        self._url = url
        self._sentinels = list(url.sentinels)
        self._secure: ssl.SSLContext | None = None
        if url.is_tls:
            self._secure = ssl.create_default_context(cafile=url.ca_file or None)
        self._dialled: Address | None = None

    @property
    def where(self) -> str:
        """The master's place, as far as it is known, for messages."""
        if self._dialled is not None:
            return name_of(self._dialled)
        return f"master {self._url.master} of {', '.join(map(name_of, self._url.sentinels))}"

    async def dial(self, protocol: Callable[[], P]) -> P:
        """A connection to what is called the master; it may yet prove to be none."""
        self._dialled = None
        address = await self.master()
        self._dialled = address
        loop = asyncio.get_running_loop()
        return (await loop.create_connection(protocol, *address, ssl=self._secure))[1]

    def greeting(self) -> list[tuple[Any, ...]]:
        """Login, choice of the database."""
        return _greeting(self._url.login, self._url.db)

    async def has_moved(self) -> bool:
        """Whether the sentinels call another server the master than the one that was dialled."""
        try:
            return await self.master() != self._dialled
        except StoreUnavailable:
            return False

    async def master(self) -> Address:
        """Ask one sentinel after the other; StoreUnavailable tells what each of them said."""
        faults = []
        for sentinel in tuple(self._sentinels):
            try:
                async with asyncio.timeout(ASK_S):
                    address = await self._ask(sentinel)
            except (OSError, TimeoutError, hiredis.ProtocolError) as error:
                faults.append(f"{name_of(sentinel)}: {error or 'no answer'}")
                continue
            if address is not None:
                # Who answers is asked first the next time.
                self._sentinels.remove(sentinel)
                self._sentinels.insert(0, sentinel)
                return address
            faults.append(f"{name_of(sentinel)}: knows no master {self._url.master}")
        raise StoreUnavailable(f"no sentinel names a master ({'; '.join(faults)})")

    async def _ask(self, sentinel: Address) -> Address | None:
        """What one says; None where it does not know that master."""
        commands = _greeting(self._url.sentinel_login, 0)
        commands.append(("SENTINEL", "GET-MASTER-ADDR-BY-NAME", self._url.master))
        reader, writer = await asyncio.open_connection(*sentinel, ssl=self._secure)
        try:
            writer.write(b"".join(hiredis.pack_command(command) for command in commands))
            parser, reply = hiredis.Reader(), None
            for _ in commands:
                while (reply := parser.gets()) is False:
                    data = await reader.read(4096)
                    if not data:
                        raise ConnectionResetError("closed without an answer")
                    parser.feed(data)
                if isinstance(reply, hiredis.ReplyError):
                    _refuse(sentinel, str(reply))
        finally:
            writer.close()
        return (reply[0].decode(), int(reply[1])) if reply else None


def place_of(url: str) -> Server | Sentinels:
    """The place that a URL names; ConfigError where it is none."""
    if not is_sentinel_url(url):
        return Server(url)
    try:
        return Sentinels(parse_sentinel_url(url))
    except ValueError as error:
        raise ConfigError(f"redis.url: {error}") from None
    except OSError as error:
        raise ConfigError(f"redis.url: ssl_ca_certs cannot be read: {error.strerror}") from None


def name_of(address: Address) -> str:
    """`host:port`."""
    host, port = address
    return f"[{host}]:{port}" if ":" in host else f"{host}:{port}"


def _greeting(login: Login, db: int) -> list[tuple[Any, ...]]:
    commands: list[tuple[Any, ...]] = []
    if login.user and login.password:
        commands.append(("AUTH", login.user, login.password))
    elif login.password:
        commands.append(("AUTH", login.password))
    if db:
        commands.append(("SELECT", str(db)))
    return commands


def _refuse(sentinel: Address, text: str) -> None:
    if text.split(" ", 1)[0] in ("NOAUTH", "WRONGPASS", "NOPERM"):
        raise ConfigError(
            f"redis.url: the sentinel at {name_of(sentinel)} refuses the credentials ({text}); "
            "they stand after the name: …/mymaster?sentinel_password=…"
        )
    raise ConnectionError(text)
