"""Alerts on orders that are held or blocked: whom they name, what the model saw, and why, through its own engine.
One per order by its id, whatever is delivered or decided again.
"""

from typing import Any

import numpy as np
import xxhash
from numpy.typing import NDArray

from engines.slot import Loaded
from schemas.errors import EngineError
from streams.events import ENTITY_FIELDS, Record, order_entities
from streams.features import pack
from streams.lookups import Lookups
from streams.output_columns import FEATURES_FORMAT
from streams.tasks.attribution import Attribution, attribute, variants
from streams.tasks.base import Result
from streams.tasks.sentences import sentences
from streams.work import Job

ALERTING = ("review", "block")
BASELINE = "baseline"
"""The release's setting: `fields` of an ordinary order."""
UNEXPLAINED = Attribution((), 0.0)


def raised(job: Job) -> list[int]:
    """Numbers of the job's events that raise an alert."""
    if not job.task.raises_alerts:
        return []
    return [number for number, each in enumerate(job.results) if each is not None and each.decision in ALERTING]


def explain(job: Job, loaded: Loaded, number: int) -> Attribution | None:
    """Of the job's event `number`. In a turn of the engine's. Raises EngineError.

    None of what the fallback answered, and of a release that does not know an ordinary order.
    """
    baseline = loaded.settings.get(BASELINE)
    if not baseline or f"{job.task.name}/{loaded.release}" != job.release or job.fallback[number]:
        return None
    rows = variants(job.rows[number : number + 1], baseline)
    return attribute(_logits(job, loaded, rows), float(loaded.calibration.get("a", 1.0)))


def _logits(job: Job, loaded: Loaded, rows: NDArray[np.void]) -> NDArray[np.float32]:
    """(N,), in calls of at most `max_batch` rows."""
    table, parts = Lookups(loaded.table), []
    for start in range(0, len(rows), loaded.max_batch):
        part = rows[start : start + loaded.max_batch]
        parts.append(loaded.infer(job.task.inputs(part, table)).outputs["logit"])
    logit: NDArray[np.float32] = np.concatenate(parts)
    if not np.isfinite(logit).all():
        raise EngineError(f"{len(rows)} rows have logits that are not finite", where=job.release)
    return logit


def alert_record(job: Job, number: int, score: Record, place: tuple[int, int]) -> dict[str, Any]:
    """The FraudAlert of one event; score: its score record; place: partition and offset of the order."""
    event, result = job.events[number], job.results[number]
    assert result is not None
    found = job.explained.get(number, UNEXPLAINED)
    fields, probability = job.rows["fields"][number], result.prediction[0]
    rules = list(result.fields["rules"])
    order_id, shared = str(event["order_id"]), linked(event, job.entities[number])
    return {
        "alert_id": xxhash.xxh3_128_hexdigest(order_id.encode()),
        "order_id": order_id,
        "event_id": score["event_id"],
        "user_id": score["user_id"],
        "event_time": score["event_time"],
        "raised_at": score["scored_at"],
        "policy_version": result.fields["policy_version"] or f"thresholds of {score['release']}",
        "release": score["release"],
        "probability": probability,
        "decision": result.decision,
        "reasons": result.fields["reasons"],
        "rules": rules,
        "links": [one["entity"] for one in shared],
        "linked": shared,
        "entities": entities(event),
        "amount": event["amount"],
        "currency": event["currency"],
        "country": event["country"],
        "order_partition": place[0],
        "order_offset": place[1],
        "features_format": FEATURES_FORMAT,
        "features": pack(job.rows[number : number + 1])[0],
        "expected_loss": result.fields["expected_loss"],
        "contributions": [each._asdict() for each in found.contributions],
        "completeness_error": found.completeness_error if found.contributions else None,
        "sentences": _sentences(result, probability, found, fields, rules),
    }


def _sentences(
    result: Result, probability: float, found: Attribution, fields: NDArray[np.float32], rules: list[str]
) -> dict[str, str]:
    return sentences(str(result.decision), probability, found.contributions, fields, rules)


def entities(event: Record) -> list[str]:
    """type:token of all that the order names."""
    return [f"{kind}:{token}" for kind, token in zip(ENTITY_FIELDS, order_entities(event), strict=True) if token]


def linked(event: Record, shared: NDArray[np.int32]) -> list[dict[str, Any]]:
    """What the order shares with other users, or with fraud, and with how many of each.

    shared: (entities, 2), users and users with a fraud, of `entities.state` as this worker knew it. Which orders those
    are it does not know: an entity's owner keeps hashes of them, and tells numbers.
    """
    named = zip(ENTITY_FIELDS, order_entities(event), shared.tolist(), strict=True)
    return [
        {"entity": f"{kind}:{token}", "users": users, "frauds": frauds}
        for kind, token, (users, frauds) in named
        if token and (users > 1 or frauds)
    ]
