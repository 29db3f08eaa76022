"""The command line: exit codes, one sentence for each fault, nothing heavy at its start."""

import os
import subprocess
import sys
from pathlib import Path

import pytest

from relay import __version__
from relay.cli.faults import CommandFailed, report
from relay.cli.main import run
from relay.model.errors import (
    ConfigError,
    Finding,
    NotFound,
    RelayError,
    ScriptMismatch,
    StoreFull,
    StoreUnavailable,
    SubmissionRefused,
)


@pytest.fixture(autouse=True)
def no_relay_variables(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in list(os.environ):
        if name.startswith("RELAY_"):
            monkeypatch.delenv(name)


def test_cli_version_is_the_package_version(capsys: pytest.CaptureFixture[str]) -> None:
    assert run(["--version"]) == 0
    assert capsys.readouterr().out == f"relay {__version__}\n"


@pytest.mark.parametrize(
    "arguments", [["upp"], ["up", "--lve"], ["up", "extra"], ["config"], ["up", "--set", "smtp"]]
)
def test_cli_fault_of_usage_is_one_sentence_and_exit_code_64(
    arguments: list[str], capsys: pytest.CaptureFixture[str]
) -> None:
    code = run(arguments)
    captured = capsys.readouterr()
    if arguments == ["config"]:  # a group alone shows its help
        assert (code, "docs" in captured.out + captured.err) == (os.EX_USAGE, True)
        return
    assert code == os.EX_USAGE
    assert captured.err.startswith("relay: ")
    assert captured.err.count("\n") == 1


@pytest.mark.parametrize(
    ("error", "code"),
    [
        (ConfigError("relay.toml:1: x"), os.EX_CONFIG),
        (SubmissionRefused(Finding("to", "address_invalid", "no")), os.EX_DATAERR),
        (NotFound("no such message"), os.EX_NOINPUT),
        (StoreUnavailable("no Redis"), os.EX_TEMPFAIL),
        (StoreFull("full"), os.EX_TEMPFAIL),
        (ScriptMismatch("schema"), os.EX_CONFIG),
        (CommandFailed("down"), os.EX_UNAVAILABLE),
        (CommandFailed("what", os.EX_USAGE), os.EX_USAGE),
        (FileNotFoundError(2, "No such file", "x.eml"), os.EX_NOINPUT),
        (PermissionError(13, "Permission denied", "x.eml"), os.EX_NOPERM),
        (OSError(28, "No space left"), os.EX_IOERR),
    ],
)
def test_cli_fault_has_an_exit_code_of_sysexits(
    error: Exception, code: int, capsys: pytest.CaptureFixture[str]
) -> None:
    assert report(error) == code
    assert capsys.readouterr().err.count("\n") == 1


def test_cli_internal_fault_is_one_sentence_without_a_traceback(
    capsys: pytest.CaptureFixture[str],
) -> None:
    assert report(RuntimeError("one\ntwo")) == os.EX_SOFTWARE
    error = capsys.readouterr().err
    assert error.startswith("relay: internal error: RuntimeError: one two")
    assert error.count("\n") == 1


def test_cli_every_exception_of_ours_has_a_sentence(capsys: pytest.CaptureFixture[str]) -> None:
    report(RelayError())
    assert "RelayError" in capsys.readouterr().err


def test_config_show_tells_origins_and_hides_secrets(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    path = tmp_path / "relay.toml"
    path.write_text(
        '[redis]\nurl = "redis://:hunter2@127.0.0.1"\n[[routes]]\ndomain = "*"\n'
        'smarthost = "smtps://u:hunter2@smtp.example.com"\n'
    )
    monkeypatch.setenv("RELAY_LOG_LEVEL", "debug")
    for more in ([], ["--json"]):
        assert run(["config", "show", "--origin", "--config", str(path), *more]) == 0
        shown = capsys.readouterr().out
        assert "hunter2" not in shown
        assert f"{path}:2" in shown
        assert "RELAY_LOG_LEVEL" in shown


def test_config_show_can_be_read_again(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    run(["config", "show", "--set", "smtp.max_errors=7", "--set", "timeouts.connect=90"])
    path = tmp_path / "relay.toml"
    path.write_text(capsys.readouterr().out)
    assert run(["config", "show", "--config", str(path)]) == 0
    assert capsys.readouterr().out == path.read_text()


def test_config_check_finds_what_only_a_daemon_would(
    capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    path = tmp_path / "relay.toml"
    path.write_text(
        '[delivery]\nsmarthost = "smtp://a"\n[[routes]]\ndomain = "*"\nsmarthost = "smtp://b"\n'
    )
    assert run(["config", "check", "--config", str(path)]) == os.EX_CONFIG
    assert "delivery.smarthost: " in capsys.readouterr().err


FAULTS = {
    "[[routes]]\ndomain = '*'\nsmarthost = 'smtps://u@h'\n": (
        "{file}: routes[1].smarthost: the URL has a user name without a password"
    ),
    "[dns]\nnameservers = ['resolver.example']\n": "{file}:2: dns.nameservers: ",
    "[smtp]\nallowed_networks = ['0.0.0.0/0']\n": "{file}:2: smtp.allowed_networks: 0.0.0.0/0 is",
    "[smtp]\nallowed_networks = ['10.0.0.1/8/8']\n": "{file}:2: smtp.allowed_networks: ",
    "[redis]\nreplica_timeout = '30s'\n": "{file}:2: redis.replica_timeout: ",
    "[delivery]\nhostname = 'not a name'\n": "{file}:2: delivery.hostname: 'not a name' cannot",
    "[http]\nlisten = '0.0.0.0:8425'\n": "{file}:2: http.listen: 0.0.0.0:8425 is reachable",
    "[sink]\ndns = '192.0.2.1:53'\n": "{file}:2: sink.dns: the simulated internet stays on",
    "[files]\nshaping = '{folder}/shaping.toml'\n": (
        "{folder}/shaping.toml: [\"default\"]: unknown key 'max_conections'; "
        "did you mean 'max_connections'?"
    ),
    "[files]\nreplies = '{folder}/replies.toml'\n": "{folder}/replies.toml: unknown key 'rule'; ",
}


@pytest.mark.parametrize("text", FAULTS)
@pytest.mark.parametrize("verb", [["config", "check"], ["up"], ["smtpd"], ["http"], ["worker"]])
def test_fault_of_the_configuration_is_one_line_before_anything_starts(
    text: str,
    verb: list[str],
    capsys: pytest.CaptureFixture[str],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    path = tmp_path / "relay.toml"
    folder = tmp_path / "rules"
    folder.mkdir()
    path.write_text(text.replace("{folder}", str(folder)))
    (folder / "shaping.toml").write_text('["default"]\nmax_conections = 3\n')
    (folder / "replies.toml").write_text("[rule]\n")
    monkeypatch.setenv("RELAY_DELIVERY_MODE", "sink")
    monkeypatch.setenv("RELAY_REDIS_URL", "redis://127.0.0.1:1")
    monkeypatch.setenv("RELAY_UP_DATA_DIR", str(tmp_path / "data"))
    assert run([*verb, "--config", str(path)]) == os.EX_CONFIG
    (sentence,) = capsys.readouterr().err.splitlines()
    expected = FAULTS[text].replace("{file}", str(path)).replace("{folder}", str(folder))
    assert sentence.startswith(f"relay: {expected}")
    assert not (tmp_path / "data").exists()


@pytest.mark.parametrize("verb", [["config", "check"], ["up"]])
def test_replicas_are_not_asked_of_the_private_redis(
    verb: list[str],
    capsys: pytest.CaptureFixture[str],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setenv("RELAY_REDIS_REPLICAS", "1")
    monkeypatch.setenv("RELAY_UP_DATA_DIR", str(tmp_path / "data"))
    assert run(verb) == os.EX_CONFIG
    (sentence,) = capsys.readouterr().err.splitlines()
    assert "redis.replicas: is 1, and the private Redis of `relay up` has none" in sentence
    assert not (tmp_path / "data").exists()


def test_config_check_says_ok_where_nothing_is_wrong(capsys: pytest.CaptureFixture[str]) -> None:
    assert run(["config", "check"]) == 0
    assert capsys.readouterr().out.startswith("ok: ")


@pytest.mark.parametrize("arguments", [["status"], ["message", "ls"], ["queue", "ls"]])
def test_command_without_relay_running_is_one_sentence_and_exit_code_69(
    arguments: list[str], capsys: pytest.CaptureFixture[str]
) -> None:
    assert run([*arguments, "--api", "http://127.0.0.1:1"]) == os.EX_UNAVAILABLE
    assert "nothing answers at http://127.0.0.1:1" in capsys.readouterr().err


def test_cli_start_imports_nothing_heavy() -> None:
    heavy = "asyncio celery redis fastapi uvicorn httpx structlog dns cryptography rich uvloop"
    code = f"import sys, relay.cli.main; print(*(n for n in '{heavy}'.split() if n in sys.modules))"
    done = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, check=True, timeout=30
    )
    assert done.stdout.strip() == ""


@pytest.mark.parametrize("verb", [["queue", "ls"], ["queue", "show"], ["queue", "suspend"]])
def test_cli_help_keeps_words_in_brackets(
    verb: list[str], capsys: pytest.CaptureFixture[str]
) -> None:
    assert run([*verb, "--help"]) == 0
    assert "[name] of a route" in " ".join(capsys.readouterr().out.replace("│", "").split())
