"""relay: a queue-backed bulk and outbound mail relay on Redis and Celery.

The road of a message:

 1. A door takes it: SMTP, HTTP, Python or the command line      ingress/
 2. One door behind all: validate, trace headers, hand over       ingress/submit.py
 3. One script makes it durable and wakes a worker                store/lua/accept.lua
 4. Celery tasks route destinations and hand lanes over           workers/tasks.py
 5. The destination becomes a site and its MX hosts               delivery/routing.py
 6. The engine owns the sessions of one process                   delivery/engine.py
 7. A session claims, transacts and settles, over and over        delivery/attempt.py
 8. The protocol itself, without I/O                              smtp/client.py
 9. Each reply becomes a verdict, each deferral a delay           policy/classify.py, retry.py
10. Outcomes are committed in groups, the ticker moves the rest   store/settler.py

Read `delivery/attempt.py` first, then up and down that road; words are defined in `model/`.
"""

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from relay.ingress.client import AsyncRelay, Attachment, Mailbox, Message, Relay

__version__ = "0.1.0"
__all__ = ["AsyncRelay", "Attachment", "Mailbox", "Message", "Relay", "__version__"]


def __getattr__(name: str) -> Any:
    """`Relay` and `Message` are imported when they are asked for: `import relay` stays cheap."""
    if name in __all__:
        from relay.ingress import client

        return getattr(client, name)
    raise AttributeError(f"module 'relay' has no attribute {name!r}")
