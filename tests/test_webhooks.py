"""Webhooks without a network: what an answer means, when the next attempt is, in what order, and what is committed.
The schedule runs in a simulated world with a clock of its own: whatever an endpoint answers, the promises hold.
"""

import heapq
import hmac
import json
from collections import Counter, defaultdict
from dataclasses import dataclass, field
from datetime import UTC, datetime
from email.utils import format_datetime
from itertools import pairwise
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from schemas.errors import SettingsError
from schemas.values import from_json, to_json
from streams.config import Settings
from streams.webhooks.body import body, delivery, wanted
from streams.webhooks.breaker import FAILURES, FIRST_PAUSE_S, LONGEST_PAUSE_S, NEVER, Breaker
from streams.webhooks.ledger import METADATA_BYTES, Ledger
from streams.webhooks.policy import FIRST_PAUSE_S as FIRST_RETRY_S
from streams.webhooks.policy import LONGEST_HOLD_S, Answer, Policy, retry_after
from streams.webhooks.schedule import Delivery, Schedule
from streams.webhooks.signing import read_secrets, signature
from tests.webhook_alerts import SECRET, alert, endpoint

OK, SLOW = Answer(200), Answer(None, "no answer in 10 s")
RETRY_FOR_S, MOST_S = 600.0, 60.0
POLICY = Policy(retry_for_s=RETRY_FOR_S, most_s=MOST_S)


# -- answers and pauses


@pytest.mark.parametrize(
    ("meaning", "statuses"),
    [
        ("delivered", [200, 201, 204, 299]),
        ("again", [None, 408, 429, 500, 502, 503, 504, 599]),
        ("final", [301, 302, 307, 400, 401, 403, 404, 410, 413, 422]),
    ],
)
def test_an_answer_means_taken_try_again_or_never(meaning: str, statuses: list[int | None]) -> None:
    assert {Answer(status).meaning for status in statuses} == {meaning}


@given(attempts=st.integers(1, 10_000), chance=st.floats(0, 1, exclude_max=True))
def test_pauses_double_up_to_the_longest_and_half_of_each_is_chance(attempts: int, chance: float) -> None:
    whole = min(MOST_S, FIRST_RETRY_S * 2 ** min(attempts - 1, 100))
    assert whole / 2 <= POLICY.pause(attempts, SLOW, chance) <= whole


def test_pauses_of_two_differ_by_chance_alone() -> None:
    assert POLICY.pause(4, SLOW, 0.0) == 4.0
    assert POLICY.pause(4, SLOW, 0.5) == 6.0


@given(seconds=st.floats(0, 10**6), attempts=st.integers(1, 50))
def test_the_pause_is_never_shorter_than_the_endpoint_asked_for_up_to_an_hour(seconds: float, attempts: int) -> None:
    asked = Answer(429, retry_after_s=seconds)
    assert POLICY.pause(attempts, asked, 0.0) >= min(seconds, LONGEST_HOLD_S)
    assert POLICY.hold(asked) <= LONGEST_HOLD_S


def test_retry_after_is_read_as_seconds_or_as_a_date_and_nonsense_is_none() -> None:
    now = 1_700_000_000.0
    date = format_datetime(datetime.fromtimestamp(now + 90, UTC), usegmt=True)
    past = format_datetime(datetime.fromtimestamp(now - 90, UTC), usegmt=True)
    none = dict.fromkeys(("soon", "-3", "1.5", "", "٣"))
    cases = {"120": 120.0, " 0 ": 0.0, date: 90.0, past: 0.0, **none}
    assert {value: retry_after({"Retry-After": value}, now) for value in cases} == cases
    assert retry_after({}, now) is None


def test_a_reason_is_in_words() -> None:
    assert SLOW.reason == "no answer in 10 s"
    assert Answer(503).reason == "status 503"
    assert "redirects are not followed" in Answer(302).reason


# -- the circuit breaker


def test_the_breaker_opens_when_so_many_deliveries_have_failed_with_no_success_between() -> None:
    breaker = Breaker()
    for number in range(FAILURES - 1):
        breaker.failed(number, 0.0)
    breaker.succeeded()
    for number in range(FAILURES - 1):
        breaker.failed(number, 0.0)
    assert (breaker.open, breaker.ready_at()) == (False, 0.0)
    breaker.failed("one more", 10.0)
    assert (breaker.open, breaker.ready_at()) == (True, 10.0 + FIRST_PAUSE_S)


def test_one_delivery_that_nobody_takes_does_not_open_it() -> None:
    breaker = Breaker()
    for _ in range(10 * FAILURES):
        breaker.failed("the same", 0.0)
    assert not breaker.open


