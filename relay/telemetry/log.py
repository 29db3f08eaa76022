"""The log: one line an event, JSON for machines, columns for a terminal.

Every line carries ts, level, event, then service, mode, node and version, then the event's own
fields, named as events are (queue_id, forward_path, reply_code, …). Control characters are escaped,
passwords and keys are struck out, local-parts too where `log.redact_addresses` says so. Writing a
line never raises. Without `configure_logging` (relay used as a library) lines go to the standard
logger `relay`, so the application decides.
"""

import logging
import os
import re
import socket
import sys
import time
import traceback
from datetime import UTC, datetime
from functools import lru_cache
from typing import Any

import msgspec
import structlog

from relay import __version__
from relay.settings.schema import Settings
from relay.telemetry.lines import Lines, LineStream

LEVELS = {"debug": 10, "info": 20, "warning": 30, "error": 40, "critical": 50}

_SECRET_NAME = re.compile(r"passw|secret|token|authorization|api_?key|credential|private_key")
_URL_USERINFO = re.compile(r"(://[^\s/:@]*):[^\s/@]+@")
_LOCAL_PART = re.compile(r"[^\s<>()\[\],;:\"'=@]+@(?=[\w\[])")
#: What may act on a terminal or a log reader: C0, DEL, C1, line separators, bidirectional controls.
_UNSAFE = re.compile("[\x00-\x1f\x7f-\x9f\u2028\u2029\u200e\u200f\u202a-\u202e\u2066-\u2069]")
_UNSAFE_TEXT = re.compile(_UNSAFE.pattern[:-1] + "\ud800-\udfff]")
_PLAIN_TYPES = frozenset({int, float, bool, type(None)})
_COLOURS = {"debug": "\x1b[2m", "warning": "\x1b[33m", "error": "\x1b[31m", "critical": "\x1b[31m"}


class _Output:
    """Where lines go and how they look; one in a process, set by `configure_logging`."""

    def __init__(self) -> None:
        self.lines: Lines | None = None
        self.level = LEVELS["info"]
        self.is_human = False
        self.has_colour = False
        self.redacts_addresses = False
        self.common: dict[str, str] = {}
        self.encode = msgspec.json.Encoder().encode


_output = _Output()


def configure_logging(
    settings: Settings,
    *,
    service: str,
    stream: LineStream | None = None,
    human: bool | None = None,
    block: int = 0,
) -> None:
    """Send the log of this process to `stream` (standard output), the standard loggers included.

    `human` overrides `log.format`; by default the terminal decides. Lines below warning may wait a
    moment and leave in blocks of so many octets.
    """
    chosen = sys.stdout.buffer if stream is None else stream
    is_terminal = chosen.isatty()
    if human is None:
        human = settings.log.format == "human" or (settings.log.format == "auto" and is_terminal)
    _output.lines = Lines(chosen, block=block)
    _output.level = LEVELS[settings.log.level]
    _output.is_human = human
    wants_colour = is_terminal or "FORCE_COLOR" in os.environ
    _output.has_colour = human and wants_colour and "NO_COLOR" not in os.environ
    _output.redacts_addresses = settings.log.redact_addresses
    _output.common = {
        "service": service,
        "mode": settings.delivery.mode or "",
        "node": settings.delivery.hostname or socket.gethostname(),
        "version": __version__,
    }
    _route_standard_loggers(_output.level)
    structlog.configure(
        processors=[_add_exception, _render],
        wrapper_class=Logger,
        logger_factory=lambda *_: _Writer(),
        cache_logger_on_first_use=True,
    )


