"""The secret of an account, read when it is needed: a changed file counts from the next login."""

import os
import re
from pathlib import Path

import msgspec

from relay.model.credentials import Credentials
from relay.model.errors import ConfigError

#: No password or token is longer; a wrong path is found by this.
_OCTETS = 64 * 1024
_CONTROL = re.compile(r"[\x00-\x1f\x7f]")


def read_secret(credentials: Credentials) -> Credentials:
    """The credentials with their secret in `password`; ConfigError where it cannot be had.

    The error names file or variable, never what stands in it.
    """
    if credentials.file:
        secret, place = _of_file(credentials.file), credentials.file
    elif credentials.variable:
        secret, place = os.environ.get(credentials.variable, ""), credentials.variable
    else:
        return credentials
    what = "token" if credentials.is_token else "password"
    if not secret:
        raise ConfigError(f"{place}: the {what} is missing there")
    if _CONTROL.search(secret):
        raise ConfigError(f"{place}: the {what} must stand there alone, on one line")
    return msgspec.structs.replace(credentials, password=secret)


def _of_file(path: str) -> str:
    try:
        with Path(path).open("rb") as file:
            text = file.read(_OCTETS + 1).decode("utf-8")
    except (OSError, ValueError) as error:
        reason = getattr(error, "strerror", None) or "not UTF-8 text"
        raise ConfigError(f"{path}: cannot be read: {reason}") from None
    if len(text) > _OCTETS:
        raise ConfigError(f"{path}: is too long for a secret")
    return text.rstrip("\r\n")
