"""Mail that a machine sent in answer to ours and that is no bounce: vacation notices and the like.

RFC 3834 has the field for it (Auto-Submitted); much of what is sent has others, or only a subject.
"""

import re

from relay.delivery.intake.parts import Fields

_ANSWERS = ("auto-replied", "auto-notified")
_FIELDS = (
    "x-autoreply",
    "x-autorespond",
    "x-autoresponder",
    "x-auto-reply-from",
    "x-mail-autoreply",
    "x-cron-env",
)
_PRECEDENCES = frozenset({"auto_reply", "auto-reply", "autoreply"})
_SUBJECT = re.compile(
    r"^(?:re: |aw: |fwd?: )?(?:auto(?:matic|matische|mated)?[ :_-]{0,2}"
    r"(?:reply|re|response|antwort)|out of (?:the )?office|ooo\b|vacation|on vacation|away from"
    r"|abwesen|automatische antwort"
    r"|r[ée]ponse automatique|absence|absent|respuesta autom[áa]tica|fuera de (?:la )?oficina"
    r"|risposta automatica|fuori ufficio|resposta autom[áa]tica|afwezig|automatisch antwoord"
    r"|autosvar|fr[åa]nvaro|automaattinen|odpowied[źz] automatyczna|автоответ|自动回复|自動応答)",
    re.IGNORECASE,
)


def is_automatic(fields: Fields) -> bool:
    """Whether the fields say that a machine answered in its owner's place."""
    submitted = fields.get("auto-submitted").partition(";")[0].partition("(")[0].strip().lower()
    if submitted.startswith(_ANSWERS) and not fields.get("x-failed-recipients"):
        return True
    if fields.get("precedence").strip().lower() in _PRECEDENCES:
        return True
    if any(fields.get(name) for name in _FIELDS):
        return True
    return _SUBJECT.match(fields.get("subject")) is not None