def test_an_open_breaker_lets_one_attempt_through_whose_failure_begins_a_longer_pause() -> None:
    breaker, now = opened(), 0.0
    pauses = []
    for _ in range(8):
        now = breaker.ready_at()
        breaker.began()
        assert breaker.ready_at() == NEVER
        breaker.failed("probe", now)
        pauses.append(breaker.ready_at() - now)
    assert pauses == [min(FIRST_PAUSE_S * 2**n, LONGEST_PAUSE_S) for n in range(1, 9)]
    breaker.began()
    breaker.succeeded()
    assert (breaker.open, breaker.ready_at()) == (False, 0.0)


def test_failures_of_attempts_that_ran_when_it_opened_do_not_lengthen_the_pause() -> None:
    breaker = opened()
    before = breaker.ready_at()
    breaker.failed("straggler", 3.0)
    assert breaker.ready_at() == before


def test_an_attempt_that_was_cut_off_leaves_the_way_to_the_next() -> None:
    breaker = opened()
    breaker.began()
    breaker.abandoned()
    assert breaker.ready_at() == FIRST_PAUSE_S


def test_a_pause_that_was_asked_for_outlasts_a_success() -> None:
    breaker = Breaker()
    breaker.hold(30.0)
    breaker.hold(20.0)
    breaker.succeeded()
    assert breaker.ready_at() == 30.0


def opened() -> Breaker:
    breaker = Breaker()
    for number in range(FAILURES):
        breaker.failed(number, 0.0)
    assert breaker.open
    return breaker


# -- the schedule, in a world of its own


@dataclass
class World:
    """Runs a schedule against an endpoint that gives `answers` in turn, and then takes everything."""

    orders: list[str]
    answers: list[tuple[Answer, float]]  # with the time that each takes
    in_flight: int = 3
    endless: bool = False  # the answers begin anew
    now: float = 0.0
    begun: list[tuple[float, Delivery]] = field(default_factory=list)
    finished: list[Delivery] = field(default_factory=list)
    outcomes: dict[str, str] = field(default_factory=dict)
    held_until: float = 0.0
    most_flying: int = 0

    def __post_init__(self) -> None:
        self.breaker = Breaker()
        self.schedule = Schedule(POLICY, self.breaker, self.in_flight, lambda: 0.5)
        self._running: list[tuple[float, int, Delivery, Answer]] = []
        self._starts: dict[str, list[float]] = defaultdict(list)

    def run(self) -> None:
        for number, order in enumerate(self.orders):
            self.schedule.add(Delivery(f"d{number}", f"a{order}", order, "review", b"", b""), self.now)
        for _ in range(100_000):
            self._begin()
            if not self.schedule.unfinished:
                return
            ends = self._running[0][0] if self._running else NEVER
            wakes = self.schedule.wakes_at()
            assert min(ends, wakes) < NEVER, "nothing will ever happen again"
            self.now = max(self.now, min(ends, wakes))
            if ends <= self.now:
                self._end()
        raise AssertionError("it goes on for ever")

    def _begin(self) -> None:
        while (due := self.schedule.next(self.now)) is not None:
            assert self.now >= self.held_until, "the endpoint wanted to hear nothing"
            assert due.order_id not in {running.order_id for *_, running, _ in self._running}
            if earlier := self._starts[due.id]:
                assert self.now - earlier[-1] >= POLICY.pause(len(earlier), OK, 0.0) - 1e-9
            self._starts[due.id].append(self.now)
            self.begun.append((self.now, due))
            answer, seconds = self._answer()
            heapq.heappush(self._running, (self.now + seconds, len(self.begun), due, answer))
            self.most_flying = max(self.most_flying, self.schedule.flying)
            assert self.schedule.flying == len(self._running)

    def _answer(self) -> tuple[Answer, float]:
        number = len(self.begun) - 1
        if self.endless:
            return self.answers[number % len(self.answers)]
        return self.answers[number] if number < len(self.answers) else (OK, 0.1)

    def _end(self) -> None:
        _, _, due, answer = heapq.heappop(self._running)
        outcome = self.schedule.answered(due, answer, self.now)
        if answer.meaning == "again" and answer.retry_after_s:
            self.held_until = max(self.held_until, self.now + min(answer.retry_after_s, LONGEST_HOLD_S))
        if outcome != "again":
            self.outcomes[due.id] = outcome
            self.finished.append(due)
            self.schedule.finish(due, self.now)


