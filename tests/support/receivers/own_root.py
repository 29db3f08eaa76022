"""Servers that look for their files and users in fixed places: they get a root of their own.

It is a mount namespace where our files lie over the system's; only their processes see it.
"""

import functools
import os
import signal
import subprocess
import tempfile
from pathlib import Path

from bench.processes import arguments_of_children
from tests.support import processes
from tests.support.receivers.receiver import Receiver, why_not

#: User and group ids that nobody has.
_FIRST_ID = 61_025


class RootedReceiver(Receiver):
    """A server whose `program` runs with `users` and /usr of its own, /etc and /var of ours."""

    users: tuple[str, ...]
    program: tuple[str, ...]
    _process: subprocess.Popen[bytes] | None = None

    @property
    def etc(self) -> Path:
        """What lies over /etc."""
        return self.base / "etc"

    @property
    def var(self) -> Path:
        """What hides /var and, as `run`, /run."""
        return self.base / "var"

    @classmethod
    def why_not(cls) -> str:
        return why_not("unshare", "mount") or cannot_mount()

    def run(self) -> subprocess.Popen[bytes]:
        self._process = processes.start([*self._apart(), *self.program], log=self.output)
        return self._process

    def stop(self) -> None:
        # With the first process of a namespace end all others, and then unshare.
        if self._process is not None:
            for child in arguments_of_children(self._process.pid):
                os.kill(child, signal.SIGKILL)
            self._process.wait(20)

    @property
    def output(self) -> Path:
        return self.base / "output"

    def log(self) -> str:
        return self.output.read_text(errors="replace")

    def lay_out(self) -> None:
        for folder in (self.etc, self.var / "run"):
            folder.mkdir(parents=True)
        for name in ("passwd", "group"):
            text = Path("/etc", name).read_text()
            for number, user in enumerate(self.users, _FIRST_ID):
                text += f"{user}:x:{number}:"
                text += "\n" if name == "group" else f"{number}::/:/usr/sbin/nologin\n"
            (self.etc / name).write_text(text)

    def _apart(self) -> list[str]:
        """What goes before the command."""
        mounts = [laid_over(self.root / "usr", "/usr"), laid_over(self.etc, "/etc")]
        mounts += [f"mount --bind {self.var / 'run'} /run", f"mount --bind {self.var} /var"]
        apart = ["unshare", "--mount", "--pid", "--fork", "--kill-child"]
        # The shell stays, as the first process: unlike Exim, it can be told to end with unshare.
        script = " && ".join([*mounts, '"$@"']) + "; exit $?"
        return [*apart, "sh", "-c", script, "own-root"]


def laid_over(ours: Path, theirs: str) -> str:
    """The command that shows files of ours above those of a folder."""
    return f"mount -t overlay overlay -o lowerdir={ours}:{theirs} {theirs}"


@functools.cache
def cannot_mount() -> str:
    """Why nothing can be laid over /usr; empty: it can."""
    with tempfile.TemporaryDirectory() as folder:
        command = [
            "unshare",
            "--mount",
            "--pid",
            "--fork",
            "sh",
            "-c",
            laid_over(Path(folder), "/usr"),
        ]
        probe = subprocess.run(command, capture_output=True, text=True, check=False)
    return f"nothing can be laid over /usr here: {probe.stderr.strip()}" if probe.returncode else ""
