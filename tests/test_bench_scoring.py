"""The benchmark of scoring without a broker: it scores every event, and says what each stage cost."""

import pytest

from bench import scoring
from bench.scoring import MIXES, STAGES, Feed, make_scorer
from streams.sources.load import START_MS, uniform_load


def test_each_size_and_mix_has_a_figure_for_each_stage(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(scoring, "SIZES", (3, 8))
    figures = scoring.costs(events=24, rounds=1, users=5)
    for mix in MIXES:
        for size in (3, 8):
            stages = [figures[f"{mix}_{size}_{stage}"] for stage in STAGES]
            assert min(stages) > 0
            assert figures[f"{mix}_{size}"] == pytest.approx(sum(stages))


def test_every_event_is_scored_and_none_is_late_or_dead() -> None:
    scorer, registry = make_scorer([8])
    scored: list[str] = []
    batches = Feed(registry).batches(uniform_load(50, 10, 1, start=START_MS), 8)
    scoring.scored(scorer, batches, lambda work: scored.extend(event["event_id"] for event in work.events))
    assert len(set(scored)) == 50
    counts = scorer.outputs.counts
    assert (sum(counts.scored.values()), counts.late, counts.fallback, counts.dead) == (50, {}, {}, {})