class Logger(structlog.BoundLoggerBase):
    """A logger with bound fields; `event` is a stable dotted name, the fields say the rest."""

    def bind(self, **fields: Any) -> "Logger":
        return super().bind(**fields)

    def debug(self, event: str, **fields: Any) -> None:
        self._emit("debug", event, fields)

    def info(self, event: str, **fields: Any) -> None:
        self._emit("info", event, fields)

    def warning(self, event: str, **fields: Any) -> None:
        self._emit("warning", event, fields)

    def error(self, event: str, **fields: Any) -> None:
        self._emit("error", event, fields)

    def exception(self, event: str, **fields: Any) -> None:
        """An error with the exception that is being handled and its traceback."""
        self._emit("error", event, {"exc_info": True, **fields})

    def _emit(self, level: str, event: str, fields: dict[str, Any]) -> None:
        if LEVELS[level] >= _output.level:
            self._proxy_to_logger(level, event, **fields)


class _Writer:
    """The end of the chain: structlog calls the method named like the level with the line."""

    def _write(self, line: bytes) -> None:
        if _output.lines is not None:
            _output.lines.add(line, at_once=False)

    def _write_at_once(self, line: bytes) -> None:
        if _output.lines is not None:
            _output.lines.add(line, at_once=True)

    debug = info = _write
    warning = error = critical = _write_at_once


def get_logger(**fields: Any) -> Logger:
    """A logger; may be made at import time, before `configure_logging`."""
    return Logger(_Writer(), [_add_exception, _render], dict(fields))


def _add_exception(_writer: Any, _level: str, fields: Any) -> Any:
    """`exc_info` becomes `error` (one sentence) and `traceback` (without local variables)."""
    raised = fields.pop("exc_info", None)
    if raised is True:
        raised = sys.exc_info()[1]
    elif isinstance(raised, tuple):
        raised = raised[1]
    if isinstance(raised, BaseException):
        fields["error"] = f"{type(raised).__name__}: {raised}"
        fields["traceback"] = "".join(traceback.format_exception(raised))
    return fields


def _render(_writer: Any, level: str, fields: Any) -> bytes:
    event = fields.pop("event", "")
    if _output.lines is None:
        _to_standard_logger(level, event, fields)
        raise structlog.DropEvent
    if _output.is_human:
        return _human_line(level, event, _clean_fields(fields))
    now = datetime.fromtimestamp(time.time(), UTC).isoformat(timespec="microseconds")
    head = {"ts": f"{now[:26]}Z", "level": level, "event": _clean_text("event", str(event))}
    is_clean = _is_clean(fields)
    line: bytes = _output.encode(
        {**head, **_output.common, **(fields if is_clean else _clean_fields(fields))}
    )
    if is_clean and b"://" in line:
        line = _output.encode({**head, **_output.common, **_clean_fields(fields)})
    if not line.isascii() or b"\x7f" in line:  # the encoder escapes C0 only
        line = _UNSAFE.sub(lambda match: f"\\u{ord(match[0]):04x}", line.decode()).encode()
    return line + b"\n"


@lru_cache(maxsize=1000)
def _is_secret(name: str) -> bool:
    return _SECRET_NAME.search(name) is not None


def _is_clean(fields: dict[str, Any]) -> bool:
    """Whether the fields may be written as they are, unless there is a URL among them."""
    if _output.redacts_addresses or _has_secret(tuple(fields)):
        return False
    for value in fields.values():
        kind = type(value)
        if kind is str:
            if not value.isascii():
                return False
        elif kind is dict:
            if not _is_clean(value):
                return False
        elif kind not in _PLAIN_TYPES:
            return False
    return True


@lru_cache(maxsize=1000)
def _has_secret(names: tuple[Any, ...]) -> bool:
    return any(not isinstance(name, str) or _is_secret(name) for name in names)


def _clean_fields(fields: dict[str, Any]) -> dict[str, Any]:
    return {name: _clean(name, value) for name, value in fields.items()}


def _clean(name: str, value: Any) -> Any:
    """A value without secrets and, where wanted, without local-parts, of plain JSON types."""
    if _is_secret(name) and value:
        return "***"
    if type(value) in _PLAIN_TYPES:
        return value
    if isinstance(value, str):
        return value if "@" not in value and value.isascii() else _clean_text(name, value)
    if isinstance(value, dict):
        return {str(key): _clean(str(key), item) for key, item in value.items()}
    if isinstance(value, list | tuple | set | frozenset):
        return [_clean(name, item) for item in value]
    if isinstance(value, bytes):
        return _clean_text(name, value.decode("utf-8", "backslashreplace"))
    return _clean_text(name, str(value))


