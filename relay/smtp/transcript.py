"""A dialogue as text for people: who said what, secrets left out, never longer than 4 KiB."""

from collections.abc import Sequence

from relay.model.reply import Reply
from relay.smtp.transaction import Exchange, Stage

#: Octets of a whole transcript, and of its part before the first transaction.
TRANSCRIPT_OCTETS = 4096
OPENING_OCTETS = 1024


class Transcript:
    """The dialogue of one exchange and of its session's opening; composed by `str()`."""

    def __init__(
        self, opening: Sequence[str], exchange: Exchange, broken: Exception | None
    ) -> None:
        self._opening = opening
        self._exchange = exchange
        self._broken = broken

    def __str__(self) -> str:
        lines = exchange_lines(self._exchange)
        if self._broken is not None:
            lines.append(f"! {self._broken}")
        opening = fit(self._opening, OPENING_OCTETS)
        return fit([*opening.split("\n"), *lines] if opening else lines, TRANSCRIPT_OCTETS)


def reply_lines(reply: Reply) -> list[str]:
    """A reply as it was on the wire, one entry a line."""
    enhanced = f"{reply.enhanced} " if reply.enhanced else ""
    last = len(reply.lines) - 1
    return [
        f"< {reply.code}{' ' if number == last else '-'}{enhanced}{line}".rstrip()
        for number, line in enumerate(reply.lines)
    ]


def fit(lines: Sequence[str], octets: int) -> str:
    """The lines joined; where that is too long, the middle is left out and counted."""
    text = "\n".join(lines)
    if len(text.encode(errors="replace")) <= octets:
        return text
    room = (octets - 64) // 2
    head = _take(lines, room)
    tail = _take(lines[len(head) :][::-1], room)[::-1]
    left_out = len(lines) - len(head) - len(tail)
    return "\n".join([*head, f"… {left_out} lines left out …", *tail])


def _take(lines: Sequence[str], octets: int) -> list[str]:
    """As many lines as fit; a first line longer than everything is cut."""
    taken: list[str] = []
    used = 0
    for line in lines:
        used += len(line.encode(errors="replace")) + 1
        if used > octets:
            break
        taken.append(line)
    if not taken and lines:
        taken.append(lines[0].encode(errors="replace")[: octets - 1].decode(errors="ignore"))
    return taken


def exchange_lines(exchange: Exchange) -> list[str]:
    """What was said about an exchange so far: each command, and its reply once it is here."""
    if exchange.is_local:
        return [f"! not sent: {exchange.mail}"]
    lines: list[str] = []
    replies = [exchange.mail, *exchange.recipients, exchange.data][: len(exchange.lines)]
    for line, reply in zip(exchange.lines, replies, strict=True):
        if reply is None:
            if exchange.stage is not Stage.FINISHED and exchange.stage is not Stage.QUEUED:
                lines.append(_command(line))
                return lines
            continue
        lines.append(_command(line))
        lines.extend(reply_lines(reply))
    octets = len(exchange.transaction.content)
    if exchange.is_chunked and exchange.accepted:
        end = "with the last one" if exchange.dot_sent else "begun, not the last one"
        lines.append(f"> [{octets} octets of content in chunks by BDAT, {end}]")
    elif exchange.data is not None and exchange.data.is_intermediate and exchange.accepted:
        dot = "and the final dot" if exchange.dot_sent else "begun, no final dot"
        lines.append(f"> [{octets} octets of content {dot}]")
    if any(exchange.finals):
        for answer in filter(None, exchange.finals):
            lines.extend(reply_lines(answer))
    elif exchange.final is not None:
        lines.extend(reply_lines(exchange.final))
    return lines


def _command(line: bytes) -> str:
    return f"> {line[:-2].decode(errors='replace')}"
