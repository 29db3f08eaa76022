"""The HTTP door with the real store: sends, errors, idempotency, lists, verbs, probes."""

import base64
import json
import socket
import time
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import httpx
import pytest

from tests.support.doors import Doors, running_doors

SEND = {"from": "News <news@example.org>", "to": ["ann@gmail.test"], "subject": "hi", "text": "t"}
RFC822 = {"Content-Type": "message/rfc822"}


@pytest.fixture(scope="module")
def doors(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Doors]:
    with running_doors(tmp_path_factory.mktemp("doors")) as running:
        yield running


@pytest.fixture(scope="module")
def api(doors: Doors) -> Iterator[httpx.Client]:
    with doors.http() as client:
        yield client


def send(api: httpx.Client, said: dict[str, str] | None = None, /, **fields: Any) -> httpx.Response:
    body = {name: value for name, value in {**SEND, **fields}.items() if value is not None}
    return api.post("/v1/messages", json=body, headers=said)


def errors(response: httpx.Response) -> dict[str, str]:
    """Code by field; every error reply has the form of RFC 9457."""
    assert response.headers["content-type"] == "application/problem+json"
    problem = response.json()
    assert problem["status"] == response.status_code
    assert problem["code"] and problem["title"] and problem["detail"]
    return {error["field"]: error["code"] for error in problem["errors"]}


def test_send_is_accepted_and_shown(api: httpx.Client) -> None:
    response = send(api, to=["Ann <ann@gmail.test>", {"email": "bob@x.test", "name": "Böb"}])
    assert response.status_code == 202
    said = response.json()
    assert said["accepted"] == 2
    assert [item["address"] for item in said["recipients"]] == ["ann@gmail.test", "bob@x.test"]
    assert said["recipients"][0] == {
        "id": f"{said['id']}.1",
        "address": "ann@gmail.test",
        "status": "ready",
    }
    assert response.headers["location"] == f"/v1/messages/{said['id']}"
    shown = api.get(f"/v1/messages/{said['id']}.2").json()
    assert shown["id"] == said["id"] and shown["message_id"] == said["message_id"]
    assert shown["created_at"].endswith("Z") and shown["class"] == "transactional"
    assert shown["recipients"][1]["waiting"]["reason"] == "mx_lookup"
    content = api.get(f"/v1/messages/{said['id']}/content")
    assert f"id {said['id']};".encode() in content.content
    assert b"To: Ann <ann@gmail.test>, =?utf-8?" in content.content


def test_all_fields_of_a_send_have_their_effect(api: httpx.Client) -> None:
    soon = datetime.now(UTC).replace(microsecond=0) + timedelta(hours=1)
    said = send(
        api,
        cc=["c@x.test"],
        bcc="b@x.test",
        reply_to="r@x.test",
        html="<p>t</p>",
        headers={"X-Mine": "1"},
        attachments=[{"filename": "a.txt", "content": base64.b64encode(b"hello").decode("ascii")}],
        expires_at=soon.isoformat(),
        reverse_path="bounces@example.org",
        campaign="autumn",
        tags=["a"],
        metadata={"user": "42"},
        one_click_unsubscribe="https://example.org/u",
    )
    shown = api.get(f"/v1/messages/{said.json()['id']}").json()
    assert shown["reverse_path"] == "bounces@example.org"
    assert (shown["campaign"], shown["tags"], shown["metadata"]) == (
        "autumn",
        ["a"],
        {"user": "42"},
    )
    assert shown["class"] == "bulk"
    assert len(shown["recipients"]) == 3
    expires = datetime.fromisoformat(shown["expires_at"])
    assert abs((expires - soon).total_seconds()) < 2
    content = api.get(f"/v1/messages/{shown['id']}/content").text
    for part in (
        "X-Mine: 1",
        "Reply-To: r@x.test",
        "List-Unsubscribe: <https",
        "a.txt",
        "<p>t</p>",
    ):
        assert part in content
    assert "b@x.test" not in content


