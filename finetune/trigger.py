"""When a fine-tune of a task begins: asked for by hand, enough new labels, enough time, or drift; and when not.
Pure: what was seen and the time in, a sentence out.
"""

from collections.abc import Sequence
from dataclasses import dataclass

TIME_SHARE, DRIFT_SHARE = 10, 5
"""Parts of the usual number of examples and positives that will do after `every_s`, and after drift."""
ASKED_EXAMPLES = 100
"""Below this, not even a fine-tune that is asked for begins (or below the usual number, where that is less)."""
MOST_BACK_OFF = 16
"""Intervals between starts at most, after attempts that failed or were refused."""
UNKNOWN_BEFORE = 0
"""An event time below it (UTC ms) says that there is none."""


@dataclass(frozen=True, slots=True)
class TriggerRule:
    """examples, positives: new ones of which a fine-tune begins. interval_s: wall time between starts, at least.
    every_s: event time after which a tenth of them will do.
    """

    examples: int
    positives: int
    interval_s: float
    every_s: float


@dataclass(frozen=True, slots=True)
class Seen:
    """Of one task. examples: matured and not learned yet; positives: of these. newest: event time of the newest of
    them; learned_until: of what the live release has learned (UTC ms; below 0: of nothing). started_at: wall time of
    the last start, UTC ms; 0: never. attempts: starts since the last that went live; tried: examples of the last.
    """

    examples: int
    positives: int
    newest: int
    learned_until: int
    started_at: int
    asked: bool = False
    paused: bool = False
    attempts: int = 0
    tried: int = 0


ASKED, ENOUGH, DRIFT, TIME = KINDS = "asked", "examples", "drift", "time"
"""What begins a fine-tune, in the order in which it is looked for."""


def kind_of(rule: TriggerRule, seen: Seen, drift_reasons: Sequence[str], now_ms: int) -> str | None:
    """One of KINDS; None where no fine-tune begins. now_ms: wall time, UTC."""
    if seen.paused:
        return None
    if seen.asked:
        return None if _too_few_to_ask(rule, seen) else ASKED
    if _left_ms(rule, seen, now_ms) > 0:
        return None
    if _enough(rule, seen, 1):
        return ENOUGH
    if drift_reasons and _enough(rule, seen, DRIFT_SHARE):
        return DRIFT
    return TIME if _overdue(rule, seen) and _enough(rule, seen, TIME_SHARE) else None


def ask(rule: TriggerRule, seen: Seen, drift_reasons: Sequence[str], now_ms: int) -> str | None:
    """Why a fine-tune begins now, as a sentence; None where none does. now_ms: wall time, UTC."""
    kind = kind_of(rule, seen, drift_reasons, now_ms)
    if kind == ASKED:
        return f"It was asked for, with {_have(seen)}."
    if kind == ENOUGH:
        return f"There are {_have(seen)}."
    if kind == DRIFT:
        return f"Drift, with {_have(seen)}: {' '.join(drift_reasons)}"
    if kind == TIME:
        days = (seen.newest - seen.learned_until) / 86_400_000
        return f"The newest label is {days:.1f} days of event time past what was learned, with {_have(seen)}."
    return None


def why_not(rule: TriggerRule, seen: Seen, drift_reasons: Sequence[str], now_ms: int) -> str:
    """Why no fine-tune begins now, as a sentence; empty where one does."""
    if ask(rule, seen, drift_reasons, now_ms) is not None:
        return ""
    if seen.paused:
        return "It is paused." if not seen.asked else "It is paused; what was asked for begins when it is resumed."
    if seen.asked:
        return _too_few_to_ask(rule, seen)
    part, under = 1, ""
    if drift_reasons:
        part, under = DRIFT_SHARE, " under drift"
    if _overdue(rule, seen):
        part, under = TIME_SHARE, f" after {rule.every_s / 86_400:g} days"
    if not _enough(rule, seen, part):
        examples, positives = _needed(rule.examples, part), _needed(rule.positives, part)
        return f"There are {_have(seen)}; it takes {examples:,} and {positives:,}{under}."
    ago_s, left_s = abs(now_ms - seen.started_at) / 1000, _left_ms(rule, seen, now_ms) / 1000
    after = f", after {seen.attempts:,} in vain" if seen.attempts > 0 else ""
    return f"The last start was {ago_s:,.0f} s ago{after}; the next can be in {left_s:,.0f} s."


def _have(seen: Seen) -> str:
    return f"{seen.examples:,} new examples, {seen.positives:,} of them positive"


def _needed(usual: int, part: int) -> int:
    return max(1, -(-usual // part))


def _enough(rule: TriggerRule, seen: Seen, part: int) -> bool:
    return seen.examples >= _needed(rule.examples, part) and seen.positives >= _needed(rule.positives, part)


def _too_few_to_ask(rule: TriggerRule, seen: Seen) -> str:
    """A sentence; empty where they will do."""
    least = min(ASKED_EXAMPLES, rule.examples)
    if seen.examples >= least and seen.positives >= 1:
        return ""
    return f"It was asked for, and waits: there are {_have(seen)}; it takes {least:,} and 1."


def _overdue(rule: TriggerRule, seen: Seen) -> bool:
    """A release that has learned nothing of what was served says nothing of how old it is."""
    known = seen.learned_until >= UNKNOWN_BEFORE and seen.newest >= UNKNOWN_BEFORE
    return known and seen.newest - seen.learned_until >= 1000 * rule.every_s


def _left_ms(rule: TriggerRule, seen: Seen, now_ms: int) -> float:
    """Of the wait after the last start: the interval, doubled for each attempt in vain unless the examples have
    doubled since. A clock that was set back does not make it longer than that again."""
    if seen.started_at <= 0:
        return 0.0
    vain = seen.attempts > 0 and seen.examples < 2 * seen.tried
    wait_ms = 1000 * rule.interval_s * (min(2 ** min(seen.attempts, 10), MOST_BACK_OFF) if vain else 1)
    return max(0.0, wait_ms - abs(now_ms - seen.started_at))
