"""The command line over HTTP: sends, lists, verbs, guard rails, exit codes."""

import email
import email.policy
import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import httpx
import pytest

from tests.support.doors import Doors, Run, relay, running_doors
from tests.support.system import System

EML = b"From: Ann <ann@example.org>\nTo: bob@x.test\nCc: c@y.test\nSubject: x\n\nhello\n"


@pytest.fixture(scope="module")
def doors(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Doors]:
    with running_doors(tmp_path_factory.mktemp("doors")) as running:
        yield running


@pytest.fixture(scope="module")
def api(doors: Doors) -> str:
    _, port = doors.start("http")
    return f"http://127.0.0.1:{port}"


def send(api: str, *more: str, to: str = "ann@gmail.test", given: bytes = b"") -> Run:
    arguments = ("--from", "news@example.org", "--to", to, "--subject", "hi", *more)
    return relay("send", *arguments, api=api, given=given)


def objects(run: Run) -> list[dict[str, Any]]:
    """The JSON Lines of a command that went well."""
    assert run.code == 0, run
    return [json.loads(line) for line in run.out.splitlines()]


def test_send_says_the_queue_id_and_json_all(api: str) -> None:
    run = send(api, "--text", "hello", "--header", "X-A: b", "--campaign", "c1", "--tag", "t")
    assert run.code == 0 and run.out.endswith(" accepted for 1 recipient\n")
    id = run.out.partition(" ")[0]
    (shown,) = objects(relay("message", "show", id, "--json", api=api))
    assert (shown["campaign"], shown["tags"], shown["ingress"]) == ("c1", ["t"], "http")
    (said,) = objects(send(api, "--html", "<p>x</p>", "--json"))
    assert said["accepted"] == 1 and said["warnings"] == []


def test_text_comes_from_a_pipe(api: str) -> None:
    assert send(api, given=b"from a pipe\n").code == 0
    assert send(api, "--text", "-", given=b"from a pipe\n").code == 0


def test_file_is_sent_to_the_recipients_of_its_header(api: str, tmp_path: Path) -> None:
    path = tmp_path / "message.eml"
    path.write_bytes(EML)
    (said,) = objects(relay("send", "--eml", str(path), "-t", "--json", api=api))
    assert [item["address"] for item in said["recipients"]] == ["bob@x.test", "c@y.test"]
    asking = ("--notify", "success,failure", "--report-content", "full", "--envelope-id", "a b")
    whole = ("--eml", "-", "--to", "d@z.test", "--json", *asking)
    (said,) = objects(relay("send", *whole, api=api, given=EML))
    assert [item["address"] for item in said["recipients"]] == ["d@z.test"]


def test_file_that_is_no_message_is_65_with_the_reason(api: str, tmp_path: Path) -> None:
    path = tmp_path / "no.eml"
    path.write_bytes(b"this is a shopping list\n")
    run = relay("send", "--eml", str(path), "-t", api=api)
    assert run.code == 65
    assert "is no RFC 5322 message: 'this is a shopping list'" in run.err
    missing = relay("send", "--eml", str(tmp_path / "none"), "-t", api=api)
    assert (missing.code, missing.err) == (
        66,
        f"relay: {tmp_path}/none: no such file or directory\n",
    )
    path.write_bytes(b"\n")
    assert "it is empty" in relay("send", "--eml", str(path), "-t", api=api).err


def test_finished_message_for_nobody_is_told_how_to_name_somebody(api: str) -> None:
    run = relay("send", "--eml", "-", api=api, given=EML)
    assert run.code == 64
    assert "--to ADDRESS, or -t" in run.err


