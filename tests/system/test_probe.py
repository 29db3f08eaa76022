"""`relay probe` in the simulated internet: what people read, what programs read, and no message."""

import json
import re
from pathlib import Path

import httpx

from relay.cli.probe import exit_code_of, lines_of
from tests.support.doors import Run, relay
from tests.support.system import running_system

#: What differs from run to run: ports, times, dates and whole durations.
_DIFFERS = (
    (r"\]:\d+", "]:PORT"),
    (r"\d+\.\d ms", "N ms"),
    (r"until [\d-]{10} \(\d+ days\)", "until DATE (N days)"),
    (r"127\.\d+\.\d+\.\d+", "127.N"),
    (r"~[0-9a-f]{8}", "~SITE"),
)

SHOP = """\
shop.test, in the simulated internet
  MX              10  mx1.shop.test  127.N
                  20  mx2.shop.test  127.N
  MTA-STS      none
  TLS-RPT      none
  DANE         none
  route        by MX, site mx1.shop.test~SITE
  we say       EHLO relay.example, TLS opportunistic
  limits       10 connections, 1.67/s new ones, 100/s messages, 100 messages on each, \
50 recipients a message

mx1.shop.test [127.N]:PORT
  greeting     220 mx1.shop.test ESMTP relay sink
  offers       PIPELINING, 8BITMIME, SMTPUTF8, ENHANCEDSTATUSCODES, SIZE 67108864
  TLS          TLSv1.3 TLS_AES_256_GCM_SHA384
  certificate  mx1.shop.test, issued by CN=relay sink test authority
               until DATE (N days), verified
  took         connect N ms, greeting N ms, hello N ms, tls N ms

mx2.shop.test [127.N]:PORT
  greeting     220 mx2.shop.test ESMTP relay sink
  offers       PIPELINING, 8BITMIME, SMTPUTF8, ENHANCEDSTATUSCODES, SIZE 67108864
  TLS          TLSv1.3 TLS_AES_256_GCM_SHA384
  certificate  mx2.shop.test, issued by CN=relay sink test authority
               until DATE (N days), verified
  took         connect N ms, greeting N ms, hello N ms, tls N ms

reject@shop.test from <me@relay.example>, asked of mx1.shop.test
  refused      The mailbox does not exist. (permanent, no_such_mailbox)
               550 5.1.1 No such user here

2 of 2 addresses are ready for mail. Nothing was sent.
"""


def steady(run: Run) -> str:
    """What was printed, without what differs from run to run."""
    text = run.out
    for pattern, word in _DIFFERS:
        text = re.sub(pattern, word, text)
    return text


async def test_probe_tells_the_road_of_a_domain_and_sends_nothing(tmp_path: Path) -> None:
    https = "127.0.0.1:{https_port}"
    more = {"RELAY_SINK_HTTPS": https, "RELAY_TLS_DANE": "true"}
    async with running_system(tmp_path, workers=0, **more) as system:
        api = f"http://127.0.0.1:{system.start_http()}"
        ask = ("--verify", "reject@shop.test", "--from", "me@relay.example")
        told = relay("probe", "shop.test", *ask, api=api)
        assert (told.code, steady(told)) == (67, SHOP)

        said = relay("probe", "shop.test", *ask, "--json", api=api)
        report = json.loads(said.out)
        assert said.code == 67 and said.out.count("\n") == 1
        assert [host["ready"] for host in report["hosts"]] == [True, True]
        assert report["recipient"]["verdict"]["reply"]["code"] == 550
        assert report["hosts"][0]["tls"]["certificate"]["names"] == ["mx1.shop.test"]
        assert "> QUIT" not in report["hosts"][0]["dialogue"]

        async with httpx.AsyncClient(base_url=api, timeout=60, trust_env=False) as client:
            for domain, code, sentence in (
                ("nullmx.test", 68, "accepts no mail (null MX)"),
                ("servfail.test", 75, "SERVFAIL"),
                ("dead.test", 75, "connection refused"),
                ("firstdead.test", 0, "1 of 2 addresses are ready"),
                ("expiredcert.test", 0, "not verified: certificate not accepted"),
                ("mtasts.test", 0, "MTA-STS      enforce, id "),
                ("dane.test", 0, "mx1.dane.test: 1 TLSA record, heeded"),
                ("dane.test", 0, ", verified by TLSA records"),
                ("danewrong.test", 75, "no TLSA record stands for the server's certificate"),
                ("danefail.test", 75, "mx1.danefail.test: unknown, "),
            ):
                found = (await client.post("/v1/probe", json={"domain": domain})).json()
                assert exit_code_of(found) == code, found
                assert sentence in "\n".join(lines_of(found)), found

            for wrong, field in (
                ({"domain": "a@shop.test"}, "domain"),
                ({"domain": "no domain"}, "domain"),
                ({"domain": "shop.test", "verify": "a@x.test"}, "verify"),
                ({"domain": "shop.test", "verify": "a b@shop.test"}, "verify"),
                ({"domain": "shop.test", "from": "a@x.test"}, "from"),
                ({"domain": "shop.test", "verify": "a@shop.test", "from": "x"}, "from"),
                ({}, "domain"),
            ):
                refused = await client.post("/v1/probe", json=wrong)
                assert refused.status_code == 422, wrong
                assert [error["field"] for error in refused.json()["errors"]] == [field]
        run = relay("probe", "a@shop.test", api=api)
        assert (run.code, run.out, run.err) == (
            65,
            "",
            "relay: domain: 'a@shop.test' is an address (give the domain alone; verify asks for an"
            " address)\n",
        )
        assert relay("probe", api=api).code == 64
        assert system.sink.receipts() == []
