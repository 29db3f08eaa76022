"""A real Dovecot beside the system under test: Debian's package, unpacked, never installed.

Its programs know their places below /usr only. So it runs where the unpacked files lie over /usr:
in a mount namespace of its own, which ends with it.
"""

import contextlib
import functools
import imaplib
import os
import poplib
import pwd
import shutil
import signal
import subprocess
import tempfile
from collections.abc import Callable, Iterator
from pathlib import Path

import msgspec

from bench.debian import unpacked
from bench.processes import wait_for_listener
from tests.support.packages import fetched_packages
from tests.support.ports import free_ports

PASSWORD = "s3cret, =x"
#: Whose mailbox holds 4,000 octets; Dovecot says so behind the content, as LMTP lets it.
SMALL_BOX = "small"
_OWNER = "mail"
_PACKAGES = ("dovecot-imapd", "dovecot-lmtpd", "dovecot-pop3d", "dovecot-submissiond")
_CONF = """\
base_dir = {base}/run
state_dir = {base}/state
log_path = {base}/log
protocols = lmtp imap pop3 submission
listen = 127.0.0.1
{tls}
disable_plaintext_auth = no
default_login_user = nobody
default_internal_user = {owner}
default_internal_group = {owner}
first_valid_uid = 1
mail_location = maildir:{base}/mail/%u
auth_mechanisms = plain login cram-md5 scram-sha-1 scram-sha-256
mail_plugins = quota
plugin {{
  quota = count:whole
  quota_vsizes = yes
  quota_grace = 0
}}
passdb {{
  driver = passwd-file
  args = scheme=PLAIN {base}/users
}}
userdb {{
  driver = passwd-file
  args = {base}/users
  override_fields = uid={owner} gid={owner} home={base}/mail/%u
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
  inet_listener lmtp {{
    port = {lmtp_port}
  }}
}}
service pop3-login {{
  chroot =
  inet_listener pop3 {{
    port = {pop3_port}
  }}
  inet_listener pop3s {{
    port = 0
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
            return f"the command {command} is missing (Debian: apt, dpkg, util-linux, mount)"
    with tempfile.TemporaryDirectory() as folder:
        laid = _over_usr(Path(folder), "true")
        probe = subprocess.run(laid, capture_output=True, text=True, check=False)
    return f"nothing can be laid over /usr here: {probe.stderr}" if probe.returncode else ""


class Dovecot(msgspec.Struct, frozen=True):
    """Where it listens: LMTP at the socket `lmtp`, and everything at ports of 127.0.0.1."""

    lmtp: Path
    lmtp_port: int
    imap_port: int
    pop3_port: int
    submission_port: int

    def by_imap(self, user: str) -> list[bytes]:
        """All messages of a mailbox, oldest first, as IMAP gives them."""
        with imaplib.IMAP4("127.0.0.1", self.imap_port) as client:
            client.login(user, PASSWORD)
            _, (count,) = client.select("INBOX", readonly=True)
            assert count is not None
            fetched = [client.fetch(str(number + 1), "(RFC822)")[1] for number in range(int(count))]
        found = [data[0] for data in fetched]
        return [item[1] for item in found if isinstance(item, tuple)]

    def by_pop3(self, user: str) -> list[bytes]:
        """All messages of a mailbox, oldest first, as POP3 gives them."""
        client = poplib.POP3("127.0.0.1", self.pop3_port)
        try:
            client.user(user)
            client.pass_(PASSWORD)
            count, _ = client.stat()
            return [b"\r\n".join([*client.retr(at + 1)[1], b""]) for at in range(count)]
        finally:
            client.quit()


@contextlib.contextmanager
def neighbour_dovecot(
    *users: str,
    relay: tuple[str, int] = ("127.0.0.1", 9),
    certificate: bytes = b"",
) -> Iterator[Dovecot]:
    """A Dovecot with mailboxes for `users`; what they submit goes to the SMTP server `relay`.

    It offers STARTTLS where it has a certificate (PEM with the key).
    """
    root = _unpack()
    # Not in the test's folder: the owner of the mail could not get there.
    with tempfile.TemporaryDirectory(prefix="relay-dovecot-") as folder:
        base = Path(folder)
        process, dovecot = _started(root, base, lambda: _lay_out(base, users, relay, certificate))
        try:
            yield dovecot
        finally:
            _end(process)


def _started(
    root: Path, base: Path, lay_out: Callable[[], Dovecot]
) -> tuple[subprocess.Popen[bytes], Dovecot]:
    """Start it, on other ports where somebody was quicker to take one."""
    for _ in range(2):
        with contextlib.suppress(RuntimeError):
            dovecot = lay_out()
            return _start(root, base, dovecot), dovecot
    dovecot = lay_out()
    return _start(root, base, dovecot), dovecot


def _start(root: Path, base: Path, dovecot: Dovecot) -> subprocess.Popen[bytes]:
    """Start it and wait for its listeners; RuntimeError says what it complained of."""
    command = f"exec /usr/sbin/dovecot -F -c {base}/dovecot.conf"
    with (base / "output").open("wb") as output:
        process = subprocess.Popen(_over_usr(root / "usr", command), stdout=output, stderr=output)
    try:
        for port in (dovecot.imap_port, dovecot.pop3_port, dovecot.submission_port):
            wait_for_listener("127.0.0.1", port, lambda: process.poll() is None)
    except RuntimeError as error:
        _end(process)
        said = [path.read_text() for path in (base / "output", base / "log") if path.exists()]
        raise RuntimeError(f"Dovecot: {error}: {''.join(said)[-2000:]}") from None
    return process


def _unpack() -> Path:
    """Debian's packages with the libraries they need, below /usr where they run."""
    home = Path(os.environ.get("XDG_CACHE_HOME", Path.home() / ".cache"))
    with fetched_packages():
        return unpacked(home / "relay-bench" / "dovecot", *_PACKAGES)


