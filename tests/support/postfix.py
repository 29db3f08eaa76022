"""A real Postfix beside the system under test: Debian's package, unpacked, never installed."""

import contextlib
import os
import shutil
import subprocess
import tempfile
from collections.abc import Iterator
from pathlib import Path

from bench.postfix import Postfix, libraries
from tests.support.packages import fetched_packages

#: What it takes and drops as delivered, whatever the recipient.
SINK_DOMAIN = "pf.test"


def why_not() -> str:
    """Why this machine cannot have a Postfix of the test's own; empty: it can."""
    if os.geteuid() != 0:
        return "Postfix is started by root only: run the tests as root"
    for command in ("apt-get", "dpkg-deb"):
        if shutil.which(command) is None:
            return f"the command {command} is missing: Postfix is taken from Debian's package"
    return ""


class Neighbour(Postfix):
    """A Postfix with settings of the test's own."""

    settings = f"transport_maps = inline:{{{SINK_DOMAIN}=discard:}}\n"

    def _lay_out(self) -> Path:
        conf = super()._lay_out()
        with (conf / "main.cf").open("a", encoding="utf-8") as main:
            main.write(self.settings)
        with (conf / "master.cf").open("a", encoding="utf-8") as master:
            master.write("pickup unix n - n 60 1 pickup\n")  # postqueue asks for it
        return conf

    def flush(self) -> None:
        """Have it try all that is deferred now."""
        conf = self._base / "conf"
        subprocess.run(
            [self._root / "usr/sbin/postqueue", "-c", conf, "-f"],
            env={"MAIL_CONFIG": str(conf), "LD_LIBRARY_PATH": libraries(self._root)},
            check=True,
        )

    def deferred(self) -> int:
        """How many messages wait for another try."""
        return sum(path.is_file() for path in (self._base / "spool/deferred").rglob("*"))


@contextlib.contextmanager
def neighbour_postfix(
    *, port: int, receiver: tuple[str, int], settings: str = ""
) -> Iterator[Neighbour]:
    """Postfix on `port`; its mail goes to `receiver`, that to SINK_DOMAIN into nothing.

    `settings` are more lines of main.cf. The package is kept where the benchmarks keep it.
    """
    home = Path(os.environ.get("XDG_CACHE_HOME", Path.home() / ".cache"))
    # Not in the test's folder: the queue's owner could not get there.
    # Processes that were killed may hold on to files for a moment.
    with tempfile.TemporaryDirectory(prefix="relay-postfix-", ignore_cleanup_errors=True) as folder:
        base = Path(folder) / "postfix"
        with fetched_packages():
            postfix = Neighbour(home / "relay-bench", base, port=port, receiver=receiver)
        postfix.settings += settings
        with postfix:
            yield postfix
