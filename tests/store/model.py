"""What the store promises, as plain Python: the twin that the stateful test compares it with.

Time is logical seconds, always multiples of 100: what is due is due exactly now or not for 100 s,
so the milliseconds of a real run never decide anything.
"""

from collections.abc import Iterable
from dataclasses import dataclass, field

FINAL = frozenset("DFXCS")
FINISHED_KEPT = 3600.0


@dataclass
class Recipient:
    """One recipient; `state` as in the store's records."""

    queue: str
    state: str = "r"
    step: int = 0
    claims: int = 0
    attempt: int = 0
    due: float = 0.0
    holder: str = ""
    claimant: str = ""
    wish: str = ""
    is_marked: bool = False
    address: str = ""

    @property
    def is_final(self) -> bool:
        return self.state in FINAL


@dataclass
class Message:
    """One message; `staged`: rows that are there while it is not committed, else None."""

    rows: list[Recipient]
    mail_class: str
    expires: float
    notice: float
    staged: int | None = None
    committed_to: int = 0
    deadline: float = 0.0
    finished: float | None = None
    is_gone: bool = False
    is_poison: bool = False
    wants_dsn: bool = False

    @property
    def is_open(self) -> bool:
        return any(not row.is_final for row in self.rows)


@dataclass
class Suspension:
    """Which queues (class, tenant, campaign, destination; empty: any) rest until when."""

    match: tuple[str, str, str, str]
    until: float

    def fits(self, queue: str) -> bool:
        parts = queue.split("|", 3)
        return all(wanted in ("", part) for wanted, part in zip(self.match, parts, strict=True))


