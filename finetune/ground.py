"""What a first training leaves for the fine-tunes after it: its examples, as the label join would have sent them.
They keep what was learned from being forgotten, and are what the gate compares new labels with.
"""

from pathlib import Path

import numpy as np
import xxhash
from numpy.typing import NDArray

from finetune.examples import Examples, labels_of, layout, ranks, source_key, target_key
from finetune.problems import Recorded
from finetune.reservoir import Reservoir
from streams.labels import derive
from streams.labels.rules import Rule

ROWS, BYTES = 50_000, 64 << 20


def fill_reservoir(problem: Recorded, folder: Path, *, rows: int = ROWS, bytes_: int = BYTES, seed: int = 0) -> int:
    """Adds all that the problem has labels of to the task's reservoir in `folder`; how many examples it holds then.

    Raises StateError for a folder that holds something else.
    """
    kept = Reservoir(folder, problem.task, rows=rows, bytes_=bytes_, seed=seed)
    return kept.add(learned(problem))


def learned(problem: Recorded) -> Examples:
    """The problem's examples with their labels as `finetune.examples.layout` has them, in order of (time, key).

    Negatives of a task that samples them are sampled, by the same draw as when serving, and weigh as much.
    """
    task, examples = problem.task, problem.examples
    out: Examples = np.zeros(len(examples), layout(task))
    out["features"], out["time"] = examples.rows, examples.time
    out["user"] = [_hash(user) if (user := event["user_id"] or "") else 0 for event in examples.events]
    targets = [task.target(event) for event in examples.events]
    out["revision"] = -1
    if ranks(task):
        items = problem.label.tolist()
        out["key"] = [target_key(task.name, *named) for named in zip(targets, map(str, items), strict=True)]
        out["label"][:, 0] = problem.label
        out["weight"][:, 0] = problem.label > 0
        closed = examples.time
    else:
        rule = Rule.of(task)
        out["key"] = [target_key(task.name, target) for target in targets]
        out["label"] = problem.label.reshape(len(out), -1)
        out["weight"] = _weights(problem, targets, rule)
        closed = examples.time + rule.window_ms
    known = out["weight"] > 0
    out["label"][~known] = 0
    out["revision"][known] = 0
    out["matured"] = closed
    out["observed"] = np.where(known, closed[:, None], 0)
    _said(problem, out)
    out = out[known.any(axis=1)]
    return out[np.lexsort((out["key"], out["time"]))]


def _weights(problem: Recorded, targets: list[str], rule: Rule) -> NDArray[np.float32]:
    """(N, C): 1 for what came true, 1 over the share that is kept for each negative that is, else 0."""
    events, label = problem.examples.events, problem.label.reshape(len(targets), -1)
    weight = np.where(label > 0.5, np.float32(1), np.float32(1 / rule.negatives))
    if labels_of(problem.task) == 1:
        return weight
    for number, (event, target) in enumerate(zip(events, targets, strict=True)):
        shown = problem.task.shown(event)
        for place in range(label.shape[1]):
            here = place < len(shown) and shown[place]
            if not here or (label[number, place] < 0.5 and not rule.samples(target, event["slate"][place]["ad_id"])):
                weight[number, place] = 0
    return weight


def _said(problem: Recorded, out: Examples) -> None:
    """Who said what is no silence, and when."""
    labels, events = problem.recording.labels, problem.examples.events
    if problem.name == "fraud":
        for row, event in zip(out, events, strict=True):
            if (said := labels.newest(event["order_id"])) is not None:
                row["source"], row["revision"] = source_key(said.source), said.revision
                row["observed"] = row["matured"] = said.observed_at
                row["label_id"] = np.uint64(said.label).astype(np.int64)
    elif not ranks(problem.task):
        clicked = (out["weight"] > 0) & (out["label"] > 0.5)
        out["source"][clicked] = source_key(derive.SOURCE)
        for number, place in np.argwhere(clicked).tolist():
            event = events[number]
            pair = event["event_id"], event["slate"][place]["ad_id"]
            out["observed"][number, place] = labels.clicks[pair]


def _hash(text: str) -> int:
    return xxhash.xxh3_64_intdigest(text.encode())
