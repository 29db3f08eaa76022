"""What recipients are grouped by: a domain, `[name]` of a smarthost route, or `~domain`.

`~domain` has the domain's mail that is to go even where the TLS that the domain itself demands does
not come about (`TLS-Required: No`, RFC 8689): it finds another lane than the rest.
"""

_IN_SPITE = "~"


def in_spite_of_tls(destination: str) -> str:
    """The destination of such mail; that of a smarthost is the same."""
    return destination if destination.startswith("[") else _IN_SPITE + destination


def is_in_spite_of_tls(destination: str) -> bool:
    """Whether it is one of such mail."""
    return destination.startswith(_IN_SPITE)


def domain_of(destination: str) -> str:
    """The domain of a destination; `[name]` stays as it is."""
    return destination.removeprefix(_IN_SPITE)


def all_of(destination: str) -> tuple[str, ...]:
    """The destinations that are meant where this one is named: a domain means both of its own."""
    if destination.startswith(("[", _IN_SPITE)):
        return (destination,)
    return destination, _IN_SPITE + destination
