"""The state machine of an SMTP client as data (RFC 5321 §3, RFC 3207, RFC 4954).

Rules of this file:
- Everything that decides what may be said when, and where a reply leads, stands in these tables.
- A reply is acted on by its first digit alone (RFC 5321 §4.3.2); a digit that a command does not
  list is the peer's protocol error.
- Three turns are not in the tables, because more than one digit decides them; `client` takes
  them: EHLO refused as unknown leads to HELO, 421 ends the session whatever it answers,
  and the state leaves TRANSACTION when the last exchange is finished.
"""

from enum import Enum, StrEnum

from relay.smtp.command import (
    AUTH,
    BDAT,
    DATA,
    EHLO,
    END_OF_DATA,
    GREETING,
    HELO,
    LHLO,
    MAIL,
    QUIT,
    RCPT,
    RSET,
    STARTTLS,
)


class Phase(StrEnum):
    """What is being waited for; the values are the names of `settings.schema.Timeouts`."""

    CONNECT = "connect"
    GREETING = "greeting"
    TLS = "tls"
    COMMAND = "command"
    DATA = "data"
    DATA_BLOCK = "data_block"
    DATA_DONE = "data_done"
    QUIT = "quit"
    ATTEMPT = "attempt"  # none of these alone: the whole, up to the final dot


class State(Enum):
    """What the connection is at."""

    CONNECTED = "the greeting is awaited"
    GREETED = "EHLO or HELO may be said"
    HELLO = "EHLO or HELO is not answered yet"
    READY = "transactions may begin"
    STARTTLS = "STARTTLS is not answered yet"
    HANDSHAKE = "the TLS handshake is due; nothing is read or written here"
    AUTH = "AUTH is not answered yet"
    TRANSACTION = "at least one exchange is not finished"
    REFUSED = "the peer does not want us; QUIT may be said"
    LEAVING = "QUIT is not answered yet"
    CLOSED = "nothing more can be said or heard"


#: What may be said in a state, and the state after saying it.
SAYS: dict[State, dict[str, State]] = {
    State.CONNECTED: {},
    State.GREETED: {
        EHLO: State.HELLO,
        HELO: State.HELLO,
        LHLO: State.HELLO,
        QUIT: State.LEAVING,
    },
    State.HELLO: {},
    State.READY: {
        STARTTLS: State.STARTTLS,
        AUTH: State.AUTH,
        MAIL: State.TRANSACTION,
        QUIT: State.LEAVING,
    },
    State.STARTTLS: {},
    State.HANDSHAKE: {},
    State.AUTH: {},
    State.TRANSACTION: {MAIL: State.TRANSACTION},
    State.REFUSED: {QUIT: State.LEAVING},
    State.LEAVING: {},
    State.CLOSED: {},
}

#: Where the first digit of a reply to a command leads.
HEARS: dict[str, dict[int, State]] = {
    GREETING: {2: State.GREETED, 4: State.REFUSED, 5: State.REFUSED},
    EHLO: {2: State.READY, 4: State.REFUSED, 5: State.REFUSED},
    HELO: {2: State.READY, 4: State.REFUSED, 5: State.REFUSED},
    LHLO: {2: State.READY, 4: State.REFUSED, 5: State.REFUSED},
    STARTTLS: {2: State.HANDSHAKE, 4: State.READY, 5: State.READY},
    AUTH: {2: State.READY, 3: State.AUTH, 4: State.READY, 5: State.READY},
    RSET: {2: State.TRANSACTION, 4: State.TRANSACTION, 5: State.TRANSACTION},
    MAIL: {2: State.TRANSACTION, 4: State.TRANSACTION, 5: State.TRANSACTION},
    RCPT: {2: State.TRANSACTION, 4: State.TRANSACTION, 5: State.TRANSACTION},
    BDAT: {2: State.TRANSACTION, 4: State.TRANSACTION, 5: State.TRANSACTION},
    DATA: {3: State.TRANSACTION, 4: State.TRANSACTION, 5: State.TRANSACTION},
    END_OF_DATA: {2: State.TRANSACTION, 4: State.TRANSACTION, 5: State.TRANSACTION},
    QUIT: {2: State.CLOSED, 3: State.CLOSED, 4: State.CLOSED, 5: State.CLOSED},
}

#: EHLO answered so is EHLO unknown: HELO is tried (RFC 5321 §3.2).
EHLO_UNKNOWN = frozenset((500, 501, 502, 503, 504))

#: BDAT answered so is BDAT unknown, whatever EHLO offered: the server takes content for commands.
BDAT_UNKNOWN = frozenset((500, 501, 502, 503, 504))

#: Which deadline holds while a command's reply is awaited (RFC 5321 §4.5.3.2).
PHASES: dict[str, Phase] = {
    GREETING: Phase.GREETING,
    DATA: Phase.DATA,
    BDAT: Phase.DATA_DONE,
    END_OF_DATA: Phase.DATA_DONE,
    QUIT: Phase.QUIT,
}