answers = st.tuples(
    st.one_of(
        st.sampled_from([OK, SLOW, Answer(500), Answer(404), Answer(429)]),
        st.builds(lambda seconds: Answer(429, retry_after_s=seconds), st.floats(0, 120)),
    ),
    st.floats(0, 20),
)
orders = st.lists(st.sampled_from("abcde"), min_size=1, max_size=12)


@given(orders, st.lists(answers, max_size=40), st.integers(1, 4))
def test_whatever_is_answered_all_is_finished_orders_in_turn_and_no_more_at_once_than_may_be(
    named: list[str], given_answers: list[tuple[Answer, float]], in_flight: int
) -> None:
    world = World(named, given_answers, in_flight)
    world.run()
    assert world.most_flying <= in_flight
    assert world.outcomes.keys() == {f"d{number}" for number in range(len(named))}
    for order in set(named):
        mine = [each.id for each in world.finished if each.order_id == order]
        assert mine == [f"d{number}" for number, name in enumerate(named) if name == order]


@given(
    orders,
    st.lists(st.tuples(st.sampled_from([SLOW, Answer(503), Answer(429)]), st.floats(0.1, 10)), min_size=1, max_size=5),
)
def test_an_endpoint_that_never_takes_anything_gets_an_end_for_each_alert_within_its_time(
    named: list[str], given_answers: list[tuple[Answer, float]]
) -> None:
    world = World(named, given_answers, endless=True)
    world.run()
    assert set(world.outcomes.values()) == {"failed"}
    # A last attempt may have had to wait for others to be let through, one at a time.
    slack = len(named) * (LONGEST_PAUSE_S + 10)
    for delivery_id in world.outcomes:
        starts = [at for at, each in world.begun if each.id == delivery_id]
        assert starts[-1] - starts[0] <= RETRY_FOR_S + slack
        assert len(starts) > 3


def test_an_alert_that_waits_for_its_next_attempt_holds_up_no_other_order() -> None:
    world = World(["poison", *"abcdefgh"], [(Answer(500), 0.1)], in_flight=1)
    world.run()
    assert [each.order_id for each in world.finished] == [*"abcdefgh", "poison"]


def test_an_alert_waits_for_the_older_one_of_its_order() -> None:
    world = World(["a", "a", "b"], [(Answer(500), 0.1)])
    world.run()
    assert [each.id for each in world.finished] == ["d2", "d0", "d1"]


def test_a_4xx_is_the_last_attempt_at_once_and_others_go_on() -> None:
    world = World(["a", "b"], [(Answer(404), 0.1)], in_flight=1)
    world.run()
    assert world.outcomes == {"d0": "failed", "d1": "delivered"}
    assert len(world.begun) == 2


def test_while_the_breaker_is_open_alerts_that_were_not_attempted_do_not_age() -> None:
    """An outage of five hours, with a retry time of ten minutes: only what was being tried is given up."""
    world = World([f"o{number}" for number in range(500)], [(SLOW, 10.0)], in_flight=4, endless=True)
    hours = 5 * 3_600.0

    def answer() -> tuple[Answer, float]:
        return (SLOW, 10.0) if world.now < hours else (OK, 0.1)

    world._answer = answer  # type: ignore[method-assign]  # an outage is by time, not by number
    world.run()
    given_up = Counter(world.outcomes.values())["failed"]
    assert 0 < given_up < 100
    assert Counter(world.outcomes.values())["delivered"] == 500 - given_up
    assert world.now < hours + 300


def test_a_breaker_that_is_open_lets_attempts_through_one_at_a_time() -> None:
    world = World([f"o{number}" for number in range(40)], [(SLOW, 1.0)] * 30, in_flight=8)
    world.run()
    opened_at = 1.0  # when the first eight have failed
    alone = [at for at, _ in world.begun if at > opened_at][:15]
    assert alone[0] == opened_at + FIRST_PAUSE_S
    assert all(later - earlier >= FIRST_PAUSE_S for earlier, later in pairwise(alone))


def test_what_was_cut_off_counts_as_begun_and_frees_its_place() -> None:
    schedule = Schedule(POLICY, Breaker(), 1, lambda: 0.5)
    schedule.add(Delivery("d0", "a", "o", "review", b"", b""), 0.0)
    due = schedule.next(0.0)
    assert due is not None
    assert (schedule.flying, schedule.wakes_at()) == (1, NEVER)
    schedule.abandon(due)
    assert schedule.flying == 0


# -- what is committed