@pytest.mark.parametrize(
    ("fields", "expected"),
    [
        ({"subjet": "x"}, {"subjet": "unknown_field"}),
        ({"from": None}, {"from": "missing_field"}),
        ({"to": [1]}, {"to[0]": "invalid_value"}),
        ({"to": ["ann"]}, {"to[0]": "address_no_domain"}),
        ({"to": ["a\r\n@x.test"]}, {"to[0]": "address_control_character"}),
        ({"to": ["a" * 65 + "@x.test"]}, {"to[0]": "address_local_part_too_long"}),
        ({"to": ["a@" + "b" * 260]}, {"to[0]": "address_too_long"}),
        ({"to": ["a@x..test"]}, {"to[0]": "domain_invalid"}),
        ({"to": ["fine@x.test", "ann"]}, {"to[1]": "address_no_domain"}),
        ({"from": "a@" + "b" * 260}, {"from": "address_too_long"}),
        ({"reverse_path": "news"}, {"reverse_path": "address_no_domain"}),
        ({"subject": "a\r\nBcc: x@y.z"}, {"subject": "control_character"}),
        ({"headers": {"X\r\nBcc": "y"}}, {"headers": "header_name_invalid"}),
        ({"headers": {"X": "a\nBcc: y"}}, {"headers.X": "control_character"}),
        ({"text": None}, {"text": "content_missing"}),
        ({"class": "urgent"}, {"class": "invalid_value"}),
        ({"expires_at": "2999-01-01T00:00:00Z"}, {"expires_at": "time_out_of_range"}),
        ({"expires_at": "2027-01-01T00:00:00"}, {"expires_at": "time_without_zone"}),
        ({"expires_at": "tomorrow"}, {"expires_at": "invalid_value"}),
        ({"campaign": "a b"}, {"campaign": "campaign_invalid"}),
        ({"attachments": [{"filename": "x"}]}, {"attachments[0].content": "missing_field"}),
        (
            {"attachments": [{"filename": "x", "content": "?"}]},
            {"attachments[0].content": "invalid_value"},
        ),
        ({"to": [f"u{n}@x.test" for n in range(10_001)]}, {"to": "too_many_recipients"}),
    ],
)
def test_fault_is_named_by_field_and_nothing_is_queued(
    api: httpx.Client, fields: dict[str, Any], expected: dict[str, str]
) -> None:
    before = api.get("/v1/status").json()["states"]
    response = send(api, **fields)
    assert response.status_code == 422
    assert errors(response) == expected
    assert api.get("/v1/status").json()["states"] == before


def test_misspelt_field_is_told_what_was_meant(api: httpx.Client) -> None:
    problem = send(api, subjet="x").json()
    assert problem["errors"][0]["fix"] == "did you mean subject?"
    problem = api.post("/v1/messages", json={**SEND, "": "x"}).json()
    assert problem["errors"][0]["field"] == '""'
    problem = api.get("/v1/messages", params={"domian": "x"}).json()
    assert problem["errors"][0]["fix"] == "did you mean domain?"


def test_body_that_is_no_json_is_400_and_another_type_415(api: httpx.Client) -> None:
    headers = {"Content-Type": "application/json"}
    assert api.post("/v1/messages", content=b"{", headers=headers).status_code == 400
    assert api.post("/v1/messages", content=b'"\xff"', headers=headers).status_code in (400, 422)
    assert api.post("/v1/messages", content=b"x=1").status_code == 415
    assert api.post("/v1/messages", data={"from": "a"}).status_code == 415
    assert api.post("/v1/messages/raw", json={}).status_code == 415


def test_too_large_is_413_before_it_is_read(doors: Doors) -> None:
    with doors.http(RELAY_LIMITS_MESSAGE_SIZE="10 KiB") as api:
        response = send(api, text="x" * 11_000)
        assert response.status_code == 413
        assert errors(response) == {"content": "message_too_large"}
        # A body that would never end is refused by its declared length, then by its octets.
        response = api.post(
            "/v1/messages/raw?from=a@b.test&to=c@d.test", content=b"x" * 20_000, headers=RFC822
        )
        assert response.status_code == 413
        chunks = (b"x" * 10_000 for _ in range(1000))
        try:
            response = api.post("/v1/messages/raw", content=chunks, headers=RFC822)
        except httpx.HTTPError:
            return  # the server closed while we were writing
        assert response.status_code == 413


