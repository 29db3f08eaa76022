"""OpenSMTPD as receiver: its own mail.maildir stores the mail."""

import re

from tests.support.receivers.own_root import RootedReceiver
from tests.support.receivers.receiver import CERTIFICATES, GOOD, OWNER, UNKNOWN, USER

#: PASSWORD, as crypt(3) writes it.
_CRYPTED = (
    "$6$interop$kwXYD6omrBEa5LtOUTdzdw0U6afsU4IVQLQWbJaiy5bjngtiimZOMoDroiYchA4cvKPRIvjzQbQM4hv3"
    "/uxkI."
)
_CONF = """\
smtp max-message-size 20000000
table users file:{base}/users
{pki}
{listeners}
action "store" maildir "{maildir}" virtual {{ "@" = {owner} }}
match from any for rcpt-to regex "^{unknown}" reject
match from any for domain regex "\\.opensmtpd\\.example$" action "store"
"""
_PKI = """\
pki {name} cert "{file}"
pki {name} key "{file}"
"""
_LISTENER = "listen on 127.0.0.1 port {port} hostname opensmtpd.example {options}\n"


class OpenSmtpdReceiver(RootedReceiver):
    """Debian's opensmtpd."""

    kind = package = "opensmtpd"
    packages = ("opensmtpd",)
    recipient_field = b"Delivered-To"
    tls_in_trace = re.compile(rb"\((?P<version>TLSv1\.\d):(?P<cipher>[^:]+):")
    login_in_log = rf"smtp authentication user={USER} result=(ok)"
    has_smtputf8 = False
    users = ("opensmtpd", "opensmtpq")
    program = ("/usr/sbin/smtpd", "-d", "-v")

    def lay_out(self) -> None:
        super().lay_out()
        ports = self.ports
        options = {ports.plain: "", ports.login: f"tls-require pki {GOOD} auth <users>"}
        for port, name in zip(ports.by_certificate, CERTIFICATES, strict=True):
            options[port] = f"tls pki {name}"
        files = zip(CERTIFICATES, self.certificates.all, strict=True)
        conf = _CONF.format(
            base=self.base,
            pki="".join(_PKI.format(name=name, file=file) for name, file in files),
            listeners="".join(
                _LISTENER.format(port=port, options=text) for port, text in options.items()
            ),
            maildir=self.maildir,
            owner=OWNER,
            unknown=UNKNOWN,
        )
        (self.base / "users").write_text(f"{USER} {_CRYPTED}\n")
        (self.base / "users").chmod(0o644)
        (self.etc / "smtpd.conf").write_text(conf)
        for name in ("spool", "lib/opensmtpd/empty", "tmp", "mail"):
            (self.var / name).mkdir(parents=True)
