"""`relay up`: says where everything is, stops in order, and begins where it left off."""

import contextlib
import json
import os
import shlex
import signal
import smtplib
import socket
import subprocess
from pathlib import Path

import pytest

from tests.support.household import household, wait_until
from tests.support.processes import ROOT


def test_up_says_where_it_listens_that_no_mail_leaves_and_what_to_try(tmp_path: Path) -> None:
    with household(tmp_path) as house:
        house.start_ready()
        assert f"SMTP   127.0.0.1:{house.smtp}\n" in house.err
        assert f"HTTP   http://127.0.0.1:{house.http}\n" in house.err
        assert "no mail leaves this machine" in house.err
        assert f"Data   {house.data}\n" in house.err
        command = house.err.partition("  Try    ")[2].splitlines()[0]
        tried = subprocess.run(
            shlex.split(command), check=True, capture_output=True, timeout=60, cwd=ROOT
        )
        assert b"ann@gmail.test delivered" in tried.stdout, tried
        assert house.end() == 0
        lines = [json.loads(line) for line in house.out.splitlines()]
        assert {line["mode"] for line in lines} == {"sink"}
        assert "up.ready" in [line["event"] for line in lines]
        assert not house.processes()


def test_up_data_is_for_its_owner_alone(tmp_path: Path) -> None:
    with household(tmp_path) as house:
        house.start_ready()
        sockets = list(house.data.glob("*/redis.sock"))
        assert house.data.stat().st_mode & 0o777 == 0o700
        assert [path.stat().st_mode & 0o777 for path in sockets] == [0o700]


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT, signal.SIGHUP])
def test_up_stops_doors_then_workers_then_redis(tmp_path: Path, number: signal.Signals) -> None:
    with household(tmp_path) as house:
        house.start_ready()
        wait_until(lambda: "engine.started" in house.out, "a worker")
        assert house.end(number) == 0
        events = [json.loads(line)["event"] for line in house.out.splitlines()]
        order = ["up.stopping", "smtpd.stopping", "engine.stopped"]
        assert sorted(order, key=events.index) == order
        assert not house.processes()


def test_up_again_finds_its_data(tmp_path: Path) -> None:
    with household(tmp_path) as house:
        house.start_ready()
        (path,) = house.data.glob("*/redis.sock")
        assert redis(path, b"SET kept 1") == b"+OK"
        house.end()
        house.start_ready()
        assert redis(path, b"GET kept") == b"$1"


def test_up_says_how_to_be_rid_of_data_of_another_version(tmp_path: Path) -> None:
    with household(tmp_path) as house:
        house.start_ready()
        folder = house.data / "sink"
        redis(folder / "redis.sock", b"HSET relay:sink:{r0}:meta schema 1\r\n")
        house.end()
        done = house.run("up")
        assert done.returncode == os.EX_CONFIG
        assert "the store has schema 1" in done.stderr
        assert done.stderr.endswith(f"remove {folder}\n")
        assert not house.processes()


def redis(path: Path, command: bytes) -> bytes:
    with socket.socket(socket.AF_UNIX) as connection:
        connection.connect(str(path))
        connection.sendall(command + b"\r\n")
        return connection.recv(1000).split(b"\r\n")[0]


def test_up_takes_mail_and_delivers_it_to_the_simulated_internet(tmp_path: Path) -> None:
    with household(tmp_path) as house:
        house.start_ready()
        with smtplib.SMTP("127.0.0.1", house.smtp, timeout=10) as client:
            client.sendmail("a@example.org", "ann@gmail.test", "Subject: hi\r\n\r\nhello\r\n")
        wait_until(lambda: "recipient.delivered" in house.out, "delivered")


def test_up_restarts_what_dies_and_kills_what_it_left(tmp_path: Path) -> None:
    with household(tmp_path) as house:
        house.start_ready()
        (smtpd,) = [number for number, cmd in house.processes().items() if cmd.endswith(" smtpd")]
        os.kill(smtpd, signal.SIGKILL)
        wait_until(
            lambda: any(
                cmd.endswith(" smtpd") and number != smtpd
                for number, cmd in house.processes().items()
            ),
            "another smtpd",
        )
        assert '"program":"smtpd","how":"killed by SIGKILL"' in house.out


def listens(port: int) -> bool:
    with contextlib.suppress(OSError), socket.create_connection(("127.0.0.1", port), 1):
        return True
    return False


def test_up_with_redis_away_keeps_trying_and_refuses_mail_for_now(tmp_path: Path) -> None:
    with household(tmp_path, RELAY_REDIS_URL="redis://127.0.0.1:1") as house:
        house.start_ready()
        wait_until(lambda: listens(house.smtp), "the listener listens")
        with smtplib.SMTP("127.0.0.1", house.smtp, timeout=10) as client:
            with pytest.raises(smtplib.SMTPException) as caught:
                client.sendmail("a@example.org", "ann@gmail.test", "Subject: hi\r\n\r\nhello\r\n")
            code = (
                getattr(caught.value, "smtp_code", None)
                or next(
                    iter(caught.value.args[0].values())  # SMTPRecipientsRefused
                )[0]
            )
            assert 400 <= code < 500
        assert house.end() == 0
        assert not house.processes()


def test_up_restarts_a_killed_redis_with_its_data(tmp_path: Path) -> None:
    with household(tmp_path) as house:
        house.start_ready()
        (path,) = house.data.glob("*/redis.sock")
        assert redis(path, b"SET kept 1") == b"+OK"
        (killed,) = [n for n, command in house.processes().items() if str(path) in command]
        os.kill(killed, signal.SIGKILL)

        def is_back() -> bool:
            with contextlib.suppress(OSError):
                return redis(path, b"GET kept") == b"$1"
            return False

        wait_until(is_back, "Redis with its data")
        with smtplib.SMTP("127.0.0.1", house.smtp, timeout=10) as client:
            wait_until(lambda: accepts(client), "mail is accepted again")


def accepts(client: smtplib.SMTP) -> bool:
    try:
        client.sendmail("a@example.org", "ann@gmail.test", "Subject: hi\r\n\r\nhello\r\n")
    except smtplib.SMTPResponseException:
        return False
    except smtplib.SMTPRecipientsRefused:
        return False
    return True
