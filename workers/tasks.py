"""The tasks: each hands over to the engine of its process and returns in milliseconds."""

from celery import shared_task

from workers.engine_step import running_engine


@shared_task(name="relay.route")  # type: ignore[untyped-decorator]
def route() -> None:
    """Some destinations have no route."""
    running_engine().call("route")


@shared_task(name="relay.deliver")  # type: ignore[untyped-decorator]
def deliver() -> None:
    """Some lanes want a session."""
    running_engine().call("deliver")