def _clean_text(name: str, text: str) -> str:
    if "@" in text:
        if "://" in text:
            text = _URL_USERINFO.sub(r"\1:***@", text)
        if _output.redacts_addresses and name != "message_id":
            text = _LOCAL_PART.sub("***@", text)
    if not text.isascii():
        text = text.encode("utf-8", "backslashreplace").decode()
    return text


def _human_line(level: str, event: str, fields: dict[str, Any]) -> bytes:
    trace = fields.pop("traceback", "")
    is_attempt = "forward_path" in fields and "attempt" in fields
    said = _attempt(fields) if is_attempt else _named(fields)
    line = f"{time.strftime('%H:%M:%S')} {level:<7} {_escaped(str(event))} {said}".rstrip()
    if trace:
        line += "".join(f"\n    {_escaped(row)}" for row in trace.splitlines())
    colour = _COLOURS.get(level, "") if _output.has_colour else ""
    return (f"{colour}{line}\x1b[0m\n" if colour else f"{line}\n").encode()


def _named(fields: dict[str, Any]) -> str:
    """The fields that say something, by name."""
    told = ((name, value) for name, value in fields.items() if value not in ("", None, [], {}))
    return " ".join(f"{name}={_shown(value)}" for name, value in told)


def _attempt(fields: dict[str, Any]) -> str:
    """What became of a recipient, for people: who, where, what was said, when it is tried again."""
    host = fields.get("mx_host")
    where = f" at {host} [{fields.get('mx_ip')}]" if host else ""
    reply = (fields.get(name) for name in ("reply_code", "reply_enhanced", "reply_text"))
    said = " ".join(str(part) for part in reply if part) or str(fields.get("text", ""))
    about = [str(fields.get("recipient_id", "")), f"attempt {fields['attempt']}"]
    if fields.get("delay_s") is not None:
        about.append(f"after {fields['delay_s']:g} s")
    if fields.get("next_attempt_at"):
        about.append(f"next {fields['next_attempt_at']}")
    return _escaped(f"{fields['forward_path']}{where}: {said} ({', '.join(about)})")


def _shown(value: Any) -> str:
    text = value if isinstance(value, str) else msgspec.json.encode(value).decode()
    text = _escaped(text)
    return f'"{text}"' if text == "" or " " in text else text


def _escaped(text: str) -> str:
    return _UNSAFE_TEXT.sub(lambda match: f"\\u{ord(match[0]):04x}", text)


def _to_standard_logger(level: str, event: str, fields: dict[str, Any]) -> None:
    logger = logging.getLogger("relay")
    if logger.isEnabledFor(LEVELS[level]):
        clean = _clean_fields(fields)
        said = " ".join(f"{name}={_shown(value)}" for name, value in clean.items())
        logger.log(LEVELS[level], "%s %s", _escaped(event), said)


class _StandardHandler(logging.Handler):
    """Lines of the libraries (celery, uvicorn, asyncio) in our form, with their `logger`."""

    def emit(self, record: logging.LogRecord) -> None:
        try:
            level = next(name for name, n in reversed(LEVELS.items()) if record.levelno >= n)
            fields: dict[str, Any] = {"event": record.getMessage().strip(), "logger": record.name}
            if record.exc_info:
                fields["exc_info"] = record.exc_info
            getattr(_Writer(), level)(_render(None, level, _add_exception(None, level, fields)))
        except Exception:
            self.handleError(record)


def _route_standard_loggers(level: int) -> None:
    root = logging.getLogger()
    root.handlers[:] = [_StandardHandler()]
    # Libraries speak of their own affairs at info: only their warnings are news to an operator.
    root.setLevel(max(level, logging.WARNING) if level > logging.DEBUG else logging.DEBUG)
    logging.getLogger("relay").setLevel(level)
    logging.captureWarnings(True)
