"""Judges what becomes of labels and of bad input: each label has its example once, silence too, and poison its letter.
What is expected follows from what was published alone; the join's own rule is asked only which negatives are kept.
"""

from collections import Counter, defaultdict
from collections.abc import Iterable, Mapping, Sequence

from bench.replay import comparable
from streams.labels.rules import Rule
from streams.tasks import make_task
from tests.checker import Record, Report, Sent

Key = tuple[str, str, str | None, str]
"""Task, target, candidate, name of the outcome."""
OWN = {("fraud", "fraud"), ("ctr", "click")}
"""Outcomes of which every example is expected; others follow from orders, and are only counted."""


def expected_examples(sent: Sent, open_users: str) -> dict[Key, float]:
    """The newest label of each example of OWN, where only the windows of users named `open_users`* are still open.

    A bank's word makes one at once. An ad that was shown is a positive if it was clicked, and else a negative, if it is
    one of those that are kept.
    """
    rule, found = Rule.of(make_task("ctr")), dict[Key, float]()
    for topic, record in sent:
        if topic == "labels":
            found["fraud", record["target_id"], None, "fraud"] = record["value"]
        elif topic == "impressions" and not record["user_id"].startswith(open_users):
            for ad in record["slate"]:
                if rule.samples(record["event_id"], ad["ad_id"]):
                    found["ctr", record["event_id"], ad["ad_id"], "click"] = 0.0
    for topic, record in sent:
        if topic == "clicks" and record["impression_id"]:
            found["ctr", record["impression_id"], record["ad_id"], "click"] = 1.0
    return found


def key_of(example: Record) -> Key:
    return example["task"], example["target_id"], example["candidate_id"], example["name"]


def missing(examples: Iterable[Record], expected: Mapping[Key, float]) -> set[Key]:
    """What is expected and not there."""
    return expected.keys() - {key_of(example) for example in examples}


def judge_join(
    report: Report, examples: Sequence[Record], served: Iterable[Record], expected: Mapping[Key, float]
) -> None:
    """Every example once, its newest revision right, with the features that were served; none that nobody expects."""
    report.examples += len(examples)
    often = [ident for ident, count in Counter(one["example_id"] for one in examples).items() if count > 1]
    report.expect(not often, f"{len(often)} examples are there more than once, such as {often[:3]}")
    by_key: dict[Key, list[Record]] = defaultdict(list)
    for example in examples:
        by_key[key_of(example)].append(example)
    lost = sorted(map(str, expected.keys() - by_key.keys()))
    report.expect(not lost, f"{len(lost)} labels without an example, such as {lost[:3]}")
    strange = sorted(str(key) for key in by_key.keys() - expected.keys() if (key[0], key[3]) in OWN)
    report.expect(not strange, f"{len(strange)} examples that nothing was said of, such as {strange[:3]}")
    wrong = []
    for key, found in by_key.items():
        revisions = sorted(one["revision"] for one in found)
        report.revised_examples += len(found) - 1
        newest = max(found, key=lambda one: one["revision"])
        if revisions != list(range(len(found))) or newest["label"] != expected.get(key, newest["label"]):
            wrong.append(f"{key}: revisions {revisions}, label {newest['label']} instead of {expected.get(key)}")
    report.expect(not wrong, f"{len(wrong)} examples are wrong, such as {wrong[:3]}")
    _judge_features(report, examples, served)


def _judge_features(report: Report, examples: Sequence[Record], served: Iterable[Record]) -> None:
    tasks = {name: make_task(name) for name in {one["task"] for one in examples}}
    known: dict[tuple[str, str], bytes] = {}
    for record in served:
        if record["task"] in tasks:
            known[record["task"], record["target_id"]] = comparable(tasks[record["task"]], record["features"])
    other = [
        one["target_id"]
        for one in examples
        if known.get((one["task"], one["target_id"])) != comparable(tasks[one["task"]], one["features"])
    ]
    report.expect(not other, f"{len(other)} examples have other features than were served, such as {other[:3]}")


def judge_letters(report: Report, letters: Sequence[Record], poison: Sequence[bytes]) -> None:
    """What cannot be used is kept, whole; and nothing that can be used is there."""
    found, thrown = {letter["value"] for letter in letters}, set(poison)
    report.dead_letters += len(letters)
    report.expect(not thrown - found, f"{len(thrown - found)} bad messages are nowhere")
    strange = [f"{one['topic']}: {one['code']}: {one['message']}" for one in letters if one["value"] not in thrown]
    report.expect(not strange, f"{len(strange)} dead letters of good messages, such as {strange[:2]}")
    said: dict[tuple[str, int, int], set[tuple[str, bytes]]] = defaultdict(set)
    for one in letters:
        said[one["topic"], one["partition"], one["offset"]].add((one["code"], one["value"]))
    differing = [place for place, outcomes in said.items() if len(outcomes) > 1]
    report.expect(not differing, f"{len(differing)} dead letters are said again differently, such as {differing[:2]}")
