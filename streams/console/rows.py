"""Alerts, labels and changes as rows of the store: what is taken of a record, and what is left out.
An older record lacks fields: what it does not say is None or empty, never made up.
"""

import json
from typing import Any, NamedTuple

import numpy as np

from streams.audit.chain import Entry
from streams.console.answers import Label
from streams.events import Record
from streams.events import money as minor_units
from streams.tasks.fraud import Fraud

ROW = Fraud.features
FIELDS_AT = ROW.fields["fields"][1] if ROW.fields else 0
FORMAT_KNOWN_BYTES = ROW.itemsize

BECAUSE = (", mostly because ", "主要因为")
DETAIL = (
    "event_id", "reasons", "rules", "links", "linked", "entities", "contributions", "completeness_error", "sentences",
    "order_partition", "order_offset", "expected_loss",
)  # fmt: skip
COLUMNS = (
    "alert_id", "order_id", "user_id", "event_time", "raised_at", "policy", "release", "probability", "decision",
    "amount", "currency", "country", "loss", "sentence", "sentence_zh",
)  # fmt: skip

# What people do to a case: the actions of the audit log that the store folds.
VERDICT, WITHDRAWAL = "verdict", "verdict.withdrawn"
OPINION, OPINION_WITHDRAWN = "opinion", "opinion.withdrawn"
ASSIGNMENT, NOTE, NOTE_REMOVED = "case.assigned", "case.note", "case.note.removed"
ACTIONS = frozenset((VERDICT, WITHDRAWAL, OPINION, OPINION_WITHDRAWN, ASSIGNMENT, NOTE, NOTE_REMOVED))


class Change(NamedTuple):
    """What a person did to a case, as the audit log tells it: `change_id` is its sequence, `who` a pseudonym."""

    change_id: int
    order_id: str
    who: str
    action: str
    at: int
    detail: str = "{}"

    @classmethod
    def of(cls, entry: Entry) -> "Change":
        return cls(entry.sequence, entry.subject, entry.who, entry.action, entry.at, entry.detail)


def alert_values(record: Record) -> dict[str, Any]:
    """By column of `alerts`."""
    amount = minor_units(record["amount"]) if record["amount"] else None
    told = record["expected_loss"]
    stake = record["probability"] * (amount or 0) / 10_000  # without a policy: what is expected to be lost of it
    values = {name: record[name] for name in COLUMNS if name in record}
    return values | {
        "policy": record["policy_version"],
        "amount": amount,
        "loss": stake if told is None else told,
        "sentence": why(record["sentences"].get("en", "")) or ", ".join(record["reasons"]),
        "sentence_zh": why(record["sentences"].get("zh", "")),
    }


def detail_of(record: Record) -> str:
    """What only the case shows, as JSON."""
    return json.dumps({name: record[name] for name in DETAIL}, ensure_ascii=False, default=str)


def why(sentence: str) -> str:
    """What a sentence says beyond decision and probability, which the queue has in columns of their own."""
    for because in BECAUSE:
        _, found, reason = sentence.partition(because)
        if found:
            return reason[:1].upper() + reason[1:]
    return sentence


def fields_of(packed: bytes) -> bytes:
    """The `fields` part of a packed row; empty where the row is of another size than ours."""
    return packed[FIELDS_AT : FIELDS_AT + 4 * ROW["fields"].shape[0]] if len(packed) == FORMAT_KNOWN_BYTES else b""


def unpacked(packed: bytes) -> np.void | None:
    """The row that the model saw, or None where it is of a format that is not ours."""
    if len(packed) != FORMAT_KNOWN_BYTES:
        return None
    row: np.void = np.frombuffer(packed, ROW)[0]
    return row


def label_of(record: Record) -> tuple[str, Label] | None:
    """(order_id, label) of a label on an order's fraud; None for any other label."""
    if record["task"] != Fraud.name or record["name"] != Fraud.labels.name:
        return None
    kept = (record[name] for name in Label._fields)
    return str(record["target_id"]), Label(*kept)
