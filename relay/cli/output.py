"""What a supervisor prints: lines for people with the program's name before them, or JSON lines."""

import os
import sys
from typing import BinaryIO

from relay.settings.schema import Settings
from relay.telemetry.log import configure_logging, get_logger

_COLOURS = (36, 32, 33, 35, 34, 96, 92, 93, 95, 94)


class Output:
    """JSON lines already carry their service: they pass as they are; others are made such lines."""

    def __init__(self, settings: Settings, service: str, stream: BinaryIO | None = None) -> None:
        self._stream = sys.stdout.buffer if stream is None else stream
        chosen = settings.log.format
        is_terminal = self._stream.isatty()
        self.is_human = chosen == "human" or (chosen == "auto" and is_terminal)
        self.has_colour = self.is_human and is_terminal and "NO_COLOR" not in os.environ
        self._colours: dict[str, int] = {}
        self._log = get_logger()
        own = _Own(self, service) if self.is_human else self._stream
        configure_logging(settings, service=service, stream=own, human=self.is_human)

    def write(self, name: str, lines: bytes) -> None:
        """Print lines of a program, given without the last line end."""
        if self.is_human:
            prefix = self._prefix(name)
            self._put(prefix + lines.replace(b"\n", b"\n" + prefix) + b"\n")
        elif lines.startswith(b"{") and lines.count(b"\n") == lines.count(b"\n{"):
            self._put(lines + b"\n")
        else:
            for line in lines.split(b"\n"):
                self._write_foreign(name, line)

    def _write_foreign(self, name: str, line: bytes) -> None:
        if line.startswith(b"{"):
            self._put(line + b"\n")
        elif line.strip():
            text = line.decode("utf-8", "backslashreplace")
            self._log.info("program.output", program=name, text=text)

    def environment(self) -> dict[str, str]:
        """Variables that have the programs write lines of the same form."""
        variables = {"RELAY_LOG_FORMAT": "human" if self.is_human else "json"}
        return variables | ({"FORCE_COLOR": "1"} if self.has_colour else {})

    def _prefix(self, name: str) -> bytes:
        text = f"{name:<9}| "
        if not self.has_colour:
            return text.encode()
        colour = self._colours.setdefault(name, _COLOURS[len(self._colours) % len(_COLOURS)])
        return f"\x1b[{colour}m{text}\x1b[0m".encode()

    def _put(self, line: bytes) -> None:
        try:
            self._stream.write(line)
            self._stream.flush()
        except (OSError, ValueError):
            pass  # nobody reads any more; the programs go on


class _Own:
    """The supervisor's own log as lines of one more program."""

    def __init__(self, output: Output, name: str) -> None:
        self._output = output
        self._name = name

    def write(self, line: bytes) -> None:
        self._output.write(self._name, line.rstrip(b"\n"))

    def flush(self) -> None:
        pass

    def isatty(self) -> bool:
        return self._output.has_colour
