"""The sentence of a limit names whose limit it is, as people call it."""

import pytest

from relay.store.waits import limit_text


@pytest.mark.parametrize(
    ("key", "name"),
    [
        ("site:default:mx1.shop.test~c0b8c5d3", "mx1.shop.test"),
        ("c:site:default:mx1.shop.test~c0b8c5d3", "mx1.shop.test"),
        ("m:provider:192.0.2.1:google", "google"),
        ("provider:default:google", "google"),
        ("host::mx1.tarpit.test [::1]", "mx1.tarpit.test [::1]"),
    ],
)
def test_limit_is_told_by_the_name_of_whom_it_protects(key: str, name: str) -> None:
    assert limit_text("message_rate", key) == (
        f"mail to {name} is sent no faster than shaping allows"
    )
    assert name in limit_text("a_new_one", key)
