"""Programs that people submit mail with, each as it comes: what they are told is what they tell.

smtplib is Python's, swaks is installed by `make test`; msmtp is taken from Debian's package and
nodemailer from npm, both into a cache folder. Postfix is a server: it takes the mail first.
"""

import base64
import functools
import json
import os
import shutil
import smtplib
import subprocess
import tempfile
from collections.abc import Callable
from pathlib import Path

import msgspec
import pytest

from bench.debian import unpacked
from tests.support.packages import fetched_packages

NODEMAILER = "9.1.1"
_TIMEOUT_S = 60
_CACHE = Path(os.environ.get("XDG_CACHE_HOME", Path.home() / ".cache")) / "relay-bench"

_MSMTPRC = """\
account default
host 127.0.0.1
port {port}
from {sender}
domain client.test
undisclosed_recipients off
remove_bcc_headers off
set_from_header off
set_date_header off
set_msgid_header off
"""

#: Reads a mail from standard input as JSON and says what came of it, as JSON.
_NODEMAILER = """\
const nodemailer = require(process.argv[1]);
const given = JSON.parse(require("fs").readFileSync(0, "utf8"));
const transport = nodemailer.createTransport(
  {host: "127.0.0.1", port: given.port, secure: false, name: "client.test"});
if (given.raw) given.mail.raw = Buffer.from(given.raw, "base64");
transport.sendMail(given.mail).then(
  (info) => console.log(JSON.stringify({status: "ok", text: JSON.stringify(info)})),
  (error) => console.log(JSON.stringify(
    {status: error.code + " " + (error.responseCode || ""), text: error.message})));
"""


class Mail(msgspec.Struct, frozen=True, kw_only=True):
    """What is to be submitted: the content with CRLF, and of RFC 3461 what is not empty."""

    content: bytes
    to: tuple[str, ...]
    sender: str
    notify: str = ""
    ret: str = ""
    envid: str = ""


class Told(msgspec.Struct, frozen=True):
    """What the user is told: `ok`, an exit code or the name of an error; and the words."""

    status: str
    text: str


Submit = Callable[[Mail, int], Told]


def by_smtplib(mail: Mail, port: int) -> Told:
    """Python's own client; SMTPUTF8 is asked for where an address needs it."""
    options = [f"RET={mail.ret}"] * bool(mail.ret) + [f"ENVID={mail.envid}"] * bool(mail.envid)
    if not "".join((mail.sender, *mail.to)).isascii():
        options += ["SMTPUTF8", "BODY=8BITMIME"]
    wishes = [f"NOTIFY={mail.notify}"] if mail.notify else []
    try:
        with smtplib.SMTP("127.0.0.1", port, "client.test", _TIMEOUT_S) as client:
            refused = client.sendmail(mail.sender, mail.to, mail.content, options, wishes)
    except smtplib.SMTPException as error:
        return Told(type(error).__name__, str(error))
    return Told("ok", str(refused))


def by_swaks(mail: Mail, port: int) -> Told:
    """The Swiss army knife, with pipelining."""
    command = ["swaks", "--server", f"127.0.0.1:{port}", "--helo", "client.test", "--pipeline"]
    command += ["--from", mail.sender, "--to", ",".join(mail.to), "--data", "@/dev/stdin"]
    # It ends the last line itself.
    return _run([*command, "--suppress-data"], mail.content.removesuffix(b"\r\n"))


def by_msmtp(mail: Mail, port: int) -> Told:
    """msmtp in the place of sendmail, with nothing of the header changed."""
    root = msmtp()
    libraries = map(str, [*root.glob("usr/lib/*-linux-gnu"), *root.glob("lib/*-linux-gnu")])
    with tempfile.NamedTemporaryFile("w", suffix=".msmtprc") as configuration:
        configuration.write(_MSMTPRC.format(port=port, sender=mail.sender))
        configuration.flush()
        command = [f"{root}/usr/bin/msmtp", f"--file={configuration.name}"]
        command += [f"--dsn-notify={mail.notify.lower()}"] if mail.notify else []
        command += [f"--dsn-return={mail.ret.lower()}"] if mail.ret else []
        command += ["--", *mail.to]
        return _run(command, mail.content, LD_LIBRARY_PATH=":".join(libraries))


def by_nodemailer(mail: Mail, port: int) -> Told:
    """nodemailer with a message of its user's making."""
    wishes = {"notify": mail.notify.split(","), "return": mail.ret, "id": mail.envid}
    fields: dict[str, object] = {"envelope": {"from": mail.sender, "to": mail.to}}
    if mail.notify:
        fields["dsn"] = wishes
    return by_nodemailer_composed(fields, port, raw=mail.content)


def by_nodemailer_composed(fields: dict[str, object], port: int, *, raw: bytes = b"") -> Told:
    """nodemailer with the fields of its `sendMail`; `raw` stands for the finished message."""
    given = {"port": port, "mail": fields, "raw": base64.b64encode(raw).decode()}
    command = ["node", "-e", _NODEMAILER, str(nodemailer())]
    told = _run(command, json.dumps(given).encode())
    assert told.status == "ok", told
    return msgspec.json.decode(told.text, type=Told)


def _run(command: list[str], given: bytes, **environment: str) -> Told:
    ran = subprocess.run(
        command,
        input=given,
        capture_output=True,
        check=False,
        timeout=_TIMEOUT_S,
        env={**os.environ, **environment},
    )
    text = (ran.stdout + ran.stderr).decode("utf-8", "replace")
    return Told(f"exit {ran.returncode}" if ran.returncode else "ok", text)


def msmtp() -> Path:
    """The folder with msmtp in it."""
    with fetched_packages():
        return unpacked(_CACHE / "msmtp", "msmtp")


def nodemailer() -> Path:
    """The folder of nodemailer."""
    root = _CACHE / f"nodemailer-{NODEMAILER}"
    if error := _fetch_nodemailer(root):
        pytest.skip(f"npm cannot fetch nodemailer: {error}")
    return root / "node_modules/nodemailer"


@functools.cache
def _fetch_nodemailer(root: Path) -> str:
    """Have npm fetch it, once; what went wrong."""
    if (root / "node_modules/nodemailer/package.json").is_file():
        return ""
    root.mkdir(parents=True, exist_ok=True)
    command = ["npm", "install", "--prefix", str(root), "--no-audit", "--no-fund"]
    command += ["--ignore-scripts", "--no-update-notifier", f"nodemailer@{NODEMAILER}"]
    fetched = subprocess.run(command, capture_output=True, text=True, check=False)
    return fetched.stderr[-200:] if fetched.returncode else ""


def why_not(name: str) -> str:
    """Why a submitter cannot be had on this machine; empty: it can."""
    for command in _NEEDED[name]:
        if shutil.which(command) is None:
            return f"the command {command} is missing: {name} cannot be had"
    return ""


#: Submitters that hand their mail over themselves, and what a machine must have for it.
CLIENTS: dict[str, Submit] = {
    "smtplib": by_smtplib,
    "swaks": by_swaks,
    "msmtp": by_msmtp,
    "nodemailer": by_nodemailer,
}
_NEEDED = {
    "smtplib": (),
    "swaks": ("swaks",),
    "msmtp": ("apt-get", "dpkg-deb"),
    "nodemailer": ("node", "npm"),
}
