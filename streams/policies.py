"""Follows the policies and lists of the settings' topics: what is applied there decides from the next micro-batch on.
A policy that this version cannot use is said and passed over; the one before goes on deciding, after a restart too.
"""

import logging
from collections.abc import Callable
from contextlib import suppress

from schemas.errors import PolicyError
from schemas.registry import Registry
from schemas.wire import Decoder
from streams.compacted import Compacted
from streams.config import Settings
from streams.events import Record
from streams.policy.decide import Policy
from streams.policy.lists import BLOCK, ITEM, Lists, parse_key
from streams.policy.standing import Standing

log = logging.getLogger(__name__)

TASK = "fraud"
LIVE = f"{TASK}/live"
KEPT = "kept"
"""Standing of a version's own record: it was live once."""


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
        self._kept: dict[str, Record] = {}
        self._decided = False  # whether this process has known what is live; that nothing is, too
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
        record = self._decode(value) if value is not None else None
        if name == LIVE:
            before = self.standing.live if self._decided else self._last_good()
            self.standing.live, self._decided = self._made(name, record, before), True
        elif name == f"{TASK}/shadow":
            self.standing.shadow = self._made(name, record, self.standing.shadow)
        elif record is not None and record["standing"] == KEPT:
            self._kept[name] = record

    def _made(self, name: str, record: Record | None, before: Policy | None) -> Policy | None:
        refused = self.standing.refused
        refused.pop(name, None)
        if record is None or not record["document"]:
            log.info("%s: no policy", name)
            return None
        try:
            policy = Policy.parse(record["document"], self.lists, record["version"])
        except PolicyError as error:
            stays = before.version if before else "the release's thresholds"
            log.error("%s: %s cannot be used, %s decides on: %s", name, record["version"], stays, error)
            refused[name] = f"{record['version']} cannot be used: {error}"
            return before
        log.info("%s: %s", name, policy.version)
        return policy

    def _last_good(self) -> Policy | None:
        """Of those that were live once, the newest that can be used."""
        for record in sorted(self._kept.values(), key=lambda record: record["applied_at"], reverse=True):
            with suppress(PolicyError):
                return Policy.parse(record["document"], self.lists, record["version"])
        return None
