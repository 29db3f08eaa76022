"""One SMTP connection: its octets, delays and faults; the commands are in `dialogue`.

Written against the transport, not streams, because benchmarks and it share the machine. Replies
are gathered and leave in one write when the input is used up; a delay stops the input, so that
replies always keep their order.
"""

import asyncio
import contextlib
import socket
import ssl
import struct
from collections.abc import Callable, Sequence
from functools import partial
from typing import TYPE_CHECKING, cast

from relay.net.tls import channel_binding
from relay.sim.dialogue import Dialogue
from relay.sim.effects import Action, Command, Effect, reply_of
from relay.sim.framing import InputBuffer
from relay.sim.hosts import HostScript, host_script
from relay.sim.keywords import Script
from relay.sim.scenario import Step

if TYPE_CHECKING:
    from relay.sim.receiver import Receiver

_RESET_ON_CLOSE = struct.pack("ii", 1, 0)  # SO_LINGER on, 0 s
GARBAGE = b"\x00\xff\x16 this is no reply\r\n"
#: RFC 5321 §4.5.3.1.4 says 512, extensions add to it; AUTH lines may have 12288 (RFC 4954 §4.5.1).
COMMAND_OCTETS = 12_288
_ESTABLISHED = 1  # Linux: tcpi_state
_WATCH_S = 1.0
#: Input kept while a delay runs before reading stops.
_PAUSE_OCTETS = 1 << 20

Act = Callable[[str | None], None]


