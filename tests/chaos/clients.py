"""Clients that go on sending, each message until it is taken; every answer is kept."""

import asyncio
import http.client
import json
import smtplib
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import msgspec

DOMAINS = 50
_PATIENCE_S = 60
_PAUSE_S = 0.05


class Answer(msgspec.Struct, frozen=True):
    """What a door said of one attempt to hand a message over; code 0: it closed the connection."""

    at: float
    door: str
    code: int
    retry_after: str = ""

    @property
    def is_taken(self) -> bool:
        return self.code in (250, 202, 200)

    @property
    def is_for_now(self) -> bool:
        """Whether it says that the mail would be taken later: 4yz, 503 and when, or nothing."""
        if self.door == "smtp":
            return self.code == 0 or 400 <= self.code < 500
        return self.code == 0 or (self.code == 503 and int(self.retry_after or 0) > 0)


class Clients:
    """`taken`: addresses of what was taken, one message each; `answers`: all that was said."""

    def __init__(self, smtp: int, http: int) -> None:
        self._smtp, self._http = smtp, http
        self._ends = False
        self.taken: list[str] = []
        self.answers: list[Answer] = []

    def between(self, begin: float, end: float) -> list[Answer]:
        """What was said between two moments (monotonic)."""
        return [answer for answer in self.answers if begin < answer.at < end]

    async def until_taken(self, since: float, *, within_s: float) -> float:
        """Wait until both doors take mail again; the seconds it took since that moment."""
        async with asyncio.timeout(within_s):
            while True:
                found: dict[str, float] = {}
                for answer in self.between(since, float("inf")):
                    if answer.is_taken:
                        found.setdefault(answer.door, answer.at - since)
                if len(found) == 2:
                    return max(found.values())
                await asyncio.sleep(0.05)

    def send(self, name: str) -> None:
        """One client's life."""
        ask = self._by_smtp if name.startswith("smtp") else self._by_http
        number = 0
        while not self._ends:
            address = f"{name}-{number}@domain{number % DOMAINS}.test"
            answer = ask(address)
            self.answers.append(answer)
            if answer.is_taken:
                self.taken.append(address)
                number += 1
            time.sleep(_PAUSE_S)

    def stop(self) -> None:
        self._ends = True

    def _by_smtp(self, address: str) -> Answer:
        content = f"From: news@example.org\r\nTo: {address}\r\nSubject: hi\r\n\r\nhello\r\n"
        code = 250
        try:
            with smtplib.SMTP("127.0.0.1", self._smtp, timeout=_PATIENCE_S) as client:
                client.sendmail("news@example.org", [address], content)
        except smtplib.SMTPResponseException as refused:
            code = refused.smtp_code
        except smtplib.SMTPRecipientsRefused as refused:
            code = refused.recipients[address][0]
        except (OSError, smtplib.SMTPException):
            code = 0
        return Answer(time.monotonic(), "smtp", code)

    def _by_http(self, address: str) -> Answer:
        body = {"from": "news@example.org", "to": [address], "subject": "hi", "text": "hello"}
        headers = {"Content-Type": "application/json", "Idempotency-Key": address}
        connection = http.client.HTTPConnection("127.0.0.1", self._http, timeout=_PATIENCE_S)
        try:
            connection.request("POST", "/v1/messages", json.dumps(body), headers)
            reply = connection.getresponse()
            wait = reply.getheader("Retry-After") or ""
            return Answer(time.monotonic(), "http", reply.status, wait)
        except (OSError, http.client.HTTPException):
            return Answer(time.monotonic(), "http", 0)
        finally:
            connection.close()


@asynccontextmanager
async def clients(smtp: int, http: int) -> AsyncIterator[Clients]:
    """Two clients at each door, as long as the block runs."""
    some = Clients(smtp, http)
    names = ("smtp0", "smtp1", "http0", "http1")
    sending = [asyncio.create_task(asyncio.to_thread(some.send, name)) for name in names]
    try:
        yield some
    finally:
        some.stop()
        await asyncio.gather(*sending)
