"""MTA-STS records and policies are read as RFC 8461 writes them, and nothing else is one."""

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from relay.policy.mta_sts import (
    MAX_AGE_S,
    MIN_AGE_S,
    PATTERNS_KEPT,
    StsMode,
    StsPolicy,
    read_policy,
    read_record,
)
from relay.policy.tls import Security
from relay.settings.schema import TlsPolicy

POLICY = (
    "version: STSv1\r\nmode: enforce\r\nmx: mail.example.com\r\nmx: *.example.net\r\n"
    "max_age: 604800\r\n"
)


@pytest.mark.parametrize(
    ("texts", "policy_id"),
    [
        (["v=STSv1; id=20160831085700Z;"], "20160831085700Z"),
        (["v=STSv1;id=a1"], "a1"),
        (["v=STSv1; future=x; id=a1 ;"], "a1"),
        (["v=spf1 -all", "v=STSv1; id=a1"], "a1"),
        ([], ""),
        (["v=spf1 -all"], ""),
        (["v=STSv1; id=a1", "v=STSv1; id=a2"], ""),
        (["v=STSv1;"], ""),
        (["v=STSv1; id="], ""),
        (["v=STSv1; id=not-a-word"], ""),
        (["v=STSv1; id=" + "a" * 33], ""),
        (["v=STSv10; id=a1"], ""),
        (["id=a1; v=STSv1"], ""),
    ],
)
def test_record_names_one_policy_or_none(texts: list[str], policy_id: str) -> None:
    assert read_record(texts) == policy_id


@pytest.mark.parametrize("ending", ["\r\n", "\n"])
def test_policy_is_read_with_either_line_ending(ending: str) -> None:
    policy = read_policy(POLICY.replace("\r\n", ending))
    assert policy == StsPolicy(StsMode.ENFORCE, ("mail.example.com", "*.example.net"), 604800)


def test_policy_may_hold_unknown_fields_spaces_and_repeated_fields_of_which_the_first_counts() -> (
    None
):
    policy = read_policy(f"{POLICY}new-field: x\nmode: none\n \n".replace("mx: mail", "mx :  mail"))
    assert policy.mode is StsMode.ENFORCE
    assert policy.patterns == ("mail.example.com", "*.example.net")


def test_policy_of_mode_none_needs_no_mx() -> None:
    assert read_policy("version: STSv1\nmode: none\nmax_age: 86400\n").patterns == ()


@pytest.mark.parametrize(("said", "kept"), [("0", MIN_AGE_S), ("9999999999", MAX_AGE_S)])
def test_age_is_kept_within_its_bounds(said: str, kept: int) -> None:
    assert read_policy(POLICY.replace("604800", said)).max_age_s == kept


@pytest.mark.parametrize(
    ("text", "fault"),
    [
        ("", "version"),
        (POLICY.replace("STSv1", "STSv2"), "version"),
        (POLICY.replace("enforce", "report"), "mode"),
        (POLICY.replace("mode: enforce\r\n", ""), "mode"),
        (POLICY.replace("604800", "a week"), "max_age"),
        (POLICY.replace("604800", "-1"), "max_age"),
        (POLICY.replace("604800", "1" * 11), "max_age"),
        (POLICY.replace("mx:", "host:"), "no mx"),
        (POLICY.replace("*.example.net", "*"), "no host name"),
        (POLICY.replace("*.example.net", "mx.*.example.net"), "no host name"),
        (POLICY.replace("*.example.net", "127.0.0.1:25"), "no host name"),
        (POLICY.replace("*.example.net", "a\0b.example.net"), "no host name"),
        ("<html>404</html>", "colon"),
        (POLICY + "mx: mx.example.com\n" * PATTERNS_KEPT, "over"),
    ],
)
def test_what_is_no_policy_says_why(text: str, fault: str) -> None:
    with pytest.raises(ValueError, match=fault):
        read_policy(text)


@given(st.text(max_size=300))
def test_no_text_does_harm(text: str) -> None:
    for whole in (text, POLICY + text):
        try:
            policy = read_policy(whole)
        except ValueError:
            continue
        assert MIN_AGE_S <= policy.max_age_s <= MAX_AGE_S
    read_record([text, f"v=STSv1; {text}"])


@pytest.mark.parametrize(
    ("host", "admitted"),
    [
        ("mail.example.com", True),
        ("MAIL.example.com.", True),
        ("other.example.com", False),
        ("mx1.example.net", True),
        ("a.mx1.example.net", False),
        ("example.net", False),
        ("mx1.example.net.evil.test", False),
        ("mx1.evilexample.net", False),
        ("", False),
    ],
)
def test_wildcard_stands_for_exactly_one_label(host: str, admitted: bool) -> None:
    assert read_policy(POLICY).admits(host) is admitted


def test_security_of_a_lane_survives_its_text_form() -> None:
    plain = Security(TlsPolicy.OPPORTUNISTIC)
    whole = plain.by_mta_sts(["b", "a"], ["a", "b"])
    part = plain.by_mta_sts(["b", "a"], ["a"])
    assert (str(plain), str(whole)) == ("opportunistic", "verified+mta-sts")
    assert str(part).startswith("verified+mta-sts.")
    both = msgspec.structs.replace(part, dane=True)
    named = msgspec.structs.replace(both, next_hop="a.test")
    assert both.demands == (f"mta-sts.{part.mta_sts}", "dane")
    assert named.demands == (f"mta-sts.{part.mta_sts}", "dane.a.test")
    only = msgspec.structs.replace(named, dane_only=True)
    assert only.demands == (f"mta-sts.{part.mta_sts}", "dane-only.a.test")
    for security in (
        only,
        plain,
        whole,
        part,
        both,
        named,
        Security(TlsPolicy.REQUIRED, dane=True),
    ):
        assert Security.parse(str(security)) == security
    assert (whole.demands, part.demands) == (("mta-sts",), (f"mta-sts.{part.mta_sts}",))
    assert plain.demands == ()


def test_security_says_what_is_demanded_beyond_tls_that_is_offered() -> None:
    opportunistic = Security(TlsPolicy.OPPORTUNISTIC)
    assert Security(TlsPolicy.OFF).demands == opportunistic.demands == ()
    assert opportunistic.by_testing().demands == ()
    assert Security(TlsPolicy.REQUIRED).demands == ("required",)
    assert Security(TlsPolicy.VERIFIED, dane=True).demands == ("verified", "dane")
    by_policy = opportunistic.by_mta_sts(["mx.test"], ["mx.test"])
    assert by_policy.demands == ("mta-sts",)


def test_security_depends_on_which_hosts_are_admitted() -> None:
    plain = Security(TlsPolicy.OPPORTUNISTIC)
    hosts = ["a", "b", "c"]
    assert len({str(plain.by_mta_sts(hosts, some)) for some in (["a"], ["b"], hosts)}) == 3


@pytest.mark.parametrize("text", ["", "strict", "verified+", "verified+dnssec"])
def test_what_is_no_security_is_refused(text: str) -> None:
    with pytest.raises(ValueError):
        Security.parse(text)
