"""The line that keeps what the last attempt met: whatever was said, it is read back as it was."""

import pytest

from relay.model.reply import Reply
from relay.store.answer import Remote, pack_answer, unpack_answer

REMOTE = {"host": "mx1.shop.test", "ip": "127.9.8.7", "port": 25, "site": "mx1.shop.test~1"}


@pytest.mark.parametrize(
    "reply",
    [
        Reply(451, "4.3.0", ("Try again later",), "RCPT"),
        Reply(550, None, ("5.1.1 looks like a status, and is text",), "end-of-data"),
        Reply(250, None, ("",), "end-of-data"),
        Reply(421, "4.7.0", (" two  blanks ",), "greeting"),
        Reply(554, "5.7.1", ("- dash",), ""),
    ],
)
def test_reply_is_read_back_as_it_was(reply: Reply) -> None:
    remote, again = unpack_answer(pack_answer(REMOTE, reply))
    assert remote == Remote("mx1.shop.test", "127.9.8.7")
    assert again == reply


def test_several_lines_become_one() -> None:
    reply = Reply(550, "5.1.1", ("no such", "mailbox"), "RCPT")
    _, again = unpack_answer(pack_answer(REMOTE, reply))
    assert again is not None and again.lines == ("no such mailbox",)


def test_long_text_is_cut() -> None:
    _, again = unpack_answer(pack_answer(REMOTE, Reply(550, None, ("x" * 5000,), "RCPT")))
    assert again is not None and len(again.text) == 400


def test_what_there_was_not_stays_none() -> None:
    assert unpack_answer("") == (None, None)
    assert unpack_answer(pack_answer({}, None)) == (None, None)
    assert unpack_answer(pack_answer(REMOTE, None)) == (Remote("mx1.shop.test", "127.9.8.7"), None)
    remote, reply = unpack_answer(pack_answer({"site": "x"}, Reply(421, None, ("busy",), "MAIL")))
    assert remote is None
    assert reply is not None and reply.code == 421
