"""Arguments of MAIL and RCPT (RFC 5321 §4.1.2): the path, and the parameters behind it."""

import re
from collections.abc import Callable

import msgspec

from relay.model.dsn import (
    ENVID_LENGTH,
    FULL,
    HEADERS,
    ORCPT_LENGTH,
    RecipientDsn,
    is_envid,
    is_orcpt,
    notify_letters,
)

#: `<path>` with quoted strings that may hold blanks and brackets, or a path without brackets.
_PATH = re.compile(r'<((?:"(?:[^"\\]|\\.)*"|[^"<>])*)>|([^\s<>]+)')
_PARAMETER = re.compile(r"([A-Za-z0-9][A-Za-z0-9\-]*)(?:=([!-<>-~\u0080-\U0010ffff]+))?")


class PathArgument(msgspec.Struct, frozen=True):
    """The path as written, without brackets, and its parameters by upper-case keyword."""

    path: str
    parameters: dict[str, str | None]


class ArgumentFault(Exception):
    """Raised when an argument is malformed; the text says how."""


def parse_path_argument(argument: str, keyword: str) -> PathArgument:
    """Parse `FROM:<path> PARAM=value`; a blank after the colon is let pass, as everywhere."""
    if argument[: len(keyword)].upper() != keyword:
        raise ArgumentFault(f"expected {keyword}<address>")
    rest = argument[len(keyword) :].strip(" ")
    match = _PATH.match(rest)
    if match is None:
        raise ArgumentFault(f"expected {keyword}<address>")
    tail = rest[match.end() :]
    if tail and not tail.startswith(" "):
        raise ArgumentFault("expected a blank behind the address")
    parameters: dict[str, str | None] = {}
    for word in tail.split():
        parameter = _PARAMETER.fullmatch(word)
        if parameter is None:
            raise ArgumentFault("malformed parameter")
        name = parameter[1].upper()
        if name in parameters:
            raise ArgumentFault(f"parameter {name} is given twice")
        parameters[name] = parameter[2]
    path = match[1] if match[1] is not None else match[2]
    return PathArgument(path, parameters)


def mail_parameter_fault(
    given: PathArgument, *, size_limit: int, has_room: Callable[[int], bool], has_tls: bool
) -> str:
    """The refusal for the parameters of MAIL "" where all is well.

    RFC 1870, 3461, 6152, 6531, 8689.
    """
    for name, value in given.parameters.items():
        if name == "SIZE":
            if value is None or not value.isascii() or not value.isdigit() or len(value) > 20:
                return "501 5.5.4 SIZE needs a number"
            if int(value) > size_limit:
                return f"552 5.3.4 Message exceeds the size limit of {size_limit} octets"
            if not has_room(int(value)):
                return "452 4.3.1 No room for it at present, try again later"
        elif name == "BODY":
            if value is None or value.upper() not in ("7BIT", "8BITMIME"):
                return "501 5.5.4 BODY is 7BIT or 8BITMIME"
        elif name == "SMTPUTF8":
            if value is not None:
                return "501 5.5.4 SMTPUTF8 takes no value"
        elif name == "REQUIRETLS" and has_tls:
            if value is not None:
                return "501 5.5.4 REQUIRETLS takes no value"
        elif name == "RET":
            if value is None or value.upper() not in (FULL, HEADERS):
                return "501 5.5.4 RET is FULL or HDRS"
        elif name == "ENVID":
            if value is None or not is_envid(value):
                return f"501 5.5.4 ENVID needs xtext of at most {ENVID_LENGTH} characters"
        else:
            return f"555 5.5.4 Parameter {name[:40]} not recognized"
    return ""


def recipient_dsn(given: PathArgument, *, uses_smtputf8: bool) -> RecipientDsn | str:
    """NOTIFY and ORCPT of RCPT (RFC 3461 §4.1, §4.2), or the refusal of its parameters."""
    notify = orcpt = ""
    for name, value in given.parameters.items():
        if name == "NOTIFY":
            try:
                notify = notify_letters(value or "")
            except ValueError:
                return "501 5.5.4 NOTIFY is NEVER, or of SUCCESS, FAILURE, DELAY each once"
        elif name == "ORCPT":
            orcpt = value or ""
            if not is_orcpt(orcpt):
                return f"501 5.5.4 ORCPT needs type;xtext of at most {ORCPT_LENGTH} characters"
            if not orcpt.isascii() and not uses_smtputf8:
                return "501 5.5.4 ORCPT is not ASCII and SMTPUTF8 was not given"
        else:
            return f"555 5.5.4 Parameter {name[:40]} not recognized"
    return RecipientDsn(notify, orcpt)


def charset_fault(given: PathArgument, *, uses_smtputf8: bool) -> str:
    """The refusal of a path that needs SMTPUTF8 where the client did not ask for it."""
    if uses_smtputf8 or given.path.isascii():
        return ""
    return "553 5.6.7 The address is not ASCII and SMTPUTF8 was not given"
