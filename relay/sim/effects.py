"""Effects: what the simulated internet does at one step of a dialogue instead of behaving well."""

from enum import StrEnum

import msgspec


class Command(StrEnum):
    """The steps of a dialogue at which something can go wrong."""

    CONNECT = "connect"
    GREETING = "greeting"
    EHLO = "EHLO"
    HELO = "HELO"
    STARTTLS = "STARTTLS"
    HANDSHAKE = "handshake"
    AUTH = "AUTH"
    MAIL = "MAIL"
    RCPT = "RCPT"
    DATA = "DATA"
    BODY = "body"
    END_OF_DATA = "end-of-data"
    RSET = "RSET"
    NOOP = "NOOP"
    QUIT = "QUIT"


class Action(StrEnum):
    """What happens at a step; `4xx`, `5xx` and `reply` differ only in their default reply."""

    TRANSIENT = "4xx"  # a 4yz reply, the step is not carried out
    PERMANENT = "5xx"  # a 5yz reply, the step is not carried out
    REPLY = "reply"  # the reply that is given with it
    SHUT_DOWN = "421"  # the reply, then the connection is closed
    CLOSE = "close"  # closed without a reply
    RESET = "reset"  # TCP reset without a reply
    DELAY = "delay"  # the step is carried out after `delay_s`
    GARBAGE = "garbage"  # octets that are no reply
    SPLIT = "split"  # the proper reply, one octet a segment, `delay_s` apart
    STALL = "stall"  # nothing is answered or read any more, the connection stays open
    LOSE_REPLY = "lose-reply"  # the step is carried out, then closed without the reply
    REFUSE = "refuse"  # connect only: nobody listens
    GREYLIST = "greylist"  # RCPT only: refused at first sight of (reverse-path, forward-path)
    CROWD = "crowd"  # RCPT only: 452 4.5.3 from the (limit + 1)th recipient of a transaction


class Effect(msgspec.Struct, frozen=True):
    """One thing that happens at a step; an empty reply stands for the default of its action.

    `limit` is the number of recipients for `crowd` and of refused tries for `greylist`.
    """

    action: Action
    reply: str = ""
    delay_s: float = 0.0
    limit: int = 1


_TEXTS = {
    Command.GREETING: ("450 4.3.2 Busy, try again later", "554 5.3.2 No mail service here"),
    Command.STARTTLS: ("454 4.7.0 TLS not available at present", "502 5.5.1 No TLS here"),
    Command.AUTH: ("454 4.7.0 Temporary authentication failure", "535 5.7.8 Wrong credentials"),
    Command.MAIL: ("451 4.3.0 Try again later", "550 5.7.1 Sender refused"),
    Command.RCPT: ("451 4.3.0 Try again later", "550 5.1.1 No such user here"),
    Command.DATA: ("451 4.3.0 Try again later", "554 5.5.0 No valid recipients"),
    Command.END_OF_DATA: ("451 4.3.0 Try again later", "554 5.7.1 Message refused"),
    Command.BODY: ("451 4.3.0 Try again later", "550 5.7.1 Content refused"),
}
_OTHERS = ("451 4.3.0 Try again later", "502 5.5.1 Command not implemented")


def reply_of(effect: Effect, command: Command) -> str:
    """The reply text of an effect: its own, else the default of its action at this command."""
    if effect.reply:
        return effect.reply
    if effect.action is Action.SHUT_DOWN:
        return "421 4.3.2 Service shutting down, closing the connection"
    transient, permanent = _TEXTS.get(command, _OTHERS)
    return permanent if effect.action is Action.PERMANENT else transient
