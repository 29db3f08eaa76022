"""The message that Lua pushes is one that Celery takes: byte for byte, through a real worker."""

import json
from pathlib import Path

from celery import Celery
from kombu import Connection
from kombu.transport.virtual import Message

from relay.model.address import parse_address
from relay.model.ids import new_queue_id
from relay.model.message import Submission
from relay.store.keys import broker_prefix
from relay.store.queue import Store
from relay.store.work import Work
from tests.store import mail
from tests.support import processes
from tests.support.household import wait_until
from tests.support.redis_server import RedisServer
from workers.celery_app import Broker, broker_of, make_app

_ROUTE = broker_prefix("sink") + "route"
_EGRESS = broker_prefix("sink") + "egress.default"

_APP = """
from relay.settings.schema import Delivery, Mode, Redis, Settings
from workers.celery_app import make_app
from workers.engine_step import EngineStep

app = make_app(Settings(delivery=Delivery(mode=Mode.SINK), redis=Redis(url={url!r})))
app.steps["worker"].discard(EngineStep)
app.conf.include = []


@app.task(name="relay.route")
def route():
    open({done!r}, "a").write("ran\\n")
"""


def submission() -> Submission:
    path = parse_address("ann@gmail.test")
    return Submission(
        queue_id=new_queue_id(),
        reverse_path=None,
        forward_paths=(path,),
        destinations=(path.domain,),
        content=b"Subject: x\r\n\r\nx\r\n",
        message_id="<x@y.test>",
    )


async def test_accepts_of_one_moment_push_one_wake_up(store: Store) -> None:
    for _ in range(5):
        await store.accept(submission())
    assert await store.wire.call("LLEN", _ROUTE) == 1


async def wake_ups(store: Store) -> int:
    """Wake-ups for lanes that a worker would take now; they are gone then."""
    count: int = await store.wire.call("LLEN", _EGRESS)
    await store.wire.call("DEL", _EGRESS)
    return count


async def routed(store: Store) -> Work:
    work = await mail.worker(store)
    await work.routed("gmail.test", mail.lane_of("gmail"), b"site", fresh_s=10_000)
    return work


async def test_worker_that_looks_by_itself_is_sent_no_wake_up(store: Store) -> None:
    work = await routed(store)
    await work.wanting("default", 50, stays=True)
    await store.accept(submission())
    assert await wake_ups(store) == 0
    assert await work.wanting("default", 50, stays=True) == [mail.lane_of("gmail")]


async def test_worker_that_ceases_to_look_is_woken_again(store: Store) -> None:
    work = await routed(store)
    await work.wanting("default", 50, stays=True)
    assert await work.wanting("default", 50) == []
    await store.accept(submission())
    assert await wake_ups(store) == 1


async def test_mail_that_came_while_a_worker_ceased_to_look_is_seen_by_its_last_look(
    store: Store,
) -> None:
    work = await routed(store)
    await work.wanting("default", 50, stays=True)
    await store.accept(submission())
    assert await work.wanting("default", 50) == [mail.lane_of("gmail")]


async def test_worker_that_is_late_lets_others_be_woken(store: Store) -> None:
    work = await routed(store)
    await work.wanting("default", 50, stays=True, late=True)
    await store.accept(submission())
    assert await wake_ups(store) == 0, "it is alone: nobody else could help"
    await mail.worker(store)
    await work.wanting("default", 50, stays=True, late=True)
    await store.accept(submission())
    assert await wake_ups(store) == 1


async def test_wake_up_is_what_kombu_reads(store: Store) -> None:
    await store.accept(submission())
    raw = await store.wire.call("LINDEX", _ROUTE, 0)
    message = json.loads(raw)
    assert message["headers"]["task"] == "relay.route"
    assert json.loads(message["body"])[0] == []
    known = {"body", "content-encoding", "content-type", "headers", "properties"}
    assert set(message) == known
    with Connection("memory://") as connection:
        assert Message(message, channel=connection.channel()).payload == [[], {}, {"relay": 1}]


async def test_wake_up_runs_its_task_in_a_real_worker(
    store: Store, redis_server: RedisServer, tmp_path: Path
) -> None:
    done = tmp_path / "done"
    (tmp_path / "wake_app.py").write_text(_APP.format(url=redis_server.url, done=str(done)))
    await store.accept(submission())
    command = processes.python("celery", "-A", "wake_app", "worker", "--without-gossip")
    worker = processes.start(
        [*command, "--without-mingle", "--without-heartbeat"],
        log=tmp_path / "worker.log",
        environment={
            "PYTHONPATH": f"{tmp_path}:{processes.ROOT}",
            "RELAY_DELIVERY_MODE": "sink",
            "RELAY_REDIS_URL": redis_server.url,
        },
    )
    try:
        wait_until(
            lambda: done.exists() and done.read_text() == "ran\n",
            (tmp_path / "worker.log").read_text(),
        )
    finally:
        processes.kill(worker)


def test_broker_is_the_redis_of_the_data() -> None:
    assert broker_of("unix:///run/redis.sock") == Broker("redis+socket:///run/redis.sock")
    assert broker_of("redis://host:6379/0") == Broker("redis://host:6379/0")


def test_broker_asks_the_sentinels_that_the_store_asks() -> None:
    broker = broker_of(
        "rediss+sentinel://ann:p%40ss@one,[::1]:5000/mail/3?sentinel_password=s&ssl_ca_certs=/ca.pem"
    )
    login = "ann:p%40ss@"
    assert broker.url == f"sentinel://{login}one:26379/3;sentinel://{login}[::1]:5000/3"
    assert broker.options["master_name"] == "mail"
    assert broker.options["sentinel_kwargs"]["password"] == "s"
    assert broker.tls == {"ssl_cert_reqs": "required", "ssl_ca_certs": "/ca.pem"}


def test_app_takes_nothing_but_json() -> None:
    from relay.settings.schema import Delivery, Mode, Redis, Settings

    settings = Settings(delivery=Delivery(mode=Mode.SINK), redis=Redis(url="redis://x"))
    app: Celery = make_app(settings)
    assert app.conf.accept_content == ["json"]
    assert app.conf.task_ignore_result
    assert app.conf.broker_transport_options["ack_emulation"] is False
