"""What is made of a dialogue that goes wrong at each of its stages, for each of two recipients.

The stages are the replies of the server; the ways are those of the player.
"""

import pytest
from player import Played, Talker, three_ways, transaction
from verdicts import answers_of

from relay.policy.classify import classify_session_failure, classify_transaction

pytestmark = three_ways

STAGES = ("greeting", "EHLO", "MAIL", "first RCPT", "second RCPT", "DATA", "dot", "QUIT")
ORDER = ("220 mx", "", "250 ok", "250 ok", "250 ok", "354 go", "250 2.0.0 done", "221 bye")
OFFERS = {"pipelined": "250-mx\r\n250 PIPELINING", "one at a time": "250 mx"}

LOST = "transient connection_lost"
CLOSING = "transient service_unavailable"
UNCLEAR = "transient uncertain"
GARBLED = "transient protocol_error"
REFUSED = "permanent policy"
DONE = "success delivered"


def converse(talker: Talker, replies: list[str], way: str) -> Played:
    """The server gives these replies, each when it is owed, and closes."""
    client, left = talker.client, list(replies)
    while True:
        talker.listen()
        while client.data_to_send():
            pass
        if client.is_over or not left or not client.awaited:
            break
        count = len(client._wire.expected) if way == "merged" else 1
        octets = "".join(f"{line}\r\n" for line in left[:count]).encode()
        del left[:count]
        for segment in [octets] if way != "octets" else [bytes([octet]) for octet in octets]:
            client.receive(segment)
            talker.listen()
    client.receive_eof()
    talker.listen()
    return Played(
        client=client,
        answers=talker.answers,
        problems=talker.problems,
        exchanges=talker.exchanges,
        finished=talker.finished,
        broken=talker.broken,
        said=b"",
    )


def verdicts(stage: str, fault: str, way: str, offers: str) -> list[str]:
    """Both recipients' verdicts where `fault`, or a close if it is empty, comes at a stage."""
    before = [line or OFFERS[offers] for line in ORDER[: STAGES.index(stage)]]
    talker = Talker(transactions=[transaction("a@mx.test", "b@mx.test")])
    played = converse(talker, before + ([fault] if fault else []), way)
    judged = classify_transaction(answers_of(played))
    return [f"{one.severity} {one.reason}" for one in judged]


@pytest.mark.parametrize("offers", OFFERS)
@pytest.mark.parametrize(
    ("stage", "expected"),
    [
        ("MAIL", [LOST, LOST]),
        ("first RCPT", [LOST, LOST]),
        ("second RCPT", [LOST, LOST]),
        ("DATA", [LOST, LOST]),
        ("dot", [UNCLEAR, UNCLEAR]),
        ("QUIT", [DONE, DONE]),
    ],
)
@pytest.mark.client_row("C83", "C84")
def test_close_is_judged_by_its_stage(
    way: str, stage: str, expected: list[str], offers: str
) -> None:
    assert verdicts(stage, "", way, offers) == expected


@pytest.mark.parametrize("offers", OFFERS)
@pytest.mark.parametrize(
    ("stage", "expected"),
    [
        ("MAIL", [CLOSING, CLOSING]),
        ("first RCPT", [CLOSING, CLOSING]),
        ("second RCPT", [LOST, CLOSING]),
        ("DATA", [CLOSING, CLOSING]),
        ("dot", [CLOSING, CLOSING]),
        ("QUIT", [DONE, DONE]),
    ],
)
@pytest.mark.client_row("C76", "C87")
def test_421_is_judged_by_its_stage(way: str, stage: str, expected: list[str], offers: str) -> None:
    assert verdicts(stage, "421 closing", way, offers) == expected


@pytest.mark.parametrize("offers", OFFERS)
@pytest.mark.parametrize(
    ("stage", "expected"),
    [
        ("MAIL", [GARBLED, GARBLED]),
        ("first RCPT", [GARBLED, GARBLED]),
        ("second RCPT", [GARBLED, GARBLED]),
        ("DATA", [GARBLED, GARBLED]),
        ("dot", [UNCLEAR, UNCLEAR]),
        ("QUIT", [DONE, DONE]),
    ],
)
@pytest.mark.parametrize("fault", ["what?", "2500 ok", "150 ok", "250-ok\r\n251 ok"])
@pytest.mark.client_row("C11", "C21", "C77")
def test_malformed_reply_never_delivers_nor_bounces(
    way: str, stage: str, expected: list[str], offers: str, fault: str
) -> None:
    assert verdicts(stage, fault, way, offers) == expected


@pytest.mark.parametrize("offers", OFFERS)
@pytest.mark.parametrize(
    ("stage", "expected"),
    [
        ("MAIL", [REFUSED, REFUSED]),
        ("first RCPT", [REFUSED, LOST]),
        ("second RCPT", [LOST, REFUSED]),
        ("DATA", [REFUSED, REFUSED]),
        ("dot", [REFUSED, REFUSED]),
        ("QUIT", [DONE, DONE]),
    ],
)
@pytest.mark.client_row("C65", "C66")
def test_refusal_that_was_read_outlives_the_close_behind_it(
    way: str, stage: str, expected: list[str], offers: str
) -> None:
    assert verdicts(stage, "550 5.7.1 not you", way, offers) == expected


@pytest.mark.parametrize("stage", ["MAIL", "first RCPT", "second RCPT", "DATA", "dot"])
@pytest.mark.parametrize("code", [354, 235, 334])
@pytest.mark.client_row("C22")
def test_reply_to_something_else_never_delivers(way: str, stage: str, code: int) -> None:
    """A reply that is out of step: of the right form, in the wrong place."""
    if code // 100 == (3 if stage == "DATA" else 2):
        code = 250 if stage == "DATA" else 354
    reached = UNCLEAR if stage == "dot" else GARBLED
    assert verdicts(stage, f"{code} go", way, "pipelined") == [reached, reached]


@pytest.mark.parametrize("stage", ["greeting", "EHLO"])
@pytest.mark.parametrize(
    ("fault", "reason"),
    [
        ("", "connection_lost"),
        ("421 closing", "service_unavailable"),
        ("what?", "protocol_error"),
        ("450 busy", ""),
        ("554 no", ""),
    ],
)
@pytest.mark.client_row("C2", "C8", "C25")
def test_opening_that_fails_is_the_hosts_and_passes(
    way: str, stage: str, fault: str, reason: str
) -> None:
    before = [line or OFFERS["pipelined"] for line in ORDER[: STAGES.index(stage)]]
    played = converse(Talker(), before + ([fault] if fault else []), way)
    last = played.answers[-1] if len(played.answers) > len(before) else None
    phase = "greeting" if stage == "greeting" else "hello"
    judged = classify_session_failure(phase, last, played.broken)
    assert (judged.severity, judged.scope) == ("transient", "host")
    assert judged.reason == (reason or f"{phase}_rejected")
