"""Commands as octets, and arguments that would be more than an argument."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from relay.model.errors import LocalProtocolError
from relay.smtp import command


def test_mail_carries_the_parameters_it_is_given() -> None:
    assert command.mail("") == b"MAIL FROM:<>\r\n"
    assert command.mail("a@b.test", size=7) == b"MAIL FROM:<a@b.test> SIZE=7\r\n"
    assert (
        command.mail("ü@b.test", size=0, is_8bit=True, smtputf8=True)
        == b"MAIL FROM:<\xc3\xbc@b.test> SIZE=0 BODY=8BITMIME SMTPUTF8\r\n"
    )


@pytest.mark.parametrize("path", ['"a b"@c.test', '"a\\"b>"@c.test', "a+b=c@d.test"])
def test_path_may_be_quoted(path: str) -> None:
    assert command.rcpt(path) == f"RCPT TO:<{path}>\r\n".encode()


@pytest.mark.parametrize(
    "path",
    [
        "a@b\r\nDATA",
        "a@b\n",
        "a\0@b",
        "a@b> SIZE=1",
        "a@b>",
        "<a@b",
        "a b@c",
        '"a@b',
        '"a"b"@c',
        '"a\r\n"@b',
        "a@b\x7f",
        "a@b\x85",
        "a@b\u2028",
        "a@b\ud800",
    ],
)
@pytest.mark.client_row("C51", "C52")
def test_path_that_would_end_early_is_refused(path: str) -> None:
    for build in (command.mail, command.rcpt):
        with pytest.raises(LocalProtocolError):
            build(path)


def test_forward_path_is_not_empty() -> None:
    with pytest.raises(LocalProtocolError):
        command.rcpt("")


@pytest.mark.parametrize("name", ["", "a b", "a\r\nMAIL", "a\0", "ü.test", "a\n"])
@pytest.mark.client_row("C51")
def test_hello_name_that_would_end_early_is_refused(name: str) -> None:
    with pytest.raises(LocalProtocolError):
        command.hello("EHLO", name)


def test_hello_may_carry_an_address_literal() -> None:
    assert command.hello("EHLO", "[IPv6:::1]") == b"EHLO [IPv6:::1]\r\n"


@pytest.mark.parametrize("mechanism", ["", "plain", "PLAIN X", "A\r\n"])
def test_mechanism_that_is_no_mechanism_is_refused(mechanism: str) -> None:
    with pytest.raises(LocalProtocolError):
        command.auth(mechanism, None)


def test_auth_line_has_a_limit() -> None:
    with pytest.raises(LocalProtocolError):
        command.auth("PLAIN", b"x" * command.AUTH_LINE_OCTETS)


@given(st.text(max_size=40))
@pytest.mark.client_row("C51", "C52")
def test_no_path_ever_makes_more_than_one_line(path: str) -> None:
    try:
        line = command.rcpt(path)
    except LocalProtocolError:
        return
    assert line.startswith(b"RCPT TO:<")
    assert line.endswith(b">\r\n")
    assert not any(octet < 0x20 for octet in line[:-2])
    inside = line[9:-3]
    assert b">" not in inside or inside.startswith(b'"')
