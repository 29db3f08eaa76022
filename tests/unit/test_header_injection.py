"""No field of a message can bring in a header field of its own, whichever fields there will be.

The fields are taken from the struct that all doors share: a new one is tried here by itself.
"""

from collections.abc import Iterator
from typing import Any, get_args, get_origin

import msgspec
import pytest

from relay.ingress import field_value
from relay.ingress.draft import RawMessage, draft_of_message, draft_of_raw
from relay.ingress.labels import Labels
from relay.ingress.message import Attachment, Mailbox, Message
from relay.ingress.report_fields import ReportFields
from relay.ingress.submit import Draft, Submitter
from relay.ingress.trace import Origin
from relay.model.address import parse_address
from relay.model.errors import RelayError, SubmissionRefused
from relay.policy.route import RouteTable
from relay.settings.schema import Delivery, Settings
from relay.smtp.header_block import scan
from tests.support.acceptor import MemoryAcceptor

BREAKS = ["\r\n", "\n", "\r", "\r\n ", "\n\t", "\x0b", "\x0c", "\x1c", "\x85", "\u2028", "\0"]
INNOCENT: dict[str, Any] = {"from": "news@example.org", "to": ["ann@x.test"], "text": "hello"}
#: Text of the message itself may have lines.
BODIES = {"text", "html"}


def poisoned(kind: Any, evil: str) -> Iterator[Any]:
    """Values of a type with the evil text at each place where a text may stand."""
    if kind is str:
        yield evil
        yield f"{evil}@x.test"
        yield f"{evil} <a@x.test>"
    elif kind in (Mailbox, Attachment):
        whole = {"email": "a@x.test"} if kind is Mailbox else {"filename": "a", "content": "aGk="}
        for part in msgspec.structs.fields(kind):
            if part.type is str:
                yield whole | {part.encode_name: evil}
                yield whole | {part.encode_name: f"a/b; {evil}"}
    elif get_origin(kind) is list:
        for value in poisoned(get_args(kind)[0], evil):
            yield [value]
    elif get_origin(kind) is dict:
        yield {"X-A": evil}
        yield {evil: "x"}
    else:
        for option in get_args(kind):
            yield from poisoned(option, evil)


def fields() -> Iterator[tuple[str, Any]]:
    for field in msgspec.structs.fields(Message):
        yield field.encode_name, field.type


def submitter() -> Submitter:
    settings = Settings(delivery=Delivery(hostname="relay.example"))
    return Submitter(settings, MemoryAcceptor(), RouteTable())


def header_names(draft: Draft) -> set[str]:
    """Names in the header block as it would leave."""
    content = submitter().prepare(draft).submission.content
    head = content.partition(b"\r\n\r\n")[0]
    # However a reader splits lines, there is no other field.
    lines = head.decode("utf-8", "surrogateescape").splitlines()
    return {line.partition(":")[0].lower() for line in lines if line[:1] not in " \t"}


@pytest.mark.parametrize("name", [name for name, _ in fields()])
@pytest.mark.parametrize("line_break", BREAKS, ids=repr)
def test_text_of_a_field_brings_no_header_field(name: str, line_break: str) -> None:
    evil = f"a{line_break}Evil: yes"
    tried = 0
    for value in poisoned(dict(fields())[name], evil):
        tried += 1
        body = msgspec.json.encode({**INNOCENT, name: value})
        try:
            message = msgspec.json.decode(body, type=Message)
            names = header_names(
                draft_of_message(message, ingress="http", hostname="relay.example")
            )
        except (SubmissionRefused, msgspec.ValidationError):
            continue
        assert name in BODIES, f"{value!r} was taken"
        assert "evil" not in names
    assert tried or name in ("class", "expires_at", "notify", "report_content", "trace")


@pytest.mark.parametrize("line_break", BREAKS, ids=repr)
def test_envelope_and_labels_of_a_finished_message_take_no_line_break(line_break: str) -> None:
    evil = f"a{line_break}Evil: yes"
    content = b"From: a@b.test\r\nSubject: x\r\n\r\nhello\r\n"
    for more in (
        {"sender": f"{evil}@x.test"},
        {"recipients": (f"{evil}@x.test",)},
        {"reports": ReportFields(envelope_id=evil)},
        {"labels": Labels(campaign=evil)},
        {"labels": Labels(tags=(evil,))},
        {"labels": Labels(metadata={"a": evil})},
        {"labels": Labels(metadata={evil: "a"})},
        {"labels": Labels(idempotency_key=evil)},
    ):
        whole: dict[str, Any] = {"sender": "a@b.test", "recipients": ("ann@x.test",), **more}
        with pytest.raises(SubmissionRefused):
            submitter().prepare(draft_of_raw(RawMessage(content=content, **whole), ingress="http"))


@pytest.mark.parametrize("hello", ["x\r\nEvil: yes", "x) by evil\n", "x\x0bEvil: yes", "(", "\\"])
def test_name_that_an_smtp_client_gives_itself_stays_in_its_place(hello: str) -> None:
    draft = Draft(
        reverse_path=parse_address("a@b.test"),
        forward_paths=(parse_address("ann@x.test"),),
        content=b"From: a@b.test\r\n\r\nhello\r\n",
        ingress="smtp",
        origin=Origin("ESMTP", hello, "192.0.2.1"),
    )
    assert "evil" not in header_names(draft)
    content = submitter().prepare(draft).submission.content
    received = scan(content).first("received")
    assert received is not None and received.startswith("from ")
    assert received.count("(") == 2  # ours


def test_header_block_that_is_not_as_meant_is_never_taken(monkeypatch: pytest.MonkeyPatch) -> None:
    """Were a check of a field forgotten, the block as it would leave still tells."""
    message = Message(from_="a@b.test", to="ann@x.test", subject="hi", text="hello")
    for made in ("Subject: hi\r\nEvil: yes", "Subject: hi\r\n\r\nevil", "Subject hi", ""):
        monkeypatch.setattr(field_value, "unstructured", lambda *_, made=made: made)
        with pytest.raises(RelayError, match="header block is not as meant"):
            draft_of_message(message, ingress="http", hostname="relay.example")
