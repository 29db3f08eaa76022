"""Postfix as receiver: `virtual` stores the mail, Cyrus SASL knows the users."""

import pwd
import re
import subprocess
from pathlib import Path

from bench.postfix import PACKAGES, Postfix, libraries
from tests.support.receivers.receiver import OWNER, PASSWORD, UNKNOWN, USER, Receiver, cache, give

_MAIN = """
virtual_mailbox_domains = regexp:{base}/domains
virtual_mailbox_maps = regexp:{base}/boxes
virtual_mailbox_base = {base}/mail
virtual_minimum_uid = 1
virtual_uid_maps = static:{uid}
virtual_gid_maps = static:{gid}
virtual_mailbox_limit = 0
message_size_limit = 20000000
smtpd_error_sleep_time = 0
smtpd_tls_received_header = yes
smtpd_tls_session_cache_database = btree:{base}/own/data/sessions
smtpd_sasl_local_domain = postfix.example
"""
_SASL = """\
pwcheck_method: auxprop
auxprop_plugin: sasldb
sasldb_path: {base}/sasldb
mech_list: PLAIN LOGIN CRAM-MD5 SCRAM-SHA-1 SCRAM-SHA-256
"""
_LISTENER = "127.0.0.1:{port} inet n - n - 200 smtpd\n"
_STORE = "virtual unix - n n - - virtual\n"
_WITH_TLS = """\
  -o smtpd_tls_security_level=may
  -o smtpd_tls_chain_files={file}
"""
_WITH_LOGIN = """\
  -o smtpd_sasl_auth_enable=yes
  -o smtpd_tls_auth_only=yes
  -o smtpd_relay_restrictions=permit_sasl_authenticated,reject
"""


class PostfixReceiver(Receiver):
    """Debian's postfix, with the same smtpd behind each port."""

    kind = package = "postfix"
    packages = PACKAGES
    recipient_field = b"Delivered-To"
    tls_in_trace = re.compile(rb"using (?P<version>TLSv1\.\d) with cipher (?P<cipher>\S+)")
    login_in_log = rf"client=.* sasl_method=(\S+), sasl_username={USER}@"
    closing_in_log = "too many errors after RCPT"
    chunks_in_log = r" bdat=\d\d"
    _own: "_Own | None" = None

    def lay_out(self) -> None:
        ports, files = self.ports, self.certificates
        services = _STORE
        for port, file in zip(ports.by_certificate, files.all, strict=True):
            services += _LISTENER.format(port=port) + _WITH_TLS.format(file=file)
        services += _LISTENER.format(port=ports.login) + _WITH_TLS.format(file=files.good)
        services += _WITH_LOGIN
        owner = pwd.getpwnam(OWNER)
        main = _MAIN.format(
            base=self.base,
            uid=owner.pw_uid,
            gid=owner.pw_gid,
        )
        (self.base / "domains").write_text(f"/\\.{self.kind}\\.example$/ here\n")
        (self.base / "boxes").write_text(f"!/^{UNKNOWN}/ box/\n")
        self._add_user()
        # Debian's Postfix asks for the last one there, whatever cyrus_sasl_config_path says.
        sasl = _SASL.format(base=self.base)
        added = {"main.cf": main, "master.cf": services, "sasl/smtpd.conf": sasl}
        self._own = _Own(cache(), self.base / "own", port=ports.plain, added=added)

    def _add_user(self) -> None:
        """Tell the password to Cyrus SASL."""
        command = [f"{self.root}/usr/sbin/saslpasswd2", "-p", "-c", "-f", f"{self.base}/sasldb"]
        environment = {
            "LD_LIBRARY_PATH": libraries(self.root),
            "SASL_PATH": f"{self.root}/usr/lib/x86_64-linux-gnu/sasl2",
        }
        subprocess.run(
            [*command, "-u", "postfix.example", USER],
            input=PASSWORD.encode(),
            env=environment,
            check=True,
            capture_output=True,
        )
        give(self.base / "sasldb")

    def run(self) -> subprocess.Popen[bytes]:
        assert self._own is not None
        return self._own.start()

    def stop(self) -> None:
        if self._own is not None:
            self._own.stop()

    def log(self) -> str:
        return (self.base / "own/log/maillog").read_text(errors="replace")


class _Own(Postfix):
    """The peer of the benchmarks, with more settings and services."""

    def __init__(self, cache: Path, base: Path, *, port: int, added: dict[str, str]) -> None:
        super().__init__(cache, base, port=port, receiver=("127.0.0.1", 9))
        self._added = added

    def _lay_out(self) -> Path:
        conf = super()._lay_out()
        for name, text in self._added.items():
            (conf / name).parent.mkdir(exist_ok=True)
            with (conf / name).open("a", encoding="utf-8") as file:
                file.write(text)
        return conf