@pytest.mark.parametrize(
    ("path", "media_type"),
    [("/v1/messages", "application/json"), ("/v1/messages/raw?to=a@b.test", "message/rfc822")],
)
def test_declared_length_over_the_limit_is_413_though_nothing_was_sent(
    api: httpx.Client, path: str, media_type: str
) -> None:
    head = (
        f"POST {path} HTTP/1.1\r\nHost: localhost\r\nContent-Type: {media_type}\r\n"
        f"Content-Length: {1 << 40}\r\n\r\n"
    )
    with socket.create_connection((api.base_url.host, api.base_url.port or 80), 15) as raw:
        raw.sendall(head.encode())
        assert raw.recv(65536).startswith(b"HTTP/1.1 413 ")


def test_finished_message_one_octet_over_the_limit_is_413_by_its_length_alone(
    doors: Doors,
) -> None:
    with doors.http(RELAY_LIMITS_MESSAGE_SIZE="10 KiB") as api:
        content = b"From: a@b.test\r\n\r\n".ljust(10 * 1024 - 2, b"x") + b"\r\n"
        path = "/v1/messages/raw?to=a@b.test"
        assert api.post(path, content=content, headers=RFC822).status_code == 202
        head = (
            f"POST {path} HTTP/1.1\r\nHost: localhost\r\nContent-Type: message/rfc822\r\n"
            f"Content-Length: {len(content) + 1}\r\n\r\n"
        )
        with socket.create_connection((api.base_url.host, api.base_url.port or 80), 15) as raw:
            raw.sendall(head.encode())
            assert raw.recv(65536).startswith(b"HTTP/1.1 413 ")
        chunked = head.replace(f"Content-Length: {len(content) + 1}", "Transfer-Encoding: chunked")
        with socket.create_connection((api.base_url.host, api.base_url.port or 80), 15) as raw:
            raw.sendall(chunked.encode() + b"%x\r\n" % (len(content) + 1) + content + b"x\r\n")
            assert raw.recv(65536).startswith(b"HTTP/1.1 413 ")  # its last chunk has not come


@pytest.mark.parametrize("reason", ["a\r\nBcc: x@y.z", "a\nb", "\x1b[31m", "x" * 201])
def test_reason_of_a_verb_is_one_line(api: httpx.Client, reason: str) -> None:
    """It goes into lists, logs and the report to the sender."""
    id = send(api).json()["id"]
    for path in (f"messages/{id}/bounce", f"messages/{id}/hold", "suspensions"):
        body = {"reason": reason} | ({"all": True} if path == "suspensions" else {})
        response = api.post(f"/v1/{path}", json=body)
        assert (response.status_code, errors(response)) == (422, {"reason": "invalid_value"})
    assert api.get(f"/v1/messages/{id}").json()["status"] == "ready"


def test_idempotency_key_replays_the_first_answer(api: httpx.Client) -> None:
    key = {"Idempotency-Key": "order-42"}
    first, second = send(api, key), send(api, key)
    assert (first.status_code, second.status_code) == (202, 202)
    assert first.json() == second.json()
    assert "idempotency-replayed" not in first.headers
    assert second.headers["idempotency-replayed"] == "true"
    other = send(api, key, text="other")
    assert other.status_code == 422 and other.json()["code"] == "idempotency_key_reused"
    assert send(api, {"Idempotency-Key": "k" * 257}).status_code == 400
    assert send(api, {"Idempotency-Key": ""}).status_code == 400


def test_request_id_is_echoed_or_made(api: httpx.Client) -> None:
    assert send(api, {"X-Request-Id": "mine-1"}).headers["x-request-id"] == "mine-1"
    assert len(api.get("/livez").headers["x-request-id"]) == 16
    assert api.get("/nowhere", headers={"X-Request-Id": "a b"}).headers["x-request-id"] != "a b"


