"""Which SASL mechanism is used: the strongest that both sides know.

PLAIN, LOGIN and both of OAuth 2 show the secret to whoever carries the line; CRAM-MD5 and SCRAM do
not, but in clear they leave an eavesdropper something to guess on, and the session to whoever
takes it over. So `client` refuses all of them on a clear path that leaves this machine.
"""

from collections.abc import Callable, Set
from typing import Final

import msgspec

from relay.model.credentials import Credentials
from relay.model.errors import LocalProtocolError
from relay.smtp.oauth import OAuthBearer, XOAuth2
from relay.smtp.sasl import NO_CHANNEL, Channel, CramMd5, Login, Mechanism, Plain
from relay.smtp.scram import SHA1, SHA256, Scram

Maker = Callable[[Credentials, Channel], Mechanism]

#: With a password, the strongest first. PLAIN takes one round trip, LOGIN three.
FOR_PASSWORDS: Final[dict[str, Maker]] = {
    "SCRAM-SHA-256-PLUS": lambda account, channel: Scram(account, SHA256, channel, binds=True),
    "SCRAM-SHA-256": lambda account, channel: Scram(account, SHA256, channel),
    "SCRAM-SHA-1-PLUS": lambda account, channel: Scram(account, SHA1, channel, binds=True),
    "SCRAM-SHA-1": lambda account, channel: Scram(account, SHA1, channel),
    "CRAM-MD5": lambda account, _: CramMd5(account),
    "PLAIN": lambda account, _: Plain(account),
    "LOGIN": lambda account, _: Login(account),
}
#: With an access token.
FOR_TOKENS: Final[dict[str, Maker]] = {
    "OAUTHBEARER": OAuthBearer,
    "XOAUTH2": lambda account, _: XOAuth2(account),
}


def choose_mechanism(
    offered: Set[str], credentials: Credentials, channel: Channel = NO_CHANNEL
) -> Mechanism:
    """The strongest mechanism among those offered; LocalProtocolError where none is in common.

    Which ones fit depends on the secret, a password or a token; `credentials.mechanisms` narrows
    the choice. Those that bind (-PLUS) need a channel with a binding.
    """
    is_bindable = any(name.endswith("-PLUS") for name in offered)
    channel = msgspec.structs.replace(channel, is_bindable=is_bindable)
    for name, make in (FOR_TOKENS if credentials.is_token else FOR_PASSWORDS).items():
        if name not in offered or (credentials.mechanisms and name not in credentials.mechanisms):
            continue
        if channel.binding or not name.endswith("-PLUS"):
            return make(credentials, channel)
    names = " ".join(sorted(offered)) or "none"
    wanted = " ".join(credentials.mechanisms)
    ours = f"we are to use {wanted}" if wanted else "we have a "
    ours += "" if wanted else ("token" if credentials.is_token else "password")
    raise LocalProtocolError(f"no SASL mechanism in common: {ours}, the server offers {names}")
