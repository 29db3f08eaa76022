"""What the receiving servers have in common: ports, certificates, and a maildir to look into."""

import contextlib
import email.policy
import functools
import os
import pwd
import re
import shutil
import smtplib
import ssl
import subprocess
import tempfile
import time
from collections import Counter
from collections.abc import Callable, Iterator
from email.message import EmailMessage
from email.parser import BytesParser
from pathlib import Path

import msgspec
from cryptography.hazmat.primitives.serialization import Encoding, NoEncryption, PrivateFormat

from bench.debian import unpacked, version
from bench.processes import wait_for_listener
from tests.support.packages import fetched_packages
from tests.support.ports import free_ports
from tests.unit.certificates import Issued, issue

USER, PASSWORD = "relay", "s3cret,x"
#: Who owns the mail; on every Debian.
OWNER = "mail"
#: Local-parts that no server knows begin so.
UNKNOWN = "unknown"
WAIT_S = 60.0

#: The certificates, each shown on a port of its own by a host of its own name.
GOOD, EXPIRED, SELF_SIGNED = "good", "expired", "selfsigned"
CERTIFICATES = (GOOD, EXPIRED, SELF_SIGNED)
#: Another name in the good certificate.
ALIAS = "alias"


class Ports(msgspec.Struct, frozen=True):
    """Ports of 127.0.0.1: without TLS, with STARTTLS and one of CERTIFICATES, and with logins.

    `login` has STARTTLS with the good certificate, too, and takes mail after a login only.
    """

    plain: int
    good: int
    expired: int
    selfsigned: int
    login: int

    @property
    def all(self) -> tuple[int, ...]:
        """Every one."""
        return msgspec.structs.astuple(self)

    @property
    def by_certificate(self) -> tuple[int, int, int]:
        """Those of CERTIFICATES, in their order."""
        return self.good, self.expired, self.selfsigned


class Certificates(msgspec.Struct, frozen=True):
    """Files: `authority` is what a client has to trust; the others hold certificate and key."""

    authority: Path
    good: Path
    expired: Path
    selfsigned: Path

    @property
    def all(self) -> tuple[Path, Path, Path]:
        """Those of CERTIFICATES, in their order."""
        return self.good, self.expired, self.selfsigned


class Stored(msgspec.Struct, frozen=True):
    """A message in the maildir: `content` as relay sent it, `trace` as the server put it before.

    `recipient` and `reverse_path` are what the trace says. What the server wrote itself (a report)
    has no trace, and is all content.
    """

    recipient: str
    reverse_path: str
    trace: bytes
    content: bytes

    @property
    def submitted(self) -> bytes:
        """What was handed to relay: without the field that relay put before it."""
        return _FIRST_FIELD.sub(b"", self.content, count=1)

    @property
    def header(self) -> bytes:
        """The header block as it was sent."""
        return self.content.partition(b"\r\n\r\n")[0] + b"\r\n"

    @property
    def report(self) -> dict[str, str]:
        """The fields of a report (RFC 3464): those of the message and of its only recipient."""
        message = BytesParser(EmailMessage, policy=email.policy.default).parsebytes(self.content)
        assert isinstance(message, EmailMessage)
        _, machine, _ = message.iter_parts()
        assert machine.get_content_type() == "message/delivery-status"
        return {
            name.lower(): str(value)
            for part in machine.get_payload()
            for name, value in part.items()
        }


