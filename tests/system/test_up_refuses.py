"""What `relay up` and the daemons refuse: one sentence, the right exit code, nothing harmed."""

import os
import socket
from pathlib import Path

import pytest

from tests.support.household import Household, household


def refused(house: Household, *arguments: str) -> tuple[int, str]:
    done = house.run(*arguments)
    assert done.stdout == ""
    (sentence,) = done.stderr.splitlines()
    assert not house.processes()
    return done.returncode, sentence


def test_up_names_a_taken_port_and_its_setting_and_starts_nothing(tmp_path: Path) -> None:
    with household(tmp_path) as house, socket.create_server(("127.0.0.1", house.smtp)):
        code, sentence = refused(house, "up")
        assert code == os.EX_CONFIG
        assert sentence.startswith(f"relay: smtp.listen: 127.0.0.1:{house.smtp} is in use; ")
        assert "RELAY_SMTP_LISTEN=" in sentence
        assert not list(house.data.glob("*/appendonlydir"))


LISTENS = {
    "http.listen": "RELAY_HTTP_LISTEN",
    "sink.smtp": "RELAY_SINK_SMTP",
    "sink.control": "RELAY_SINK_CONTROL",
}


@pytest.mark.parametrize("setting", LISTENS)
def test_up_names_every_taken_port_and_its_setting(tmp_path: Path, setting: str) -> None:
    with household(tmp_path) as house, socket.create_server(("127.0.0.1", 0)) as taken:
        where = f"127.0.0.1:{taken.getsockname()[1]}"
        house.environment[LISTENS[setting]] = where
        code, sentence = refused(house, "up")
        assert code == os.EX_CONFIG
        assert sentence.startswith(f"relay: {setting}: {where} is in use; ")
        assert f"{LISTENS[setting]}=" in sentence


@pytest.mark.parametrize(
    ("verb", "setting"),
    [
        ("smtpd", "smtp.listen"),
        ("http", "http.listen"),
        ("sink", "sink.smtp"),
        ("sink", "sink.control"),
    ],
)
def test_daemon_names_a_taken_port_and_its_setting(tmp_path: Path, verb: str, setting: str) -> None:
    more = {"RELAY_DELIVERY_MODE": "sink", "RELAY_REDIS_URL": "redis://127.0.0.1:1"}
    variable = f"RELAY_{setting.replace('.', '_').upper()}"
    with (
        household(tmp_path, **more) as house,
        socket.create_server(("127.0.0.1", 0)) as taken,
    ):
        port = taken.getsockname()[1]
        house.environment[variable] = f"127.0.0.1:{port}"
        done = house.run(verb)
        assert done.returncode == os.EX_CONFIG
        # What it logs before (that Redis is absent, say) is no part of the sentence.
        sentence = done.stderr.splitlines()[-1]
        assert sentence.startswith(f"relay: {setting}: ")
        assert str(port) in sentence
        assert "Traceback" not in done.stderr + done.stdout


def test_up_names_a_taken_udp_port_of_the_sink(tmp_path: Path) -> None:
    with household(tmp_path) as house, socket.socket(type=socket.SOCK_DGRAM) as taken:
        taken.bind(("127.0.0.1", 0))
        house.environment["RELAY_SINK_DNS"] = f"127.0.0.1:{taken.getsockname()[1]}"
        code, sentence = refused(house, "up")
        assert (code, "sink.dns: " in sentence) == (os.EX_CONFIG, True)


def test_up_twice_is_one_sentence_and_no_damage(tmp_path: Path) -> None:
    with household(tmp_path) as house:
        house.start_ready()
        second = house.run("up")
        assert second.returncode == os.EX_UNAVAILABLE
        assert second.stderr == (
            f"relay: relay up is running already (process {house.process.pid}) with the data in "
            f"{house.data}; stop it, or give this one its own --data-dir and ports\n"
        )
        assert house.process.poll() is None
        assert house.end() == 0


def test_up_without_a_redis_server_names_the_package(tmp_path: Path) -> None:
    with household(tmp_path, RELAY_REDIS_SERVER=str(tmp_path / "none")) as house:
        code, sentence = refused(house, "up")
        assert code == os.EX_CONFIG
        assert "RELAY_REDIS_SERVER" in sentence


def test_up_with_a_data_dir_that_cannot_be_made_says_so(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with household(tmp_path) as house:
        code, sentence = refused(house, "up", "--data-dir", str(tmp_path / "file" / "data"))
        assert code == os.EX_CONFIG
        assert "up.data_dir: " in sentence


@pytest.mark.parametrize("verb", ["smtpd", "http", "worker"])
def test_daemon_without_a_mode_refuses_to_start(tmp_path: Path, verb: str) -> None:
    with household(tmp_path) as house:
        code, sentence = refused(house, verb)
        assert code == os.EX_CONFIG
        assert "delivery.mode: is not set" in sentence


@pytest.mark.parametrize("verb", ["up", "smtpd", "http", "worker", "sink"])
def test_daemon_with_a_fault_in_its_configuration_says_it_in_one_line(
    tmp_path: Path, verb: str
) -> None:
    path = tmp_path / "relay.toml"
    path.write_text("[smtp]\nlissen = 1\n")
    with household(tmp_path) as house:
        code, sentence = refused(house, verb, "--config", str(path))
        assert code == os.EX_CONFIG
        assert sentence == (f"relay: {path}:2: smtp.lissen: no such setting; did you mean listen?")


def test_up_says_why_its_redis_does_not_start(tmp_path: Path) -> None:
    server = tmp_path / "redis-server"
    server.write_text("#!/bin/sh\necho Bad file format reading the append only file\nexit 1\n")
    server.chmod(0o700)
    with household(tmp_path, RELAY_REDIS_SERVER=str(server)) as house:
        done = house.run("up")
        assert done.returncode == os.EX_UNAVAILABLE
        assert done.stderr == (
            "relay: the private Redis does not start; its last line: "
            "Bad file format reading the append only file\n"
        )
        assert not house.processes()