def test_finished_message_is_taken_with_its_envelope(api: httpx.Client) -> None:
    content = b"From: a@example.org\nTo: x@foo.test\nSubject: x\n\nhello\n"
    query = "from=bounce@example.org&to=ann@gmail.test&to=bob@x.test&campaign=c1&tag=t1"
    query += "&notify=success&notify=delay&envelope_id=order%2017"
    response = api.post(f"/v1/messages/raw?{query}", content=content, headers=RFC822)
    assert response.status_code == 202
    shown = api.get(f"/v1/messages/{response.json()['id']}").json()
    assert shown["reverse_path"] == "bounce@example.org"
    assert (shown["campaign"], shown["tags"]) == ("c1", ["t1"])
    assert shown["envelope_id"] == "order 17"
    assert [item["notify"] for item in shown["recipients"]] == [["success", "delay"]] * 2
    assert [item["address"] for item in shown["recipients"]] == ["ann@gmail.test", "bob@x.test"]
    response = api.post("/v1/messages/raw?header_recipients=true", content=content, headers=RFC822)
    assert [item["address"] for item in response.json()["recipients"]] == ["x@foo.test"]
    response = api.post("/v1/messages/raw?too=x", content=content, headers=RFC822)
    assert errors(response) == {"too": "unknown_field"}
    response = api.post("/v1/messages/raw?to=a@b.test", content=b"no message", headers=RFC822)
    assert errors(response) == {"content": "header.malformed"}
    query = "to=a@b.test&notify=never&notify=delay&report_content=none&envelope_id=%0A"
    response = api.post(f"/v1/messages/raw?{query}", content=content, headers=RFC822)
    assert set(errors(response)) == {"notify", "report_content", "envelope_id"}


def test_list_filters_and_pages(api: httpx.Client) -> None:
    for number in range(5):
        send(api, to=[f"u{number}@paged.test"], campaign="paged")
    page = api.get("/v1/messages", params={"campaign": "paged", "limit": 3})
    assert len(page.json()["messages"]) == 3
    assert 'rel="next"' in page.headers["link"]
    rest = api.get(page.headers["link"].partition(">")[0][1:]).json()
    assert len(rest["messages"]) == 2 and rest["next"] is None
    ids = {item["id"] for item in page.json()["messages"] + rest["messages"]}
    assert len(ids) == 5
    assert api.get("/v1/messages", params={"to": "u3@paged.test"}).json()["messages"]
    for query in ({"state": "lost"}, {"limit": "0"}, {"limit": "x"}, {"older_than": "2 parsecs"}):
        assert api.get("/v1/messages", params=query).status_code == 422
    assert api.get("/v1/messages", params={"cursor": "x:y"}).status_code == 422


def test_verbs_change_recipients_and_say_how_many(api: httpx.Client) -> None:
    id = send(api, to=["a@verbs.test", "b@verbs.test"]).json()["id"]

    def verb(name: str, target: str = id, **said: str) -> httpx.Response:
        return api.post(f"/v1/messages/{target}/{name}", json=said)

    assert verb("hold", f"{id}.1", reason="wait for legal").json()["changed"] == 1
    shown = api.get(f"/v1/messages/{id}").json()["recipients"]
    assert [item["status"] for item in shown] == ["held", "ready"]
    assert "wait for legal" in shown[0]["text"]
    assert verb("release").json() == {"id": id, "changed": 1}
    assert verb("retry").status_code == 409
    assert verb("bounce", f"{id}.1").json()["changed"] == 1
    assert api.delete(f"/v1/messages/{id}").json()["changed"] == 1
    assert verb("cancel").status_code == 409
    assert verb("frobnicate").status_code == 404
    assert verb("hold", "nonsense").status_code == 404
    assert verb("hold", "01J00000000000000000").status_code == 404
    assert verb("hold", reson="x").status_code == 422


