"""Smarthost accounts in keys of their route: each mechanism logs in, each failure only pauses."""

from pathlib import Path

from tests.system.conftest import Start

ROUTE = """
[[routes]]
domain = "{domain}"
name = "{name}"
smarthost = "smtp://{host}:{{smtp_port}}"
username = "{name}"
"""


def route(name: str, *lines: str, host: str = "smarthost.test") -> str:
    text = ROUTE.format(domain=f"{name}.example.test", name=name, host=host)
    return text + "".join(f"{line}\n" for line in lines)


async def test_each_mechanism_logs_in_with_its_own_account(start: Start, tmp_path: Path) -> None:
    (tmp_path / "secret").write_text("secret\n")
    by_file = f'password_file = "{tmp_path}/secret"'
    by_token = f'token_file = "{tmp_path}/secret"'
    config = "".join(
        (
            route("strongest", by_file),
            route("sha1", by_file, 'auth = ["SCRAM-SHA-1"]'),
            route("cram", 'password_env = "SMARTHOST_SECRET"', 'auth = ["CRAM-MD5"]'),
            route("login", 'password = "secret"', 'auth = ["LOGIN"]'),
            route("bearer", by_token),
            route("xoauth2", 'token_env = "SMARTHOST_SECRET"', 'auth = ["XOAUTH2"]'),
        )
    )
    names = ["strongest", "sha1", "cram", "login", "bearer", "xoauth2"]
    system = await start(workers=0, RELAY_CONFIG=config, SMARTHOST_SECRET="secret")
    for name in names:
        system.sink.set_credentials(name, "secret")
    system.start_worker()
    receipt = await system.submit([f"ann@{name}.example.test" for name in names])
    await system.until_delivered(receipt)
    seen = {path: one.auth_user for one in system.sink.receipts() for path in one.forward_paths}
    assert seen == {f"ann@{name}.example.test": name for name in names}


async def test_each_kind_of_failed_login_pauses_its_route_and_bounces_nothing(
    start: Start, tmp_path: Path
) -> None:
    token, missing = tmp_path / "token", tmp_path / "missing"
    token.write_text("expired")
    kinds = {
        "refused": ("authentication_failed", f'token_file = "{token}"'),
        "unreadable": ("credentials_unreadable", f'password_file = "{missing}"'),
        "later": ("authentication_deferred", 'password = "secret"'),
        "unproven": ("authentication_broken", 'password = "secret"'),
        "uncommon": ("authentication_unavailable", 'password = "secret"'),
    }
    config = "".join(
        route(kind, line, host=f"smarthost.{kind}.test") for kind, (_, line) in kinds.items()
    ).replace("smarthost.uncommon", "silent.uncommon")
    system = await start(workers=0, RELAY_CONFIG=config)
    system.expects("site.breaker")
    for kind in kinds:
        system.sink.set_credentials(kind, "secret")
    for kind, reply in (("later", "454 4.7.0 Later"), ("unproven", "235 2.7.0 Welcome")):
        system.sink.add_fault(f"smarthost.{kind}.test", "AUTH", "reply", reply=reply)
    system.start_worker()
    receipt = await system.submit([f"ann@{kind}.example.test" for kind in kinds])
    for kind, (reason, _) in kinds.items():
        await system.until_waiting(receipt, f"ann@{kind}.example.test", reason)
    paused = await system.until_event("route.paused", len(kinds))
    assert {event.data["reason"] for event in paused} == {reason for reason, _ in kinds.values()}
    assert system.sink.receipts(accepted=None) == []

    token.write_text("secret")
    missing.write_text("secret")
    system.sink.clear_faults()
    await system.shift_clock(16)
    mended = [f"ann@{kind}.example.test" for kind in kinds if kind != "uncommon"]
    await system.until(receipt, dict.fromkeys(mended, "delivered"))
    assert system.sink.counts() == dict.fromkeys(mended, 1)
    assert await system.events("recipient.failed", "recipient.deferred") == []