@given(st.data(), st.integers(0, 1_000), st.integers(1, 60))
def test_a_commit_leaves_no_gap_and_a_restart_repeats_only_what_is_not_finished(
    data: st.DataObject, start: int, count: int
) -> None:
    offsets = sorted(data.draw(st.sets(st.integers(start, start + 2 * count), min_size=1, max_size=count)))
    ledger = Ledger(start)
    assert all(ledger.opened(offset) for offset in offsets)
    done = data.draw(st.sets(st.sampled_from(offsets)))
    for offset in data.draw(st.permutations(sorted(done))):
        ledger.finished(offset)
    position, metadata = ledger.committable()
    open_ones = [offset for offset in offsets if offset not in done]
    assert position == (open_ones[0] if open_ones else offsets[-1] + 1)
    again = Ledger(position, metadata)
    read_again = [offset for offset in offsets if offset >= position]
    assert [offset for offset in read_again if again.opened(offset)] == open_ones
    for offset in open_ones:
        again.finished(offset)
    assert again.committable() == (offsets[-1] + 1, "")


def test_what_does_not_fit_into_the_metadata_is_done_again_and_nothing_else() -> None:
    ledger = Ledger(0)
    for offset in range(10_000):
        assert ledger.opened(offset)
    for offset in range(1, 10_000, 2):
        ledger.finished(offset)
    position, metadata = ledger.committable()
    assert position == 0
    assert METADATA_BYTES - 10 < len(metadata) <= METADATA_BYTES
    again = Ledger(position, metadata)
    repeated = [offset for offset in range(10_000) if again.opened(offset)]
    assert [offset for offset in repeated if offset % 2 == 0] == list(range(0, 10_000, 2))
    odd = [offset for offset in repeated if offset % 2]
    assert odd == list(range(odd[0], 10_000, 2))
    assert odd[0] > 1_000


@pytest.mark.parametrize("metadata", ["", "x", "1-", "-", "3-x", "by somebody else", "²", "1,,2-"])
def test_metadata_of_others_does_no_harm(metadata: str) -> None:
    ledger = Ledger(5, metadata)
    assert ledger.opened(5)
    ledger.finished(5)
    assert ledger.committable()[0] == 6


def test_finishing_what_was_never_opened_changes_nothing() -> None:
    ledger = Ledger(5)
    ledger.finished(9)
    assert ledger.committable() == (5, "")


# -- signatures, bodies, filters


def test_each_secret_signs_time_and_body() -> None:
    signed = signature(b'{"a":1}', [SECRET, b"another one, newer"], 1_700_000_000)
    first, second, third = signed.split(",")
    assert first == "t=1700000000"
    assert second == "v1=" + hmac.new(SECRET, b'1700000000.{"a":1}', "sha256").hexdigest()
    assert third == "v1=" + hmac.new(b"another one, newer", b'1700000000.{"a":1}', "sha256").hexdigest()
    assert signature(b"{}", [SECRET], 1) != signature(b"{}", [SECRET], 2)


