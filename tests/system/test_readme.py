"""The README's first screens work as they are written, at other ports."""

import os
import re
import shlex
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import httpx
import pytest

from tests.support.household import Household, household, wait_until
from tests.support.processes import ROOT

README = (ROOT / "README.md").read_text(encoding="utf-8")
EML = "From: a@example.org\nTo: ann@gmail.test\nSubject: x\n\nhello\n"


@pytest.fixture(scope="module")
def house(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Household]:
    with household(tmp_path_factory.mktemp("readme")) as running:
        running.start_ready()
        yield running


def block(start: str) -> str:
    """The indented or fenced block of the README that begins so, up to the next empty line."""
    at = re.search(rf"^ *{re.escape(start)}", README, re.MULTILINE)
    assert at, f"the README has no block that begins with {start!r}"
    lines = README[at.start() :].splitlines()
    end = next(
        n for n, line in enumerate(lines) if (n and line[:1] not in ("", " ")) or line == "```"
    )
    indent = len(lines[0]) - len(lines[0].lstrip())
    return "\n".join(line[indent:] for line in lines[:end]).strip()


def run(house: Household, command: list[str] | str, **more: str) -> str:
    """Run what the README shows; what it printed."""
    text = command if isinstance(command, str) else shlex.join(command)
    text = text.replace(":8425", f":{house.http}").replace(":2525", f":{house.smtp}")
    scripts = Path(sys.executable).parent
    done = subprocess.run(
        ["sh", "-ec", text.replace(".venv/bin/relay", "relay")],
        env={
            **house.environment,
            "PATH": f"{scripts}:{os.environ['PATH']}",
            "RELAY_API": f"http://127.0.0.1:{house.http}",
            **more,
        },
        cwd=house.data.parent,
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    assert done.returncode == 0, f"{text}\n{done.stdout}{done.stderr}"
    return done.stdout


def delivered(house: Household) -> int:
    return house.out.count('"recipient.delivered"')


def test_first_command_tells_that_both_are_delivered(house: Household) -> None:
    told = run(house, block(".venv/bin/relay send --from"))
    assert "ann@gmail.test delivered to " in told and "bob@slow.test delivered to " in told


def test_finished_message_is_delivered(house: Household) -> None:
    (house.data.parent / "message.eml").write_text(EML)
    before = delivered(house)
    run(house, block("relay send --eml"))
    wait_until(lambda: delivered(house) > before, "delivered: --eml")


def test_http_example_delivers(house: Household) -> None:
    """What curl would send, without needing curl."""
    words = shlex.split(block("curl http").replace("\\\n", " "))
    assert words[2::2] == ["-H", "-d"]
    name, _, value = words[3].partition(": ")
    before = delivered(house)
    url = words[1].replace(":8425", f":{house.http}")
    answer = httpx.post(url, headers={name: value}, content=words[5], trust_env=False)
    assert answer.status_code == 202, answer.text
    wait_until(lambda: delivered(house) > before, "delivered: HTTP")


def test_python_example_delivers(house: Household) -> None:
    (house.data.parent / "example.py").write_text(block("from relay import Message"))
    before = delivered(house)
    run(house, [sys.executable, "example.py"])
    wait_until(lambda: delivered(house) > before, "delivered: Python")


def test_what_is_where_is_told(house: Household) -> None:
    commands = [line.partition("#")[0].strip() for line in block("relay message ls").splitlines()]
    for command in commands:
        verbs = re.search(r"\S+(\|\S+)+", command)
        for verb in verbs[0].split("|") if verbs else [""]:
            text = command.replace(verbs[0], verb) if verbs else command
            id = run(house, "relay send --from a@b.test --to tempfail@c.test --text x").split()[0]
            if verb == "release":
                run(house, f"relay message hold {id}")
            text = text.replace("send …", "send --from a@b.test --to d@c.test --text x")
            assert run(house, text.replace("ID", id).replace(" …", " --domain c.test"))
