"""Reports that wait to be posted by HTTPS, shared by all workers (RFC 8460 §5.4).

Of several workers one posts a report: it claims it first. Who is killed between the claim and the
answer leaves a mark, so that the next one knows that the report may have been sent already.
"""

import msgspec

from relay.store.queue import Store

#: What is posted, or given up, is remembered for so long: it is not added again.
KEPT_S = 4 * 86400
#: A claim is another's to take over after so long, longer than any post lasts.
CLAIM_S = 120


class Post(msgspec.Struct, frozen=True):
    """A report for one URL: its day and domain, the compressed JSON, how often it was tried, since
    when (epoch seconds), and how often a worker vanished while it did."""

    id: str
    day: str
    domain: str
    url: str
    content: bytes
    tries: int
    began: float
    vanished: int


class TlsPosts:
    """The posts; every method raises StoreError where the store is away."""

    def __init__(self, store: Store) -> None:
        self._store = store

    async def add(
        self, post_id: str, *, day: str, domain: str, url: str, content: bytes, now: float
    ) -> None:
        """A report to be posted as soon as may be; one that is known is left as it is."""
        call, key = self._store.wire.call, self._key(post_id)
        fields = {"day": day, "domain": domain, "url": url, "content": content, "began": str(now)}
        if not await call("EXISTS", key):
            await call("HSET", key, *(item for pair in fields.items() for item in pair))
            await call("EXPIRE", key, KEPT_S)
        # Known before it is due; one that was settled is found to be so when it is claimed.
        await call("ZADD", self._due, "NX", _ms(now), post_id)

    async def claim(self, now: float) -> Post | None:
        """A post that is due and nobody's; None: there is none."""
        call = self._store.wire.call
        for octets in await call("ZRANGEBYSCORE", self._due, "-inf", _ms(now), "LIMIT", 0, 20):
            post_id = octets.decode()
            if not await call("SET", self._claimed(post_id), b"", "NX", "EX", CLAIM_S):
                continue
            post = await self._begin(post_id, now)
            if post is not None:
                return post
            await call("DEL", self._claimed(post_id))
        return None

    async def _begin(self, post_id: str, now: float) -> Post | None:
        """The claimed post, marked as being sent; None: it was settled a moment ago."""
        call, key = self._store.wire.call, self._key(post_id)
        due = await call("ZSCORE", self._due, post_id)
        raw = await call("HGETALL", key)
        fields = {name.decode(): value for name, value in zip(raw[::2], raw[1::2], strict=True)}
        if due is None or float(due) > _ms(now):
            return None
        if "content" not in fields:  # it was posted or given up, and then added again
            await call("ZREM", self._due, post_id)
            return None
        vanished = int(fields.get("vanished", 0))
        if fields.get("sending") == b"1":
            vanished += 1
        await call("HSET", key, "sending", 1, "vanished", vanished)
        return Post(
            post_id,
            fields["day"].decode(),
            fields["domain"].decode(),
            fields["url"].decode(),
            fields["content"],
            int(fields.get("tries", 0)),
            float(fields["began"]),
            vanished,
        )

    async def put_off(self, post: Post, until: float) -> None:
        """It was not taken: it is due again then."""
        call = self._store.wire.call
        await call("ZADD", self._due, "XX", _ms(until), post.id)
        await call("HSET", self._key(post.id), "sending", 0, "tries", post.tries + 1)
        await call("DEL", self._claimed(post.id))

    async def end(self, post: Post) -> None:
        """It was taken, or is given up."""
        call, key = self._store.wire.call, self._key(post.id)
        await call("ZREM", self._due, post.id)
        await call("HDEL", key, "content")
        await call("EXPIRE", key, KEPT_S)
        await call("DEL", self._claimed(post.id))

    @property
    def _due(self) -> str:
        return f"{self._store.p}tls-posts"

    def _key(self, post_id: str) -> str:
        return f"{self._store.p}tls-post:{post_id}"

    def _claimed(self, post_id: str) -> str:
        return f"{self._store.p}tls-posting:{post_id}"


def _ms(epoch_s: float) -> int:
    return int(epoch_s * 1000)
