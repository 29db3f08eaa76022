"""An SMTP session to one endpoint: open it, run transactions on it, close it.

    session = await open_session(endpoint, dialogue)
    result = await session.transact(transaction, before_dot=…, following=…)
    await session.close()

The rules of SMTP stand in `smtp.client`, those of the network in `net.stream`. Here stand the
order of things and what a breakage means for the transaction that it met.
"""

import asyncio
import time
from collections.abc import Awaitable, Callable
from functools import partial

import msgspec

from relay.delivery.broken_hosts import BrokenHosts
from relay.delivery.link import Link
from relay.delivery.opening import Opening
from relay.delivery.values import (
    Dialogue,
    Endpoint,
    SessionFailed,
    Transaction,
    TransactionResult,
)
from relay.model.errors import (
    ConnectionLost,
    DeadlineExpired,
    LeaseLost,
    LocalProtocolError,
    ProtocolError,
    TlsFailed,
    TransportError,
)
from relay.settings.schema import TlsPolicy
from relay.smtp.extensions import Extensions
from relay.smtp.transaction import Exchange, GoAhead
from relay.smtp.transcript import Transcript

__all__ = ["Session", "SessionFailed", "open_session"]

#: Seconds that a closed connection is granted to be gone.
_CLOSE_S = 1.0

BeforeDot = Callable[[], Awaitable[bool]]
Watch = Callable[[Exchange], None]


async def open_session(
    endpoint: Endpoint, dialogue: Dialogue, broken: BrokenHosts | None = None
) -> "Session":
    """Connect, greet, encrypt as the policy says, authenticate; SessionFailed names the phase.

    Under the opportunistic policy without credentials, a failed handshake is followed by one
    connection in clear to the same address (RFC 7435); `broken` remembers that.
    """
    if dialogue.tries_verified and not endpoint.tlsa:
        return await _open_verified_first(endpoint, dialogue, broken)
    may_go_clear = _may_go_clear(endpoint, dialogue)
    why = broken.why(endpoint) if broken is not None and may_go_clear else ""
    if not why:
        opening = Opening(endpoint, dialogue, endpoint.tls or dialogue.tls)
        try:
            link = await opening.run()
        except SessionFailed as failed:
            if not (may_go_clear and _is_broken_tls(failed)):
                raise
            why = str(failed.cause)
        else:
            return Session(link, endpoint, dialogue, opening)
    opening = Opening(endpoint, dialogue, TlsPolicy.OFF)
    link = await opening.run()
    if broken is not None and not broken.why(endpoint):
        broken.remember(endpoint, why)
    return Session(link, endpoint, dialogue, opening, why)


async def _open_verified_first(
    endpoint: Endpoint, dialogue: Dialogue, broken: BrokenHosts | None
) -> "Session":
    """A verified session, else what is demanded; it says why it could not be verified."""
    verified = msgspec.structs.replace(
        dialogue,
        tls=TlsPolicy.VERIFIED,
        demanded_by=dialogue.tls.value,
        tries_verified=False,
        is_trial=True,
    )
    try:
        return await open_session(endpoint, verified)
    except SessionFailed as failed:
        if failed.phase != "tls":
            raise
        why = str(failed.reply or failed.cause or "TLS failed")
    as_demanded = msgspec.structs.replace(dialogue, tries_verified=False)
    session = await open_session(endpoint, as_demanded, broken)
    session.unverified_because = why
    return session


def _may_go_clear(endpoint: Endpoint, dialogue: Dialogue) -> bool:
    return (
        (endpoint.tls or dialogue.tls) is TlsPolicy.OPPORTUNISTIC
        and dialogue.credentials is None
        and not endpoint.implicit_tls
    )


def _is_broken_tls(failed: SessionFailed) -> bool:
    return failed.phase == "tls" and isinstance(failed.cause, TlsFailed | DeadlineExpired)


