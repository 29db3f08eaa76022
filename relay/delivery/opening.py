"""The way to a session: connect, greeting, EHLO, STARTTLS, EHLO, AUTH; each step once.

What fails names its phase: connect, greeting, hello, tls or auth. Passwords never leave on a path
without TLS, unless it stays on this machine.
"""

import contextlib
import datetime
import time

from relay.delivery.link import Link
from relay.delivery.secret import read_secret
from relay.delivery.values import Dialogue, Endpoint, SessionFailed
from relay.model.errors import (
    ConfigError,
    ConnectionLost,
    LocalProtocolError,
    ProtocolError,
    RemoteProtocolError,
    TlsFailed,
    TransportError,
)
from relay.net.stream import connect, is_loopback
from relay.net.tls import client_context, dane_context
from relay.policy.dane import why_not
from relay.settings.schema import TlsPolicy
from relay.smtp.client import Client
from relay.smtp.envelope import Terms
from relay.smtp.mechanisms import choose_mechanism
from relay.smtp.sasl import Channel
from relay.smtp.states import State
from relay.smtp.transaction import Answered
from relay.smtp.transcript import TRANSCRIPT_OCTETS, fit

#: Seconds that a connection given up is granted to say QUIT and close.
_LEAVE_S = 1.0


class Opening:
    """One try to open a session under one TLS policy; `run` gives the link, ready for MAIL."""

    def __init__(self, endpoint: Endpoint, dialogue: Dialogue, tls: TlsPolicy) -> None:
        self._endpoint = endpoint
        self._dialogue = dialogue
        self._tls = tls
        self._phase = "connect"
        self._phase_began = time.monotonic()
        self._client: Client | None = None
        self._link: Link | None = None
        self.timings: dict[str, float] = {}
        #: What we speak from.
        self.local_address = ""
        #: Each phase in its turn: its name, what it took, and how long the dialogue was after it.
        self.stages: list[tuple[str, float, int]] = []

    async def run(self) -> Link:
        """Open; SessionFailed where it does not come about, and the connection is gone."""
        try:
            link = await self._connect()
            await self._greet(link)
            await self._encrypt(link)
            await self._authenticate(link)
        except (TransportError, ProtocolError, ConfigError) as error:
            failed = self._failed(cause=error)
            await self._leave()
            raise failed from error
        except SessionFailed:
            await self._leave()
            raise
        except BaseException:
            if self._link is not None:
                self._link.stream.abort()
            raise
        self._end_phase()
        is_verified = link.stream.tls.get("verified") is True and not self._dialogue.is_trial
        link.client.agree(Terms(self._dialogue.needs_8bitmime, is_verified))
        link.end_attempt()
        return link

    async def _connect(self) -> Link:
        endpoint, dialogue = self._endpoint, self._dialogue
        is_private = is_private_path(endpoint)
        client = self._client = Client(
            dialogue.hello_name, is_private=is_private, lmtp=endpoint.lmtp
        )
        stream = await connect(
            endpoint.address,
            endpoint.port,
            timeout_s=dialogue.timeouts.connect,
            source_address=dialogue.source_address,
            allow_only_loopback=dialogue.allow_only_loopback,
        )
        self.local_address = stream.local_address
        link = self._link = Link(client, stream, dialogue.timeouts)
        if endpoint.implicit_tls:
            self._begin_phase("tls")
            await self._handshake(link)
        return link

    async def _greet(self, link: Link) -> None:
        self._begin_phase("greeting")
        self._require_positive(await _answer(link))
        await self._introduce(link)

    async def _introduce(self, link: Link) -> None:
        self._begin_phase("hello")
        link.client.hello()
        self._require_positive(await _answer(link))

    async def _encrypt(self, link: Link) -> None:
        if self._tls is TlsPolicy.OFF or self._endpoint.implicit_tls:
            return
        is_demanded = self._tls is not TlsPolicy.OPPORTUNISTIC
        if not (link.client.extensions.starttls or is_demanded):
            return
        self._begin_phase("tls")
        link.client.starttls()
        answered = await _answer(link)
        if not answered.reply.is_positive and not is_demanded and link.client.is_usable:
            return
        self._require_positive(answered)
        await link.catch_up()
        if link.client.is_over:
            link.client.next_event()
        await self._handshake(link)
        link.client.handshake_done()
        replies_read = link.client.replies_read
        try:
            await self._introduce(link)
        except ConnectionLost as lost:
            if link.client.replies_read > replies_read:
                raise
            # TLS 1.3: the server refuses us after the handshake is done for our side.
            self._phase = "tls"
            raise TlsFailed(f"connection lost right after the handshake: {lost}") from lost

    async def _handshake(self, link: Link) -> None:
        endpoint, timeout_s = self._endpoint, self._dialogue.timeouts.tls
        if endpoint.tlsa:
            await link.stream.start_tls(dane_context(), endpoint.server_name, timeout_s)
            self._check_by_dane(link)
            return
        context = client_context(verified=self._tls is TlsPolicy.VERIFIED)
        await link.stream.start_tls(context, endpoint.server_name, timeout_s)

    def _check_by_dane(self, link: Link) -> None:
        """TlsFailed unless a TLSA record vouches for the certificate, before anything is said."""
        endpoint, now = self._endpoint, datetime.datetime.now(datetime.UTC)
        names = endpoint.tls_names or (endpoint.host,)
        why = why_not(endpoint.tlsa, link.stream.peer_chain(), names, now)
        if why:
            link.stream.abort()
            raise TlsFailed(f"certificate not accepted: {why}")
        link.stream.vouch()

    async def _authenticate(self, link: Link) -> None:
        credentials = self._dialogue.credentials
        if credentials is None:
            return
        self._begin_phase("auth")
        binding, data = link.stream.channel_binding
        channel = Channel(self._endpoint.host, self._endpoint.port, binding, data)
        offered = link.client.extensions.auth
        link.client.authenticate(choose_mechanism(offered, read_secret(credentials), channel))
        answered = await _answer(link)
        if answered.problem:
            cause = RemoteProtocolError(answered.problem)
            raise self._failed(answered=answered, cause=cause)
        self._require_positive(answered)

    def _require_positive(self, answered: Answered) -> None:
        if not answered.reply.is_positive:
            raise self._failed(answered=answered)

    def _failed(
        self, *, answered: Answered | None = None, cause: Exception | None = None
    ) -> SessionFailed:
        self._end_phase()
        lines = list(self._client.opening) if self._client is not None else []
        if cause is not None:
            lines.append(f"! {cause}")
        return SessionFailed(
            "hello" if isinstance(cause, LocalProtocolError) and not self._link else self._phase,
            reply=answered.reply if answered is not None else None,
            cause=cause,
            dialogue=fit(lines, TRANSCRIPT_OCTETS),
            timings=self.timings,
            local_address=self.local_address,
        )

    def _begin_phase(self, phase: str) -> None:
        self._end_phase()
        self._phase = phase

    def _end_phase(self) -> None:
        now = time.monotonic()
        spent_s = now - self._phase_began
        self.timings[self._phase] = self.timings.get(self._phase, 0.0) + spent_s
        said = len(self._client.opening) if self._client is not None else 0
        self.stages.append((self._phase, spent_s, said))
        self._phase_began = now

    async def _leave(self) -> None:
        """Say QUIT where that fits, and be gone."""
        if self._link is None:
            return
        client, stream = self._link.client, self._link.stream
        if client.state is State.REFUSED or client.is_quiet:
            with contextlib.suppress(ConnectionLost):
                client.quit()
                stream.write(client.data_to_send())
        if stream.tls:
            stream.abort()
        else:
            stream.close()
        await stream.wait_closed(_LEAVE_S)


def is_private_path(endpoint: Endpoint) -> bool:
    """Whether a password may be sent there as it is: TLS from the start, or this machine."""
    return endpoint.implicit_tls or is_loopback(endpoint.address)


async def _answer(link: Link) -> Answered:
    event = await link.next_event()
    if not isinstance(event, Answered):  # no transaction was started
        raise LocalProtocolError(f"{event!r} while the session is being opened")
    return event
