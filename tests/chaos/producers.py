"""Clients of all doors that send message after message, each until it is taken."""

import asyncio
import http.client
import json
import smtplib
import time
from collections.abc import Awaitable, Callable

DOMAINS = 200
#: A client that is told to wait, or hears nothing, tries again after this.
AGAIN_S = 0.02
TAKEN, LATER = "taken", "later"


class Producers:
    """Two clients of the SMTP listener and two of the HTTP API.

    `taken`: each address, and when a door answered 250 or 202 for it (monotonic seconds).
    `refused`: answers that tell a client not to try again; there must be none.
    """

    def __init__(self, smtp: int, http: int) -> None:
        self._smtp = smtp
        self._http = http
        self._ends = False
        self.taken: dict[str, float] = {}
        self.refused: list[str] = []

    async def run_while(self, work: Awaitable[None]) -> None:
        """Send as long as the work lasts."""
        senders = [
            asyncio.create_task(asyncio.to_thread(self._send, name, way))
            for name, way in (
                ("smtp0", self._by_smtp),
                ("smtp1", self._by_smtp),
                ("http0", self._by_http),
                ("http1", self._by_http),
            )
        ]
        try:
            await work
        finally:
            self._ends = True
            await asyncio.gather(*senders)

    def _send(self, name: str, way: Callable[[str], str]) -> None:
        number = 0
        while not self._ends:
            address = f"{name}-{number}@slowdot20ms.domain{number % DOMAINS}.test"
            answer = self._until_answered(address, way)
            if answer == TAKEN:
                self.taken[address] = time.monotonic()
            elif answer != LATER:
                self.refused.append(f"{address}: {answer}")
            number += 1

    def _until_answered(self, address: str, way: Callable[[str], str]) -> str:
        """The answer that ends it; LATER: the work is over, nobody knows whether it was taken."""
        while True:
            try:
                answer = way(address)
            except (OSError, smtplib.SMTPException, http.client.HTTPException):
                answer = LATER
            if answer != LATER:
                return answer
            if self._ends:
                return LATER
            time.sleep(AGAIN_S)

    def _by_smtp(self, address: str) -> str:
        content = f"From: news@example.org\r\nTo: {address}\r\nSubject: hi\r\n\r\nhello\r\n"
        try:
            with smtplib.SMTP("127.0.0.1", self._smtp, timeout=10) as client:
                client.sendmail("news@example.org", [address], content)
        except smtplib.SMTPRecipientsRefused as refused:
            code = refused.recipients[address][0]
        except smtplib.SMTPResponseException as refused:
            code = refused.smtp_code
        else:
            return TAKEN
        return f"SMTP {code}" if code >= 500 else LATER

    def _by_http(self, address: str) -> str:
        body = {"from": "news@example.org", "to": [address], "subject": "hi", "text": "hello"}
        headers = {"Content-Type": "application/json", "Idempotency-Key": address}
        connection = http.client.HTTPConnection("127.0.0.1", self._http, timeout=10)
        try:
            connection.request("POST", "/v1/messages", json.dumps(body), headers)
            code = connection.getresponse().status
        finally:
            connection.close()
        return {200: TAKEN, 202: TAKEN, 503: LATER}.get(code, f"HTTP {code}")