class Session:
    """A session that is ready for MAIL; one transaction at a time.

    `tls` is what `net.tls.tls_info` says and the `policy` that demanded it, or empty in clear;
    `clear_because` says which TLS failure, now or within the last hour, was followed by clear
    text. `timings`: seconds that each phase of the opening took; `stages`: the same in turn, each
    phase's name, its seconds, and how many lines of `opening` had been spoken after it.
    """

    def __init__(
        self,
        link: Link,
        endpoint: Endpoint,
        dialogue: Dialogue,
        opening: Opening,
        clear_because: str = "",
    ) -> None:
        self._link = link
        self._client = link.client
        self._stream = link.stream
        self._quit_s = dialogue.timeouts.quit
        self._ahead: Exchange | None = None
        self._is_busy = False
        self._opening = tuple(link.client.opening)
        self.endpoint = endpoint
        self.remote: dict[str, str | int] = {
            "host": endpoint.host,
            "ip": endpoint.address,
            "port": endpoint.port,
        }
        self.tls = link.stream.tls and link.stream.tls | {
            "policy": endpoint.demanded_by or dialogue.demanded_by or dialogue.tls.value
        }
        self.clear_because = clear_because
        #: Why the session, tried as a verified one first, is none; empty: it was not tried, or is.
        self.unverified_because = ""
        self.timings = opening.timings
        self.stages = opening.stages
        #: The address that we speak from.
        self.local_address = opening.local_address
        #: Transactions run so far, whatever came of them.
        self.transactions = 0

    @property
    def extensions(self) -> Extensions:
        """What the peer offers, under TLS if there is TLS."""
        return self._client.extensions

    @property
    def certificate(self) -> bytes:
        """The peer's certificate (DER); empty in clear."""
        return self._stream.certificate

    @property
    def opening(self) -> tuple[str, ...]:
        """The dialogue up to here as lines, passwords left out."""
        return self._opening

    def forgo_chunking(self) -> None:
        """Send all content by DATA on this session, whatever the peer offers."""
        self._client.forgo_chunking()

    @property
    def server_name(self) -> str:
        """The name that the peer gives itself; ours, if we talk to ourselves (RFC 5321 §5.1)."""
        return self._client.server_name

    @property
    def is_usable(self) -> bool:
        """Whether another transaction may be run."""
        return self._client.is_usable and self._stream.is_open

    @property
    def is_unheard(self) -> bool:
        """Whether some of what was said has not reached the peer: it reads slowly, or is gone."""
        return self._stream.undelivered

    @property
    def announced(self) -> Transaction | None:
        """What the peer was told behind the last dot; the next call must be for it."""
        return self._ahead.transaction if self._ahead is not None else None

    def is_idle_alive(self) -> bool:
        """Whether the idle session still lives: the peer neither went nor spoke unasked."""
        return (
            not self._is_busy
            and self.is_usable
            and self._client.is_quiet
            and not self._stream.has_unread
        )

    async def transact(
        self,
        transaction: Transaction,
        *,
        before_dot: BeforeDot | None = None,
        following: Transaction | None = None,
        watch: Watch | None = None,
    ) -> TransactionResult:
        """Run one transaction; breakages are in the result, with every reply read before them.

        `before_dot` is awaited right before the block that carries the final dot (up to 128 KiB
        of content: before all of it); False, or an exception, drops the connection without the
        dot. `following` goes out behind the dot where PIPELINING is offered: the next call must
        be for it. `watch` is called with the exchange whenever it may have got further.
        LocalProtocolError where calls overlap.
        """
        if self._is_busy:
            raise LocalProtocolError("a transaction is already running on this session")
        ahead, self._ahead = self._ahead, None
        if ahead is not None and ahead.transaction is not transaction:
            self._ahead = ahead
            raise LocalProtocolError("another transaction was announced as the following one")
        self._is_busy = True
        self._link.begin_attempt()
        exchange = ahead
        began = time.monotonic()
        timings: dict[str, float] = {}
        broken: Exception | None = None
        try:
            if exchange is None:
                exchange = self._client.start(transaction)
            if watch is not None:
                self._link.watch = partial(watch, exchange)
            await self._run(exchange, before_dot, following, timings)
        except (ProtocolError, TransportError, LeaseLost) as error:
            broken = error
            _add_broken_phase(timings, time.monotonic() - began)
            if not (exchange is None and self._client.is_usable):
                self.abort()
        except BaseException:
            self.abort()
            raise
        finally:
            self._is_busy = False
            self._link.watch = None
            self._link.end_attempt()
            self.transactions += 1
        if self._client.is_over:
            self.abort()
        return self._result(transaction, exchange, broken, timings)

    async def _run(
        self,
        exchange: Exchange,
        before_dot: BeforeDot | None,
        following: Transaction | None,
        timings: dict[str, float],
    ) -> None:
        link, client, now = self._link, self._client, time.monotonic
        began = now()
        event = await link.next_event()
        answered = now()
        timings["envelope"] = answered - began
        if not isinstance(event, GoAhead):
            return
        client.send_content(exchange)
        asked_s = 0.0
        if before_dot is not None:
            await link.flush_up_to_dot()
            asked = now()
            if client.is_sending and not await before_dot():
                raise LeaseLost("the final dot was not to be sent any more")
            asked_s = now() - asked
            await link.catch_up()
        if following is not None and client.extensions.pipelining and not client.is_over:
            self._announce(following)
        await link.flush()
        link.end_attempt()
        written = now()
        timings["data"] = written - answered - asked_s
        await link.next_event()
        timings["data_done"] = now() - written

    def _announce(self, following: Transaction) -> None:
        try:
            self._ahead = self._client.start(following)
        except LocalProtocolError:
            self._ahead = None  # said again, to whom it concerns, by its own transact()

    def _result(
        self,
        transaction: Transaction,
        exchange: Exchange | None,
        broken: Exception | None,
        timings: dict[str, float],
    ) -> TransactionResult:
        if exchange is None:
            exchange = Exchange(transaction, [], [None] * len(transaction.forward_paths))
        dot_sent = exchange.dot_sent
        if broken is not None and self._ahead is None and self._stream.unwritten:
            dot_sent = dot_sent and bool(self.tls)  # in clear we know that the dot did not leave
        return TransactionResult(
            transaction=transaction,
            replies=tuple(exchange.recipients),
            mail=exchange.mail,
            data=exchange.data,
            final=exchange.final,
            finals=tuple(exchange.finals),
            broken=broken,
            dot_sent=dot_sent,
            is_local=exchange.is_local,
            is_chunked=exchange.is_chunked,
            success_action=self._success_action(transaction),
            timings=timings,
            transcript=Transcript(self._opening, exchange, broken),
        )

    def _success_action(self, transaction: Transaction) -> str:
        if transaction.dsn is not None and self.extensions.dsn:
            return ""
        return "delivered" if self.endpoint.lmtp else "relayed"

    async def close(self) -> None:
        """Say QUIT if that fits, wait a little, be gone; never raises but CancelledError."""
        try:
            if self.is_idle_alive():
                async with asyncio.timeout(self._quit_s):
                    self._client.quit()
                    await self._link.next_event()
                self._stream.close()
            else:
                self.abort()
        except (ProtocolError, TransportError, TimeoutError):
            self.abort()
        except BaseException:
            self.abort()
            raise
        await self.wait_closed()

    async def wait_closed(self) -> None:
        """Wait until the connection that was dropped is gone."""
        await self._stream.wait_closed(_CLOSE_S)

    def abort(self) -> None:
        """Drop the connection at once; what runs on it ends in ConnectionLost."""
        self._client.receive_eof(ConnectionLost("the connection was dropped by us"))
        self._stream.abort()


def _add_broken_phase(timings: dict[str, float], spent_s: float) -> None:
    """The phase that broke took what the phases before it did not."""
    phase = next((one for one in ("envelope", "data", "data_done") if one not in timings), None)
    if phase is not None:
        timings[phase] = max(spent_s - sum(timings.values()), 0.0)
