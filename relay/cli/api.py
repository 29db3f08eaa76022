"""The command line's side of the HTTP API: one client, its faults as sentences and exit codes."""

import os
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any
from urllib.parse import quote

import typer

from relay.cli.faults import CommandFailed

if TYPE_CHECKING:
    import httpx

DEFAULT_API = "http://127.0.0.1:8425"
ApiUrl = Annotated[
    str, typer.Option("--api", envvar="RELAY_API", metavar="URL", help="Where relay http is.")
]
#: Statuses whose exit code is not DATAERR.
_EXIT_CODES = {
    401: os.EX_NOPERM,
    403: os.EX_NOPERM,
    404: os.EX_NOINPUT,
    429: os.EX_TEMPFAIL,
    500: os.EX_SOFTWARE,
    502: os.EX_TEMPFAIL,
    503: os.EX_TEMPFAIL,
    504: os.EX_TEMPFAIL,
}


class Refused(CommandFailed):
    """Raised when the API answers with an error; carries its status."""

    def __init__(self, sentence: str, exit_code: int, status: int) -> None:
        super().__init__(sentence, exit_code)
        self.status = status


class Api:
    """A connection to `relay http`; every fault is a CommandFailed."""

    def __init__(self, url: str) -> None:
        import httpx

        self._url = url.rstrip("/")
        headers = {"Authorization": f"Bearer {key}"} if (key := _key()) else {}
        try:
            # A wait of the API lasts up to 60 s; proxies are for the Internet.
            self._client = httpx.Client(
                base_url=self._url, timeout=90.0, trust_env=False, headers=headers
            )
        except (httpx.InvalidURL, ValueError) as error:
            raise CommandFailed(f"--api: {url} is no URL: {error}", os.EX_USAGE) from None

    def __enter__(self) -> "Api":
        return self

    def __exit__(self, *exc_info: object) -> None:
        self._client.close()

    def get(self, *path: str, **query: Any) -> Any:
        """The JSON of a GET; empty query values are left out."""
        return self._ask("GET", path, params=_given(query))

    def post(self, *path: str, said: dict[str, Any] | None = None) -> Any:
        """The JSON answer to a POST with a JSON body."""
        return self._ask("POST", path, json=said or {})

    def post_raw(
        self, content: bytes, query: list[tuple[str, str]], headers: dict[str, str]
    ) -> Any:
        """The JSON answer to a finished message."""
        headers = {"Content-Type": "message/rfc822", **headers}
        return self._ask(
            "POST", ("messages", "raw"), params=query, content=content, headers=headers
        )

    def send(self, message: dict[str, Any], headers: dict[str, str]) -> Any:
        """The JSON answer to a message in fields."""
        return self._ask("POST", ("messages",), json=message, headers=headers)

    def delete(self, *path: str, **query: Any) -> Any:
        """The JSON answer to a DELETE."""
        return self._ask("DELETE", path, params=_given(query))

    def _ask(self, method: str, path: tuple[str, ...], **more: Any) -> Any:
        import httpx

        place = "/v1/" + "/".join(quote(part, safe="") for part in path)
        try:
            response = self._client.request(method, place, **more)
        except httpx.UnsupportedProtocol:
            raise CommandFailed(f"--api: {self._url} is no http URL", os.EX_USAGE) from None
        except httpx.HTTPError as error:
            raise CommandFailed(
                f"nothing answers at {self._url} ({error}); is relay up? (relay up, or --api URL)"
            ) from None
        if response.status_code >= 400:
            raise _refused(response)
        try:
            return response.json()
        except ValueError:
            raise CommandFailed(
                f"{self._url} answers, but it is no relay", os.EX_PROTOCOL
            ) from None


def _refused(response: "httpx.Response") -> Refused:
    try:
        problem = response.json()
        sentence = str(problem["detail"])
    except (ValueError, KeyError, TypeError):
        sentence = f"the API answers {response.status_code} without saying why"
    status = response.status_code
    return Refused(sentence, _EXIT_CODES.get(status, os.EX_DATAERR), status)


def _given(query: dict[str, Any]) -> dict[str, Any]:
    return {name: value for name, value in query.items() if value not in ("", None)}


def _key() -> str:
    """The key of `RELAY_API_KEY`, or of the file that `RELAY_API_KEY_FILE` names."""
    if path := os.environ.get("RELAY_API_KEY_FILE"):
        return Path(path).read_text(encoding="utf-8").strip()
    return os.environ.get("RELAY_API_KEY", "")
