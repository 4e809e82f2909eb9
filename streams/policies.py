"""Follows the policies and lists of the settings' topics: what is applied there decides from the next micro-batch on.
A policy that this version cannot use is said and passed over; the one before goes on deciding.
"""

import logging
from collections.abc import Callable

from schemas.errors import PolicyError
from schemas.registry import Registry
from schemas.wire import Decoder
from streams.compacted import Compacted
from streams.config import Settings
from streams.policy.decide import Policy
from streams.policy.lists import BLOCK, ITEM, Lists, parse_key
from streams.policy.standing import Standing

log = logging.getLogger(__name__)

TASK = "fraud"


class PolicyFeed:
    """`standing` and `lists` are as the topics say, once `wait_current` has returned."""

    def __init__(
        self,
        settings: Settings,
        registry: Registry,
        block: Callable[[str, int | None], None] = lambda item, until: None,
    ) -> None:
        """block: hears of each item that comes on the block list, until when, and None where one goes."""
        self.standing, self.lists = Standing(), Lists(Decoder(registry, "list_entry"))
        self._decode, self._block = Decoder(registry, "policy"), block
        self._readers = [
            Compacted(settings, settings.topics.lists, self._listed),
            Compacted(settings, settings.topics.policies, self._apply),
        ]

    def wait_current(self, timeout: float) -> None:
        for reader in self._readers:
            reader.wait_current(timeout)

    def stop(self) -> None:
        for reader in self._readers:
            reader.stop()

    def _listed(self, key: bytes, value: bytes | None) -> None:
        self.lists.apply(key, value)
        name, kind, token = parse_key(key.decode(errors="replace"))
        if (name, kind) == (BLOCK, ITEM):
            self._block(token, self.lists.until(name, kind, token))

    def _apply(self, key: bytes, value: bytes | None) -> None:
        name = key.decode(errors="replace")
        if name == f"{TASK}/live":
            self.standing.live = self._made(name, value, self.standing.live)
        elif name == f"{TASK}/shadow":
            self.standing.shadow = self._made(name, value, self.standing.shadow)

    def _made(self, name: str, value: bytes | None, before: Policy | None) -> Policy | None:
        record = self._decode(value) if value is not None else None
        if record is None or not record["document"]:
            log.info("%s: no policy", name)
            return None
        try:
            policy = Policy.parse(record["document"], self.lists, record["version"])
        except PolicyError as error:
            stays = before.version if before else "the release's thresholds"
            log.error("%s: %s cannot be used, %s decides on: %s", name, record["version"], stays, error)
            return before
        log.info("%s: %s", name, policy.version)
        return policy