def test_suspensions_come_and_go(api: httpx.Client) -> None:
    send(api, to=["a@stopped.test"])
    made = api.post(
        "/v1/suspensions", json={"destination": "Stopped.test", "reason": "move", "duration": "2h"}
    )
    assert made.status_code == 201
    suspension = made.json()
    assert suspension["destination"] == "stopped.test" and suspension["queues"] == 1
    (queue,) = api.get("/v1/queues", params={"destination": "stopped.test"}).json()["queues"]
    assert queue["ready"] == 1 and "move" in queue["suspended"]["text"]
    assert api.get("/v1/suspensions").json()["suspensions"][0]["id"] == suspension["id"]
    assert api.delete(f"/v1/suspensions/{suspension['id']}").json() == {"resumed": 1}
    assert api.delete(f"/v1/suspensions/{suspension['id']}").status_code == 404
    api.post("/v1/suspensions", json={"destination": "stopped.test"})
    response = api.delete("/v1/suspensions", params={"destination": "stopped.test"})
    assert response.json() == {"resumed": 1}


@pytest.mark.parametrize(
    "body",
    [{}, {"destination": "x..y"}, {"all": True, "duration": "soon"}, {"all": True, "duration": -1}],
)
def test_suspension_without_aim_or_end_is_refused(api: httpx.Client, body: dict[str, Any]) -> None:
    assert api.post("/v1/suspensions", json=body).status_code == 422


def test_flush_needs_a_filter_or_all(api: httpx.Client) -> None:
    assert errors(api.post("/v1/queues/flush", json={})) == {"all": "invalid_value"}
    assert api.post("/v1/queues/flush", json={"all": True}).json() == {"flushed": 0}


def test_events_are_read_by_pages_by_waiting_and_as_a_stream(api: httpx.Client) -> None:
    cursor = api.get("/v1/events", params={"after": "$"}).json()["next"]
    id = send(api).json()["id"]
    page = api.get("/v1/events", params={"after": cursor, "wait": "5s"}).json()
    assert [event["type"] for event in page["events"]] == ["message.accepted"]
    assert page["events"][0]["data"]["queue_id"] == id
    after = {"after": page["next"]}
    assert api.get("/v1/events", params={**after, "wait": "0.2s"}).json()["events"] == []
    only = {"after": cursor, "queue_id": id, "type": "recipient.delivered"}
    assert api.get("/v1/events", params=only).json()["events"] == []
    assert api.get("/v1/events", params={"after": "x"}).status_code == 422
    headers = {"Accept": "text/event-stream", "Last-Event-ID": cursor}
    with api.stream("GET", "/v1/events", headers=headers) as stream:
        lines = stream.iter_lines()
        assert next(lines) == f"id: {page['next']}"
        assert next(lines) == "event: message.accepted"
        assert json.loads(next(lines).removeprefix("data: "))["data"]["queue_id"] == id


def test_stopping_ends_streams_and_waits_at_once(doors: Doors) -> None:
    process, port = doors.start("http")
    with httpx.Client(base_url=f"http://127.0.0.1:{port}", trust_env=False, timeout=15) as api:
        headers = {"Accept": "text/event-stream"}
        with api.stream("GET", "/v1/events?after=$", headers=headers) as stream:
            process.terminate()
            assert list(stream.iter_lines()) == []
    assert process.wait(5) == 0


def test_metrics_count_what_was_accepted(api: httpx.Client) -> None:
    from prometheus_client.parser import text_string_to_metric_families

    send(api)
    end, samples = time.monotonic() + 30, dict[tuple[str, tuple[tuple[str, str], ...]], float]()
    oldest = ("relay_queue_oldest_seconds", (("provider", "other"), ("state", "ready")))
    # Nobody delivers here: the API itself looks how old the mail is, every few seconds.
    while oldest not in samples and time.monotonic() < end:
        samples = {
            (sample.name, tuple(sorted(sample.labels.items()))): sample.value
            for family in text_string_to_metric_families(api.get("/metrics").text)
            for sample in family.samples
        }
        time.sleep(0.1)
    assert samples["relay_messages_accepted_total", (("ingress", "http"),)] >= 1
    labels = (("class", "transactional"), ("ingress", "http"))
    assert samples["relay_recipients_accepted_total", labels] >= 1
    assert samples["relay_queue_recipients", (("state", "ready"),)] >= 1
    assert samples[oldest] >= 0
    assert api.get("/metrics").headers["content-type"].startswith("text/plain; version=")