class Receiver:
    """One server; the subclasses say how it is laid out and which command it is."""

    kind: str
    package: str
    packages: tuple[str, ...]
    #: The field of its trace that names the recipient.
    recipient_field: bytes
    #: How its trace tells the TLS version and, as `cipher`, the end of the name of the cipher.
    tls_in_trace: re.Pattern[bytes]
    #: How its log tells that USER logged in, and by which mechanism.
    login_in_log: str
    #: How its log tells of BODY=8BITMIME, of pipelined commands, of BDAT, and that it closed a
    #: session for many refusals; empty: not at all.
    eight_bit_in_log = pipelining_in_log = chunks_in_log = closing_in_log = ""
    has_smtputf8 = True

    def __init__(self, base: Path) -> None:
        self.base = base
        self.root = unpacked(cache() / self.kind, *self.packages)
        self.ports = Ports(*free_ports(len(Ports.__struct_fields__)))
        self.maildir = base / "mail/box"
        self._read: dict[str, Stored] = {}

    @property
    def version(self) -> str:
        """The version that the package says."""
        return version(self.root, self.package)

    @functools.cached_property
    def has_tls(self) -> bool:
        """Whether a handshake goes well: OpenSMTPD 6.8 fails with OpenSSL 3."""
        context = ssl.create_default_context(cafile=self.certificates.authority)
        context.check_hostname = False
        with smtplib.SMTP("127.0.0.1", self.ports.good, timeout=20) as client:
            try:
                client.starttls(context=context)
            except ssl.SSLError:
                return False
        return True

    def host(self, certificate: str) -> str:
        """The name of the host that shows a certificate."""
        return f"{certificate}.{self.kind}.test"

    def domain(self, name: str) -> str:
        """One of its domains: it takes mail for every one below its own."""
        return f"{name}.{self.kind}.example"

    @classmethod
    def why_not(cls) -> str:
        """Why this machine cannot have it; empty: it can."""
        return why_not()

    # -- its life ------------------------------------------------------------------------------

    def lay_out(self) -> None:
        """Write its configuration below `base`."""
        raise NotImplementedError

    def start(self) -> None:
        """Start it and wait until it listens everywhere."""
        self.base.chmod(0o755)
        self.certificates = self._certify()
        for name in ("tmp", "new", "cur"):
            (self.maildir / name).mkdir(parents=True)
        for folder in (self.maildir.parent, self.maildir, *self.maildir.iterdir()):
            give(folder)
        self.lay_out()
        process = self.run()
        try:
            for port in self.ports.all:
                wait_for_listener("127.0.0.1", port, lambda: process.poll() is None)
        except RuntimeError as error:
            raise AssertionError(f"{self.kind}: {error}; {self.log()[-3000:]}") from None

    def run(self) -> subprocess.Popen[bytes]:
        """Start its first process."""
        raise NotImplementedError

    def stop(self) -> None:
        """End all of its processes."""
        raise NotImplementedError

    def log(self) -> str:
        """What it wrote of itself."""
        raise NotImplementedError

    def until_logged(self, pattern: str) -> re.Match[str]:
        """Wait until its log has a line of the pattern."""
        deadline = time.monotonic() + WAIT_S
        while (found := re.search(pattern, self.log(), re.M)) is None:
            assert time.monotonic() < deadline, f"no {pattern}: {self.log()[-3000:]}"
            time.sleep(0.05)
        return found

    def _certify(self) -> Certificates:
        authority = issue("Interop CA", ca=True)
        issued = {GOOD: authority, EXPIRED: authority, SELF_SIGNED: None}
        days = {EXPIRED: -1}
        certificates = {}
        for kind, issuer in issued.items():
            names = [self.host(kind), *([self.host(ALIAS)] if kind == GOOD else [])]
            certificates[kind] = issue(names[0], *names, issuer=issuer, days=days.get(kind, 30))
        file = self.base / "authority.pem"
        file.write_bytes(authority.pem)
        return Certificates(file, *(self._keep(kind, certificates[kind]) for kind in CERTIFICATES))

    def _keep(self, name: str, issued: Issued) -> Path:
        key = issued.key.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption())
        file = self.base / f"{name}.pem"
        file.touch(mode=0o600)
        file.write_bytes(key + issued.pem)
        return file

    # -- its mail ------------------------------------------------------------------------------

    def stored(self, subject: str) -> list[Stored]:
        """What lies in the maildir under a subject (its line, as sent)."""
        line = f"\r\nSubject: {subject}\r\n".encode()
        self._look()
        return [one for one in self._read.values() if line in one.header]

    def until_stored(self, subject: str, count: int = 1) -> list[Stored]:
        """Wait until so many lie there; AssertionError when there are more, or not so many."""
        deadline = time.monotonic() + WAIT_S
        while len(found := self.stored(subject)) < count and time.monotonic() < deadline:
            time.sleep(0.05)
        assert len(found) == count, f"{len(found)} of {count} stored; {self.log()[-3000:]}"
        return found

    def until_reports(self, sender: str, count: int = 1) -> list[Stored]:
        """Wait until so many reports of its own to a sender lie there."""
        deadline = time.monotonic() + WAIT_S
        while True:
            self._look()
            found = [one for one in self._read.values() if one.recipient == sender]
            if len(found) >= count:
                break
            assert time.monotonic() < deadline, f"no report; {self.log()[-3000:]}"
            time.sleep(0.05)
        assert {one.reverse_path for one in found} == {""}
        return found

    def repeated(self) -> list[str]:
        """Who has the same message more than once."""
        self._look()
        counted = Counter((one.recipient, one.content) for one in self._read.values())
        return [recipient for (recipient, _), count in counted.items() if count > 1]

    def _look(self) -> None:
        for path in (self.maildir / "new").iterdir():
            if path.name not in self._read:
                self._read[path.name] = self._split(path.read_bytes())

    def _split(self, octets: bytes) -> Stored:
        """Part what the server put before the message from what it got; maildirs have bare LF."""
        assert b"\r" not in octets
        octets = octets.replace(b"\n", b"\r\n")
        header = octets.partition(b"\r\n\r\n")[0]
        ours = _OURS.search(header)
        trace = header[: ours.start()] if ours is not None else b""
        return Stored(
            field(header, self.recipient_field),
            field(header, b"Return-Path").strip("<>"),
            trace,
            octets[len(trace) :],
        )