def test_attachment_and_every_address_field_arrive(api: str, tmp_path: Path) -> None:
    path = tmp_path / "a.pdf"
    path.write_bytes(b"%PDF")
    (tmp_path / "logo.png").write_bytes(b"\x89PNG")
    more = ["--cc", "Ünï <c@x.test>", "--bcc", "b@x.test", "--reply-to", "r@x.test"]
    more += ["--attach", str(path), "--inline", str(tmp_path / "logo.png")]
    (said,) = objects(send(api, *more, "--html", '<img src="cid:logo.png">', "--json"))
    assert said["accepted"] == 3
    content = httpx.get(f"{api}/v1/messages/{said['id']}/content").content
    message = email.message_from_bytes(content, policy=email.policy.default)
    assert (message["cc"], message["reply-to"]) == ("Ünï <c@x.test>", "r@x.test")
    assert b"b@x.test" not in content
    found = [(part.get_content_type(), part.get_filename()) for part in message.walk()]
    assert found == [
        ("multipart/mixed", None),
        ("multipart/related", None),
        ("text/html", None),
        ("image/png", "logo.png"),
        ("application/pdf", "a.pdf"),
    ]
    missing = send(api, "--text", "x", "--attach", str(tmp_path / "none"))
    assert (missing.code, missing.out) == (66, "")


@pytest.mark.parametrize(
    ("arguments", "code", "sentence"),
    [
        (("--text", "x", "--to", "no address"), 65, "to[1]: 'no address' has no domain"),
        (("--text", "x", "--subject", "a\r\nBcc: x@y.z"), 65, "subject"),
        (("--text", "x", "--header", "X-A: b\r\nBcc: x@y.z"), 65, "headers.X-A"),
        (("--text", "x", "--cc", "a\nb <c@d.test>"), 65, "cc[0]"),
        (("--text", "x", "--header", "Subject: y"), 65, "use subject"),
        (("--text", "x", "--header", "no colon"), 64, "Name: value"),
        (("--text", "x", "--class", "urgent"), 65, "class"),
        (("--text", "x", "--notify", "never,delay"), 65, "notify"),
        (("--text", "x", "-t"), 64, "-t goes with --eml"),
        (("--text", "x", "--timeout", "soon"), 64, "--timeout"),
        (("--text", "x", "--frob"), 64, "--frob"),
    ],
)
def test_fault_is_one_line_and_a_code(
    api: str, arguments: tuple[str, ...], code: int, sentence: str
) -> None:
    run = send(api, *arguments)
    assert run.code == code
    assert sentence in run.err and run.err.count("\n") == 1 and run.out == ""


def test_daemon_that_is_down_is_69_and_its_store_75(tmp_path: Path) -> None:
    run = send("http://127.0.0.1:1", "--text", "x")
    assert run.code == 69 and "is relay up?" in run.err
    assert send("ftp://x", "--text", "x").code == 64
    with running_doors(tmp_path) as doors:
        _, port = doors.start("http")
        doors.redis.kill()
        api = f"http://127.0.0.1:{port}"
        for run in (
            send(api, "--text", "x"),
            relay("message", "ls", api=api),
            relay("queue", "ls", api=api),
            relay("status", api=api),
        ):
            assert run.code == 75, run
            assert run.err.count("\n") == 1 and run.err.startswith("relay: "), run
            assert run.out == ""


def test_key_is_taken_from_the_environment(doors: Doors, tmp_path: Path) -> None:
    _, port = doors.start("http", RELAY_HTTP_KEYS="secret-key")
    api = f"http://127.0.0.1:{port}"
    assert relay("queue", "ls", api=api).code == 77
    assert relay("queue", "ls", api=api, RELAY_API_KEY="secret-key").code == 0
    (tmp_path / "key").write_text("secret-key\n")
    assert relay("queue", "ls", api=api, RELAY_API_KEY_FILE=str(tmp_path / "key")).code == 0


def test_messages_are_listed_by_filters(api: str) -> None:
    for name in ("ann", "bob"):
        send(api, "--text", "x", to=f"{name}@listed.test")
    found = objects(relay("message", "ls", "--domain", "listed.test", "--json", api=api))
    assert {item["recipients"][0]["address"] for item in found} == {
        "ann@listed.test",
        "bob@listed.test",
    }
    table = relay("message", "ls", "--to", "bob@listed.test", api=api).out.splitlines()
    assert table[0].split("\t")[:3] == ["id", "accepted", "status"]
    assert len(table) == 2 and "MX hosts of listed.test" in table[1]
    assert relay("message", "ls", "--state", "lost", api=api).code == 65