def test_secrets_come_from_the_environment_or_a_file(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    (tmp_path / "old").write_bytes(b"the old secret of the shop\n")
    monkeypatch.setenv("SHOP_WEBHOOK_SECRET", SECRET.decode())
    both = endpoint(secrets=["env:SHOP_WEBHOOK_SECRET", f"file:{tmp_path / 'old'}"])
    assert read_secrets(both) == [SECRET, b"the old secret of the shop"]


@pytest.mark.parametrize(
    ("source", "words"),
    [
        ("env:NO_SUCH_SECRET", ["the secret is not there", "NO_SUCH_SECRET", "shop", "openssl rand"]),
        ("env:SHORT_SECRET", ["the secret is of 6 bytes", "16 bytes"]),
        ("file:/no/such/file", ["cannot be read", "/no/such/file"]),
    ],
)
def test_a_secret_that_is_none_is_said_and_never_shown(
    source: str, words: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("SHORT_SECRET", "sesame")
    with pytest.raises(SettingsError) as caught:
        read_secrets(endpoint(secrets=[source]))
    assert [word for word in words if word not in str(caught.value)] == []
    assert "sesame" not in str(caught.value)


def test_the_body_is_the_alert_in_its_contracts_json_without_the_packed_features() -> None:
    made = json.loads(body(alert()))
    whole = to_json("fraud_alert", alert())
    assert whole.pop("features")
    assert made == json.loads(json.dumps(whole, default=str))
    assert made["event_time"].startswith("2023-11-14T22:13:20")
    assert from_json("fraud_alert", made) == from_json("fraud_alert", to_json("fraud_alert", alert(features=b"")))


def test_a_delivery_has_one_id_for_each_alert_and_endpoint_whatever_comes() -> None:
    place = ("alerts.fraud", 1, 7)
    made = delivery("shop", alert(), b"bytes", place)
    assert made.id == delivery("shop", alert(), b"bytes", place).id
    others = [delivery("other", alert(), b"", place), delivery("shop", alert(), b"", ("alerts.fraud", 1, 8))]
    assert len({made.id, *(other.id for other in others)}) == 3


def test_an_endpoint_gets_the_decisions_and_the_losses_that_it_wants() -> None:
    blocks = endpoint(decisions=["block"], min_expected_loss=10)
    assert wanted(blocks, alert(decision="block", expected_loss=10.0))
    assert not wanted(blocks, alert(decision="review", expected_loss=10.0))
    assert not wanted(blocks, alert(decision="block", expected_loss=9.99))
    assert wanted(blocks, alert(decision="block", expected_loss=None)), "what nobody knows is not too little"
    assert wanted(endpoint(), alert(decision="review", expected_loss=0.0))
    assert not wanted(endpoint(), alert(decision="approve"))


# -- settings


def named(**fields: Any) -> Settings:
    given_fields = {"name": "shop", "url": "https://shop.example/hook", "secrets": ["env:SHOP_SECRET"]} | fields
    return Settings(webhooks={"endpoints": [given_fields], "allow_http": fields.pop("allow_http", False)})


@pytest.mark.parametrize(
    ("fields", "words"),
    [
        ({"url": "http://shop.example/hook"}, ["https for endpoint shop, or allow_http"]),
        ({"url": "shop.example/hook"}, ["webhooks.endpoints.url", "https://host/path"]),
        ({"url": "https://user:sesame@shop.example/"}, ["webhooks.endpoints.url", "without a user's name"]),
        ({"url": "ftp://shop.example/"}, ["webhooks.endpoints.url"]),
        ({"url": "https://shop.example:port/"}, ["webhooks.endpoints.url"]),
        ({"secrets": ["sesame open the door"]}, ["webhooks.endpoints.secrets", "env:NAME"]),
        ({"secrets": ["env:HEADRACE_SECRET"]}, ["webhooks.endpoints.secrets", "does not begin with HEADRACE_"]),
        ({"secrets": []}, ["webhooks.endpoints.secrets"]),
        ({"decisions": ["reject"]}, ["webhooks.endpoints.decisions", "'reject'", "'block'"]),
        ({"min_expected_loss": -1}, ["webhooks.endpoints.min_expected_loss"]),
        ({"name": "My shop"}, ["webhooks.endpoints.name"]),
        ({"retries": 3}, ["webhooks.endpoints.retries is not a setting"]),
    ],
)
def test_an_endpoint_that_cannot_be_used_is_refused_with_what_was_expected(
    fields: dict[str, Any], words: list[str]
) -> None:
    with pytest.raises(SettingsError) as caught:
        named(**fields)
    assert [word for word in words if word not in str(caught.value)] == []


def test_two_endpoints_of_one_name_are_refused() -> None:
    one = {"name": "shop", "url": "https://shop.example/hook", "secrets": ["env:SHOP_SECRET"]}
    with pytest.raises(SettingsError, match="each endpoint's name once"):
        Settings(webhooks={"endpoints": [one, one]})


@pytest.mark.parametrize("host", ["127.0.0.1:8000", "[::1]:8000", "localhost"])
def test_http_goes_to_this_machine_and_further_only_if_it_is_allowed(host: str) -> None:
    assert named(url=f"http://{host}/hook").webhooks.endpoints[0].on_this_machine
    one = {"name": "shop", "url": "http://10.0.0.7/hook", "secrets": ["env:SHOP_SECRET"]}
    assert Settings(webhooks={"endpoints": [one], "allow_http": True}).webhooks.endpoints[0].url == one["url"]


def test_endpoints_can_be_named_in_the_file_and_in_the_environment(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = tmp_path / "settings.toml"
    path.write_text(
        '[[webhooks.endpoints]]\nname = "shop"\nurl = "https://a.example/"\nsecrets = ["env:A"]\n'
        'decisions = ["block"]\n'
    )
    [found] = Settings(config_file=path).webhooks.endpoints
    assert (found.name, found.decisions, found.min_expected_loss) == ("shop", ("block",), 0.0)
    monkeypatch.setenv("HEADRACE_WEBHOOKS__ENDPOINTS", '[{"name":"b","url":"https://b.example/","secrets":["env:B"]}]')
    [found] = Settings().webhooks.endpoints
    assert (found.name, found.decisions) == ("b", ("review", "block"))
