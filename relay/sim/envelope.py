"""The arguments of MAIL and RCPT: their syntax, and what a strict host objects to in them."""

import re

from relay.model.dsn import FULL, HEADERS, is_envid, is_orcpt, notify_letters
from relay.sim.hosts import HostScript
from relay.sim.receipts import Transaction

_PATH = rb'<((?:"(?:[^"\\]|\\.)*"|[^<>"\s])*)>'
MAIL_ARGUMENT = re.compile(rb"FROM:" + _PATH + rb"(?: +(.*))?", re.IGNORECASE | re.DOTALL)
RCPT_ARGUMENT = re.compile(rb"TO:" + _PATH + rb"(?: +(.*))?", re.IGNORECASE | re.DOTALL)
_PATH_OCTETS = 254


def path_objection(path: bytes, code: str) -> str:
    """The reply that refuses a path for its form, else empty; `code` is the enhanced one."""
    local, at, domain = path.rpartition(b"@")
    if path.lower() == b"postmaster":
        return ""
    if not at or not local or not domain or len(path) > _PATH_OCTETS:
        return f"501 {code} Bad address syntax"
    return ""


def parameters_objection(transaction: Transaction, script: HostScript) -> str:
    """Take the ESMTP parameters of MAIL; the reply that refuses one, else empty."""
    is_utf8 = False
    for parameter in transaction.mail_parameters.split():
        key, _, value = parameter.upper().partition("=")
        if key == "SIZE" and value.isdigit():
            if int(value) > script.size_octets:
                return "552 5.3.4 Message too large"
        elif key == "BODY" and value in ("7BIT", "8BITMIME") and "8BITMIME" not in script.hidden:
            transaction.is_8bit = value == "8BITMIME"
        elif script.offers_dsn and _is_of_dsn(key, parameter.partition("=")[2]):
            continue
        elif key == "SMTPUTF8" and not value and key not in script.hidden:
            is_utf8 = True
        elif key == "REQUIRETLS" and not value and script.keeps_tls:
            continue
        elif key != "AUTH" or not script.requires_auth:
            return f"555 5.5.4 Parameter {key} not supported"
    if not is_utf8 and not transaction.reverse_path.isascii():
        return "553 5.6.7 Address needs SMTPUTF8"
    transaction.is_8bit |= is_utf8
    return ""


def _is_of_dsn(key: str, value: str) -> bool:
    return value.upper() in (FULL, HEADERS) if key == "RET" else key == "ENVID" and is_envid(value)


def recipient_objection(parameters: str, script: HostScript) -> str:
    """The reply that refuses a parameter of RCPT, else empty: NOTIFY and ORCPT of RFC 3461."""
    for parameter in parameters.split():
        key, _, value = parameter.partition("=")
        if key.upper() == "NOTIFY" and script.offers_dsn:
            try:
                notify_letters(value)
            except ValueError:
                return "501 5.5.4 Bad NOTIFY"
        elif key.upper() != "ORCPT" or not script.offers_dsn:
            return "555 5.5.4 Parameter not supported"
        elif not is_orcpt(value):
            return "501 5.5.4 Bad ORCPT"
    return ""
