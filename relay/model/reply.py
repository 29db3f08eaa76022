"""An SMTP reply (RFC 5321 §4.2) as a value."""

import msgspec


class Reply(msgspec.Struct, frozen=True):
    """A complete reply: code, enhanced status code (RFC 3463) or None, text lines, the command.

    `lines` are without code, enhanced code and CRLF; control and 8-bit octets are already `?`.
    `command` is what was answered: greeting, EHLO, HELO, STARTTLS, AUTH, MAIL, RCPT, DATA,
    end-of-data, RSET, NOOP, VRFY, QUIT.
    """

    code: int
    enhanced: str | None = None
    lines: tuple[str, ...] = ()
    command: str = ""

    @property
    def text(self) -> str:
        """The lines joined by a space."""
        return " ".join(self.lines)

    @property
    def is_positive(self) -> bool:
        return 200 <= self.code < 300

    @property
    def is_intermediate(self) -> bool:
        return 300 <= self.code < 400

    @property
    def is_transient(self) -> bool:
        return 400 <= self.code < 500

    @property
    def is_permanent(self) -> bool:
        return 500 <= self.code < 600

    def __str__(self) -> str:
        parts = [str(self.code), self.enhanced or "", self.text]
        return " ".join(part for part in parts if part)
