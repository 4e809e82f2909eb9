"""A lineage as one JSON object: what each record says, where it lies, and what its release says of itself.
Features are shown by their digest: their bytes are numbers only to the task's row layout.
"""

import hashlib
from typing import Any

from engines.releases import ReleaseStore
from schemas.values import to_json
from streams.events import EVENT_TYPES
from streams.tracing.lineage import Lineage
from streams.tracing.reading import Found
from streams.tracing.releases import described, learners

# Said once, above, for the event as a whole.
_OF_THE_EVENT = ("event_id", "user_id", "task", "target_id", "features")


def account(found: Lineage, store: ReleaseStore) -> dict[str, Any]:
    """Everything of one event; times in ISO 8601. What is not there is null or an empty list, `gone` says why."""
    taught = learners(store, found.task.name, found.examples) if found.examples else []
    told = found.served or (found.scores[0] if found.scores else None)
    return {
        "event_id": found.event_id,
        "task": found.task.name,
        "target_id": found.target_id,
        "user_id": found.user_id,
        "input": _shown(found.input, EVENT_TYPES[found.task.topic].schema) if found.input else None,
        "scores": [_shown(each, found.task.schema) for each in found.scores],
        "served": _served(found.served) if found.served else None,
        "release": described(store, found.release) if found.release else None,
        "engine": told.record["engine"] if told else None,
        "labels": [_shown(each, "label") for each in found.labels],
        "examples": [
            {**_shown(each, "training_example"), **trained}
            for each, trained in zip(found.examples, taught, strict=True)
        ],
        "shadow": [_shown(each, "shadow_score") for each in found.shadows],
        "gone": found.gone,
    }


def _shown(found: Found, contract: str) -> dict[str, Any]:
    fields = to_json(contract, found.record)
    return {**found.place, **{name: value for name, value in fields.items() if name not in _OF_THE_EVENT}}


def _served(found: Found) -> dict[str, Any]:
    features = found.record["features"]
    digest = {"features_sha256": hashlib.sha256(features).hexdigest(), "features_bytes": len(features)}
    return {**_shown(found, "served"), **digest}
