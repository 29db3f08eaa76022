"""What a client must make of what servers do: one row a case, each proved by tests that claim it.

A test claims rows with `@pytest.mark.client_row("C17", …)`; `claims` finds them wherever they are.
"""

import ast
from pathlib import Path

TESTS = Path(__file__).resolve().parent.parent

#: Row → what holds. Words are those of RFC 5321; "defer" means the retry schedule.
ROWS = {
    # the greeting
    "C1": "a greeting that is no reply breaks the session before anything is said",
    "C2": "a close before the greeting is transient and leads to the next host",
    "C3": "521 in the greeting means for good, for this host; the next MX decides",
    "C4": "2200 is not 220",
    "C5": "a refusal of several lines is read to its end before we act",
    "C6": "a greeting of several lines may end in a bare code",
    "C7": "a reply needs no text, with or without a space behind its code",
    "C8": "450 in the greeting is transient: QUIT, then the next host",
    "C9": "a greeting masked by a firewall is a greeting, and promises no extension",
    "C10": "a host that gives our own name is a mail loop",
    # replies
    "C11": "a reply that mixes codes is malformed",
    "C12": "text that begins with digits is text",
    "C13": "a line of 2048 octets is accepted and kept in part",
    "C14": "a line without end breaks the session in bounded memory",
    "C15": "ten thousand lines are judged by their code, 4 KiB of them kept",
    "C16": "control and 8-bit octets of a reply reach no log",
    "C17": "a line may end in LF alone",
    "C18": "a reply may come octet by octet within one deadline",
    "C19": "a reply nobody asked for breaks the session",
    "C20": "the first digit decides of codes that nobody knows",
    "C21": "a code outside of 200 to 599 is transient and breaks the session",
    "C22": "354 to MAIL or 250 to DATA breaks the session, no content leaves",
    # EHLO and what is offered
    "C23": "EHLO unknown (500 to 504) leads to HELO without extensions",
    "C24": "EHLO refused, then a close, is a refusal of this host",
    "C25": "421 to EHLO leads to no HELO",
    "C26": "EHLO of one line offers nothing",
    "C27": "keywords come in any case, unknown ones are ignored",
    "C28": "AUTH=LOGIN is AUTH LOGIN",
    "C29": "mechanisms match as whole words",
    "C30": "SIZE without a number, with 0 or with nonsense is no limit",
    "C31": "a message above SIZE is refused here with 5.3.4, MAIL is not said",
    "C32": "LIMITS RCPTMAX=1 gives each recipient a transaction on the same connection",
    "C33": "LIMITS with bad syntax or a duplicate are void, a bad value only itself",
    "C34": "EHLO with endless keywords ends the session in bounded memory",
    # TLS
    "C35": "only what is offered after the handshake counts",
    "C36": "octets behind the 220 of STARTTLS are never read as replies",
    "C37": "STARTTLS refused goes on in clear where TLS is opportunistic",
    "C38": "STARTTLS that is required is asked for even where it is not offered",
    "C39": "TLS that is off is not used though offered",
    "C40": "a certificate for another name fails a verified session before MAIL",
    "C41": "an expired or self-signed certificate serves opportunistic TLS",
    "C42": "a server without TLS 1.2 is reached in clear by opportunistic TLS only",
    "C43": "TLS that is demanded is never replaced by clear text",
    "C44": "a loss right behind the handshake is a failure of TLS",
    "C45": "a handshake that hangs is bounded",
    # AUTH
    "C46": "AUTH on a clear path is refused before an octet leaves",
    "C47": "credentials where AUTH is not offered end the session before MAIL",
    "C48": "535 of several lines keeps them all",
    "C49": "a challenge that is none is cancelled with *",
    "C50": "an empty initial response is =, none leaves no space",
    # what we say
    "C51": "CR, LF and NUL in a name, a path or credentials are refused before an octet leaves",
    "C52": "a path cannot end its command early",
    "C53": "bare CR and LF of the content never leave",
    "C54": "no end of data but ours leaves, whatever the content holds",
    "C55": "a dot that begins the content is stuffed",
    "C56": "the content is encoded the same wherever its blocks are cut",
    "C57": "a last line without an end gets one, never two",
    "C58": "an empty content is a lone dot",
    "C59": "NUL is refused at the door and once more before MAIL",
    "C60": "a line over 998 octets passes unchanged with a warning: folding breaks signatures",
    "C61": "the content is made of CRLF lines under BDAT, too",
    "C62": "8-bit content without 8BITMIME is made 7-bit, or follows delivery.without_8bitmime",
    "C63": "an address that needs SMTPUTF8 asks another host, then fails with 5.6.7",
    # envelopes
    "C64": "MAIL refused concerns all recipients, RSET comes before the next MAIL",
    "C65": "MAIL refused, then a close, is that refusal",
    "C66": "RCPT refused, then a close, is that refusal",
    "C67": "each recipient has its own verdict, the content leaves once",
    "C68": "where all are refused the replies to RCPT count, not that to DATA",
    "C69": "354 for nobody gets a lone dot and the connection goes on",
    "C70": "250 to a lone dot delivers nothing",
    "C71": "one recipient too many goes into the next transaction at once",
    "C72": "a first recipient too many is deferred, never asked again at once",
    "C73": "552 to RCPT is 452, unless it means the mailbox (5.2.2)",
    "C74": "251 to RCPT is an acceptance",
    "C75": "551 to RCPT is permanent",
    "C76": "421 to RCPT defers this and the remaining recipients",
    "C77": "a malformed reply among those to RCPT delivers to nobody",
    "C78": "replies are counted in order: 354 in the place of a reply to RCPT is malformed",
    # content
    "C79": "DATA refused concerns the accepted recipients only",
    "C80": "a refusal within the content is read, the close behind it is not the reason",
    "C81": "a server that stops reading is given up in time, no dot has left",
    "C82": "the deadline is per reply, not per octet",
    "C83": "a close behind the dot is uncertain",
    "C84": "250 to the dot, then a close, is a delivery",
    "C85": "the reply to the dot is awaited for ten minutes",
    "C86": "452, 552 and 554 to the dot keep their severity",
    "C87": "whatever answers QUIT, nothing waits long and nothing changes",
    "C88": "what is pipelined behind the dot is answered in its order",
    # connections
    "C89": "a connection found dead at the next MAIL is replaced once, at no cost",
    "C90": "RSET comes before the MAIL that follows a refused transaction",
    "C91": "a host that says it cannot take mail now gets no more of it on that connection",
    "C92": "421 at the hundred and first MAIL opens a new connection, at no cost",
    # where to
    "C93": "MX that fails defers, the domain's own address is not asked",
    "C94": "a null MX fails the mail without a connection",
    "C95": "aliases in a circle or in a chain of 17 are temporary",
    "C96": "a host that does not resolve leaves the others",
    "C97": "a host at our own address is a loop",
    "C98": "of two families the one that answers serves in the same attempt",
    "C99": "a host at a special address is refused unless allowed",
}


def claims() -> dict[str, list[str]]:
    """Row → the tests that claim it, as `file::function`."""
    found: dict[str, list[str]] = {}
    for path in sorted(TESTS.rglob("test_*.py")):
        text = path.read_text()
        if "client_row(" not in text:
            continue
        for node in ast.parse(text).body:
            if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef):
                for row in _rows_of(node):
                    found.setdefault(row, []).append(f"{path.relative_to(TESTS)}::{node.name}")
    return found


def _rows_of(function: ast.FunctionDef | ast.AsyncFunctionDef) -> list[str]:
    """The rows in the marks of a test; ValueError where a mark is on something else."""
    rows: list[str] = []
    for mark in function.decorator_list:
        if isinstance(mark, ast.Call) and ast.unparse(mark.func) == "pytest.mark.client_row":
            if not function.name.startswith("test_"):
                raise ValueError(f"{function.name} is no test and claims rows")
            rows.extend(ast.literal_eval(argument) for argument in mark.args)
    return rows
