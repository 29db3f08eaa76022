"""Who signs a message: the keys of its author's domain, else of the nearest domain above it.

A signature in the name of a parent domain is aligned for DMARC (RFC 7489 §3.1.1, relaxed).
"""

import re
from collections.abc import Iterable
from email.utils import getaddresses
from functools import lru_cache
from typing import Generic, TypeVar

from relay.model.address import normalize_domain

T = TypeVar("T")
_FROM = re.compile(rb"(?i)(?:\A|\r\n)from[ \t]*:((?:[^\r]|\r\n[ \t])*)")


class SigningTable(Generic[T]):
    """Keys of any kind by domain and tenant; those of a tenant sign for nobody else."""

    def __init__(self, keys: Iterable[tuple[str, str, T]], default_domain: str = "") -> None:
        """`keys`: domain, tenant (empty: all without keys of their own at that domain), key."""
        self._keys: dict[tuple[str, str], tuple[T, ...]] = {}
        for domain, tenant, key in keys:
            self._keys[domain, tenant] = (*self._keys.get((domain, tenant), ()), key)
        self._default = default_domain
        self.keys_for = lru_cache(maxsize=65536)(self._keys_for)

    def _keys_for(self, domain: str, tenant: str) -> tuple[T, ...]:
        """The keys that sign mail of this From domain and tenant; none: it is not signed."""
        rest = domain
        while rest:
            if found := self._of(rest, tenant):
                return found
            rest = rest.partition(".")[2]
        return self._of(self._default, tenant)

    def _of(self, domain: str, tenant: str) -> tuple[T, ...]:
        return self._keys.get((domain, tenant)) or self._keys.get((domain, ""), ())


def author_domain(content: bytes) -> str:
    """The domain of the (first) address of From, in lower-case A-labels; empty: there is none."""
    end = content.find(b"\r\n\r\n")
    match = _FROM.search(content, 0, end if end >= 0 else len(content))
    return _domain_of(match[1]) if match is not None else ""


@lru_cache(maxsize=4096)
def _domain_of(value: bytes) -> str:
    text = value.replace(b"\r\n", b"").decode("utf-8", "replace")
    for _, address in getaddresses([text]):
        _, at, domain = address.rpartition("@")
        try:
            if at:
                return normalize_domain(domain)
        except ValueError:
            continue
    return ""
