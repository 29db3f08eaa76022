"""Signing at delivery: keys by file and variable, their faults, and taking up new ones."""

import time
from pathlib import Path
from typing import Any

import dkim
import msgspec
import pytest
import structlog

from relay.delivery.sign import KEPT, LARGE, Signer, load_keys, signer_of, signing_rules
from relay.model.errors import ConfigError
from relay.model.message import ClaimedMessage
from relay.settings.loader import load
from relay.settings.schema import Dkim, DkimKey, Settings
from relay.smtp.dkim_key import make_key

RSA = make_key("example.org", "r1", "rsa")
ED25519 = make_key("example.org", "e1", "ed25519")
RECORDS = {f"{key.name}.".encode(): key.record.encode() for key in (RSA, ED25519)}

CONTENT = b"From: a@example.org\r\nSubject: hi\r\n\r\nhello\r\n"
MESSAGE = ClaimedMessage(
    queue_id="0" * 20,
    reverse_path="",
    recipients=(),
    content=CONTENT,
    size=len(CONTENT),
    created=time.time(),
    expires=time.time() + 86_400,
    message_id="<1@x.test>",
    mail_class="transactional",
    tenant="default",
    campaign="",
)


@pytest.fixture
def keys(tmp_path: Path) -> Settings:
    """Settings with both keys of example.org, in files."""
    tables = []
    for key in (RSA, ED25519):
        path = tmp_path / f"{key.selector}.pem"
        path.touch(mode=0o600)
        path.write_bytes(key.pem())
        tables.append(DkimKey(domain="example.org", selector=key.selector, file=str(path)))
    return Settings(dkim_keys=tuple(tables))


def of(settings: Settings, index: int = 0, **changes: str) -> Settings:
    """The settings with one key's table changed."""
    tables = list(settings.dkim_keys)
    tables[index] = msgspec.structs.replace(tables[index], **changes)
    return msgspec.structs.replace(settings, dkim_keys=tuple(tables))


def selectors(content: bytes) -> list[bytes]:
    """Those of the signatures, each of which must be good."""
    message = dkim.DKIM(content)
    count = content.count(b"DKIM-Signature:")
    assert all(message.verify(idx=n, dnsfunc=lambda name, timeout=5: RECORDS.get(name))
               for n in range(count))  # fmt: skip
    return [part.split(b";")[0] for part in content.split(b" s=")[1:]]


async def test_sign_puts_a_signature_of_each_key_on_top(keys: Settings) -> None:
    signer = Signer(keys)
    (signed,) = (await signer.sign([MESSAGE])).values()
    assert selectors(signed.content) == [b"r1", b"e1"]
    assert signed.content.endswith(CONTENT) and signed.size == len(signed.content)
    signer.close()


async def test_sign_takes_large_messages_to_a_thread(keys: Settings) -> None:
    signer = Signer(keys)
    content = CONTENT + b"many words in a line \r\n" * 20_000
    large = msgspec.structs.replace(MESSAGE, content=content, size=len(content))
    (signed,) = (await signer.sign([large])).values()
    assert len(content) > LARGE and selectors(signed.content) == [b"r1", b"e1"]
    signer.close()


async def test_sign_forgets_the_oldest_of_very_many_signatures(keys: Settings) -> None:
    signer = Signer(of(keys, 0, domain="other.test"))
    many = [
        msgspec.structs.replace(MESSAGE, queue_id=f"{number:020}") for number in range(KEPT + 5)
    ]
    assert len(await signer.sign(many)) == KEPT + 5
    assert len(signer._kept) == KEPT
    signer.close()


async def test_sign_makes_the_signature_of_a_message_once(keys: Settings) -> None:
    signer = Signer(of(keys, 0, selector="again"))
    first = await signer.sign([MESSAGE])
    assert await signer.sign([MESSAGE]) == first
    signer.close()


async def test_sign_leaves_mail_of_other_domains_as_it_is(keys: Settings) -> None:
    signer = Signer(keys)
    other = msgspec.structs.replace(MESSAGE, content=b"From: a@other.test\r\n\r\nx\r\n")
    assert await signer.sign([other]) == {}
    signer.close()


def test_sign_without_keys_there_is_no_signer() -> None:
    assert signer_of(Settings()) is None


