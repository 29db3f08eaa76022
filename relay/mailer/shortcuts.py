"""A whole message to one server in one call."""

import asyncio
import ssl
from collections.abc import Sequence

from relay.mailer.auth import Auth
from relay.mailer.client import TIMEOUT_S, AsyncSmtpClient
from relay.model.reply import Reply


async def async_send_mail(
    address: str,
    reverse_path: str,
    forward_paths: Sequence[str],
    content: bytes,
    *,
    auth: Auth | None = None,
    tls: bool = False,
    context: ssl.SSLContext | None = None,
    name: str = "localhost",
    timeout_s: float = TIMEOUT_S,
) -> dict[str, Reply]:
    """Send a message (RFC 5322, any line ends) by the server at `host:port`.

    STARTTLS is used where it is offered, its certificate verified unless a `context` says
    otherwise; `tls`: encrypted from the start. Returns the recipients that were refused, each with
    its reply; CommandRefused where the message was not taken for any.
    """
    smtp = await AsyncSmtpClient.connect(address, tls=tls, context=context, timeout_s=timeout_s)
    async with smtp:
        await smtp.hello(name)
        if not tls and smtp.extensions.starttls:
            await smtp.starttls(context)
        if auth is not None:
            await smtp.auth(auth)
        return await smtp.send(reverse_path, forward_paths, content)


def send_mail(
    address: str,
    reverse_path: str,
    forward_paths: Sequence[str],
    content: bytes,
    *,
    auth: Auth | None = None,
    tls: bool = False,
    context: ssl.SSLContext | None = None,
    name: str = "localhost",
    timeout_s: float = TIMEOUT_S,
) -> dict[str, Reply]:
    """As `async_send_mail`, for programs without an event loop."""
    return asyncio.run(
        async_send_mail(
            address,
            reverse_path,
            forward_paths,
            content,
            auth=auth,
            tls=tls,
            context=context,
            name=name,
            timeout_s=timeout_s,
        )
    )
