"""Reports of hostile writers: any octets are read as some report, within the bounds of one."""

from pathlib import Path

from relay.delivery.intake.reader import read_report
from relay.delivery.intake.report import Kind, Report
from relay.delivery.intake.status import RECIPIENTS
from tests.fuzz.campaign import Target
from tests.fuzz.source import Source

_FOLDER = Path(__file__).parent.parent / "unit" / "data" / "reports"
WORDS = (
    b"\r\n\r\n",
    b"\r\n--=_b1\r\n",
    b"--=_b1--",
    b'Content-Type: multipart/report; boundary="=_b1"\r\n\r\n',
    b"Content-Type: message/delivery-status\r\n\r\n",
    b"Content-Type: message/feedback-report\r\n\r\n",
    b"Content-Type: message/rfc822\r\n\r\n",
    b"Content-Transfer-Encoding: base64\r\n",
    b'Content-Type: text/plain; charset="utf-7"\r\n',
    b"boundary*0*=utf-8''%41; boundary*1=b; ",
    b"Final-Recipient: rfc822; ",
    b"Final-Recipient: utf-8; \\x{110000}@a\r\n",
    b"Action: failed\r\n",
    b"Status: 5.999.999\r\n",
    b"=?utf-8?B?////?=",
    b"=?x-unknown?Q?=FF?=",
    b"<a@b>",
    b"@",
    b"\0",
    b"\xff",
    b" \t",
    b";",
    b"550 5.1.1 ",
)


class IncomingReportTarget(Target):
    name = "incoming-report"

    def open(self) -> None:
        paths = sorted(_FOLDER.glob("*.eml"))
        self.seeds = tuple(path.read_bytes().replace(b"\n", b"\r\n") for path in paths)

    def check(self, source: Source) -> None:
        octets = source.one(self.seeds)
        if source.chance(0.9):
            octets = source.mutated(octets, WORDS)
        if source.chance(0.02):
            octets += source.one(WORDS) * source.below(20_000)
        report = read_report(octets)
        assert read_report(octets) == report
        _check(report)


def _check(report: Report) -> None:
    assert report.kind in Kind
    assert len(report.recipients) <= RECIPIENTS
    assert len(report.clues) <= 10 and len(report.message_ids) <= 3
    texts = [report.reporter, report.feedback_type, report.envelope_id, *report.clues]
    for item in report.recipients:
        assert item.address.count("@") >= 1 or not item.address
        assert len(item.diagnostic) <= 1000
        texts += [item.address, item.original, item.status, item.remote]
    assert all(len(text) <= 1000 and "\n" not in text and "\0" not in text for text in texts)