async def test_sign_takes_up_a_key_that_was_changed_and_keeps_it_over_a_broken_one(
    keys: Settings,
) -> None:
    keys = msgspec.structs.replace(keys, dkim_keys=keys.dkim_keys[:1])
    path = Path(keys.dkim_keys[0].file)
    signer = Signer(keys)
    before = (await signer.sign([MESSAGE]))[MESSAGE.queue_id].content
    path.write_bytes(ED25519.pem())
    signer.look()
    after = (await signer.sign([MESSAGE]))[MESSAGE.queue_id].content
    assert b"a=rsa-sha256" in before and b"a=ed25519-sha256" in after
    with structlog.testing.capture_logs() as lines:
        path.write_bytes(b"half a ke")
        signer.look()
        path.unlink()
        signer.look()
        signer.look()
    assert [line["event"] for line in lines] == ["dkim.keys_refused"] * 2
    assert str(path) in lines[0]["text"] and "is no PEM text" in lines[0]["text"]
    assert b"a=ed25519-sha256" in (await signer.sign([MESSAGE]))[MESSAGE.queue_id].content
    signer.close()


def table_of(*selectors: str, domain: str = "example.org", more: str = "") -> str:
    """The tables of keys in the files named after their selectors."""
    return "".join(
        f'[[dkim_keys]]\ndomain = "{domain}"\nselector = "{name}"\nfile = "{name}.pem"\n{more}'
        for name in selectors
    )


async def signed_by(signer: Signer) -> list[bytes]:
    """The selectors of the good signatures that the message gets now."""
    signed = await signer.sign([MESSAGE])
    return selectors(signed[MESSAGE.queue_id].content) if signed else []


async def test_sign_takes_up_tables_of_the_configuration_file_without_a_restart(
    tmp_path: Path,
) -> None:
    path = tmp_path / "relay.toml"
    path.write_text("")
    environ = {"RELAY_CONFIG": str(path)}
    (tmp_path / "r1.pem").write_bytes(RSA.pem())
    (tmp_path / "r1.pem").chmod(0o600)
    signer = Signer(load(environ=environ).settings, environ)
    assert not signer.has_keys and await signed_by(signer) == []

    def after(text: str) -> list[str]:
        """What is logged when the file has become this."""
        path.write_text(text)
        with structlog.testing.capture_logs() as lines:
            signer.look()
            signer.look()
        return [f"{line['event']} {line.get('text', '')}".strip() for line in lines]

    assert after(table_of("r1")) == ["dkim.keys_changed"]
    assert signer.has_keys and await signed_by(signer) == [b"r1"]
    assert after("[up]\n" + table_of("r1").replace("r1.pem", "r1.pem")) == []
    (refused,) = after(table_of("r1", "e1"))
    assert refused.startswith("dkim.keys_refused") and "e1.pem cannot be read" in refused
    assert await signed_by(signer) == [b"r1"]
    (tmp_path / "e1.pem").touch(mode=0o600)
    (tmp_path / "e1.pem").write_bytes(ED25519.pem())
    assert after(path.read_text()) == ["dkim.keys_changed"]
    assert await signed_by(signer) == [b"r1", b"e1"]
    (refused,) = after("[[dkim_keys]\n")
    assert refused.startswith("dkim.keys_refused") and str(path) in refused
    (refused,) = after(table_of("e1") + '[dkim]\nsign = ["received"]\n')
    assert "dkim.sign: received changes on the way" in refused
    assert await signed_by(signer) == [b"r1", b"e1"]
    assert after(table_of("e1") + "[dkim]\noversign = ['from']\nsign = []\n") == [
        "dkim.keys_changed"
    ]
    (signed,) = (await signer.sign([MESSAGE])).values()
    assert b"h=from:from;" in signed.content and selectors(signed.content) == [b"e1"]
    path.unlink()
    signer.look()
    assert await signed_by(signer) == [b"e1"]
    assert after("") == ["dkim.keys_changed"]
    assert not signer.has_keys and await signed_by(signer) == []
    signer.close()


async def test_sign_uses_the_keys_of_a_tenant_for_its_mail_alone(keys: Settings) -> None:
    signer = Signer(of(keys, 1, tenant="acme"))
    mine = msgspec.structs.replace(MESSAGE, queue_id="1" * 20, tenant="acme")
    signed = await signer.sign([MESSAGE, mine])
    assert selectors(signed[MESSAGE.queue_id].content) == [b"r1"]
    assert selectors(signed[mine.queue_id].content) == [b"e1"]
    signer.close()


def test_key_is_read_from_a_variable_with_or_without_line_ends(keys: Settings) -> None:
    settings = of(keys, 1, file="", variable="DKIM_KEY")
    for text in (ED25519.pem().decode(), ED25519.pem().decode().replace("\n", "\\n")):
        table, doubts = load_keys(settings, {"DKIM_KEY": text})
        assert [key.record for key in table.keys_for("example.org", "x")] == [
            RSA.record,
            ED25519.record,
        ]
        assert doubts == []


