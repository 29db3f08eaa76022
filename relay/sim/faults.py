"""The fault table: what goes wrong at whose hosts, switchable while the sink runs."""

import fnmatch
import itertools
import re
from collections.abc import Callable, Iterable, Sequence

import msgspec

from relay.model.units import parse_duration_s
from relay.sim.effects import Action, Command, Effect
from relay.sim.profiles import PROFILES

#: What a `split` or `delay` without a duration waits.
DEFAULT_SPLIT_S = 0.002
DEFAULT_DELAY_S = 1.0

_REPLY = re.compile(r"[2-5][0-9]{2}(?:[ -][^\r\n]*)?(?:\n[2-5][0-9]{2}(?:[ -][^\r\n]*)?)*")


class Fault(msgspec.Struct, kw_only=True):
    """One row: at hosts or domains matching `pattern`, `effect` happens at `command`.

    `remaining` counts down, None is without end; `fired` counts up; `profile` names its origin.
    """

    id: int
    pattern: str
    command: Command
    effect: Effect
    probability: float = 1.0
    remaining: int | None = None
    fired: int = 0
    profile: str = ""


class FaultRequest(msgspec.Struct, forbid_unknown_fields=True, kw_only=True):
    """A fault as people write it, in Python and over the control port."""

    pattern: str
    command: str
    action: str
    reply: str = ""
    delay: str | float | None = None
    probability: float = 1.0
    count: int | None = None


class _Row(msgspec.Struct):
    fault: Fault
    domain: re.Pattern[str]
    host: re.Pattern[str]
    hosts: frozenset[str]


def _one_of(kind: type[Command] | type[Action], text: str) -> str:
    for member in kind:
        if member.value.lower() == text.lower():
            return member.value
    raise ValueError(f"unknown {kind.__name__.lower()} {text!r}; one of {', '.join(kind)}")


def _effect(request: FaultRequest, command: Command) -> Effect:
    """The effect asked for; ValueError says which value is wrong."""
    action = Action(_one_of(Action, request.action))
    if action is Action.REPLY and not request.reply:
        raise ValueError("action 'reply' needs a reply such as '450 4.2.0 Busy'")
    if request.reply and _REPLY.fullmatch(request.reply) is None:
        raise ValueError(f"{request.reply!r} is not a reply such as '450 4.2.0 Busy'")
    if action is Action.REFUSE and command is not Command.CONNECT:
        raise ValueError("action 'refuse' is only for the command 'connect'")
    if action in (Action.GREYLIST, Action.CROWD) and command is not Command.RCPT:
        raise ValueError(f"action '{action}' is only for the command 'RCPT'")
    delay = request.delay
    delay_s = parse_duration_s(delay) if isinstance(delay, str) else delay
    if delay_s is None:
        delay_s = {Action.SPLIT: DEFAULT_SPLIT_S, Action.DELAY: DEFAULT_DELAY_S}.get(action, 0.0)
    return Effect(action, request.reply, delay_s)


class FaultTable:
    """Rows in the order they were added; false while it is empty, which is the fast path."""

    def __init__(self, hosts_of: Callable[[str], frozenset[str]]) -> None:
        """`hosts_of` gives the MX hosts of a domain pattern."""
        self._hosts_of = hosts_of
        self._rows: list[_Row] = []
        self._numbers = itertools.count(1)
        self._observers: list[Callable[[], None]] = []

    def __bool__(self) -> bool:
        return bool(self._rows)

    def observe(self, observer: Callable[[], None]) -> None:
        """Have `observer` called after every change of the table."""
        self._observers.append(observer)

    def list(self) -> tuple[Fault, ...]:
        """The faults in force."""
        return tuple(row.fault for row in self._rows)

    def add(self, request: FaultRequest) -> Fault:
        """Add one row; ValueError says what is wrong with the request."""
        command = Command(_one_of(Command, request.command))
        if not 0.0 < request.probability <= 1.0:
            raise ValueError(f"probability is {request.probability:g}, not above 0 and up to 1")
        if request.count is not None and request.count < 1:
            raise ValueError(f"count is {request.count}, not 1 or more")
        fault = Fault(
            id=next(self._numbers),
            pattern=request.pattern.lower(),
            command=command,
            effect=_effect(request, command),
            probability=request.probability,
            remaining=request.count,
        )
        self._append(fault)
        self._notify()
        return fault

    def use_profile(self, pattern: str, profile: str) -> tuple[Fault, ...]:
        """Put a profile in force for a pattern, in place of its earlier one."""
        if profile not in PROFILES:
            raise ValueError(f"unknown profile {profile!r}; one of {', '.join(PROFILES)}")
        pattern = pattern.lower()
        self._rows = [r for r in self._rows if r.fault.pattern != pattern or not r.fault.profile]
        faults = [
            Fault(
                id=next(self._numbers),
                pattern=pattern,
                command=likely.command,
                effect=likely.effect,
                probability=likely.probability,
                profile=profile,
            )
            for likely in PROFILES[profile]
        ]
        for fault in faults:
            self._append(fault)
        self._notify()
        return tuple(faults)

    def remove(self, number: int) -> bool:
        """Remove one row; whether it was there."""
        return self._keep(lambda fault: fault.id != number) == 1

    def clear(self, pattern: str | None = None) -> int:
        """Remove the rows of a pattern, or all; how many."""
        wanted = pattern.lower() if pattern is not None else None
        return self._keep(lambda fault: wanted is not None and fault.pattern != wanted)

    def _keep(self, predicate: Callable[[Fault], bool]) -> int:
        before = len(self._rows)
        self._rows = [row for row in self._rows if predicate(row.fault)]
        self._notify()
        return before - len(self._rows)

    def _append(self, fault: Fault) -> None:
        compiled = re.compile(fnmatch.translate(fault.pattern))
        below = re.compile(fnmatch.translate(f"mx[0-9].{fault.pattern}"))
        host = re.compile(f"{compiled.pattern}|{below.pattern}")
        self._rows.append(_Row(fault, compiled, host, self._hosts_of(fault.pattern)))

    def _notify(self) -> None:
        for observer in self._observers:
            observer()

    def refuses(self, host: str) -> bool:
        """Whether connections to this host are to be refused at present."""
        return any(
            row.fault.effect.action is Action.REFUSE and self._is_host(row, (host,))
            for row in self._rows
        )

    def _is_host(self, row: _Row, hosts: Iterable[str]) -> bool:
        return any(host in row.hosts or row.host.match(host) for host in hosts)

    def matching(
        self, command: Command, hosts: Sequence[str], domains: Sequence[str]
    ) -> Iterable[Fault]:
        """The rows for a command at a host; with domains, those decide (RCPT and later)."""
        for row in self._rows:
            if row.fault.command is not command or row.fault.remaining == 0:
                continue
            if domains:
                hit = any(row.domain.match(domain) for domain in domains) or any(
                    row.domain.match(host) for host in hosts
                )
            else:
                hit = self._is_host(row, hosts)
            if hit:
                yield row.fault
