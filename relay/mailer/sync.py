"""The client for programs without an event loop: the same methods, each on a loop of its own."""

import asyncio
import socket
import ssl
from collections.abc import Callable, Coroutine, Sequence
from types import TracebackType
from typing import Any, Self, TypeVar

from relay.mailer.auth import Auth
from relay.mailer.client import TIMEOUT_S, AsyncSmtpClient
from relay.mailer.data_writer import DataWriter
from relay.model.errors import ConnectionLost, LocalProtocolError
from relay.model.reply import Reply
from relay.smtp.extensions import Extensions

Result = TypeVar("Result")


class SmtpClient:
    """As `AsyncSmtpClient`; not for use by two threads at once."""

    def __init__(self, runner: asyncio.Runner, client: AsyncSmtpClient) -> None:
        """Use `connect` or `adopt`."""
        self._runner = runner
        self._client = client
        self._is_gone = False

    @classmethod
    def connect(
        cls,
        address: str,
        *,
        tls: bool = False,
        context: ssl.SSLContext | None = None,
        source_address: str = "",
        timeout_s: float = TIMEOUT_S,
    ) -> Self:
        """As `AsyncSmtpClient.connect`."""
        return cls._made(
            AsyncSmtpClient.connect(
                address,
                tls=tls,
                context=context,
                source_address=source_address,
                timeout_s=timeout_s,
            )
        )

    @classmethod
    def adopt(
        cls,
        connected: socket.socket,
        host: str,
        *,
        tls: bool = False,
        context: ssl.SSLContext | None = None,
        timeout_s: float = TIMEOUT_S,
    ) -> Self:
        """As `AsyncSmtpClient.adopt`."""
        return cls._made(
            AsyncSmtpClient.adopt(connected, host, tls=tls, context=context, timeout_s=timeout_s)
        )

    @classmethod
    def _made(cls, making: Coroutine[Any, Any, AsyncSmtpClient]) -> Self:
        runner = asyncio.Runner()
        try:
            return cls(runner, _run(runner, making))
        except BaseException:
            runner.close()
            raise

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        if error is None:
            self.quit()
        else:
            self.close()

    @property
    def is_open(self) -> bool:
        """Whether another command may be said."""
        return self._client.is_open

    @property
    def greeting(self) -> Reply | None:
        """What the server said when we came."""
        return self._client.greeting

    @property
    def extensions(self) -> Extensions:
        """What the server offers."""
        return self._client.extensions

    @property
    def tls_state(self) -> dict[str, str | bool]:
        """As `AsyncSmtpClient.tls_state`."""
        return self._client.tls_state

    def extension(self, name: str) -> str | None:
        """As `AsyncSmtpClient.extension`."""
        return self._do(self._client.extension(name))

    def hello(self, name: str = "localhost") -> Reply:
        """As `AsyncSmtpClient.hello`."""
        return self._do(self._client.hello(name))

    def starttls(self, context: ssl.SSLContext | None = None) -> None:
        """As `AsyncSmtpClient.starttls`."""
        self._do(self._client.starttls(context))

    def auth(self, auth: Auth) -> Reply:
        """As `AsyncSmtpClient.auth`."""
        return self._do(self._client.auth(auth))

    def mail(
        self,
        reverse_path: str,
        *,
        size: int | None = None,
        is_8bit: bool = False,
        smtputf8: bool = False,
        ret: str = "",
        envid: str = "",
    ) -> Reply:
        """As `AsyncSmtpClient.mail`."""
        return self._do(
            self._client.mail(
                reverse_path,
                size=size,
                is_8bit=is_8bit,
                smtputf8=smtputf8,
                ret=ret,
                envid=envid,
            )
        )

    def rcpt(self, forward_path: str, *, notify: str = "", orcpt: str = "") -> Reply:
        """As `AsyncSmtpClient.rcpt`."""
        return self._do(self._client.rcpt(forward_path, notify=notify, orcpt=orcpt))

    def data(self) -> "SyncDataWriter":
        """As `AsyncSmtpClient.data`."""
        return SyncDataWriter(self._runner, self._do(self._client.data()))

    def send(
        self, reverse_path: str, forward_paths: Sequence[str], content: bytes
    ) -> dict[str, Reply]:
        """As `AsyncSmtpClient.send`."""
        return self._do(self._client.send(reverse_path, forward_paths, content))

    def reset(self) -> Reply:
        """As `AsyncSmtpClient.reset`."""
        return self._do(self._client.reset())

    def verify(self, address: str) -> Reply:
        """As `AsyncSmtpClient.verify`."""
        return self._do(self._client.verify(address))

    def noop(self) -> Reply:
        """As `AsyncSmtpClient.noop`."""
        return self._do(self._client.noop())

    def quit(self) -> None:
        """As `AsyncSmtpClient.quit`."""
        self._leave(self._client.quit)

    def close(self) -> None:
        """As `AsyncSmtpClient.close`."""
        self._leave(self._client.close)

    def _leave(self, leaving: Callable[[], Coroutine[Any, Any, None]]) -> None:
        if not self._is_gone:
            self._do(leaving())
            self._is_gone = True
            self._runner.close()

    def _do(self, doing: Coroutine[Any, Any, Result]) -> Result:
        if self._is_gone:
            doing.close()
            raise ConnectionLost("the connection was closed by us")
        return _run(self._runner, doing)


class SyncDataWriter:
    """As `DataWriter`."""

    def __init__(self, runner: asyncio.Runner, writer: DataWriter) -> None:
        self._runner = runner
        self._writer = writer

    @property
    def reply(self) -> Reply | None:
        """The server's answer to the message, once it is closed."""
        return self._writer.reply

    def write(self, content: bytes) -> None:
        """As `DataWriter.write`."""
        _run(self._runner, self._writer.write(content))

    def close(self) -> Reply:
        """As `DataWriter.close`."""
        return _run(self._runner, self._writer.close())

    def abort(self) -> None:
        """As `DataWriter.abort`."""
        _run(self._runner, self._writer.abort())

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        _run(self._runner, self._writer.__aexit__(kind, error, trace))


def _run(runner: asyncio.Runner, doing: Coroutine[Any, Any, Result]) -> Result:
    try:
        asyncio.get_running_loop()
    except RuntimeError:
        return runner.run(doing)
    doing.close()
    raise LocalProtocolError("an event loop runs in this thread: use AsyncSmtpClient")
