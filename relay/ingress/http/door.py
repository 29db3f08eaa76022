"""What the endpoints share: the settings, the link to the store, the submitter."""

import asyncio

import msgspec

from relay.ingress.store_link import StoreLink
from relay.ingress.submit import Submitter
from relay.policy.route import RouteTable
from relay.settings.schema import Settings
from relay.store.queue import Store


class Door(msgspec.Struct, frozen=True):
    """One HTTP process's dependencies."""

    settings: Settings
    link: StoreLink
    submitter: Submitter
    routes: RouteTable
    stopping: asyncio.Event

    @property
    def store(self) -> Store:
        """The store; StoreUnavailable (503) while Redis is absent."""
        return self.link.store

    @property
    def hello_name(self) -> str:
        """In whose name reports are written."""
        return self.submitter.hostname
