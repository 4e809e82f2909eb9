"""The label join's part in forgetting a person: when all that waited for a label of theirs is gone, it says so.
The rows go by what is read: a deletion on `served`, a request in the partition of the user.
"""

from collections.abc import Mapping, Sequence

from streams.config import Settings
from streams.joining.deriver import Deriver
from streams.joining.joiner import Joiner
from streams.labels.store import LabelStore
from streams.offsets import bounds
from streams.privacy.entries import LABELS, Entry
from streams.privacy.ledger import Ledger


class Forgetting:
    """Used from the join's thread."""

    def __init__(
        self,
        settings: Settings,
        ledger: Ledger,
        derivers: Sequence[Deriver],
        joiners: Sequence[Joiner],
        derive_store: LabelStore,
        join_store: LabelStore,
    ) -> None:
        self._settings, self._ledger = settings, ledger
        self._derivers, self._joiners = derivers, joiners
        self._stores = derive_store, join_store
        self._ends: dict[str, Mapping[tuple[str, int], int]] = {}  # of what was served, by request
        self._answered: set[str] = set()

    def look(self, now_ms: int) -> None:
        """Answers what can be answered. Raises BrokerUnavailable, RegistryUnavailable, ProduceFailed."""
        for request in self._ledger.erasures.open(LABELS):
            if request.until and request.receipt not in self._answered and self._forgotten(request):
                self._purge()
                self._ledger.put(request.answered(LABELS, now_ms))
                self._answered.add(request.receipt)

    def _forgotten(self, request: Entry) -> bool:
        """Of another partition count: there is nobody to ask."""
        asked = [deriver for deriver in self._derivers if deriver.partition == request.partition]
        if not all(deriver.has_forgotten(request) for deriver in asked):
            return False
        if request.receipt not in self._ends:
            self._ends[request.receipt] = self._served_ends()
        return all(joiner.has_read(self._ends[request.receipt]) for joiner in self._joiners)

    def _served_ends(self) -> dict[tuple[str, int], int]:
        topics = [self._settings.topics.served(task) for task in self._settings.tasks]
        places = [(topic, partition) for topic in topics for partition in range(self._settings.partitions)]
        return {place: high for place, (_, high) in bounds(self._settings, places).items()}

    def _purge(self) -> None:
        for store in self._stores:
            for partition in range(self._settings.partitions):
                store.purge(partition)
                store.close(partition)
