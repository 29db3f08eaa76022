"""What a supervisor prints for its programs."""

import io
import json

from relay.cli.output import Output
from relay.settings.schema import Delivery, Log, Mode, Settings
from relay.telemetry.log import get_logger


def settings(form: str) -> Settings:
    return Settings(delivery=Delivery(mode=Mode.SINK), log=Log(format=form))  # type: ignore[arg-type]


def test_output_for_people_names_the_program_before_each_line() -> None:
    stream = io.BytesIO()
    output = Output(settings("human"), "up", stream)
    output.write("worker.1", b"12:00:00 info recipient.delivered")
    get_logger().info("up.ready")
    first, second = stream.getvalue().decode().splitlines()
    assert first == "worker.1 | 12:00:00 info recipient.delivered"
    assert second.startswith("up       | ")
    assert output.environment() == {"RELAY_LOG_FORMAT": "human"}


def test_output_as_json_lets_json_lines_pass_and_wraps_all_others() -> None:
    stream = io.BytesIO()
    output = Output(settings("auto"), "up", stream)
    output.write("worker.1", b'{"event":"recipient.delivered"}')
    output.write("redis", b"1:M # low on space\xff")
    output.write("redis", b"")
    first, second = map(json.loads, stream.getvalue().decode().splitlines())
    assert first == {"event": "recipient.delivered"}
    assert (second["program"], second["text"]) == ("redis", "1:M # low on space\\xff")
    assert output.environment() == {"RELAY_LOG_FORMAT": "json"}


def test_output_goes_on_when_nobody_reads() -> None:
    stream = io.BytesIO()
    output = Output(settings("human"), "up", stream)
    stream.close()
    output.write("smtpd", b"a line")
