"""Below the free-disk watermark nothing is accepted, and every door says that it is for now."""

import smtplib
from pathlib import Path

import httpx
import pytest

from tests.support.household import household, wait_until


def test_doors_refuse_for_now_while_the_disk_is_below_the_watermark(tmp_path: Path) -> None:
    with household(tmp_path, RELAY_REDIS_DISK_WATERMARK="1000000 GiB") as house:
        house.start_ready()
        wait_until(lambda: "disk.full" in house.out, "the mark")
        with smtplib.SMTP("127.0.0.1", house.smtp) as client:
            with pytest.raises(smtplib.SMTPResponseException) as refused:
                client.sendmail("a@example.org", ["ann@gmail.test"], "Subject: x\r\n\r\nx\r\n")
            assert refused.value.smtp_code == 452
        answer = httpx.post(
            f"http://127.0.0.1:{house.http}/v1/messages",
            json={"from": "a@example.org", "to": ["ann@gmail.test"], "subject": "x", "text": "x"},
        )
        assert answer.status_code == 503
        assert int(answer.headers["Retry-After"]) > 0
        assert house.end() == 0