def test_probes_and_status_answer(api: httpx.Client) -> None:
    assert api.get("/livez").text == "ok\n"
    assert api.get("/readyz").status_code == 200
    status = api.get("/v1/status").json()
    assert status["mode"] == "sink" and status["workers"] == []


def test_unknown_path_and_method_are_problems_too(api: httpx.Client) -> None:
    assert errors(api.get("/v1/mesages")) == {}
    assert api.get("/v1/mesages").status_code == 404
    assert api.put("/v1/messages", json={}).status_code == 405
    assert api.get("/v1/messages/01J00000000000000000").json()["code"] == "not_found"


def test_foreign_host_is_refused_without_keys(api: httpx.Client) -> None:
    response = api.get("/v1/status", headers={"Host": "evil.example"})
    assert response.status_code == 403 and response.json()["code"] == "host_not_local"
    assert api.get("/v1/status", headers={"Host": "localhost:8425"}).status_code == 200


def test_keys_open_the_api_and_only_keys(doors: Doors) -> None:
    hashed = "sha256:5e884898da28047151d0e56f8dc6292773603d0d6aabbdd62a11ef721d1542d8"
    with doors.http(RELAY_HTTP_KEYS=f"plain-key,{hashed}") as api:
        assert api.get("/v1/status").json()["code"] == "key_missing"
        assert api.get("/livez").status_code == 200
        for key, status in (("plain-key", 200), ("password", 200), ("wrong", 401), (hashed, 401)):
            headers = {"Authorization": f"Bearer {key}", "Host": "relay.example"}
            assert api.get("/v1/status", headers=headers).status_code == status


def test_openapi_document_tells_the_truth(api: httpx.Client) -> None:
    document = api.get("/openapi.json").json()
    paths = document["paths"]
    assert {"get", "post"} <= paths["/v1/messages"].keys()
    body = paths["/v1/messages"]["post"]["requestBody"]["content"]["application/json"]["schema"]
    assert body == {"$ref": "#/components/schemas/Message"}
    message = document["components"]["schemas"]["Message"]
    assert message["required"] == ["from"]
    assert {"class", "reply_to", "one_click_unsubscribe"} <= message["properties"].keys()
    for operation in (item for path in paths.values() for item in path.values()):
        for reference in _references(operation):
            assert reference in document["components"]["schemas"]


def _references(value: Any) -> Iterator[str]:
    if isinstance(value, dict):
        if "$ref" in value:
            yield value["$ref"].rpartition("/")[2]
        for inner in value.values():
            yield from _references(inner)
    elif isinstance(value, list):
        for inner in value:
            yield from _references(inner)


def test_store_that_is_gone_is_503_and_heals(tmp_path: Path) -> None:
    with running_doors(tmp_path) as doors, doors.http() as api:
        assert send(api).status_code == 202
        doors.redis.kill()
        response = send(api)
        assert response.status_code == 503
        assert response.headers["retry-after"] and response.json()["code"] == "store_unavailable"
        assert api.get("/readyz").status_code == 503
        assert api.get("/livez").status_code == 200
        doors.redis.start()
        assert send(api).status_code == 202
        assert len(api.get("/v1/messages").json()["messages"]) == 2


def test_door_starts_without_its_store_and_joins_it(tmp_path: Path) -> None:
    with running_doors(tmp_path) as doors:
        doors.redis.kill()
        with doors.http() as api:
            assert api.get("/readyz").status_code == 503
            assert send(api).status_code == 503
            doors.redis.start()
            end = time.monotonic() + 10
            while api.get("/readyz").status_code != 200 and time.monotonic() < end:
                time.sleep(0.05)
            assert send(api).status_code == 202


def test_full_store_is_503_store_full(tmp_path: Path) -> None:
    with running_doors(tmp_path) as doors, doors.http() as api:
        with doors.redis.client() as redis:
            redis.config_set("maxmemory", "1mb")
        response = send(api)
        assert response.status_code == 503 and response.json()["code"] == "store_full"
