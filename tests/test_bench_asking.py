"""The benchmark of requests: what it reports is what became of them."""

import pytest

from bench.asking import Asked, figures


def test_a_request_without_an_answer_is_lost_and_infinitely_late() -> None:
    answers = [Asked(0.0, "model", 99.0), *[Asked(5.0, "model", 2.0)] * 8, Asked(6.0, "fallback", 4.0)]
    found = figures(answers, warm_s=3.0)
    assert (found["answered"], found["fallback"], found["lost"]) == (9, 1, 0)
    assert (found["p50_ms"], found["max_ms"]) == (2.0, 4.0)
    lost = figures([*answers, Asked(7.0, "503", 1.0), Asked(8.0, "TimeoutError", 30_000.0)], warm_s=3.0)
    assert lost["lost"] == 2
    assert lost["p99_ms"] == pytest.approx(float("inf"))