@dataclass
class Model:
    """All messages, suspensions, routes and incarnations."""

    now: float = 0.0
    messages: dict[str, Message] = field(default_factory=dict)
    suspensions: dict[str, Suspension] = field(default_factory=dict)
    routes: dict[str, str] = field(default_factory=dict)
    leases: dict[str, float] = field(default_factory=dict)
    parked: dict[str, float] = field(default_factory=dict)
    #: Until when a (tenant, name) gets no mail.
    suppressed: dict[tuple[str, str], float] = field(default_factory=dict)

    # -- looking -----------------------------------------------------------------------------

    def recipient(self, rid: str) -> Recipient | None:
        """The recipient of an id, if it is there."""
        queue_id, _, number = rid.partition(".")
        message = self.messages.get(queue_id)
        if message is None or int(number) > self.rows_of(message):
            return None
        return message.rows[int(number) - 1]

    @staticmethod
    def rows_of(message: Message) -> int:
        return len(message.rows) if message.staged is None else message.staged

    def recipients(self) -> Iterable[tuple[str, Recipient]]:
        """All that are there."""
        for queue_id, message in self.messages.items():
            for number in range(self.rows_of(message)):
                yield f"{queue_id}.{number + 1}", message.rows[number]

    def may_move(self, queue: str) -> bool:
        """Whether nothing stops a queue now."""
        if self.parked.get(queue, 0) > self.now:
            return False
        return not any(s.until > self.now and s.fits(queue) for s in self.suspensions.values())

    def is_suppressed(self, row: Recipient) -> bool:
        """Whether the list has the recipient or his domain."""
        _, tenant, _, _ = row.queue.split("|", 3)
        names = (row.address, "@" + row.address.partition("@")[2])
        return any(self.suppressed.get((tenant, name), 0) > self.now for name in names)

    # -- transitions -------------------------------------------------------------------------

    def tidy(self) -> None:
        """What ends with its last recipient: a queue's rest, a message."""
        for message in self.messages.values():
            if not message.is_open and message.finished is None:
                message.finished = self.now
        alive = {row.queue for _, row in self.recipients() if row.state in "rdhc"}
        self.parked = {queue: at for queue, at in self.parked.items() if queue in alive}

    def claim(self, rid: str, holder: str) -> None:
        """Lease a ready recipient."""
        row = self.recipient(rid)
        assert row is not None and row.state == "r", f"{rid} was claimed while {row}"
        assert self.may_move(row.queue), f"{rid} was claimed from a queue that rests"
        row.state, row.holder, row.claimant = "c", holder, holder
        row.attempt += 1
        row.claims += 1
        row.is_marked = False

    def settle(self, rid: str, attempt: int, kind: str, holder: str, delay: float) -> str:
        """Apply an outcome; the word that the store answers."""
        row = self.recipient(rid)
        if row is None:
            return "unknown"
        is_end = kind in FINAL and not row.is_final
        if row.attempt == attempt and row.claimant == holder:
            if row.state == kind:
                return "again"
            if row.state != "c" and not is_end:
                return "fenced"
        elif not (is_end and row.attempt < attempt and self._is_free(row, holder)):
            return "fenced"
        row.attempt, row.claimant = attempt, holder
        self._apply(rid, row, kind, delay)
        return "ok"

    @staticmethod
    def _is_free(row: Recipient, holder: str) -> bool:
        """Whether nobody else is at it."""
        return row.state != "s" and (row.state != "c" or row.holder == holder)

    def _apply(self, rid: str, row: Recipient, kind: str, delay: float) -> None:
        row.holder, row.claims, row.is_marked = "", 0, False
        if kind in FINAL:
            row.state = kind
            return
        if self._follow_wish(rid, row):
            return
        if kind == "d" or (kind == "r" and delay > 0):
            row.state, row.due = "d", self.now + delay
            row.step += kind == "d"
        else:
            row.state = kind
        message = self.messages[rid.partition(".")[0]]
        if message.expires <= self.now:
            message.deadline = self.now

    def _follow_wish(self, rid: str, row: Recipient) -> bool:
        wish, row.wish = row.wish, ""
        if wish == "bounce":
            self._bounce(rid, row)
        elif wish:
            row.state = "C" if wish == "cancel" else "h"
        return bool(wish)

    def _bounce(self, rid: str, row: Recipient) -> None:
        """The end as failed; held until the report is there where the sender is to be told."""
        message = self.messages[rid.partition(".")[0]]
        if message.wants_dsn and row.state != "s":
            row.state, row.wish = "h", "bounce"
            message.deadline = self.now
        else:
            row.state = "F"

    def verb(self, verb: str, rid: str) -> bool:
        """An operator's word about one recipient; whether it fitted."""
        row = self.recipient(rid)
        if row is None or row.is_final:
            return False
        if row.state == "c":
            return self._wish(row, verb)
        fitting = {"retry": "d", "hold": "dr", "release": "h", "cancel": "srdh", "bounce": "srdh"}
        if row.state not in fitting[verb] or verb == row.wish == "bounce":
            return False
        if verb == "bounce":
            self._bounce(rid, row)
            return True
        row.state = {"hold": "h", "cancel": "C"}.get(verb, "r")
        if verb == "release":
            row.claims, row.wish = 0, ""
        return True

    @staticmethod
    def _wish(row: Recipient, verb: str) -> bool:
        if verb == "release" and row.wish == "hold":
            row.wish = ""
            return True
        if verb not in ("hold", "cancel", "bounce") or row.wish == verb:
            return False
        row.wish = verb
        return True

    def flush(self, destination: str) -> int:
        """Deferred recipients of a destination become ready."""
        flushed = 0
        for _, row in self.recipients():
            if row.state == "d" and row.queue.endswith("|" + destination):
                row.state = "r"
                flushed += 1
        return flushed

    # -- time --------------------------------------------------------------------------------

    def pass_time(self, policies: dict[str, str]) -> None:
        """What a tick does at this moment, deadlines included."""
        self.suspensions = {name: s for name, s in self.suspensions.items() if s.until > self.now}
        for _, row in self.recipients():
            if row.state == "d" and row.due <= self.now:
                row.state = "r"
        dead = [holder for holder, until in self.leases.items() if until <= self.now]
        for rid, row in self.recipients():
            if row.state == "c" and row.holder in dead:
                self.come_back(rid, policies[self.messages[rid.partition(".")[0]].mail_class])
        for holder in dead:
            del self.leases[holder]
        self.messages = {
            queue_id: message
            for queue_id, message in self.messages.items()
            if message.finished is None or message.finished > self.now - FINISHED_KEPT
        }
        for message in self.messages.values():
            if message.staged is not None and message.committed_to:
                self.commit(message, len(message.rows))
        for message in self.messages.values():
            if message.is_open and message.deadline <= self.now:
                self._deadline(message)

    def come_back(self, rid: str, policy: str) -> None:
        """A claim whose holder is dead, or does not know of it, ends."""
        row = self.recipient(rid)
        assert row is not None
        message = self.messages[rid.partition(".")[0]]
        policy = policy if row.is_marked else "retry"
        row.holder, row.is_marked = "", False
        if row.wish in ("cancel", "bounce"):
            self._follow_wish(rid, row)
        elif policy == "assume-delivered":
            row.state = "D"
        elif row.claims >= 5 or (row.claims >= 3 and message.is_poison):
            row.state, row.wish = "h", ""
            message.is_poison = True
            for other in message.rows:  # no test's message has more than one bucket
                if other.state == "r" and other.claims >= 3:
                    other.state = "h"
        elif policy == "hold":
            row.state, row.wish = "h", ""
        elif not self._follow_wish(rid, row):
            row.state = "r"

    def _deadline(self, message: Message) -> None:
        for row in message.rows:
            if row.state == "h" and row.wish == "bounce":
                row.state, row.wish = "F", ""
        if not message.is_open:
            return
        message.deadline = min(message.notice or message.expires, message.expires)
        if message.deadline > self.now:
            return
        if message.staged is not None and not message.committed_to:
            if message.expires > self.now:
                message.deadline = message.expires
                return
            del message.rows[message.staged :]
            message.staged, message.is_gone = None, True
        if message.expires > self.now:
            message.deadline, message.notice = message.expires, 0.0
            return
        for row in message.rows:
            if not row.is_final and row.state != "c":
                row.state = "X"
        message.deadline = self.now + 30

    def commit(self, message: Message, up_to: int) -> None:
        """Make the first rows of a staged message ready."""
        if not message.committed_to:
            message.deadline = message.notice or message.expires
        for row in message.rows[:up_to]:
            if row.state == "s":
                row.state = "S" if self.is_suppressed(row) else "r"
        message.committed_to = up_to
        if up_to == len(message.rows):
            message.staged, message.committed_to = None, 0