def test_verbs_take_ids_or_filters_and_ask_before_the_end(api: str) -> None:
    (said,) = objects(send(api, "--text", "x", "--json", to="a@verbs.test"))
    id = said["id"]
    assert relay("message", "hold", id, "--reason", "wait", api=api).out == "hold: 1 recipient\n"
    assert relay("message", "release", f"{id}.1", api=api).code == 0
    run = relay("message", "release", id, api=api)
    assert run.code == 65 and "it is ready" in run.err
    assert relay("message", "show", "01J00000000000000000", api=api).code == 66
    run = relay("message", "cancel", api=api)
    assert run.code == 64 and "--all" in run.err
    run = relay("message", "cancel", "--domain", "verbs.test", api=api)
    assert run.code == 64 and "--yes" in run.err
    run = relay("message", "cancel", "--domain", "verbs.test", "--yes", api=api)
    assert run.out == "cancel: 1 recipient\n"
    assert relay("message", "cancel", id, "--all", api=api).code == 64


def test_queues_are_suspended_resumed_and_flushed(api: str) -> None:
    send(api, "--text", "x", to="a@stop.test")
    run = relay("queue", "suspend", "--domain", "stop.test", "--reason", "move", api=api)
    assert run.code == 0 and "1 queue now" in run.out
    table = relay("queue", "ls", "--domain", "stop.test", api=api).out
    assert "suspended: move" in table
    (queue,) = objects(relay("queue", "show", "stop.test", "--json", api=api))
    assert queue["suspended"]["kind"] == "suspended"
    (suspension,) = objects(relay("queue", "suspensions", "--json", api=api))
    assert relay("queue", "resume", suspension["id"], api=api).code == 0
    assert relay("queue", "resume", suspension["id"], api=api).code == 66
    assert relay("queue", "flush", "--domain", "stop.test", api=api).code == 0
    for verb in ("suspend", "resume", "flush"):
        run = relay("queue", verb, api=api)
        assert run.code == 64 and run.err.startswith("relay: say which: ") and "--all" in run.err


async def test_wait_tells_what_became_of_each_recipient(system: System) -> None:
    api = f"http://127.0.0.1:{system.start_http()}"
    run = send(api, "--text", "x", "--wait")
    assert run.code == 0
    accepted, delivered = run.out.splitlines()
    assert accepted.endswith("accepted for 1 recipient")
    assert delivered.startswith("  ann@gmail.test delivered to ")
    assert "google.test [127." in delivered and delivered.endswith(" s")
    run = send(api, "--text", "x", "--to", "reject@x.test", "--wait", "--json")
    assert run.code == 67
    lines = [json.loads(line) for line in run.out.splitlines()]
    ends = {line["address"]: line["status"] for line in lines[1:]}
    assert ends == {"ann@gmail.test": "delivered", "reject@x.test": "failed"}
    assert lines[-1]["remote"]["host"] and lines[-1]["delay_s"] >= 0
    said = relay("status", api=api).out
    assert "none under way" in said and "2 delivered, 1 failed" in said


async def test_wait_gives_up_after_its_time_with_75(system: System) -> None:
    api = f"http://127.0.0.1:{system.start_http()}"
    run = send(api, "--text", "x", "--wait", "--timeout", "1s", to="tempfail@x.test")
    assert run.code == 75
    assert "tempfail@x.test deferred" in run.out and "still under way" in run.err


async def test_wait_tells_what_keeps_a_recipient_waiting(system: System) -> None:
    system.expects("site.breaker")
    api = f"http://127.0.0.1:{system.start_http()}"
    run = send(api, "--text", "x", "--wait", "--timeout", "5s", to="ann@dead.test")
    assert run.code == 75
    assert "  ann@dead.test waits: No connection to the receiving server came about" in run.out
    assert "connection refused). (looked at again in " in run.out


async def test_replayed_send_that_was_delivered_is_told_at_once(system: System) -> None:
    api = f"http://127.0.0.1:{system.start_http()}"
    more = ("--text", "x", "--idempotency-key", "k1", "--wait")
    assert send(api, *more).code == 0
    again = send(api, *more)
    assert again.code == 0 and "ann@gmail.test delivered at" in again.out
