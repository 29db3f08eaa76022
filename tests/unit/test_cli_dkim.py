"""`relay dkim`: a key is made, published, and found in order, or not."""

import json
import os
import stat
from collections.abc import Iterator
from pathlib import Path

import pytest

from relay.cli.main import run
from relay.sim.client import SinkClient
from relay.sim.server import background_sink

Captured = pytest.CaptureFixture[str]


@pytest.fixture(autouse=True)
def own_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    for name in list(os.environ):
        if name.startswith("RELAY_"):
            monkeypatch.delenv(name)


@pytest.fixture(scope="module")
def sink() -> Iterator[SinkClient]:
    with background_sink() as client:
        yield client


def made(capsys: Captured, *arguments: str) -> tuple[str, str]:
    """The printed record and the printed lines for relay.toml."""
    assert run(["dkim", "keygen", *arguments]) == 0
    record, _, toml = capsys.readouterr().out.partition("\n# For relay.toml:\n")
    return record, toml


@pytest.mark.parametrize("kind", ["rsa", "ed25519"])
def test_dkim_key_that_was_made_and_published_is_found_in_order(
    kind: str, capsys: Captured, sink: SinkClient
) -> None:
    record, toml = made(capsys, "Example.ORG", "--type", kind, "--selector", f"s-{kind}")
    path = Path(f"example.org.s-{kind}.pem")
    assert stat.S_IMODE(path.stat().st_mode) == 0o600
    Path("relay.toml").write_text(toml)
    name, _, value = record.partition("\n")[2].partition(". IN TXT ")
    assert name == f"s-{kind}._domainkey.example.org"
    check = ["dkim", "check", "--config", "relay.toml", "--set", f"sink.dns={sink.status()['dns']}"]
    check += ["--set", "delivery.mode=sink", "--json"]

    sink.set_dns(name, "TXT", code="NXDOMAIN")
    assert run(check) == os.EX_DATAERR
    row = json.loads(capsys.readouterr().out)
    assert (row["ok"], row["verdict"]) == (False, "no TXT record is published; publish it")
    strings = value.strip("()\n ").split("\n")
    assert all(len(text.strip().strip('"')) <= 255 for text in strings)
    sink.set_dns(name, "TXT", " ".join(strings))
    assert run(check) == 0
    row = json.loads(capsys.readouterr().out)
    assert (row["record"], row["ok"], row["verdict"]) == (name, True, "ok")


def test_dkim_check_tells_what_is_wrong_with_a_record(capsys: Captured, sink: SinkClient) -> None:
    _, toml = made(capsys, "example.org", "--type", "ed25519", "--selector", "bad")
    Path("relay.toml").write_text(toml)
    check = ["dkim", "check", "--config", "relay.toml", "--set", f"sink.dns={sink.status()['dns']}"]
    check += ["--set", "delivery.mode=sink"]
    name = "bad._domainkey.example.org"
    sink.set_dns(name, "TXT", '"v=DKIM1; k=ed25519; p=abcd"')
    assert run(check) == os.EX_DATAERR
    assert "it is of another key: p= differs" in capsys.readouterr().out
    sink.set_dns(name, "TXT", '"one"', '"two"')
    assert run(check) == os.EX_DATAERR
    assert "2 TXT records are published; leave one" in capsys.readouterr().out
    sink.set_dns(name, "TXT", code="SERVFAIL")
    assert run([*check, "--set", "dns.lifetime=2s"]) == os.EX_TEMPFAIL
    assert "DNS gave no answer" in capsys.readouterr().out


def test_dkim_keygen_never_overwrites_a_key(capsys: Captured) -> None:
    made(capsys, "example.org", "--type", "ed25519", "--out", "my.pem")
    before = Path("my.pem").read_bytes()
    assert run(["dkim", "keygen", "example.org", "--type", "ed25519", "--out", "my.pem"]) != 0
    assert "choose another --selector or --out" in capsys.readouterr().err
    assert Path("my.pem").read_bytes() == before


@pytest.mark.parametrize(
    ("arguments", "fault"),
    [
        (["exa mple"], "exa mple: has the invalid label 'exa mple'"),
        (["example.org", "--selector", "a b"], "'a b._domainkey.example.org' has the invalid"),
        (["example.org", "--type", "dsa"], "dsa"),
    ],
)
def test_dkim_keygen_refuses_what_dns_cannot_hold(
    arguments: list[str], fault: str, capsys: Captured
) -> None:
    assert run(["dkim", "keygen", *arguments]) == os.EX_USAGE
    error = capsys.readouterr().err
    assert fault in error and error.count("\n") == 1


def test_dkim_check_without_keys_says_so(capsys: Captured) -> None:
    assert run(["dkim", "check"]) == os.EX_UNAVAILABLE
    assert "there is no [[dkim_keys]] table" in capsys.readouterr().err


def test_dkim_key_file_that_is_missing_is_told_by_config_check(capsys: Captured) -> None:
    Path("relay.toml").write_text('[[dkim_keys]]\ndomain = "example.org"\nfile = "gone.pem"\n')
    assert run(["config", "check", "--config", "relay.toml"]) == os.EX_CONFIG
    error = capsys.readouterr().err
    assert "relay.toml: dkim_keys[1].file: " in error and "No such file" in error
