"""What a receiver's text says about when to come back ("try again in 300 seconds").

A hint never decides whether mail is retried, only when (RFC 5321 §4.2: text is for people); how
short or long a wait may be is the retry schedule's matter.
"""

import re

_UNIT_S = {"s": 1.0, "m": 60.0, "h": 3600.0, "d": 86400.0}
#: Where a hint is looked for: the beginning of the text. Every repetition below is bounded as well.
TEXT_CHARACTERS = 1000
#: postgrey "try again in 300 seconds", milter-greylist "come back in 00:04:31",
#: sqlgrey "Greylisted for 5 minutes", Exim set-ups "retry after 10 min", "wait 300 seconds".
_HINT = re.compile(
    r"(?:(?:again|retry|resend|back|greylist\w{0,8}|deferred|delayed|wait)[^0-9.;]{0,40}?"
    r"(?:\b(?:in|after|for|at least|wait)\s{1,4}|\()|\bwait\s{1,4})"
    r"(?:(?P<h>\d{1,2}):(?P<m>\d{2}):(?P<s>\d{2})"
    r"|(?P<number>\d{1,6})\s{0,4}"
    r"(?P<unit>s(?:ec(?:ond)?s?)?|m(?:in(?:ute)?s?)?|h(?:(?:ou)?rs?)?|d(?:ays?)?)\b)",
    re.IGNORECASE | re.ASCII,
)
_RETRY_AFTER = re.compile(r"retry-after[:=]\s{0,4}(\d{1,6})\b", re.IGNORECASE | re.ASCII)


def retry_hint_s(text: str) -> float | None:
    """Seconds that the text asks us to wait, unclamped; None where it names no time."""
    beginning = text[:TEXT_CHARACTERS]
    match = _HINT.search(beginning)
    if match is None:
        plain = _RETRY_AFTER.search(beginning)
        return float(plain[1]) if plain else None
    if match["number"] is not None:
        return float(match["number"]) * _UNIT_S[match["unit"][0].lower()]
    return int(match["h"]) * 3600.0 + int(match["m"]) * 60.0 + int(match["s"])
