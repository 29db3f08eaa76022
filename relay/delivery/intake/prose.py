"""Bounces written for people: qmail, Exim, and the dialects of providers and old gateways.

Three things are looked for, in the text before the returned copy of our message: that it is a
bounce at all (who wrote it, its subject, a phrase), whom it is about, and the words of the last
server. Every pattern's repetitions are bounded.
"""

import re

from relay.delivery.intake.parts import Fields
from relay.delivery.intake.report import Kind, ReportedRecipient
from relay.delivery.intake.status import address_of, enhanced_of

#: A bounce says what it has to say at its beginning.
TEXT_CHARACTERS = 16_000
_RECIPIENTS = 20
_DAEMON = re.compile(
    r"^(?:mailer-daemon|postmaster|mdaemon|mail-daemon|maildaemon|mail\.daemon|mailerdaemon"
    r"|noreply-bounce|mail-delivery-subsystem|delivery-subsystem|system-administrator)\b",
    re.IGNORECASE,
)
_SUBJECT = re.compile(
    r"undeliver|not delivered|could ?n.t be delivered|could not be delivered|unable to deliver"
    r"|deliver\w{0,3} (?:status|fail|notification|problem|error|report)|failure notice"
    r"|failed (?:mail|delivery)|mail delivery (?:fail|sub|system)|mail (?:fail|system error)"
    r"|returned (?:mail|to sender)|returning message|message (?:not deliver|status)|non.?deliver"
    r"|bounced? (?:mail|message)|unzustellbar|nicht zugestellt|zustellung|non remis"
    r"|[ée]chec|no entregad|no se pudo entregar|mancata consegna|n[ãa]o entregue|onbestelbaar"
    r"|недостав|не доставлен|退信|系统退信|配信(?:不能|エラー)|送信エラー",
    re.IGNORECASE,
)
_ANSWER = re.compile(r"(?:re|aw|sv|antw|fwd?|wg|tr|回复|答复)\s{0,2}[:：]", re.IGNORECASE)
_DELAY = re.compile(
    r"\bdelay(?:ed)?\b|has not (?:yet )?been delivered|not yet been delivered"
    r"|still being (?:tried|retried)|will (?:continue to |be )(?:try|retried|attempt)|verz[öo]gert"
    r"|en attente",
    re.IGNORECASE,
)
_GIVEN_UP = re.compile(
    r"giv(?:e|en|ing) up|permanent|will not be retried|no longer|returned to sender"
    r"|retry timeout exceeded",
    re.IGNORECASE,
)
_SAYS_FAILED = re.compile(
    r"(?:permanent|fatal) (?:error|fail)|could(?: not|n.t) be delivered|unable to deliver"
    r"|not deliver|undeliver|wasn.t (?:able|delivered)|"
    r"(?:delivery|deliver) (?:to .{1,100} )?(?:has )?failed"
    r"|following address(?:es)? failed|user unknown|unknown user|no such (?:user|mailbox|address)"
    r"|does(?: not|n.t) exist|mailbox (?:is )?full|quota|rejected|giving up|i.ve given up"
    r"|konnte nicht|nicht zugestellt|n.a pas pu|no se pudo|non (?:è|e) stato|не удалось"
    r"|не может быть|无法|未能|不存在|できません",
    re.IGNORECASE,
)
#: Where the returned message begins, in the words of many daemons.
_COPY = re.compile(
    r"^(?:-{2,}.{0,40}(?:below this line|copy of (?:the|your) message|original message"
    r"|returned message|message header|undelivered message|unsent message|text of your message)"
    r"|received: (?:from|by) |return-path: |the following is a copy of the (?:headers|message)"
    r"|original message(?: headers?)?(?: follows)?|included is a copy)",
    re.IGNORECASE | re.MULTILINE,
)
_ADDRESS = r"[^\s<>()\[\]\";:,]{1,64}@[A-Za-z0-9.\-\[\]]{1,255}"
#: Lines that name whom it is about: in brackets, alone, after a label, or within a sentence.
_NAMED = (
    re.compile(rf"^[ \t>]{{0,8}}<({_ADDRESS})>", re.MULTILINE),
    re.compile(
        rf"^[ \t>*]{{0,8}}({_ADDRESS})[ \t.:]{{0,3}}(?:\(.{{1,80}}\)|- .{{1,80}})?[ \t]{{0,3}}$",
        re.MULTILINE,
    ),
    re.compile(
        r"(?:recipient|to|address|user|mailbox|final|intended|empf[äa]nger|destinataire|收件人)"
        rf"[^\S\n]{{0,3}}(?:address|\(s\)|邮件地址)?[ \t]{{0,3}}[:：=][ \t]{{0,8}}<?({_ADDRESS})>?",
        re.IGNORECASE,
    ),
    re.compile(
        rf"(?:to|for|user|account|address|an|à|a)[ \t\n]{{1,3}}<?({_ADDRESS})>?", re.IGNORECASE
    ),
    re.compile(rf"<({_ADDRESS})>"),
)
_REPLY = re.compile(r"(?<![\d.])([45]\d\d)(?:[ \-]+(?:#?[45]\.\d{1,3}\.\d{1,3})?[ :]?)[^\n]{2,300}")
_PATH = re.compile(rf"^return-path:[ \t]{{0,4}}<({_ADDRESS})>", re.IGNORECASE | re.MULTILINE)
_OWN_WORDS = ("mailer-daemon@", "postmaster@")


