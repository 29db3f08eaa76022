"""The last answer to a recipient: which host spoke, to which command, what it said.

It lies in the recipient's record as one line, `<command> <host> <ip> <code> <enhanced> <text>`,
with `-` for what there was not; Lua only joins its parts to a sentence (`lua/_common.lua`).
"""

from typing import Any, Final

import msgspec

from relay.model.reply import Reply

#: Kept of a reply's text.
TEXT_CHARACTERS: Final = 400


class Remote(msgspec.Struct, frozen=True):
    """The host that was spoken to: its name and the address of the connection."""

    host: str
    ip: str


def pack_answer(remote: dict[str, Any], reply: Reply | None) -> str:
    """The line of an attempt."""
    host, ip = remote.get("host") or "-", remote.get("ip") or "-"
    if reply is None:
        return f"- {host} {ip} - - "
    text = reply.text[:TEXT_CHARACTERS]
    return f"{reply.command or '-'} {host} {ip} {reply.code} {reply.enhanced or '-'} {text}"


def unpack_answer(line: str) -> tuple[Remote | None, Reply | None]:
    """Host and reply of a line; None for what there was not."""
    if not line:
        return None, None
    command, host, ip, code, enhanced, text = line.split(" ", 5)
    remote = Remote(host, ip) if ip != "-" else None
    if code == "-":
        return remote, None
    status = enhanced if enhanced != "-" else None
    return remote, Reply(int(code), status, (text,), command if command != "-" else "")
