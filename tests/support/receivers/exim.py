"""Exim as receiver: Debian's exim4-daemon-light stores the mail by appendfile.

Its configuration and its user have fixed places on Debian: it runs in a root of its own.
"""

import re

from tests.support.receivers.own_root import RootedReceiver
from tests.support.receivers.receiver import OWNER, PASSWORD, UNKNOWN, USER

_CONF = """\
primary_hostname = exim.example
domainlist ours = ^.*\\\\.exim\\\\.example\\$
spool_directory = {base}/spool
log_file_path = {base}/log/%slog
pid_file_path =
log_selector = +8bitmime +tls_certificate_verified +pipelining
keep_environment =
local_interfaces = 127.0.0.1
daemon_smtp_ports = {listen}
tls_advertise_hosts = ${{if eq{{$received_port}}{{{ports.plain}}}{{}}{{*}}}}
tls_certificate = {file}
tls_privatekey = {file}
tls_dhparam = none
auth_advertise_hosts = ${{if eq{{$received_port}}{{{ports.login}}}{{*}}}}
acl_smtp_rcpt = rcpt
message_size_limit = 20M
smtp_accept_max = 0
smtp_accept_queue_per_connection = 0
dsn_advertise_hosts = *
smtputf8_advertise_hosts = *
tls_resumption_hosts = *

acl_smtp_auth = ${{if def:tls_in_cipher{{accept}}{{deny}}}}

begin acl
rcpt:
  deny message = authentication required
       condition = ${{if eq{{$received_port}}{{{ports.login}}}}}
       !authenticated = *
  require verify = recipient
  accept domains = +ours
  deny message = relay not permitted

begin routers
box:
  driver = accept
  domains = +ours
  condition = ${{if match{{$local_part}}{{^{unknown}}}{{no}}{{yes}}}}
  transport = box

begin transports
box:
  driver = appendfile
  user = {owner}
  group = {owner}
  directory = {maildir}
  maildir_format
  envelope_to_add
  return_path_add
  delivery_date_add

begin authenticators
plain:
  driver = plaintext
  public_name = PLAIN
  server_prompts = :
  server_condition = ${{if and{{{{eq{{$auth2}}{{{user}}}}}{{eq{{$auth3}}{{{password}}}}}}}}}
  server_set_id = $auth2
login:
  driver = plaintext
  public_name = LOGIN
  server_prompts = Username:: : Password::
  server_condition = ${{if and{{{{eq{{$auth1}}{{{user}}}}}{{eq{{$auth2}}{{{password}}}}}}}}}
  server_set_id = $auth1
"""


class EximReceiver(RootedReceiver):
    """Debian's exim4 (light)."""

    kind = "exim"
    package = "exim4-daemon-light"
    packages = ("exim4-daemon-light",)
    recipient_field = b"Envelope-to"
    tls_in_trace = re.compile(rb"\(TLS(?P<version>1\.\d)\)\s+tls\s+TLS_\w*?(?P<cipher>AES\w+)")
    login_in_log = rf"<= .* A=(\w+):{USER} "
    eight_bit_in_log = " M8S=8"
    pipelining_in_log = r"<= .* L\.? S="
    chunks_in_log = r"<= .* K S=9\d{6} "
    users = ("Debian-exim",)
    program = ("/usr/sbin/exim4", "-bdf")

    def lay_out(self) -> None:
        super().lay_out()
        for name in ("spool", "log"):
            (self.base / name).mkdir()
            (self.base / name).chmod(0o777)
        files = zip(self.ports.by_certificate[1:], self.certificates.all[1:], strict=True)
        file = str(self.certificates.good)
        for port, other in files:
            file = f"${{if eq{{$received_port}}{{{port}}}{{{other}}}{{{file}}}}}"
        conf = _CONF.format(
            base=self.base,
            ports=self.ports,
            listen=" : ".join(str(port) for port in self.ports.all),
            file=file,
            unknown=UNKNOWN,
            owner=OWNER,
            maildir=self.maildir,
            user=USER,
            password=PASSWORD,
        )
        (self.etc / "exim4").mkdir()
        (self.etc / "exim4/exim4.conf").write_text(conf)
        for certificate in self.certificates.all:
            certificate.chmod(0o644)

    def log(self) -> str:
        logs = sorted((self.base / "log").iterdir())
        return super().log() + "".join(path.read_text(errors="replace") for path in logs)
