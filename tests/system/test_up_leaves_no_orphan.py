"""However `relay up` dies, nothing that it started lives on."""

import os
import signal
from pathlib import Path

from tests.support.household import household, wait_until


def test_up_killed_leaves_no_process(tmp_path: Path) -> None:
    with household(tmp_path, RELAY_SMTP_PROCESSES="2") as house:
        house.start_ready()
        commands = " ".join(house.processes().values())
        assert "redis-server" in commands or "valkey-server" in commands
        assert "celery" in commands
        house.process.kill()
        house.process.wait()
        wait_until(lambda: not house.processes(), "no process is left", within_s=5)


def test_up_and_keeper_killed_together_leave_no_process(tmp_path: Path) -> None:
    with household(tmp_path) as house:
        house.start_ready()
        (keeper,) = [n for n, command in house.processes().items() if "keeper.py" in command]
        os.kill(keeper, signal.SIGKILL)
        house.process.kill()
        house.process.wait()
        wait_until(lambda: not house.processes(), "no process is left", within_s=5)


def test_up_killed_starts_again_on_the_same_data(tmp_path: Path) -> None:
    with household(tmp_path) as house:
        house.start_ready()
        house.process.kill()
        house.process.wait()
        house.start_ready()
        assert house.end() == 0


def test_up_killed_while_it_starts_leaves_no_process(tmp_path: Path) -> None:
    with household(tmp_path) as house:
        house.start()
        wait_until(lambda: len(house.processes()) > 3, "some programs")
        house.process.kill()
        house.process.wait()
        wait_until(lambda: not house.processes(), "no process is left", within_s=5)


def test_up_asked_twice_to_stop_stops_at_once(tmp_path: Path) -> None:
    with household(tmp_path, RELAY_UP_DRAIN="1h") as house:
        house.start_ready()
        (smtpd,) = [n for n, command in house.processes().items() if command.endswith(" smtpd")]
        os.kill(smtpd, signal.SIGSTOP)  # it will not hear SIGTERM
        house.process.send_signal(signal.SIGTERM)
        wait_until(lambda: "up.stopping" in house.out, "stopping")
        assert house.end() == 0
        assert not house.processes()
