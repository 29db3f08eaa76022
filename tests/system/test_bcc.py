"""Who is hidden (Bcc) gets the message, and nobody reads of him: by every door."""

import smtplib
from pathlib import Path

import httpx

from relay import AsyncRelay, Message
from tests.support.doors import relay
from tests.support.system import System

FIELDS = {"from": "news@example.org", "subject": "hi", "text": "hello"}


def finished(name: str) -> bytes:
    """A message whose header names the hidden recipient."""
    return (
        f"From: news@example.org\r\nTo: open-{name}@shop.test\r\n"
        f"bcc: Hidden <hidden-{name}@shop.test>,\r\n nobody@shop.test\r\n\r\nhello\r\n"
    ).encode()


async def test_hidden_recipients_get_the_message_and_stand_in_no_copy(
    system: System, tmp_path: Path
) -> None:
    api, smtp = f"http://127.0.0.1:{system.start_http()}", system.start_smtpd()

    def both(name: str) -> dict[str, str]:
        return {"to": f"open-{name}@shop.test", "bcc": f"Hidden <hidden-{name}@shop.test>"}

    async with httpx.AsyncClient(base_url=api, trust_env=False, timeout=30) as client:
        said = await client.post("/v1/messages", json=FIELDS | both("http"))
        assert said.status_code == 202, said.text
    options = [f"--{key}={value}" for key, value in (FIELDS | both("cli")).items()]
    assert relay("send", *options, api=api).code == 0
    path = tmp_path / "message.eml"
    path.write_bytes(finished("file"))
    assert relay("send", "--eml", str(path), "-t", api=api).code == 0
    message = Message(from_="news@example.org", subject="hi", text="hello", **both("python"))
    async with AsyncRelay(system.redis.url, settings=system.settings) as door:
        await door.send(message)
        recipients = [f"{who}-raw@shop.test" for who in ("open", "hidden")]
        await door.send_raw(finished("raw"), recipients=recipients, sender="news@example.org")
    with smtplib.SMTP("127.0.0.1", smtp, timeout=30) as session:
        recipients = [f"{who}-smtp@shop.test" for who in ("open", "hidden")]
        assert session.sendmail("news@example.org", recipients, finished("smtp")) == {}

    doors = ("http", "cli", "file", "python", "raw", "smtp")
    wanted = {f"{who}-{door}@shop.test" for who in ("open", "hidden") for door in doors}
    wanted.add("nobody@shop.test")  # of the header that names the recipients
    await system.until_event("recipient.delivered", len(wanted))
    assert system.sink.counts() == dict.fromkeys(wanted, 1)
    for seen in system.sink.receipts():
        copy = system.sink.content(seen.number).lower()
        assert b"\r\nto: " in copy
        assert b"bcc" not in copy and b"hidden" not in copy and b"nobody" not in copy
