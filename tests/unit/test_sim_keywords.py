"""Keywords: what a name under `.test` means."""

import re
from pathlib import Path

import pytest

from relay.sim.effects import Action, Command
from relay.sim.hosts import HostScript, host_script
from relay.sim.keywords import DOMAINS, LOCAL_PARTS, domain_keywords, recipient_script
from relay.sim.profiles import PROFILES

MANUAL = Path(__file__).parents[2] / "docs" / "simulated-internet.md"


@pytest.mark.parametrize(
    "address", ["anna@a.test", "tempfails@a.test", "tempfail@a.example", "x+tempfail@a.test"]
)
def test_recipient_script_is_none_for_an_ordinary_address(address):
    assert recipient_script(address) is None


def test_recipient_script_reads_the_number_of_attempts():
    assert recipient_script("tempfail+2@a.test").attempts == 2
    assert recipient_script("tempfail@a.test").attempts is None


def test_recipient_script_reads_a_duration():
    assert recipient_script("slow+200ms@a.test").effect.delay_s == pytest.approx(0.2)
    assert recipient_script("greylist+30s@a.test").effect.delay_s == 30


def test_recipient_script_ignores_a_tag_that_makes_the_address_unique():
    assert recipient_script("reject+anna17@a.test") == LOCAL_PARTS["reject"]


def test_recipient_script_takes_any_code_at_three_commands():
    script = recipient_script("rcpt452@a.test")
    assert (script.command, script.effect.reply[:9]) == (Command.RCPT, "452 4.0.0")
    assert recipient_script("data451@a.test").command is Command.DATA
    assert recipient_script("dot554@a.test").command is Command.END_OF_DATA
    assert recipient_script("dot421@a.test").effect.action is Action.SHUT_DOWN


def test_domain_keywords_are_found_in_every_label_with_their_number():
    assert domain_keywords("limit20.slow200ms.a.test") == {"limit": 20, "slow": 0.2}


def test_domain_keywords_are_only_read_under_test():
    assert domain_keywords("dead.example.org") == {}
    assert domain_keywords("limits.test") == {}


def test_a_number_that_belongs_to_the_keyword_is_no_parameter():
    assert domain_keywords("greeting5.test") == {"greeting5": None}
    assert domain_keywords("deadv6.test") == {"deadv6": None}


def test_host_script_of_an_ordinary_host_has_no_effect():
    assert host_script("mx1.a.test") == HostScript()


def test_host_script_kills_only_the_first_host_of_firstdead():
    assert host_script("mx1.firstdead.test").listens == "dead"
    assert host_script("mx2.firstdead.test").listens == "live"


def test_every_keyword_and_profile_stands_in_the_manual():
    described = set(re.findall(r"`([a-z0-9-]+)(?:[+@][^`]*|\.\*|N\.\*)?`", MANUAL.read_text()))
    missing = (LOCAL_PARTS.keys() | DOMAINS.keys() | PROFILES.keys()) - described
    assert not missing
