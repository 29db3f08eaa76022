"""Where mail goes and under which rules: everything that is read from configuration, once."""

import msgspec

from relay.delivery.routing import own_name, rules_digest
from relay.delivery.sign import Signer, signer_of
from relay.delivery.sts_policies import StsPolicies
from relay.net.dns_cache import DnsCache
from relay.net.resolver import Resolver
from relay.policy.reverse_path import ReversePaths
from relay.policy.route import RouteTable
from relay.policy.rules import Rules, load_rules
from relay.policy.shape import Shaping, load_shaping
from relay.settings import files
from relay.settings.schema import Settings
from relay.settings.shipped import text_of


class Directory(msgspec.Struct, frozen=True):
    """Settings, static routes, shaping, reply rules, the resolver, our own name, the signer.

    `sts` are the MTA-STS policies of recipient domains, None where they are not asked for; `signer`
    is None where no key is configured, `reverse_paths` where all are the senders' own.
    `digest` tells routes made under these rules from others.
    """

    settings: Settings
    routes: RouteTable
    shaping: Shaping
    rules: Rules
    resolver: Resolver
    hello_name: str
    digest: bytes
    sts: StsPolicies | None = None
    signer: Signer | None = None
    reverse_paths: ReversePaths | None = None


def load_directory(
    settings: Settings, resolver: Resolver, cache: DnsCache | None = None, *, signs: bool = True
) -> Directory:
    """Read everything; ConfigError names what is wrong.

    Who only looks where mail would go has no use for keys, and may not be allowed to read them
    (`signs` False).
    """
    routes = RouteTable.from_settings(settings)
    shaping, rules = load_rule_files(settings)
    return Directory(
        settings=settings,
        routes=routes,
        shaping=shaping,
        rules=rules,
        resolver=resolver,
        hello_name=own_name(settings),
        digest=rules_digest(settings, routes, shaping),
        sts=StsPolicies.from_settings(settings, resolver, cache),
        signer=signer_of(settings) if signs else None,
        reverse_paths=ReversePaths.from_settings(settings, routes),
    )


def load_rule_files(settings: Settings) -> tuple[Shaping, Rules]:
    """Shaping and known replies of the files that the settings choose; faults name the file."""
    shaping, replies = files.shaping_path(settings), files.replies_path(settings)
    return (
        load_shaping(text_of(shaping), file=str(shaping)),
        load_rules(text_of(replies), file=str(replies)),
    )
