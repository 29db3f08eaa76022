"""All targets by name."""

from tests.fuzz.campaign import Target
from tests.fuzz.client_machine import ClientMachineTarget
from tests.fuzz.content_converter import ContentConverterTarget
from tests.fuzz.content_encoder import ContentEncoderTarget
from tests.fuzz.data_reader import DataReaderTarget
from tests.fuzz.dns_reader import DnsReaderTarget
from tests.fuzz.http_body import HttpBodyTarget
from tests.fuzz.incoming_report import IncomingReportTarget
from tests.fuzz.reply_reader import ReplyReaderTarget
from tests.fuzz.settings_loader import SettingsLoaderTarget
from tests.fuzz.smtp_door import SmtpDoorTarget

TARGETS: dict[str, type[Target]] = {
    target.name: target
    for target in (
        ReplyReaderTarget,
        ClientMachineTarget,
        ContentEncoderTarget,
        ContentConverterTarget,
        DataReaderTarget,
        SmtpDoorTarget,
        HttpBodyTarget,
        DnsReaderTarget,
        SettingsLoaderTarget,
        IncomingReportTarget,
    )
}
