"""Profiles: named mixtures of effects that a whole domain shows, as large receivers do."""

import msgspec

from relay.sim.effects import Action, Command, Effect


class Likely(msgspec.Struct, frozen=True):
    """An effect at a command with the probability that it happens."""

    command: Command
    effect: Effect
    probability: float = 1.0


_RATE = "421-4.7.28 Unusual rate of mail from your address, rate limited.\n421 4.7.28 Try later"

#: Profile -> its effects, looked at in order; delays add up, the first other one wins.
PROFILES: dict[str, tuple[Likely, ...]] = {
    "bad-day": (
        Likely(Command.GREETING, Effect(Action.SHUT_DOWN, _RATE), 0.05),
        Likely(Command.GREETING, Effect(Action.DELAY, delay_s=0.5), 0.2),
        Likely(Command.MAIL, Effect(Action.SHUT_DOWN, _RATE), 0.02),
        Likely(Command.RCPT, Effect(Action.DELAY, delay_s=0.2), 0.1),
        Likely(Command.RCPT, Effect(Action.GREYLIST), 0.2),
        Likely(Command.RCPT, Effect(Action.REPLY, "452 4.2.2 Mailbox over quota"), 0.02),
        Likely(Command.RCPT, Effect(Action.REPLY, "550 5.1.1 No such user"), 0.02),
        Likely(Command.END_OF_DATA, Effect(Action.DELAY, delay_s=0.3), 0.2),
        Likely(Command.END_OF_DATA, Effect(Action.SHUT_DOWN, _RATE), 0.03),
        Likely(Command.END_OF_DATA, Effect(Action.TRANSIENT, "451 4.3.0 Overloaded"), 0.02),
    ),
    "greylisting": (Likely(Command.RCPT, Effect(Action.GREYLIST)),),
    "throttling": (
        Likely(Command.MAIL, Effect(Action.SHUT_DOWN, _RATE), 0.2),
        Likely(Command.RCPT, Effect(Action.DELAY, delay_s=0.2), 0.5),
    ),
    "outage": (Likely(Command.GREETING, Effect(Action.SHUT_DOWN)),),
    "slow": (
        Likely(Command.GREETING, Effect(Action.DELAY, delay_s=1.0)),
        Likely(Command.RCPT, Effect(Action.DELAY, delay_s=0.3)),
        Likely(Command.END_OF_DATA, Effect(Action.DELAY, delay_s=0.5)),
    ),
    "spamwall": (
        Likely(
            Command.END_OF_DATA,
            Effect(Action.REPLY, "550 5.7.1 Message looks like spam and was refused"),
        ),
    ),
}
