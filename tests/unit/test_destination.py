"""Destinations: mail to go in spite of TLS failures stands beside the rest of its domain."""

import pytest

from relay.model.destination import all_of, domain_of, in_spite_of_tls, is_in_spite_of_tls
from relay.store.views import QueueMatch


def test_smarthosts_destination_is_the_same_whatever_is_said_of_tls() -> None:
    assert in_spite_of_tls("a.test") == "~a.test"
    assert in_spite_of_tls("[hub]") == "[hub]"
    assert (is_in_spite_of_tls("~a.test"), is_in_spite_of_tls("a.test")) == (True, False)
    assert (domain_of("~a.test"), domain_of("a.test"), domain_of("[hub]")) == (
        "a.test",
        "a.test",
        "[hub]",
    )


@pytest.mark.parametrize(
    ("named", "meant"),
    [
        ("a.test", ("a.test", "~a.test")),
        ("~a.test", ("~a.test",)),
        ("[hub]", ("[hub]",)),
    ],
)
def test_domain_means_all_its_mail(named: str, meant: tuple[str, ...]) -> None:
    assert all_of(named) == meant
    match = QueueMatch(destination=named)
    others = {"a.test", "~a.test", "[hub]", "b.test", "~b.test"}
    assert {one for one in others if match.fits("t", "default", "", one)} == set(meant)
