"""A real Dovecot beside the system under test: Debian's package, unpacked, never installed.

Its programs know their places below /usr only. So it runs where the unpacked files lie over /usr:
in a mount namespace of its own, which ends with it.
"""

import contextlib
import functools
import os
import pwd
import shutil
import signal
import subprocess
import tempfile
from collections.abc import Iterator
from pathlib import Path

import msgspec
import pytest

from bench.processes import wait_for_listener
from tests.support.ports import free_port

PASSWORD = "s3cret, =x"
_OWNER = "mail"
_NAMES = (
    *("dovecot-core", "dovecot-imapd", "dovecot-lmtpd", "dovecot-submissiond"),
    *("libapparmor1", "libexttextcat-2.0-0", "libicu72", "liblua5.3-0", "libsodium23"),
    *("libstemmer0d", "libtirpc3", "libwrap0"),
)
_CONF = """\
base_dir = {base}/run
state_dir = {base}/state
log_path = {base}/log
protocols = lmtp imap submission
listen = 127.0.0.1
ssl = no
disable_plaintext_auth = no
default_login_user = nobody
default_internal_user = {owner}
default_internal_group = {owner}
first_valid_uid = 1
mail_location = maildir:{base}/mail/%u
auth_mechanisms = plain login cram-md5 scram-sha-1 scram-sha-256
passdb {{
  driver = passwd-file
  args = scheme=PLAIN {base}/users
}}
userdb {{
  driver = static
  args = uid={owner} gid={owner} home={base}/mail/%u
}}
service anvil {{
  chroot =
}}
service stats {{
  chroot =
}}
service lmtp {{
  unix_listener lmtp {{
    mode = 0666
  }}
}}
service imap-login {{
  chroot =
  inet_listener imap {{
    port = {imap_port}
  }}
  inet_listener imaps {{
    port = 0
  }}
}}
service submission-login {{
  chroot =
  inet_listener submission {{
    port = {submission_port}
  }}
  inet_listener submissions {{
    port = 0
  }}
}}
submission_relay_host = {relay_host}
submission_relay_port = {relay_port}
"""


@functools.cache
def why_not() -> str:
    """Why this machine cannot have a Dovecot of the test's own; empty: it can."""
    if os.geteuid() != 0:
        return "Dovecot is started by root only: run the tests as root"
    for command in ("apt-get", "dpkg-deb", "unshare", "mount"):
        if shutil.which(command) is None:
            return f"the command {command} is missing (Debian: apt, dpkg, util-linux)"
    with tempfile.TemporaryDirectory() as folder:
        laid = _over_usr(Path(folder), "true")
        probe = subprocess.run(laid, capture_output=True, text=True, check=False)
    return f"nothing can be laid over /usr here: {probe.stderr}" if probe.returncode else ""


class Dovecot(msgspec.Struct, frozen=True):
    """Where it listens: LMTP at the socket `lmtp`, IMAP and submission at ports of 127.0.0.1."""

    lmtp: Path
    imap_port: int
    submission_port: int


@contextlib.contextmanager
def neighbour_dovecot(*users: str, relay: tuple[str, int]) -> Iterator[Dovecot]:
    """A Dovecot with mailboxes for `users`; what they submit goes to the SMTP server `relay`."""
    home = Path(os.environ.get("XDG_CACHE_HOME", Path.home() / ".cache"))
    root = _unpack(home / "relay-bench" / "dovecot")
    # Not in the test's folder: the owner of the mail could not get there.
    with tempfile.TemporaryDirectory(prefix="relay-dovecot-") as folder:
        base = Path(folder)
        dovecot = _lay_out(base, users, relay)
        command = f"exec /usr/sbin/dovecot -F -c {base}/dovecot.conf"
        with (base / "output").open("wb") as output:
            process = subprocess.Popen(
                _over_usr(root / "usr", command), stdout=output, stderr=output
            )
        try:
            for port in (dovecot.imap_port, dovecot.submission_port):
                wait_for_listener("127.0.0.1", port, lambda: process.poll() is None)
            yield dovecot
        finally:
            process.send_signal(signal.SIGTERM)
            try:
                process.wait(20)
            except subprocess.TimeoutExpired:
                process.kill()
                process.wait()


def _over_usr(files: Path, command: str) -> list[str]:
    mount = f"mount -t overlay overlay -o lowerdir={files}:/usr /usr"
    return ["unshare", "--mount", "sh", "-c", f"{mount} && {command}"]


def _unpack(root: Path) -> Path:
    """Fetch Debian's packages and unpack them with the libraries they need."""
    if (root / "complete").is_file():
        return root
    with tempfile.TemporaryDirectory(prefix="relay-dovecot-") as folder:
        fetched = subprocess.run(
            ["apt-get", "-o", "APT::Sandbox::User=root", "download", *_NAMES],
            cwd=folder,
            check=False,
            capture_output=True,
            text=True,
        )
        if fetched.returncode:
            pytest.skip(f"Debian's packages of Dovecot cannot be had: {fetched.stderr[-200:]}")
        for package in Path(folder).glob("*.deb"):
            subprocess.run(["dpkg-deb", "-x", str(package), str(root)], check=True)
    if (root / "lib").is_dir():  # /lib is /usr/lib
        shutil.copytree(root / "lib", root / "usr/lib", dirs_exist_ok=True, symlinks=True)
    (root / "complete").touch()
    return root


def _lay_out(base: Path, users: tuple[str, ...], relay: tuple[str, int]) -> Dovecot:
    owner = pwd.getpwnam(_OWNER)
    base.chmod(0o755)
    for name in ("run", "state", "mail"):
        (base / name).mkdir()
    os.chown(base / "mail", owner.pw_uid, owner.pw_gid)
    (base / "users").write_text("".join(f"{user}:{{PLAIN}}{PASSWORD}\n" for user in users))
    dovecot = Dovecot(base / "run/lmtp", free_port(), free_port())
    conf = _CONF.format(
        base=base,
        owner=_OWNER,
        imap_port=dovecot.imap_port,
        submission_port=dovecot.submission_port,
        relay_host=relay[0],
        relay_port=relay[1],
    )
    (base / "dovecot.conf").write_text(conf)
    return dovecot
