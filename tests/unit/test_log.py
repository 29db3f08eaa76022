"""The log: stable fields, one line an event, nothing secret, nothing that acts on a terminal."""

import io
import json
import logging
from typing import Any

import pytest
import structlog

from relay.model.credentials import Credentials
from relay.settings.schema import Delivery, Log, Mode, Settings
from relay.telemetry.log import configure_logging, get_logger


def lines_of(settings: Settings, say: Any, *, human: bool = False) -> list[str]:
    stream = io.BytesIO()
    configure_logging(settings, service="smtpd", stream=stream, human=human)
    say(get_logger())
    return stream.getvalue().decode().splitlines()


def only_line(settings: Settings, say: Any) -> dict[str, Any]:
    (line,) = lines_of(settings, say)
    fields: dict[str, Any] = json.loads(line)
    return fields


def test_log_line_carries_time_level_event_service_mode_node_and_version_first() -> None:
    settings = Settings(delivery=Delivery(mode=Mode.SINK, hostname="mx.example.org"))
    line = only_line(settings, lambda log: log.info("recipient.delivered", queue_id="Q"))
    assert list(line) == ["ts", "level", "event", "service", "mode", "node", "version", "queue_id"]
    assert line["ts"].endswith("Z")
    assert (line["mode"], line["node"], line["queue_id"]) == ("sink", "mx.example.org", "Q")


def test_log_below_the_level_writes_nothing() -> None:
    settings = Settings(log=Log(level="warning"))
    assert lines_of(settings, lambda log: log.info("session.opened")) == []


@pytest.mark.parametrize("human", [False, True])
def test_log_escapes_what_acts_on_a_terminal(human: bool) -> None:
    nasty = "a\x1b[31m\r\nb\x9b\u2028\u202ec\udc80\x7f"
    (line,) = lines_of(
        Settings(), lambda log: log.info("session.closed", reply_text=nasty), human=human
    )
    assert line.isascii()
    assert not any(ord(c) < 32 or ord(c) == 127 for c in line)
    assert "31m" in line


def test_log_for_people_leaves_out_what_is_empty() -> None:
    (line,) = lines_of(Settings(), lambda log: log.info("x.y", a="", b=None, c=0), human=True)
    assert line.split()[2:] == ["x.y", "c=0"]


def test_log_for_people_tells_an_attempt_in_one_sentence() -> None:
    fields = {"mx_host": "mx.shop.test", "mx_ip": "192.0.2.1", "reply_code": 451, "attempt": 2}
    said = {"reply_enhanced": "4.3.0", "reply_text": "later\x1b", "recipient_id": "ID.1"}
    late = {"delay_s": 61.5, "next_attempt_at": "2026-10-02T09:14:07.120Z"}
    (line,) = lines_of(
        Settings(),
        lambda log: log.info(
            "recipient.deferred", forward_path="ann@shop.test", **fields, **said, **late
        ),
        human=True,
    )
    assert line.partition(" recipient.deferred ")[2] == (
        "ann@shop.test at mx.shop.test [192.0.2.1]: 451 4.3.0 later\\u001b "
        "(ID.1, attempt 2, after 61.5 s, next 2026-10-02T09:14:07.120Z)"
    )


@pytest.mark.parametrize("name", ["password", "smtp_password", "authorization", "api_key", "token"])
def test_log_strikes_out_fields_named_like_secrets(name: str) -> None:
    assert only_line(Settings(), lambda log: log.info("x", **{name: "hunter2"}))[name] == "***"


def test_log_strikes_out_the_password_of_a_url_and_of_credentials() -> None:
    def say(log: Any) -> None:
        log.info(
            "x",
            url="smtp://ann:hunter2@host:25",
            account=Credentials("ann", "hunter2"),
            deep=[{"redis": "unix://:hunter2@/run/redis.sock"}],
        )

    (line,) = lines_of(Settings(), say)
    assert "hunter2" not in line
    assert "smtp://ann:***@host:25" in line


def test_log_redacts_local_parts_everywhere_but_in_the_message_id() -> None:
    settings = Settings(log=Log(redact_addresses=True))
    line = only_line(
        settings,
        lambda log: log.info(
            "x", forward_path="ann@gmail.test", reply_text="no <ann@gmail.test>", message_id="<1@h>"
        ),
    )
    assert line["forward_path"] == "***@gmail.test"
    assert line["reply_text"] == "no <***@gmail.test>"
    assert line["message_id"] == "<1@h>"


def test_log_of_an_exception_says_its_sentence_and_traceback_without_values() -> None:
    def say(log: Any) -> None:
        secret = "hunter2"
        try:
            len(secret[0], 1)  # type: ignore[call-arg]
        except TypeError:
            log.exception("internal.error")

    line = only_line(Settings(), say)
    assert line["error"].startswith("TypeError: ")
    assert "Traceback" in line["traceback"]
    assert "hunter2" not in json.dumps(line)


@pytest.mark.parametrize("level", ["warning", "error", "critical"])
def test_log_takes_the_lines_of_the_standard_loggers_in(level: str) -> None:
    say = getattr(logging.getLogger("celery.worker"), level)
    line = only_line(Settings(), lambda _: say("lost %s", 1))
    assert (line["event"], line["logger"], line["level"]) == ("lost 1", "celery.worker", level)


def test_log_takes_the_lines_of_structlog_in() -> None:
    line = only_line(
        Settings(), lambda _: structlog.get_logger("relay.x").info("a.b", queue_id="Q")
    )
    assert (line["event"], line["queue_id"]) == ("a.b", "Q")


def test_log_takes_information_of_our_own_standard_loggers_in() -> None:
    line = only_line(Settings(), lambda _: logging.getLogger("relay.sink").info("up"))
    assert line["event"] == "up"


def test_log_of_a_library_goes_to_the_standard_logger(caplog: pytest.LogCaptureFixture) -> None:
    get_logger().warning("store.unavailable", url="redis://:hunter2@h")
    assert caplog.messages == ["store.unavailable url=redis://:***@h"]


def test_log_to_a_closed_stream_raises_nothing() -> None:
    stream = io.BytesIO()
    configure_logging(Settings(), service="smtpd", stream=stream)
    stream.close()
    get_logger().info("session.opened")


def test_log_binds_fields_to_every_later_line() -> None:
    line = only_line(Settings(), lambda log: log.bind(session_id="s1").info("session.opened"))
    assert line["session_id"] == "s1"
