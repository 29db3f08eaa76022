"""`relay send --trace`: the dialogue of the worker's delivery, stage by stage, on the terminal."""

import json
import re

from tests.support.doors import relay
from tests.support.system import System

SEND = ("send", "--from", "me@example.org", "--text", "hello")

NO_PIPELINING = """\
ID accepted for 2 recipients
  mx1.nopipelining.test [IP]:PORT (new; TLSv1.3 TLS_AES_256_GCM_SHA384, not verified) \
for bob@nopipelining.test, reject@nopipelining.test
    connect   N
    greeting  N  < 220 mx1.nopipelining.test ESMTP relay sink
    hello     N  > EHLO relay.example
                 < 250-mx1.nopipelining.test greets relay.example
                 < 250-8BITMIME
                 < 250-SMTPUTF8
                 < 250-ENHANCEDSTATUSCODES
                 < 250-STARTTLS
                 < 250 SIZE 67108864
    tls       N  > STARTTLS
                 < 220 2.0.0 Ready to start TLS
    hello     N  > EHLO relay.example
                 < 250-mx1.nopipelining.test greets relay.example
                 < 250-8BITMIME
                 < 250-SMTPUTF8
                 < 250-ENHANCEDSTATUSCODES
                 < 250 SIZE 67108864
    MAIL      N  > MAIL FROM:<me@example.org> SIZE=OCTETS
                 < 250 2.1.0 Sender ok
    RCPT      N  > RCPT TO:<bob@nopipelining.test>
                 < 250 2.1.5 Recipient ok
                 > RCPT TO:<reject@nopipelining.test>
                 < 550 5.1.1 No such user here
    DATA      N  > DATA
                 < 354 End data with <CRLF>.<CRLF>
    content   N  > [OCTETS octets of content and the final dot]
    reply     N  < 250 2.0.0 Ok: queued as 1
"""


def steady(text: str) -> str:
    """What was printed, without ids, ports, sizes and times.

    Lines of one stage come in as many pieces as there were reads: the stage stands once.
    """
    for pattern, word in (
        (r"^\w{20} ", "ID "),
        (r"\[127\.[\d.]+\]:\d+", "[IP]:PORT"),
        (r"SIZE=\d+", "SIZE=OCTETS"),
        (r"\[\d+ octets", "[OCTETS octets"),
        (r" +\d+\.\d ms", "  N"),
    ):
        text = re.sub(pattern, word, text)
    lines: list[str] = []
    stage = ""
    for line in text.splitlines():
        found = re.match(r"    (\w+) +N(.*)", line)
        if found is not None:
            is_more = found[1] == stage
            stage = found[1]
            lines.append(f"{'':15}{found[2]}" if is_more else f"    {stage:<8}  N{found[2]}")
        else:
            lines.append(re.sub(r"^ {26}", " " * 17, line))
    return "\n".join(lines) + "\n"


async def test_send_trace_shows_the_dialogue_of_the_delivery(system: System) -> None:
    api = f"http://127.0.0.1:{system.start_http()}"
    to = ("--to", "bob@nopipelining.test", "--to", "reject@nopipelining.test")
    run = relay(*SEND, *to, "--trace", api=api)
    assert run.code == 67, run
    dialogue, _, ends = run.out.partition("  bob@nopipelining.test delivered to ")
    assert steady(dialogue) == NO_PIPELINING
    assert "reject@nopipelining.test failed" in ends

    run = relay(*SEND, "--to", "tempfail+1@gmail.test", "--trace", "--json", api=api)
    assert run.code == 0, run
    accepted, *told = [json.loads(line) for line in run.out.splitlines()]
    dialogues = [item for item in told if item.get("type") == "session.dialogue"]
    assert {item["queue_id"] for item in dialogues} == {accepted["id"]}
    assert {item["attempt"] for item in dialogues} == {1, 2}
    lines = [line for item in dialogues for entry in item["entries"] for line in entry["lines"]]
    assert "< 451 4.3.0 Mailbox temporarily unavailable" in lines
    assert lines[-1].startswith("< 250 2.0.0 Ok: queued as ")
    assert [item["status"] for item in told if "status" in item] == ["deferred", "delivered"]

    eml = b"From: me@example.org\nTo: ann@gmail.test\nX-Relay-Trace: yes\n\nhello\n"
    finished = relay("send", "--eml", "-", "-t", "--wait", "--json", api=api, given=eml)
    plain = relay(*SEND, "--to", "ann@gmail.test", "--wait", "--json", api=api)
    assert "session.dialogue" in finished.out and "session.dialogue" not in plain.out
