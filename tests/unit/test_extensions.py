"""What an EHLO reply offers."""

import pytest

from relay.model.reply import Reply
from relay.smtp.extensions import Extensions, parse_extensions


def offered(*lines: str) -> Extensions:
    return parse_extensions(Reply(250, None, ("mx.test greets you", *lines), "EHLO"))


@pytest.mark.client_row("C27")
def test_keywords_are_read_in_any_case_and_unknown_ones_ignored() -> None:
    extensions = offered("pipelining", "8BitMime", "X-WHATEVER 1 2", "EnhancedStatusCodes", "dsn")
    assert extensions.pipelining
    assert extensions.eight_bit_mime
    assert extensions.enhanced_status_codes
    assert extensions.dsn
    assert not extensions.starttls


def test_first_line_is_a_name_not_a_keyword() -> None:
    reply = Reply(250, None, ("PIPELINING",), "EHLO")
    assert not parse_extensions(reply).pipelining


@pytest.mark.parametrize("line", ["AUTH LOGIN PLAIN", "AUTH=LOGIN PLAIN", "auth=login plain"])
@pytest.mark.client_row("C28")
def test_auth_is_read_in_both_forms(line: str) -> None:
    assert offered(line).auth == {"LOGIN", "PLAIN"}


def test_auth_in_both_forms_at_once_is_one_list() -> None:
    assert offered("AUTH PLAIN", "AUTH=LOGIN").auth == {"LOGIN", "PLAIN"}


@pytest.mark.parametrize("line", ["AUTH PLAINX", "AUTH", "AUTH ", "AUTHPLAIN PLAIN"])
@pytest.mark.client_row("C29")
def test_auth_tokens_match_exactly(line: str) -> None:
    assert "PLAIN" not in offered(line).auth


@pytest.mark.parametrize(
    ("line", "limit"),
    [
        ("SIZE", None),
        ("SIZE 0", None),
        ("SIZE abc", None),
        ("SIZE -1", None),
        ("SIZE ١٢", None),
        ("SIZE 1000", 1000),
        ("SIZE 999999999999999999999", None),
    ],
)
@pytest.mark.client_row("C30")
def test_size_limit_is_a_positive_number_or_none(line: str, limit: int | None) -> None:
    extensions = offered(line)
    assert extensions.size
    assert extensions.size_limit == limit


def test_size_of_twenty_digits_limits_nothing_in_practice() -> None:
    assert (offered("SIZE 99999999999999999999").size_limit or 0) > 2**63


def test_smtputf8_brings_8bitmime() -> None:
    assert offered("SMTPUTF8").eight_bit_mime


def test_limits_are_read() -> None:
    extensions = offered("LIMITS RCPTMAX=1 MAILMAX=20 RCPTDOMAINMAX=3 OTHER=x")
    assert extensions.rcpt_max == 1
    assert extensions.mail_max == 20
    assert extensions.rcpt_domain_max == 3


@pytest.mark.parametrize("line", ["LIMITS RCPTMAX=1 rcptmax=2", "LIMITS RCPTMAX=1 MAILMAX"])
@pytest.mark.client_row("C33")
def test_limits_with_bad_syntax_are_void(line: str) -> None:
    assert offered(line).rcpt_max is None


@pytest.mark.parametrize("value", ["0", "x", "-1", "1234567", ""])
@pytest.mark.client_row("C33")
def test_limit_with_a_bad_value_is_void_alone(value: str) -> None:
    extensions = offered(f"LIMITS RCPTMAX={value} MAILMAX=5")
    assert extensions.rcpt_max is None
    assert extensions.mail_max == 5
