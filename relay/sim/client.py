"""A client of the control port, for tests in other processes and other languages' wrappers."""

import http.client
from typing import Any, Self
from urllib.parse import quote, urlencode

import msgspec

from relay.model.errors import RelayError
from relay.sim.faults import Fault
from relay.sim.receipts import Receipt


class SinkError(RelayError):
    """Raised when the sink refuses a request or cannot be reached."""


class SinkClient:
    """Receipts, faults and DNS of a running sink; every call is one short HTTP request."""

    def __init__(self, address: str = "127.0.0.1:8455", *, timeout_s: float = 10.0) -> None:
        """`address` is that of the control port (`sink.control`)."""
        self.address = address
        self._timeout_s = timeout_s

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        return None

    # ---- receipts

    def receipts(
        self, *, at_least: int = 0, timeout_s: float = 10.0, limit: int = 1000, **wanted: Any
    ) -> list[Receipt]:
        """Matching receipts, oldest first; waits for `at_least` so many, else TimeoutError.

        Filters: recipient, domain, host, reverse_path, message_id, campaign, session, after (a
        receipt number), accepted (True, False, or None for both).
        """
        query = {key: "any" if value is None else value for key, value in wanted.items()}
        if isinstance(wanted.get("accepted"), bool):
            query["accepted"] = str(wanted["accepted"]).lower()
        query |= {"limit": limit}
        if at_least:
            query |= {"at_least": at_least, "timeout": timeout_s}
        answer = self._call("GET", "/receipts", query=query, wait_s=timeout_s if at_least else 0)
        return msgspec.convert(answer["receipts"], list[Receipt])

    def content(self, number: int) -> bytes:
        """The content of a receipt; SinkError when it is not kept any more."""
        return self._request("GET", f"/receipts/{number}/content", b"", 0)

    def counts(self, domain: str = "") -> dict[str, int]:
        """Recipient -> accepted messages; kept for far longer than receipts."""
        return dict(self._call("GET", "/counts", query={"domain": domain})["accepted"])

    def refusals(self, domain: str = "") -> dict[str, int]:
        """Recipient -> refusals at RCPT."""
        return dict(self._call("GET", "/counts", query={"domain": domain})["refused"])

    def clear(self) -> None:
        """Forget receipts and counts."""
        self._call("DELETE", "/receipts")

    # ---- behaviour

    def add_fault(self, pattern: str, command: str, action: str, **options: Any) -> Fault:
        """Have something go wrong; options: reply, delay, probability, count."""
        request = {"pattern": pattern, "command": command, "action": action, **options}
        return msgspec.convert(self._call("POST", "/faults", body=request), Fault)

    def faults(self) -> list[Fault]:
        """The faults in force, with how often each has fired."""
        return msgspec.convert(self._call("GET", "/faults")["faults"], list[Fault])

    def remove_fault(self, number: int) -> None:
        """Take one fault back."""
        self._call("DELETE", f"/faults/{number}")

    def clear_faults(self, pattern: str | None = None) -> int:
        """Take back the faults of a pattern, or all; how many."""
        query = {} if pattern is None else {"pattern": pattern}
        return int(self._call("DELETE", "/faults", query=query)["removed"])

    def use_profile(self, pattern: str, profile: str) -> None:
        """Give the hosts and domains that match a pattern a profile, such as bad-day."""
        self._call("POST", "/profiles", body={"pattern": pattern, "profile": profile})

    def set_dns(self, name: str, kind: str, *values: str, code: str = "NOERROR") -> None:
        """Have DNS answer with these values (zone-file format), or with this response code."""
        body = {"name": name, "type": kind, "values": values, "code": code}
        self._call("POST", "/dns", body=body)

    def clear_dns(self) -> None:
        """Take back every `set_dns`."""
        self._call("DELETE", "/dns")

    def set_credentials(self, user: str, password: str) -> None:
        """Let a user authenticate at smarthosts."""
        self._call("POST", "/credentials", body={"user": user, "password": password})

    def drop_connections(self, host: str = "") -> int:
        """Reset the open connections to a host, or all; how many."""
        return int(self._call("DELETE", "/connections", query={"host": host})["dropped"])

    def reset(self) -> None:
        """Back to the beginning: no faults, DNS overrides, attempts, receipts or counts."""
        self._call("POST", "/reset")

    # ---- facts

    def status(self) -> dict[str, Any]:
        """Ports, the certificate authority's file, counters."""
        return self._call("GET", "/status")

    def hosts(self) -> dict[str, dict[str, Any]]:
        """Host -> address and use (sessions, connections, peak, messages)."""
        return {host["name"]: host for host in self._call("GET", "/hosts")["hosts"]}

    def address_of(self, host: str) -> str:
        """The address of a host, which listens from now on."""
        return str(self._call("GET", f"/hosts/{quote(host)}")["address"])

    def _call(
        self,
        method: str,
        path: str,
        *,
        query: dict[str, Any] | None = None,
        body: Any = None,
        wait_s: float = 0.0,
    ) -> dict[str, Any]:
        target = f"{path}?{urlencode(query)}" if query else path
        encoded = b"" if body is None else msgspec.json.encode(body)
        answer: dict[str, Any] = msgspec.json.decode(self._request(method, target, encoded, wait_s))
        return answer

    def _request(self, method: str, target: str, body: bytes, wait_s: float) -> bytes:
        connection = http.client.HTTPConnection(self.address, timeout=self._timeout_s + wait_s)
        try:
            headers = {"Content-Type": "application/json"} if body else {}
            connection.request(method, target, body or None, headers)
            response = connection.getresponse()
            content = response.read()
        except (OSError, http.client.HTTPException) as error:
            raise SinkError(f"no sink answers at {self.address}: {error}") from error
        finally:
            connection.close()
        if response.status < 300:
            return content
        message = msgspec.json.decode(content)["error"]
        if response.status == 408:
            raise TimeoutError(message)
        raise SinkError(message)