#: The first field of ours: what came through relay begins with it.
_OURS = re.compile(rb"^Received: by relay\.example ", re.M)
_FIRST_FIELD = re.compile(rb"[^\r]*\r\n(?:[ \t][^\r]*\r\n)*")


def field(block: bytes, name: bytes) -> str:
    """The value of a header field, the first of its name; empty where there is none."""
    found = re.search(rb"^%s: *([^\r]*)" % name, block, re.M | re.I)
    return found[1].decode() if found is not None else ""


def cache() -> Path:
    """Where packages are kept: where the benchmarks keep them."""
    home = Path(os.environ.get("XDG_CACHE_HOME", Path.home() / ".cache"))
    return home / "relay-bench"


def give(path: Path) -> None:
    """Make a file or folder the mail owner's."""
    owner = pwd.getpwnam(OWNER)
    os.chown(path, owner.pw_uid, owner.pw_gid)


def why_not(*commands: str) -> str:
    """Why this machine cannot have a server of the test's own; empty: it can."""
    if os.geteuid() != 0:
        return "mail servers are started by root only: run the tests as root"
    for command in ("apt-get", "dpkg-deb", *commands):
        if shutil.which(command) is None:
            return f"the command {command} is missing (Debian: apt, dpkg, util-linux)"
    return ""


@contextlib.contextmanager
def running(make: Callable[[Path], Receiver]) -> Iterator[Receiver]:
    """A started server in a folder of its own, ended afterwards."""
    # Not in the test's folder: the owner of the mail could not get there.
    # Processes that were killed may hold on to files for a moment.
    with tempfile.TemporaryDirectory(
        prefix="relay-receiver-", ignore_cleanup_errors=True
    ) as folder:
        with fetched_packages():
            receiver = make(Path(folder))
        try:
            receiver.start()
            yield receiver
        finally:
            receiver.stop()
