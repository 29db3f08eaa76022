"""Sessions over a Unix socket, in LMTP."""

import asyncio
from pathlib import Path

import pytest

from relay.delivery.session import open_session
from relay.delivery.values import Dialogue, Endpoint, SessionFailed, Transaction
from relay.model.errors import ConnectFailed
from relay.settings.schema import TlsPolicy
from tests.support.lmtp_server import LmtpServer

RUNS_ON_BOTH_LOOPS = True

DIALOGUE = Dialogue("relay.test", tls=TlsPolicy.OFF)


def endpoint(path: Path) -> Endpoint:
    return Endpoint(str(path), str(path), 0, lmtp=True)


async def test_content_reaches_the_socket_and_each_recipient_is_answered(tmp_path: Path) -> None:
    path = tmp_path / "lmtp"
    content = b"Subject: x\r\n\r\n" + b".hello\r\n" * 60_000
    async with LmtpServer().running(path) as server:
        session = await open_session(endpoint(path), DIALOGUE)
        paths = ("ann@box.test", "full@box.test")
        result = await session.transact(Transaction("a@relay.test", paths, content))
        assert session.is_idle_alive()
        await session.close()
        assert [final and final.code for final in result.finals] == [250, 452]
        assert result.success_action == "delivered"
        assert session.remote == {"host": str(path), "ip": str(path), "port": 0}
        assert session.tls == {}
        ((recipient, stored),) = server.stored
        assert (recipient, stored.replace(b"\n..", b"\n.")) == ("ann@box.test", content)
        assert server.verbs == ["LHLO", "MAIL", "RCPT", "RCPT", "DATA", "QUIT"]


async def test_missing_socket_is_a_failed_connection(tmp_path: Path) -> None:
    with pytest.raises(SessionFailed) as caught:
        await open_session(endpoint(tmp_path / "none"), DIALOGUE)
    assert caught.value.phase == "connect"
    assert isinstance(caught.value.cause, ConnectFailed)
    assert "no such file" in str(caught.value.cause)


async def test_socket_that_nobody_listens_on_is_a_failed_connection(tmp_path: Path) -> None:
    path = tmp_path / "lmtp"
    server = await asyncio.start_unix_server(lambda _reader, _writer: None, path)
    server.close()
    path.touch()
    with pytest.raises(SessionFailed, match="connect: "):
        await open_session(endpoint(path), DIALOGUE)
