"""What a receiver's text says about when to come back ("try again in 300 seconds").

A hint never decides whether mail is retried, only when (RFC 5321 §4.2: text is for people).
"""

import re

_UNIT_S = {"s": 1.0, "m": 60.0, "h": 3600.0}
#: postgrey "try again in 300 seconds", milter-greylist "come back in 00:04:31",
#: sqlgrey "Greylisted for 5 minutes", Exim set-ups "retry after 10 min".
_HINT = re.compile(
    r"(?:again|retry|resend|back|greylist\w*|deferred|delayed|wait)[^0-9.;]{0,40}?"
    r"(?:\b(?:in|after|for|at least|wait)\s+)"
    r"(?:(?P<h>\d{1,2}):(?P<m>\d{2}):(?P<s>\d{2})"
    r"|(?P<number>\d{1,6})\s*(?P<unit>s(?:ec(?:ond)?s?)?|m(?:in(?:ute)?s?)?|h(?:(?:ou)?rs?)?)\b)",
    re.IGNORECASE | re.ASCII,
)
_RETRY_AFTER = re.compile(r"retry-after[:=]\s*(\d{1,6})\b", re.IGNORECASE | re.ASCII)


def retry_hint_s(text: str) -> float | None:
    """Seconds that the text asks us to wait, unclamped; None where it names no time."""
    match = _HINT.search(text)
    if match is None:
        plain = _RETRY_AFTER.search(text)
        return float(plain[1]) if plain else None
    if match["number"] is not None:
        return float(match["number"]) * _UNIT_S[match["unit"][0].lower()]
    return int(match["h"]) * 3600.0 + int(match["m"]) * 60.0 + int(match["s"])
