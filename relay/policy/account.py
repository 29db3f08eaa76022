"""The account of a smarthost route: from its URL, or from the keys of its table."""

import re

import msgspec

from relay.model.credentials import Credentials
from relay.model.errors import ConfigError
from relay.policy.smarthost import Smarthost
from relay.settings.presets import Preset
from relay.settings.schema import Route, SaslMechanism

#: Where a route's secret may stand; a route has one of them.
_SECRETS = ("password", "password_file", "password_env", "token_file", "token_env")
_OF_TOKENS = frozenset({SaslMechanism.OAUTHBEARER, SaslMechanism.XOAUTH2})
_CONTROL = re.compile(r"[\x00-\x1f\x7f]")


def names_account(route: Route) -> bool:
    """Whether the table of the route has any key of an account."""
    return bool(route.username or route.auth or any(getattr(route, key) for key in _SECRETS))


def account_of(route: Route, smarthost: Smarthost, where: str) -> Credentials | None:
    """The account that a route logs in with, None for none; ConfigError names key, fault, fix."""
    given = [key for key in _SECRETS if getattr(route, key)]
    of_url, preset = smarthost.credentials, smarthost.preset
    if of_url is not None:
        if given or route.username:
            key = given[0] if given else "username"
            raise ConfigError(
                f"{where}.{key}: the URL of the smarthost names an account already; "
                "write it in one of the two places"
            )
        account = of_url
    elif not names_account(route) and preset is None:
        return None
    else:
        if preset is not None and not given:
            raise ConfigError(f"{where}.smarthost: {_lack(preset)}")
        account = _of_keys(route, given, where, preset.username if preset else "")
    _check_mechanisms(route, account, where)
    return msgspec.structs.replace(account, mechanisms=tuple(map(str, route.auth)))


def _lack(preset: Preset) -> str:
    """What a well-known host without a secret is to be told."""
    user = "" if preset.username else "username and "
    kind = f" ({preset.note})" if preset.note else ""
    return (
        f"{preset.name} takes mail from accounts only{kind}; in a [[routes]] table add {user}"
        f"one of {', '.join(_SECRETS)}"
    )


def _of_keys(route: Route, given: list[str], where: str, username: str) -> Credentials:
    username = route.username or username
    if not username:
        key = given[0] if given else "auth"
        raise ConfigError(f"{where}.{key}: there is no username; add username = …")
    if not given:
        raise ConfigError(
            f"{where}.username: there is no secret; add password_file = … or one of "
            f"{', '.join(_SECRETS)}"
        )
    if len(given) > 1:
        raise ConfigError(f"{where}.{given[1]}: {given[0]} is set too; remove one of them")
    (key,) = given
    if key.endswith("_file") and not getattr(route, key).startswith("/"):
        raise ConfigError(
            f"{where}.{key}: '{getattr(route, key)}' is no absolute path; begin with /"
        )
    for text in (username, route.password):
        if _CONTROL.search(text):
            raise ConfigError(f"{where}: the credentials contain a control character")
    return Credentials(
        username,
        password=route.password,
        is_token=key.startswith("token"),
        file=getattr(route, key) if key.endswith("_file") else "",
        variable=getattr(route, key) if key.endswith("_env") else "",
    )


def _check_mechanisms(route: Route, account: Credentials, where: str) -> None:
    if not route.auth or any((name in _OF_TOKENS) == account.is_token for name in route.auth):
        return
    has, takes = ("token", "password") if account.is_token else ("password", "token")
    names = ", ".join(route.auth)
    raise ConfigError(f"{where}.auth: {names} takes a {takes}, but the account has a {has}")