def _over_usr(files: Path, command: str) -> list[str]:
    mount = f"mount -t overlay overlay -o lowerdir={files}:/usr /usr"
    # A namespace of processes ends with its first one: Dovecot takes seconds to say goodbye.
    namespaces = ["--mount", "--pid", "--fork", "--kill-child"]
    return ["unshare", *namespaces, "sh", "-c", f"{mount} && {command}"]


def _end(process: subprocess.Popen[bytes]) -> None:
    """Kill the first process of the namespace: all others are gone when unshare has ended."""
    if process.poll() is None:
        children = Path(f"/proc/{process.pid}/task/{process.pid}/children").read_text()
        for child in children.split():
            os.kill(int(child), signal.SIGKILL)
    process.wait()


def _lay_out(
    base: Path, users: tuple[str, ...], relay: tuple[str, int], certificate: bytes
) -> Dovecot:
    owner = pwd.getpwnam(_OWNER)
    base.chmod(0o755)
    for name in ("run", "state", "mail"):
        (base / name).mkdir(exist_ok=True)
    os.chown(base / "mail", owner.pw_uid, owner.pw_gid)
    (base / "users").write_text("".join(map(_user, users)))
    pem = base / "certificate.pem"
    pem.write_bytes(certificate)
    lmtp_port, imap_port, pop3_port, submission_port = free_ports(4)
    dovecot = Dovecot(base / "run/lmtp", lmtp_port, imap_port, pop3_port, submission_port)
    conf = _CONF.format(
        base=base,
        owner=_OWNER,
        tls=f"ssl = yes\nssl_cert = <{pem}\nssl_key = <{pem}" if certificate else "ssl = no",
        lmtp_port=lmtp_port,
        imap_port=imap_port,
        pop3_port=pop3_port,
        submission_port=submission_port,
        relay_host=relay[0],
        relay_port=relay[1],
    )
    (base / "dovecot.conf").write_text(conf)
    return dovecot


def _user(address: str) -> str:
    limit = "userdb_quota_rule=*:bytes=4000" if address.startswith(f"{SMALL_BOX}@") else ""
    return f"{address}:{{PLAIN}}{PASSWORD}::::::{limit}\n"
