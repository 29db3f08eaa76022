"""Postfix as the peer: Debian's package unpacked into a cache folder, own configuration and queue.

Nothing is installed and no user is made: `mail` owns the queue. Mail goes by `relayhost` to the
receiver, so Postfix does not even look MX records up.
"""

import os
import pwd
import shutil
import signal
import subprocess
from pathlib import Path
from types import TracebackType
from typing import Self

from bench.debian import unpacked
from bench.processes import cpu_seconds, wait_for_listener

#: With what a login at it takes.
PACKAGES = ("postfix", "libsasl2-modules", "libsasl2-modules-db", "sasl2-bin")
_OWNER = "mail"
_GROUP = "news"
_PRIVATE = (
    *("incoming", "active", "deferred", "bounce", "defer", "corrupt", "flush"),
    *("hold", "saved", "trace", "private"),
)

_MAIN = """\
compatibility_level = 3.6
queue_directory = {base}/spool
data_directory = {base}/data
daemon_directory = {root}/usr/lib/postfix/sbin
command_directory = {root}/usr/sbin
shlib_directory = {root}/usr/lib/postfix
meta_directory = {root}/etc/postfix
mail_owner = {owner}
setgid_group = {group}
default_privs = nobody
myhostname = postfix.example
mydestination =
mynetworks = 127.0.0.0/8
inet_interfaces = 127.0.0.1
inet_protocols = ipv4
relayhost = [{receiver}]:{receiver_port}
alias_maps =
alias_database =
local_recipient_maps =
smtpd_relay_restrictions = permit_mynetworks, reject
smtpd_client_connection_count_limit = 0
smtpd_client_connection_rate_limit = 0
default_process_limit = 200
in_flow_delay = 0
maillog_file = {base}/log/maillog
maillog_file_prefixes = {base}
import_environment = MAIL_CONFIG
  SASL_PATH={root}/usr/lib/x86_64-linux-gnu/sasl2
  LD_LIBRARY_PATH={root}/usr/lib/postfix:{root}/usr/lib/x86_64-linux-gnu
"""

_MASTER = """\
127.0.0.1:{port} inet n - n - 200 smtpd
cleanup unix n - n - 0 cleanup
qmgr unix n - n 300 1 qmgr
rewrite unix - - n - - trivial-rewrite
bounce unix - - n - 0 bounce
defer unix - - n - 0 bounce
trace unix - - n - 0 bounce
flush unix n - n 1000? 0 flush
proxymap unix - - n - - proxymap
smtp unix - - n - - smtp
relay unix - - n - - smtp
error unix - - n - - error
retry unix - - n - - error
discard unix - - n - - discard
anvil unix - - n - 1 anvil
scache unix - - n - 1 scache
tlsmgr unix - - n 1000? 1 tlsmgr
postlog unix-dgram n - n - 1 postlogd
"""


def unpack(cache: Path) -> Path:
    """Debian's package, unpacked with the libraries it needs; the folder with `usr`."""
    return unpacked(cache / "postfix", *PACKAGES)


def libraries(root: Path) -> str:
    """LD_LIBRARY_PATH of the unpacked programs."""
    return f"{root}/usr/lib/postfix:{root}/usr/lib/x86_64-linux-gnu"


class Postfix:
    """One Postfix listening on `port`, handing everything to the receiver (address, port)."""

    def __init__(self, cache: Path, base: Path, *, port: int, receiver: tuple[str, int]) -> None:
        self.port = port
        self._root = unpack(cache)
        self._base = base
        self._receiver = receiver
        self._process: subprocess.Popen[bytes] | None = None

    def _lay_out(self) -> Path:
        base, owner = self._base, pwd.getpwnam(_OWNER)
        shutil.rmtree(base, ignore_errors=True)
        for name in ("conf", "spool/pid", "log"):
            (base / name).mkdir(parents=True)
        for folder in (base, base.parent):  # the queue's owner must be able to get there
            folder.chmod(folder.stat().st_mode | 0o055)
        (base / "data").mkdir()
        os.chown(base / "data", owner.pw_uid, owner.pw_gid)
        spool = base / "spool"
        for name in _PRIVATE:
            (spool / name).mkdir(mode=0o700)
            os.chown(spool / name, owner.pw_uid, -1)
        for name, mode in (("public", 0o710), ("maildrop", 0o730)):
            (spool / name).mkdir()
            shutil.chown(spool / name, _OWNER, _GROUP)
            (spool / name).chmod(mode)
        names: dict[str, object] = {
            "base": base,
            "root": self._root,
            "owner": _OWNER,
            "group": _GROUP,
        }
        conf = base / "conf"
        receiver, port = self._receiver
        names |= {"receiver": receiver, "receiver_port": port}
        (conf / "main.cf").write_text(_MAIN.format(**names))
        (conf / "master.cf").write_text(_MASTER.format(port=self.port))
        return conf

    def start(self) -> subprocess.Popen[bytes]:
        """Start the master and wait for its listener."""
        conf = self._lay_out()
        self._process = subprocess.Popen(
            [str(self._root / "usr/lib/postfix/sbin/master"), "-d", "-c", str(conf)],
            env={
                "PATH": os.environ["PATH"],
                "MAIL_CONFIG": str(conf),
                "LD_LIBRARY_PATH": libraries(self._root),
            },
            start_new_session=True,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
        )
        process = self._process
        wait_for_listener("127.0.0.1", self.port, lambda: process.poll() is None)
        return process

    def cpu_seconds(self) -> float:
        """CPU time of all its processes so far, ended ones included."""
        assert self._process is not None
        return cpu_seconds(self._process.pid)

    def stop(self) -> None:
        """End all of its processes; asked politely it would wait for its log for 5 s."""
        if self._process is not None:
            os.killpg(self._process.pid, signal.SIGKILL)
            self._process.wait(10)

    def __enter__(self) -> Self:
        self.start()
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self.stop()