class Prose:
    """A text that may be a bounce, judged once."""

    def __init__(self, fields: Fields, text: str) -> None:
        whole = text[:TEXT_CHARACTERS]
        copy = _COPY.search(whole)
        self._said = whole[: copy.start()] if copy is not None and copy.start() > 10 else whole
        self._fields = fields
        self._returned = whole[len(self._said) :]

    @property
    def clues(self) -> tuple[str, ...]:
        """The reverse-path of the copy, where there is one."""
        match = _PATH.search(self._returned)
        return (match[1],) if match is not None else ()

    @property
    def is_from_daemon(self) -> bool:
        """Whether its writer is a mail system, by its name."""
        sender = self._fields.get("from")
        return _DAEMON.match(address_of(sender)) is not None or "mail delivery" in sender.lower()

    @property
    def kind(self) -> Kind:
        """BOUNCE, DELAY or UNKNOWN; two of writer, subject and words must speak for a bounce."""
        subject = self._fields.get("subject")
        if self._fields.get("x-failed-recipients"):
            return self._delay_or(Kind.BOUNCE)
        signs = [
            self.is_from_daemon,
            _SUBJECT.search(subject[:500]) is not None,
            _SAYS_FAILED.search(self._said) is not None,
        ]
        # People write about failed mail, too, and quote what they were told.
        is_answer = _ANSWER.match(subject) is not None or bool(self._fields.get("in-reply-to"))
        if sum(signs) < 2 or (is_answer and not self.is_from_daemon):
            return self._delay_or(Kind.UNKNOWN) if self.is_from_daemon else Kind.UNKNOWN
        return self._delay_or(Kind.BOUNCE)

    def _delay_or(self, otherwise: Kind) -> Kind:
        """A warning says that it is one, and not also that it has given up."""
        said = self._fields.get("subject")[:500] + "\n" + self._said
        if _DELAY.search(said) is None or _GIVEN_UP.search(said) is not None:
            return otherwise
        return Kind.DELAY

    def recipients(self) -> tuple[ReportedRecipient, ...]:
        """Whom it is about, each with the words behind its address."""
        listed = self._fields.get("x-failed-recipients")
        if listed:
            words = listed.split(",")[:_RECIPIENTS]
            found = [address for word in words if (address := address_of(word))]
        else:
            found = self._named()
        return tuple(self._recipient(address) for address in dict.fromkeys(found))

    def _named(self) -> list[str]:
        for pattern in _NAMED:
            found = [match[1].rstrip(".") for match in pattern.finditer(self._said)]
            strangers = [one for one in found if not one.lower().startswith(_OWN_WORDS)]
            if strangers:
                return strangers[:_RECIPIENTS]
        return []

    def _recipient(self, address: str) -> ReportedRecipient:
        at = max(self._said.find(address), 0)
        match = _REPLY.search(self._said, at) or _REPLY.search(self._said)
        diagnostic = " ".join(match[0].split()) if match is not None else ""
        status = enhanced_of(diagnostic) or enhanced_of(self._said[at:])
        if not diagnostic:
            diagnostic = " ".join(self._said[at + len(address) :].strip("<>: \n\t").split())[:300]
        return ReportedRecipient(address, status=status, diagnostic=diagnostic)