class Connection(asyncio.Protocol):
    """One connection: framing in, replies out, and what the scenario does in between."""

    def __init__(self, receiver: "Receiver", hosts: tuple[str, ...] = ()) -> None:
        self.receiver = receiver
        self.hosts = hosts
        self.script = HostScript()
        self.local_address = ""
        self.remote = ""
        self._transport: asyncio.Transport = cast(asyncio.Transport, None)
        self._dialogue: Dialogue = cast(Dialogue, None)
        self._out: list[bytes] = []
        self._input = InputBuffer()
        self._body_begun = False
        self._blocked = False
        self._discarding = False
        self._ends_with_flush = False
        self._holds_output = False
        self._closed = False
        self._is_gone = False
        self._split_s: float | None = None
        self._timer: asyncio.TimerHandle | None = None
        self._handshake: asyncio.Task[None] | None = None

    # ---- the transport's side

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = cast(asyncio.Transport, transport)
        receiver = self.receiver
        local, remote = transport.get_extra_info("sockname"), transport.get_extra_info("peername")
        self.local_address = local[0] if local else ""
        self.remote = f"{remote[0]}:{remote[1]}" if remote else ""
        self.hosts = self.hosts or receiver.names_at(self.local_address) or ("sink.test",)
        self.script = host_script(self.hosts[0])
        receiver.connections.add(self)
        crowd = receiver.registry.connected(self.hosts[0])
        receiver.mailbox.counters.sessions += 1
        self._dialogue = Dialogue(self, receiver.registry.next_session())
        if transport.get_extra_info("ssl_object") is not None:
            self._note_tls()
        if self.script.max_connections and crowd > self.script.max_connections:
            self.send("421 4.7.0 Too many connections from your address")
            self.close()
            return
        self.perform(Command.CONNECT, self._dialogue.greet)
        self._process()

    def data_received(self, data: bytes) -> None:
        if self._holds_output:  # this is the ClientHello, answered with something else
            self._holds_output = False
            self.close()
        if self._discarding:
            return
        self._input.feed(data)
        if self._blocked:
            self._dialogue.talked_while_blocked()
            if len(self._input) > _PAUSE_OCTETS:
                self._transport.pause_reading()
        else:
            self._process()

    def connection_lost(self, exc: Exception | None) -> None:
        if self._is_gone:
            return
        self._closed = self._is_gone = True
        if self._timer is not None:
            self._timer.cancel()
        self.receiver.registry.disconnected(self.hosts[0])
        self.receiver.forget(self)

    # ---- framing

    def _process(self) -> None:
        while not self._blocked and not self._closed and len(self._input):
            if self._dialogue.chunk_octets:
                self._dialogue.receive_chunk(self._input.take_octets(self._dialogue.chunk_octets))
                continue
            taken = self._take_body() if self._dialogue.in_body else self._take_line()
            if not taken:
                break
        self.flush()

    def _take_line(self) -> bool:
        line = self._input.take_line()
        if len(line or self._input) > COMMAND_OCTETS:
            self.send("500 5.5.2 Line too long")
            self.close()
        elif line is not None:
            self._dialogue.receive_line(line, more=len(self._input) > 0)
        return line is not None

    def _take_body(self) -> bool:
        if not self._body_begun:
            self._body_begun = True
            self._dialogue.begin_body()
            return True  # the body's effect may have blocked or closed
        content = self._input.take_content()
        if content is not None:
            self._body_begun = False
            self._dialogue.receive_content(content)
        elif len(self._input) > self.script.size_octets + _PAUSE_OCTETS:
            self.send("552 5.3.4 Message too large")
            self.close()
        return content is not None

    # ---- effects

    def perform(
        self,
        command: Command,
        act: Act,
        *,
        paths: Sequence[str] = (),
        scripts: Sequence[tuple[str, Script]] = (),
    ) -> None:
        """Carry a step out, or what the scenario wants instead; `act` gets a reply to give."""
        scenario = self.receiver.scenario
        if not scripts and not self.script.effects and not scenario.faults:
            act(None)
            return
        transaction = self._dialogue.transaction
        step = Step(command, self.hosts, self.script, forward_paths=paths, scripts=scripts)
        if transaction is not None:
            step.reverse_path = transaction.reverse_path
            step.accepted = len(transaction.forward_paths)
        delay_s, effect = scenario.decide(step)
        if delay_s > 0:
            self._wait(delay_s, partial(self._carry_out, command, effect, act))
        else:
            self._carry_out(command, effect, act)

    def _carry_out(self, command: Command, effect: Effect | None, act: Act) -> None:
        if effect is None:
            act(None)
            return
        match effect.action:
            case Action.TRANSIENT | Action.PERMANENT | Action.REPLY:
                act(reply_of(effect, command))
            case Action.SHUT_DOWN:
                act(reply_of(effect, command))
                self.close()
            case Action.CLOSE | Action.REFUSE:
                self.close()
            case Action.RESET:
                self.reset()
            case Action.STALL:
                self._stall(command)
            case Action.GARBAGE:
                self.flush()
                act("451 4.3.0 Garbage instead of this")
                self._out[:] = [GARBAGE]
            case Action.LOSE_REPLY:
                self.flush()
                act(None)
                self._out.clear()
                self.close()
            case Action.SPLIT:
                self.flush()
                self._split_s = effect.delay_s
                act(None)
                self.flush()
            case Action.DELAY | Action.GREYLIST | Action.CROWD:
                raise AssertionError(f"the scenario resolves {effect.action}")

    def _wait(self, delay_s: float, then: Callable[[], None]) -> None:
        self.flush()
        self._blocked = True
        self._timer = asyncio.get_running_loop().call_later(delay_s, self._resume, then)

    def _resume(self, then: Callable[[], None]) -> None:
        self._blocked = False
        self._timer = None
        if self._closed:
            return
        then()
        if not self._blocked and not self._closed:
            self._transport.resume_reading()
        self._process()

    def _stall(self, command: Command) -> None:
        """Answer nothing more; inside a content also stop reading, so that the window fills."""
        self.flush()
        self._blocked = True
        if command is Command.BODY:
            self._transport.pause_reading()
            self._watch()
        else:
            self._discarding = True  # still reading, to notice when the client goes

    def _watch(self) -> None:
        """Close once the client has gone, which a transport that does not read never tells."""
        sock = self._transport.get_extra_info("socket")
        try:
            state = sock.getsockopt(socket.IPPROTO_TCP, socket.TCP_INFO, 1)[0]
        except (OSError, ValueError):
            return
        if state != _ESTABLISHED:
            self.reset()
        else:
            self._timer = asyncio.get_running_loop().call_later(_WATCH_S, self._watch)

    # ---- output

    def send(self, reply: str | bytes) -> None:
        """Queue one reply; text may have several lines."""
        if isinstance(reply, str):
            reply = reply.replace("\n", "\r\n").encode("utf-8") + b"\r\n"
        self._out.append(reply)

    def flush(self, then: Callable[[], None] | None = None) -> None:
        """Write what is queued, octet by octet where a split was asked for, then go on."""
        if self._holds_output:
            return
        data = b"".join(self._out)
        self._out.clear()
        split_s, self._split_s = self._split_s, None
        if split_s is not None and len(data) > 1:
            self._drip(data, split_s, then)
            return
        if data and not self._closed:
            self._transport.write(data)
        if self._ends_with_flush and not self._closed:
            self._end_output()
        if then is not None:
            then()

    def _end_output(self) -> None:
        self._ends_with_flush = False
        if self._transport.can_write_eof():
            self._transport.write_eof()
        else:
            self._finish()

    def _drip(self, data: bytes, pause_s: float, then: Callable[[], None] | None) -> None:
        self._transport.write(data[:1])
        if len(data) > 1:
            self._wait(pause_s, partial(self._drip, data[1:], pause_s, then))
        elif then is not None:
            then()

    def close(self) -> None:
        """Write what is queued and close."""
        self.flush(self._finish)

    def _finish(self) -> None:
        self._closed = True
        self._transport.close()

    def reset(self) -> None:
        """Close with a TCP reset, throwing away what is queued."""
        self._closed = True
        sock = self._transport.get_extra_info("socket")
        if sock is not None:  # under TLS it is gone as soon as the connection is
            with contextlib.suppress(OSError, ValueError):  # closed already
                sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, _RESET_ON_CLOSE)
        self._transport.abort()

    def refuse_body(self, reply: str) -> None:
        """Answer in the middle of the content, send nothing more, ignore the rest."""
        self.send(reply)
        self._discarding = self._ends_with_flush = True
        self._input.clear()

    # ---- TLS

    @property
    def channel_binding(self) -> tuple[str, bytes]:
        """Type and value of the TLS channel binding; empty where there is none."""
        return channel_binding(self._transport.get_extra_info("ssl_object"))

    def start_tls(self) -> None:
        """Send what is queued in the clear, forget unread input, then shake hands."""
        self._transport.pause_reading()
        self._blocked = True
        self._input.clear()
        self.flush(partial(self.perform, Command.HANDSHAKE, self._begin_handshake))

    def _begin_handshake(self, reply: str | None) -> None:
        if reply is not None:  # an effect: garbage or a reply in place of the handshake
            self.send(reply)
            self._discarding = self._holds_output = True
            self._transport.resume_reading()
            return
        self._blocked = True
        self._handshake = asyncio.get_running_loop().create_task(self._shake_hands())

    async def _shake_hands(self) -> None:
        context = self.receiver.certificates.context_for(self.hosts[0], self.script.certificate)
        try:
            transport = await asyncio.get_running_loop().start_tls(
                self._transport, self, context, server_side=True, ssl_handshake_timeout=60.0
            )
        except (OSError, ssl.SSLError):
            transport = None
        # A connection that ends during the handshake may end it without an error, and then nobody
        # tells the protocol: seen with uvloop and with asyncio before Python 3.12.
        secured = transport.get_extra_info("ssl_object") if transport is not None else None
        if transport is None or secured is None or secured.version() is None or self._closed:
            self.reset()
            self.connection_lost(None)
            return
        self._transport = transport
        self._note_tls()
        self._blocked = False
        self._process()

    def _note_tls(self) -> None:
        secured = self._transport.get_extra_info("ssl_object")
        cipher = secured.cipher() if secured is not None else None
        if secured is not None:
            self.receiver.mailbox.counters.tls_sessions += 1
            self._dialogue.secured(secured.version() or "", cipher[0] if cipher else "")
