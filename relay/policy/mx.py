"""Which MX hosts to try, in which order, and what the set of them is called (RFC 5321 §5.1).

Works on names; addresses are looked up later. Several domains with the same MX set are one site.
"""

import hashlib
import random as randomness
from collections.abc import Collection, Iterable, Sequence
from itertools import groupby

#: Postfix truncates DNS answers here.
MAX_RECORDS = 100

Groups = tuple[tuple[str, ...], ...]


def host_name(text: str) -> str:
    """A host name as compared here: lower case, without the final dot; the root stays `.`."""
    name = text.strip().lower()
    return name.rstrip(".") or ("." if name else "")


def is_null_mx(records: Sequence[tuple[int, str]]) -> bool:
    """Whether the only record is `0 .`; any preference counts (RFC 7505 §3 writes 0)."""
    return len(records) == 1 and host_name(records[0][1]) in (".", "")


def preference_groups(records: Iterable[tuple[int, str]]) -> Groups:
    """Host names by preference, best first, each name once at its best preference, sorted."""
    best: dict[str, int] = {}
    for preference, host in list(records)[:MAX_RECORDS]:
        name = host_name(host)
        if name not in (".", ""):
            best[name] = min(preference, best.get(name, preference))
    ordered = sorted((preference, name) for name, preference in best.items())
    by_preference = groupby(ordered, key=lambda pair: pair[0])
    return tuple(tuple(name for _, name in group) for _, group in by_preference)


def cut_own(groups: Groups, own_names: Collection[str]) -> Groups:
    """The groups that are better than the first one naming ourselves: else mail would loop.

    Empty where we are among the best: the mail was for us, or loops (5.4.6).
    """
    own = {host_name(name) for name in own_names}
    kept = []
    for group in groups:
        if own.intersection(group):
            break
        kept.append(group)
    return tuple(kept)


def order_hosts(
    records: Sequence[tuple[int, str]],
    *,
    own_names: Collection[str] = (),
    random: randomness.Random,
) -> Groups:
    """Preference groups to try in this order, equals shuffled, ourselves and all after us cut.

    `records` are (preference, host); at most 100 are looked at. Empty: nothing to try.
    """
    groups = cut_own(preference_groups(records), own_names)
    return tuple(tuple(random.sample(group, len(group))) for group in groups)


def site_name(groups: Sequence[Sequence[str]]) -> str:
    """The identity of an MX set: its first name and 8 hex digits over names and their groups.

    The order within a group does not matter; the preference numbers do not either.
    """
    ordered = [sorted(host_name(host) for host in group) for group in groups if group]
    if not ordered:
        raise ValueError("no MX hosts, no site")
    digest = hashlib.sha256("\n".join(" ".join(group) for group in ordered).encode()).hexdigest()
    return f"{ordered[0][0]}~{digest[:8]}"
