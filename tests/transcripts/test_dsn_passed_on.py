"""What the sender asks of reports goes on to hosts that offer DSN, unchanged (RFC 3461 §5.2)."""

import pytest
from player import Talker, play, three_ways, transaction

from relay.model.dsn import Dsn, RecipientDsn
from relay.model.errors import LocalProtocolError
from relay.smtp.client import Client

pytestmark = three_ways

ASKED = Dsn(
    "HDRS",
    "QQ+2B17",
    (RecipientDsn("SFD", "rfc822;Bob+2B1@mx.test"), RecipientDsn(), RecipientDsn("N")),
)
PATHS = ("b@mx.test", "c@mx.test", "d@mx.test")


def dialogue(extension: str, *commands: str) -> str:
    head = f"S: 220 mx\nC: EHLO relay.test\nS: 250-mx\nS: 250-PIPELINING\nS: 250 {extension}\n"
    said = "".join(f"C: {command}\n" for command in commands)
    replies = "S: 250 ok\n" * (len(commands) - 1) + "S: 354 go\n"
    content = "C: Subject: x\nC:\nC: hello\nC: .\nS: 250 ok\nC: QUIT\nS: 221 bye\n"
    return head + said + replies + content


def test_parameters_go_on_unchanged_where_dsn_is_offered(way: str) -> None:
    script = dialogue(
        "DSN",
        "MAIL FROM:<a@relay.test> RET=HDRS ENVID=QQ+2B17",
        "RCPT TO:<b@mx.test> NOTIFY=SUCCESS,FAILURE,DELAY ORCPT=rfc822;Bob+2B1@mx.test",
        "RCPT TO:<c@mx.test>",
        "RCPT TO:<d@mx.test> NOTIFY=NEVER",
        "DATA",
    )
    play(script, way, Talker(transactions=[transaction(*PATHS, dsn=ASKED)]))


def test_parameters_stay_here_where_dsn_is_not_offered(way: str) -> None:
    rcpts = [f"RCPT TO:<{path}>" for path in PATHS]
    script = dialogue("SIZE2", "MAIL FROM:<a@relay.test>", *rcpts, "DATA")
    play(script, way, Talker(transactions=[transaction(*PATHS, dsn=ASKED)]))


def test_nothing_is_added_that_was_not_given(way: str) -> None:
    script = dialogue("DSN", "MAIL FROM:<a@relay.test>", "RCPT TO:<b@mx.test>", "DATA")
    play(script, way, Talker(transactions=[transaction("b@mx.test")]))


@pytest.mark.parametrize(
    ("extension", "mail", "orcpt"),
    [
        ("DSN", "", r"utf-8;j\x{F6}rg@x.test"),
        ("DSN\nS: 250 SMTPUTF8", " SMTPUTF8", "utf-8;jörg@x.test"),
    ],
)
def test_original_recipient_in_utf8_fits_the_host(
    way: str, extension: str, mail: str, orcpt: str
) -> None:
    # RFC 6533 §3: without SMTPUTF8 it is written in ASCII.
    path = "jörg@mx.test" if mail else "b@mx.test"
    asked = Dsn(recipients=(RecipientDsn("F", "utf-8;jörg@x.test"),))
    script = dialogue(
        extension,
        f"MAIL FROM:<a@relay.test>{mail}",
        f"RCPT TO:<{path}> NOTIFY=FAILURE ORCPT={orcpt}",
        "DATA",
    )
    script = script.replace("S: 250 DSN\nS: 250 SMTPUTF8", "S: 250-DSN\nS: 250 SMTPUTF8")
    octets = script.replace("\\x{", "\\\\x{").encode().decode("latin-1")
    play(octets, way, Talker(transactions=[transaction(path, dsn=asked)]))


@pytest.mark.parametrize(
    "asked",
    [
        Dsn(ret="FULL\r\nRSET"),
        Dsn(envid="a b"),
        Dsn(envid="x" * 101),
        Dsn(recipients=(RecipientDsn("", "rfc822;a b"),)),
        Dsn(recipients=(RecipientDsn("", "rfc822;a\r\nDATA"),)),
    ],
    ids=repr,
)
def test_parameters_that_would_end_the_line_are_never_said(way: str, asked: Dsn) -> None:
    client = Client("relay.test")
    client.receive(b"220 mx\r\n")
    client.hello()
    client.data_to_send()
    client.receive(b"250-mx\r\n250 DSN\r\n")
    with pytest.raises(LocalProtocolError):
        client.start(transaction("b@mx.test", dsn=asked))
    assert client.data_to_send() == b""