def test_key_that_others_may_read_is_doubtful(keys: Settings) -> None:
    path = Path(keys.dkim_keys[0].file)
    path.chmod(0o644)
    _, (doubt,) = load_keys(keys)
    assert doubt == (
        f"dkim_keys[1].file: {path} may be read or changed by others (mode 644); chmod 600 {path}"
    )


@pytest.mark.parametrize(
    ("changes", "fault"),
    [
        ({"file": ""}, r"dkim_keys\[2\]: give the private key as file or as variable"),
        ({"variable": "X"}, r"dkim_keys\[2\]: give .* one of the two"),
        ({"file": "/no/such"}, r"dkim_keys\[2\].file: /no/such cannot be read: No such file"),
        ({"file": "/"}, r"dkim_keys\[2\].file: / cannot be read: Is a directory"),
        ({"file": "a\0b"}, r"dkim_keys\[2\].file: a\\x00b cannot be read"),
        ({"file": __file__}, r"dkim_keys\[2\].file: .*: is no PEM text .* makes one"),
        ({"file": "", "variable": "UNSET"}, r"dkim_keys\[2\].variable: UNSET is not set; set it"),
        ({"file": "", "variable": "RELAY_X"}, r"dkim_keys\[2\].variable: RELAY_X would be taken"),
        ({"selector": "a b"}, r"dkim_keys\[2\].file: .*'a b._domainkey.example.org' has the inv"),
        (
            {"selector": "r1"},
            r"dkim_keys\[2\].selector: r1 of example.org stands in dkim_keys\[1\]",
        ),
    ],
)
def test_key_that_cannot_be_used_is_refused_with_its_place_and_fix(
    keys: Settings, changes: dict[str, str], fault: str
) -> None:
    with pytest.raises(ConfigError, match=f"^{fault}"):
        load_keys(of(keys, 1, **changes), {})


def test_key_file_of_absurd_size_is_refused(keys: Settings, tmp_path: Path) -> None:
    (tmp_path / "big").write_bytes(b"x" * 70_000)
    with pytest.raises(ConfigError, match="is no key: it has over"):
        load_keys(of(keys, file=str(tmp_path / "big")))


def test_default_domain_without_a_key_is_refused(keys: Settings) -> None:
    settings = msgspec.structs.replace(keys, dkim=Dkim(default_domain="other.test"))
    with pytest.raises(ConfigError, match=r"^dkim.default_domain: other.test has no key; add a"):
        load_keys(settings)


@pytest.mark.parametrize(
    ("changes", "fault"),
    [
        ({"oversign": ("to",)}, "dkim.oversign: from is missing"),
        ({"sign": ("received",)}, "dkim.sign: received changes on the way"),
        ({"lifetime": 600.0}, "dkim.lifetime: is under an hour"),
    ],
)
def test_rules_of_no_valid_signature_are_refused(changes: dict[str, Any], fault: str) -> None:
    settings = Settings(dkim=msgspec.structs.replace(Dkim(), **changes))
    with pytest.raises(ConfigError, match=f"^{fault}"):
        signing_rules(settings)


def test_key_file_is_found_beside_the_configuration_file(tmp_path: Path) -> None:
    (tmp_path / "my.pem").write_bytes(RSA.pem())
    path = tmp_path / "relay.toml"
    path.write_text('[[dkim_keys]]\ndomain = "Example.ORG"\nselector = "r1"\nfile = "my.pem"\n')
    settings = load(path, environ={}).settings
    table, _ = load_keys(settings)
    assert [key.record for key in table.keys_for("example.org", "default")] == [RSA.record]


def test_key_table_with_a_wrong_word_is_refused_with_its_line(tmp_path: Path) -> None:
    path = tmp_path / "relay.toml"
    path.write_text('[[dkim_keys]]\ndomain = "example.org"\nfiel = "my.pem"\n')
    with pytest.raises(ConfigError, match=r"relay.toml:3: dkim_keys.fiel: .* did you mean file\?"):
        load(path, environ={})
    path.write_text('[[dkim_keys]]\nfile = "my.pem"\n')
    with pytest.raises(ConfigError, match=r"dkim_keys.domain: is missing: write for example"):
        load(path, environ={})
    with pytest.raises(ConfigError, match="dkim keys stand in the file only"):
        load(environ={"RELAY_DKIM_KEYS": "x"})
