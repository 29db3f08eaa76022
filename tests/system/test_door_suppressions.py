"""The suppression list over HTTP, the command line and Python: what they take, show and refuse."""

import csv
import io
import json
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import httpx
import pytest

from relay import AsyncRelay, Message, Relay
from relay.cli.main import run
from relay.model.errors import SubmissionRefused
from relay.settings.schema import Delivery, Mode, Settings, Suppression
from tests.support.doors import Doors, running_doors

PATH = "/v1/suppressions"
Command = Callable[..., tuple[int, str, str]]


@pytest.fixture(scope="module")
def doors(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Doors]:
    with running_doors(tmp_path_factory.mktemp("doors")) as running:
        yield running


@pytest.fixture(scope="module")
def daemon(doors: Doors) -> Iterator[httpx.Client]:
    with doors.http(RELAY_SUPPRESSION_ENTRIES="2500") as client:
        yield client


@pytest.fixture
def http(doors: Doors, daemon: httpx.Client) -> httpx.Client:
    """The API over an empty list."""
    with doors.redis.client() as redis:
        for kind in ("sup", "sups", "supx"):
            redis.delete(f"relay:sink:{{r0}}:{kind}:default")
    return daemon


@pytest.fixture
def relay(
    http: httpx.Client, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> Command:
    """Run the command line; its exit code and what it printed."""
    monkeypatch.setenv("RELAY_API", str(http.base_url))

    def command(*arguments: str, given: str = "") -> tuple[int, str, str]:
        monkeypatch.setattr("sys.stdin", io.TextIOWrapper(io.BytesIO(given.encode())))
        code = run(["suppress", *arguments])
        return code, *capsys.readouterr()

    return command


def add(http: httpx.Client, address: str, **more: Any) -> dict[str, Any]:
    answer = http.post(PATH, json={"address": address, **more})
    assert answer.status_code == 201, answer.text
    return dict(answer.json())


def addresses(http: httpx.Client, query: str = "") -> list[str]:
    answer = http.get(PATH + query)
    assert answer.status_code == 200, answer.text
    return [entry["address"] for entry in answer.json()["suppressions"]]


def refusal(answer: httpx.Response) -> tuple[int, str, str]:
    """Status, field and message of the first fault."""
    body = answer.json()
    first = body["errors"][0] if body["errors"] else {"field": "", "message": body["detail"]}
    return answer.status_code, first["field"], first["message"]


# -- HTTP ------------------------------------------------------------------------------------


def test_entry_is_shown_as_it_was_put_there(http: httpx.Client) -> None:
    entry = add(http, "Ann@Example.ORG", reason="unsubscribed", note="by phone", duration="30d")
    assert entry["address"] == "ann@example.org"
    assert (entry["reason"], entry["origin"], entry["note"]) == (
        "unsubscribed",
        "manual",
        "by phone",
    )
    assert entry["until"] > entry["since"]
    assert http.get(f"{PATH}/ANN@example.org").json() == entry
    assert http.get(PATH).json() == {"suppressions": [entry], "next": None}
    types = [e["type"] for e in http.get("/v1/events?limit=1000").json()["events"]]
    assert types[-1] == "suppression.added"


def test_address_is_answered_with_the_entry_of_its_domain(http: httpx.Client) -> None:
    add(http, "example.org")
    assert http.get(f"{PATH}/x%2Fy@example.org").json()["address"] == "@example.org"
    assert http.get(f"{PATH}/@example.org").json()["until"] is None
    assert http.delete(f"{PATH}/x@example.org").status_code == 404


def test_removed_entry_is_gone_and_a_second_removal_not_found(http: httpx.Client) -> None:
    add(http, "ann@example.org")
    assert http.delete(f"{PATH}/ann@example.org").json() == {"removed": 1}
    for method in ("GET", "DELETE"):
        answer = http.request(method, f"{PATH}/ann@example.org")
        assert refusal(answer) == (404, "", "ann@example.org is not on the suppression list")


def test_pages_follow_each_other_by_cursor_and_link(http: httpx.Client) -> None:
    for number in range(5):
        add(http, f"r{number}@example.org", reason="spam" if number % 2 else "other")
    page = http.get(f"{PATH}?limit=2&reason=other")
    assert [entry["address"] for entry in page.json()["suppressions"]] == [
        "r4@example.org",
        "r2@example.org",
    ]
    assert page.json()["next"]
    following = http.get(page.links["next"]["url"]).json()
    assert [entry["address"] for entry in following["suppressions"]] == ["r0@example.org"]
    assert following["next"] is None
    assert addresses(http, "?domain=example.org&origin=import") == []


def test_import_keeps_times_and_origin_and_is_taken_once(http: httpx.Client) -> None:
    rows = [
        {"address": "a@example.org", "reason": "spam", "origin": "complaint"},
        {
            "address": "b@example.org",
            "since": "2024-02-03T04:05:06Z",
            "until": "2099-01-01T00:00:00",
        },
    ]
    answer = http.post(f"{PATH}/import", json={"suppressions": rows})
    assert answer.json() == {"added": 2, "changed": 0}
    entry = http.get(f"{PATH}/b@example.org").json()
    assert (entry["origin"], entry["since"]) == ("import", "2024-02-03T04:05:06Z")
    assert entry["until"] == "2099-01-01T00:00:00Z"
    again = http.post(f"{PATH}/import", json={"suppressions": rows[1:]})
    assert again.json() == {"added": 0, "changed": 0}


@pytest.mark.parametrize(
    ("body", "field", "fault"),
    [
        ({}, "address", "is missing"),
        ({"address": "ann smith@example.org"}, "address", "is not a mail address"),
        ({"address": "no domain"}, "address", "neither an address nor a domain"),
        ({"address": "a@b.test", "reason": "rude"}, "reason", "'rude' is no reason"),
        ({"address": "a@b.test", "duration": "-1h"}, "duration", ""),
        ({"address": "a@b.test", "note": "two\nlines"}, "note", "is no line of text"),
        ({"address": "a@b.test", "until": "x"}, "until", "is no field here"),
    ],
)
def test_entry_at_fault_is_refused_with_field_and_fault(
    http: httpx.Client, body: dict[str, Any], field: str, fault: str
) -> None:
    status, named, message = refusal(http.post(PATH, json=body))
    assert (status, named) == (422, field)
    assert fault in message
    assert addresses(http) == []


def test_import_with_a_row_at_fault_takes_none_and_names_each(http: httpx.Client) -> None:
    rows = [{"address": "a@b.test"}, {"address": "@"}, {"address": "c@b.test", "note": "\x00"}]
    answer = http.post(f"{PATH}/import", json={"suppressions": rows})
    assert answer.status_code == 422
    fields = [error["field"] for error in answer.json()["errors"]]
    assert fields == ["suppressions[1].address", "suppressions[2].note"]
    assert addresses(http) == []


@pytest.mark.parametrize(
    "query", ["?reason=rude", "?origin=x", "?cursor=x", "?limit=0", "?domain=a..b", "?tenant=x"]
)
def test_query_at_fault_is_refused(http: httpx.Client, query: str) -> None:
    assert http.get(PATH + query).status_code == 422


def test_full_list_is_a_conflict(http: httpx.Client) -> None:
    rows = [{"address": f"r{number}@example.org"} for number in range(1000)]
    for page in range(2):
        some = [{"address": f"{page}{row['address']}"} for row in rows]
        assert http.post(f"{PATH}/import", json={"suppressions": some}).status_code == 200
    status, _, message = refusal(http.post(f"{PATH}/import", json={"suppressions": rows}))
    assert status == 409
    assert "it has 2500 entries (suppression.entries)" in message and "500 of yours" in message


def test_send_tells_who_is_suppressed(http: httpx.Client) -> None:
    add(http, "ann@example.org")
    said = {"from": "news@example.org", "to": ["ann@example.org", "bob@gmail.test"], "text": "hi"}
    answer = http.post("/v1/messages", json=said)
    assert answer.status_code == 202
    statuses = {item["address"]: item["status"] for item in answer.json()["recipients"]}
    assert statuses == {"ann@example.org": "suppressed", "bob@gmail.test": "ready"}


# -- the command line ------------------------------------------------------------------------


def test_commands_add_show_list_and_remove(relay: Command, http: httpx.Client) -> None:
    code, out, _ = relay("add", "Ann@example.org", "--reason", "unsubscribed", "--for", "30d")
    assert code == 0 and out.startswith("ann@example.org gets no mail until 2")
    code, out, _ = relay("add", "gone.test", "--json")
    assert code == 0 and json.loads(out)["address"] == "@gone.test"
    code, out, _ = relay("show", "someone@gone.test")
    assert code == 0 and "address   @gone.test" in out and "until     for good" in out
    code, out, _ = relay("list", "--reason", "unsubscribed")
    assert code == 0 and len(out.splitlines()) == 2 and "ann@example.org" in out
    code, out, _ = relay("remove", "ann@example.org", "gone.test")
    assert code == 0 and out.splitlines()[1] == "@gone.test may get mail again"
    assert addresses(http) == []


def test_what_is_exported_is_imported_as_it_was(
    relay: Command, http: httpx.Client, tmp_path: Path
) -> None:
    rows = [
        {"address": f"r{number}@example.org", "origin": "bounce", "note": 'a "b", c'}
        for number in range(1000)
    ]
    http.post(f"{PATH}/import", json={"suppressions": rows})
    add(http, "gone.test", duration="9d")
    file = tmp_path / "list.csv"
    assert relay("export", str(file))[0] == 0
    table = list(csv.DictReader(file.read_text("utf-8").splitlines()))
    assert len(table) == 1001 and table[0]["address"] == "@gone.test"
    before = http.get(f"{PATH}?limit=1000").json()
    assert relay("remove", "gone.test")[0] == 0
    code, out, _ = relay("import", str(file))
    assert (code, out) == (0, "imported: 1 new, 0 changed, 1000 as before\n")
    assert http.get(f"{PATH}?limit=1000").json()["suppressions"] == before["suppressions"]
    code, out, _ = relay("export", "--json")
    assert code == 0 and len(out.splitlines()) == 1001


@pytest.mark.parametrize(
    "text",
    [
        "a@example.org\nb@example.org\n",
        "\ufeffEmail,Created,Reason\r\na@example.org,2024,spam\r\n\r\nB@example.org,x,spam\r\n",
        "reason,address\nspam,a@example.org\nspam,b@example.org",
    ],
)
def test_lists_of_others_are_imported(relay: Command, http: httpx.Client, text: str) -> None:
    code, out, err = relay("import", "-", "--reason", "spam", "--json", given=text)
    assert (code, err) == (0, "")
    assert json.loads(out) == {"rows": 2, "added": 2, "changed": 0}
    assert sorted(addresses(http, "?reason=spam&origin=import")) == [
        "a@example.org",
        "b@example.org",
    ]


@pytest.mark.parametrize(
    ("text", "fault"),
    [
        ("address\na@example.org\nnobody here\n", "line 3: address: 'nobody here' is neither"),
        ("address,reason\na@example.org,rude\n", "line 2: reason: 'rude' is no reason (one of inv"),
        ("address,since\na@example.org,yesterday\n", "line 2: since: 'yesterday' is no time"),
        ("address,note\na@example.org," + "x" * 201, "line 2: note: is no line of text"),
    ],
)
def test_import_names_the_line_at_fault_and_takes_nothing(
    relay: Command, http: httpx.Client, text: str, fault: str
) -> None:
    code, out, err = relay("import", "-", given=text)
    assert (code, out) == (65, "")
    assert err.startswith(f"relay: {fault}") and "nothing was imported" in err
    assert "Traceback" not in err
    assert addresses(http) == []


@pytest.mark.parametrize(
    ("arguments", "code", "said"),
    [
        (("add", "no domain"), 65, "neither an address nor a domain"),
        (("add", "a@b.test", "--reason", "rude"), 65, "(one of invalid, bounced,"),
        (("add", "a@b.test", "--for", "soon"), 65, "duration"),
        (("show", "a@b.test"), 66, "is not on the suppression list"),
        (("remove", "a@b.test"), 66, "is not on the suppression list"),
        (("import", "/nowhere.csv"), 66, "/nowhere.csv"),
        (("list", "--origin", "x"), 65, "origin"),
    ],
)
def test_command_at_fault_says_so_in_one_line(
    relay: Command, arguments: tuple[str, ...], code: int, said: str
) -> None:
    ended, out, err = relay(*arguments)
    assert (ended, out) == (code, "")
    assert said in err and err.count("\n") == 1


def test_what_is_queued_for_an_address_is_cancelled_where_that_is_asked(
    relay: Command, http: httpx.Client
) -> None:
    ids = []
    for to in (["Ann@queued.test", "bob@queued.test"], ["eve@queued.test"]):
        said = {"from": "news@example.org", "to": to, "text": "hi"}
        ids.append(http.post("/v1/messages", json=said).json()["id"])
    assert relay("add", "ann@queued.test")[0] == 0
    assert relay("add", "ann@queued.test", "--cancel-queued")[1].endswith(
        "cancelled: 1 recipient that waited\n"
    )
    first = http.get(f"/v1/messages/{ids[0]}").json()["recipients"]
    assert [item["status"] for item in first] == ["cancelled", "ready"]
    _, out, _ = relay("add", "queued.test", "--cancel-queued", "--json")
    assert json.loads(out)["cancelled"] == 2


# -- Python ----------------------------------------------------------------------------------

SETTINGS = Settings(
    delivery=Delivery(mode=Mode.SINK, hostname="relay.example"), suppression=Suppression(entries=9)
)


async def test_async_client_suppresses_looks_and_takes_back(
    doors: Doors, http: httpx.Client
) -> None:
    async with AsyncRelay(doors.redis.url, settings=SETTINGS) as relay:
        entry = await relay.suppress("Ann@Example.org", reason="spam", keep_s=60.0, note="asked")
        assert (entry.name, entry.reason, entry.origin) == ("ann@example.org", "spam", "manual")
        assert await relay.suppression("ann@example.org") == entry
        assert await relay.suppressions() == ([entry], "")
        with pytest.raises(SubmissionRefused, match="is on the suppression list"):
            await relay.send(Message(from_="news@example.org", to="ann@example.org", text="hello"))
        assert await relay.unsuppress("ann@example.org")
        assert not await relay.unsuppress("ann@example.org")
        assert await relay.suppression("ann@example.org") is None


def test_sync_client_does_the_same(doors: Doors, http: httpx.Client) -> None:
    with Relay(doors.redis.url, settings=SETTINGS) as relay:
        entry = relay.suppress("example.org")
        assert relay.suppression("ann@example.org") == entry
        assert relay.suppressions(limit=1) == ([entry], "")
        for arguments, fault in (
            (("nobody here",), "neither an address"),
            (("a@b.test", "rude"), "reason: 'rude' is no reason"),
        ):
            with pytest.raises(SubmissionRefused, match=fault):
                relay.suppress(arguments[0], reason=(*arguments, "other")[1])
        receipt = relay.send(
            Message(from_="n@x.test", to=["a@example.org", "b@gmail.test"], text="hello")
        )
        assert [item.status for item in receipt.recipients] == ["suppressed", "ready"]
        assert relay.unsuppress("@example.org")
