"""The sentence of a limit names whose limit it is, as people call it."""

import pytest

from relay.store.limit_key import LimitKey
from relay.store.waits import limit_text


@pytest.mark.parametrize(
    ("key", "name"),
    [
        ("site:default:mx1.shop.test~c0b8c5d3", "mx1.shop.test"),
        ("c:site:default:mx1.shop.test~c0b8c5d3", "mx1.shop.test"),
        ("m:provider:192.0.2.1:google", "google"),
        ("provider:default:google", "google"),
        ("m:site:2001:db8::1:mx1.shop.test~c0b8c5d3", "mx1.shop.test"),
        ("site:default:smart.test:587", "smart.test:587"),
        ("host::mx1.tarpit.test [::1]", "mx1.tarpit.test [::1]"),
    ],
)
def test_limit_is_told_by_the_name_of_whom_it_protects(key: str, name: str) -> None:
    assert limit_text("message_rate", key) == (
        f"mail to {name} is sent no faster than shaping allows"
    )
    assert name in limit_text("a_new_one", key)


@pytest.mark.parametrize(
    ("key", "parts", "host"),
    [
        (
            "site:default:mx1.a.test~c0b8c5d3",
            ("mx1.a.test~c0b8c5d3", "", "default", ""),
            "mx1.a.test",
        ),
        (
            "site:2001:db8::1:mx1.a.test~c0b8c5d3~p",
            ("mx1.a.test~c0b8c5d3~p", "", "2001:db8::1", ""),
            "mx1.a.test",
        ),
        ("site:::1:[2001:db8::2]:25", ("[2001:db8::2]:25", "", "::1", ""), "[2001:db8::2]"),
        (
            "site:default:mx1.a.test~c0b8c5d3~p~mta-sts~dane",
            ("mx1.a.test~c0b8c5d3~p", "", "default", ""),
            "mx1.a.test",
        ),
        (
            "site:default:mx1.a.test~c0b8c5d3~p~mta-sts.0a1b2c3d~dane-only.a-b.test",
            ("mx1.a.test~c0b8c5d3~p", "", "default", ""),
            "mx1.a.test",
        ),
        (
            "site:::1:[2001:db8::2]:25~verified",
            ("[2001:db8::2]:25", "", "::1", ""),
            "[2001:db8::2]",
        ),
        ("provider:2001:db8::1:google", ("", "google", "2001:db8::1", ""), ""),
        ("route:smart.test:587:abc123", ("smart.test:587", "", "", "abc123"), "smart.test"),
    ],
)
def test_key_is_told_in_its_parts(key: str, parts: tuple[str, ...], host: str) -> None:
    told = LimitKey.parse(key)
    assert (told.site, told.provider, told.source, told.account) == parts
    assert told.host == host
