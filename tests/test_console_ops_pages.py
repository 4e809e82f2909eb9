"""The operations pages as people of each role meet them, with a broker that is away: what is shown, refused, kept."""

import json
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from aiohttp import web

from schemas.errors import BadRecord, BrokerUnavailable
from streams.access.gate import doors
from streams.access.roles import LEAST, allows
from streams.console import ops
from streams.console.page import environment
from streams.deadletters import Letter, dead_letter
from streams.learner.control import Status
from streams.raw import RawRecord
from tests.console_app import serving
from tests.console_ops import EVIL, LARGEST, ROLES, House, Page, Visitor, filled, house, inner
from tests.observer import until

OLD, NEW, BAD = "20260131T120000-aaaaaaaa", "20260131T130000-bbbbbbbb", "20260131T140000-cccccccc"
PAGES = (
    "/live", "/live?minutes=30", "/quality", "/quality?task=ctr", "/learn", "/releases", "/releases?task=ctr",
    f"/releases/fraud/at/{BAD}", f"/releases/fraud/at/{NEW}?against={BAD}", "/letters",
    "/letters?home=1&code=truncated", "/policies", "/policies/at/winter@2", "/policies/at/spring@1?against=winter@2",
    "/lists", "/lists?list=block",
)  # fmt: skip
STEPS = (
    f"/releases/fraud/promote?version={BAD}", "/releases/fraud/rollback", "/releases/fraud/pin",
    "/releases/fraud/unpin", "/letters/replay?id=0:1&id=0:2", "/letters/replay?all=1&code=truncated",
    "/policies/new", "/policies/new?from=winter@2",
)  # fmt: skip
POSTS = {
    "/learn/fraud": ("learn", {"do": "pause"}),
    "/releases/fraud/promote": ("release", {"version": OLD, "expected": NEW, "why": "x"}),
    "/releases/fraud/rollback": ("release", {"expected": NEW, "why": "x"}),
    "/releases/fraud/pin": ("release", {"expected": NEW, "why": "x"}),
    "/releases/fraud/unpin": ("release", {"expected": NEW, "why": "x"}),
    "/letters/replay": ("letters", {"id": "0:1"}),
    "/policies/check": ("policy", {"document": 'name = "x"'}),
    "/policies/apply": (
        "policy",
        {"document": 'name = "x"', "standing": "live", "note": "x", "expected-live": "spring@1"},
    ),
    "/policies/clear": ("policy", {"standing": "live"}),
    "/policies/backtest": ("policy", {"document": 'name = "x"', "from": "2026-01-01", "to": "2026-01-02"}),
    "/lists/add": ("lists", {"list": "block", "type": "card", "token": "1", "reason": "x"}),
    "/lists/remove": ("lists", {"key": "block/card:card-123456789"}),
    "/audit/verify": ("audit", {}),
}


@pytest.fixture(scope="module")
def here(tmp_path_factory: pytest.TempPathFactory) -> Iterator[House]:
    with house(tmp_path_factory.mktemp("house"), workers=("127.0.0.1:9",), learners=("127.0.0.1:9",)) as made:
        filled(made.shelf, made.shown.now)
        yield made


@pytest.fixture(autouse=True)
def as_it_was(request: pytest.FixtureRequest) -> Iterator[None]:
    """What a test changes of the house that all share."""
    yield
    if "here" in request.fixturenames:
        made: House = request.getfixturevalue("here")
        made.shelf.trouble, made.shelf.read = "", True
        made.shown.audit.error = None
        made.shown.audit.entries.clear()


@pytest.mark.parametrize("path", PAGES)
@pytest.mark.parametrize("role", ["viewer", "operator"])
def test_each_page_is_whole_small_and_free_of_what_the_policy_forbids(here: House, role: str, path: str) -> None:
    answer = here.visitor(role).get(path)
    assert answer.status_code == 200
    assert len(answer.content) < LARGEST
    page = Page(answer.text)
    assert page.unbalanced == []
    assert page.open == []
    assert len(page.ids) == len(set(page.ids))
    assert not [attributes for _, attributes in page.tags if "style" in attributes or "onclick" in attributes]
    assert all(script.get("src", "").startswith("/static/") for script in page.all("script"))
    assert not page.all("style")
    for tag, name in (("link", "href"), ("img", "src"), ("script", "src")):
        assert all(each.get(name, "/").startswith("/") for each in page.all(tag))
    assert len(page.all("h1")) == 1


@pytest.mark.parametrize("path", [*PAGES, *STEPS])
def test_what_strangers_wrote_is_text_and_never_a_script(here: House, path: str) -> None:
    answer = here.visitor("admin").get(path)
    assert answer.status_code == 200
    assert "<script>alert" not in answer.text


def test_script_in_what_was_typed_comes_back_as_text(here: House) -> None:
    admin = here.visitor("admin")
    for path, fields in (
        ("/policies/check", {"document": EVIL, "note": EVIL}),
        ("/lists/add", {"list": EVIL, "type": EVIL, "token": EVIL, "reason": EVIL, "until": EVIL}),
        ("/releases/fraud/rollback", {"expected": NEW, "why": EVIL * 30}),
    ):
        answer = admin.post(path, **fields)
        assert answer.status_code == 400
        assert "<script>alert" not in answer.text
        assert "&lt;script&gt;" in answer.text
    asked = ("/letters?code={0}&topic={0}", "/quality?task={0}", "/releases?task={0}&done={0}", "/lists?list={0}")
    for path in asked:
        assert "<script>alert" not in admin.get(path.format(EVIL)).text


# -- who may what ------------------------------------------------------------------------------------------------


def test_the_tests_know_every_route_that_changes_something(here: House) -> None:
    app = web.Application()
    ops.routes(app)
    posts = {door.path for door in doors(app) if door.method == "POST"}
    named = {path.replace("/fraud", "/{task}") for path in POSTS}
    acts = {f"/releases/{{task}}/{act}" for act in ("promote", "rollback", "pin", "unpin")}
    assert {path.replace("{act}", act) for path in posts for act in ("promote", "rollback", "pin", "unpin")} == named
    assert acts <= named
    assert all(door.action in LEAST for door in doors(app))


@pytest.mark.parametrize("path", POSTS)
def test_every_change_refuses_the_wrong_role_a_missing_token_and_a_foreign_one(here: House, path: str) -> None:
    action, fields = POSTS[path]
    for role in ROLES:
        visitor = here.visitor(role)
        without = visitor.send(path, fields)
        assert without.status_code == 403
        foreign = visitor.send(path, {"csrf": "x" * 43, **fields})
        assert foreign.status_code == 403
        if not allows(role, action):
            assert visitor.post(path, **fields).status_code == 403
    assert here.audited == []
    live = here.shelf.releases.releases().live("fraud")
    assert live is not None
    assert live.version == NEW
    assert here.shelf.learning.asked == {}
    assert len(here.shelf.lists.records()) == 2


@pytest.mark.parametrize("path", POSTS)
def test_who_may_gets_past_the_gate(here: House, path: str) -> None:
    action, fields = POSTS[path]
    role = next(role for role in ROLES if allows(role, action))
    assert here.visitor(role).post(path, **fields).status_code != 403


@pytest.mark.parametrize("path", STEPS)
def test_the_step_before_a_change_is_not_for_viewers(here: House, path: str) -> None:
    assert here.visitor("viewer").get(path).status_code == 403
    assert here.visitor("operator").get(path).status_code == 200


def test_the_audit_log_is_for_admins(here: House) -> None:
    assert here.visitor("operator").get("/audit").status_code == 403


@pytest.mark.parametrize("path", PAGES)
def test_a_viewer_is_shown_no_button_that_would_refuse_him(here: House, path: str) -> None:
    content = Page(inner(here.visitor("viewer").get(path).text))
    assert [form for form in content.forms() if form[0] == "post"] == []
    links = [link.get("href", "") for link in content.all("a")]
    assert not [link for link in links if link.startswith(("/policies/new", "/letters/replay", "/audit"))]
    assert not [link for link in links if link.endswith(("/rollback", "/pin", "/unpin")) or "/promote" in link]


def test_nobody_at_all_is_sent_to_the_door(here: House) -> None:
    stranger = Visitor(here.where, "x", "x")
    for path in (*PAGES, *STEPS, "/audit", "/live/events"):
        assert stranger.get(path).headers["Location"].startswith("/login")


def test_a_viewer_sees_no_personal_value(here: House) -> None:
    viewer, analyst = here.visitor("viewer"), here.visitor("analyst")
    assert "card-123456789" not in viewer.get("/lists").text
    assert "card-123456789" in analyst.get("/lists").text
    assert "the message ends early" not in viewer.get("/letters").text
    assert "the message ends early" in analyst.get("/letters").text


# -- what is shown -----------------------------------------------------------------------------------------------


def test_the_release_page_shows_what_is_live_and_why_another_was_refused(here: House) -> None:
    page = here.visitor("operator").page("/releases")
    for words in (NEW, OLD, BAD, "It predicts too much.", "refused", "1 / 2", "epoch 2"):
        assert words in page.text
    hrefs = {link.get("href") for link in page.all("a")}
    assert {"/releases/fraud/rollback", "/releases/fraud/pin", f"/releases/fraud/promote?version={BAD}"} <= hrefs
    assert f"/releases/fraud/promote?version={NEW}" not in hrefs


def test_a_gate_report_is_shown_check_by_check(here: House) -> None:
    page = here.visitor("viewer").page(f"/releases/fraud/at/{BAD}")
    for words in ("1 of 2 checks passed", "calibration", "1.9000", "1.2500", "It predicts too much."):
        assert words in page.text
    for words in ("old pr_auc", "not judged", "no old event has a label"):
        assert words in page.text
    assert here.visitor("viewer").get("/releases/fraud/at/nothing").status_code == 404
    assert here.visitor("viewer").get("/releases/weather/at/nothing").status_code == 404


def test_promoting_a_refused_release_says_that_it_was_refused(here: House) -> None:
    page = here.visitor("operator").page(f"/releases/fraud/promote?version={BAD}")
    assert "The gate refused it:" in page.text
    assert ("post", "/releases/fraud/promote") in page.forms()
    hidden = {field.get("name"): field.get("value") for field in page.all("input") if field.get("type") == "hidden"}
    assert (hidden["expected"], hidden["version"]) == (NEW, BAD)
    assert here.visitor("operator").get("/releases/fraud/promote?version=nothing").status_code == 404


def test_the_learning_page_shows_what_the_learner_said(here: House) -> None:
    page = here.visitor("operator").page("/learn")
    for words in ("Watches the live release", "1,234", "56 positive", "58.0 s", "No learner has spoken of this task"):
        assert words in page.text
    assert len([form for form in page.forms() if form[1].startswith("/learn/")]) == 3


def test_the_quality_page_says_that_no_learner_answers_and_shows_what_the_gate_measured(here: House) -> None:
    page = here.visitor("viewer").page("/quality")
    for words in ("No learner answers.", "Gain in PR-AUC over the release before", "between 0.01 and 0.07"):
        assert words in page.text


def test_the_live_page_says_that_no_worker_answers_instead_of_zeros(here: House) -> None:
    deadline = time.monotonic() + 20
    while not here.scraper.rounds and time.monotonic() < deadline:
        time.sleep(0.05)
    page = here.visitor("viewer").page("/live")
    assert "No worker answers" in page.text
    assert "nobody listens" in page.text
    assert "0/s" not in page.text


def test_the_letters_page_filters_and_tells_what_is_home(here: House) -> None:
    operator = here.visitor("operator")
    page = operator.page("/letters?code=truncated")
    assert "Letters: 1, the newest first" in page.text
    assert [box.get("value") for box in page.all("input") if box.get("name") == "id"] == ["0:2"]
    page = operator.page("/letters?code=truncated&home=1")
    assert [box.get("value") for box in page.all("input") if box.get("name") == "id"] == ["0:2"]
    assert "Letters: 2, the newest first" in page.text


def test_before_letters_go_home_it_is_said_how_many_and_where_to(here: House) -> None:
    page = here.visitor("operator").page("/letters/replay?id=0:1&id=0:2&id=0:3&id=7:7&id=x")
    assert "2 letters are published again" in page.text
    assert "events.orders" in page.text
    sent = [field.get("value") for field in page.all("input") if field.get("name") == "id"]
    assert sent == ["0:1", "0:2"]
    assert "Nothing is chosen" in here.visitor("operator").page("/letters/replay").text


def test_one_letter_that_cannot_be_read_now_is_an_error_page_and_not_a_fault(here: House) -> None:
    answer = here.visitor("operator").get("/letters/at/0:1")
    assert answer.status_code == 503
    assert "no broker listens" in answer.text
    assert here.visitor("operator").get("/letters/at/9:9").status_code == 404


def test_one_letter_is_shown_with_its_bytes_to_who_may_see_them(here: House, monkeypatch: pytest.MonkeyPatch) -> None:
    raw = RawRecord("events.orders", 1, 1, here.shown.now, b"user-17", b"\x00\x00\x00\x00\x09secret", ())
    record = dead_letter(raw, BadRecord("unknown_schema", "user-17 is odd"), here.shown.now)
    monkeypatch.setattr("streams.console.ops.letter_feed.show", lambda *_: Letter(0, 1, record))
    page = here.visitor("analyst").page("/letters/at/0:1")
    for words in ("73 65 63 72 65 74", "secret", "user-17", "schema id 9 is not in the registry", "schema id 9"):
        assert words in page.text
    masked = here.visitor("viewer").page("/letters/at/0:1").text
    for words in ("73 65 63 72 65 74", "secret", "user-17"):
        assert words not in masked
    assert "11 bytes, masked" in masked


def test_the_policy_pages_show_documents_history_and_differences(here: House) -> None:
    operator = here.visitor("operator")
    page = operator.page("/policies")
    for words in ("spring@1", "winter@2", "No policy is shadowed"):
        assert words in page.text
    shown = operator.page("/policies/at/winter@2").text
    assert '-name = "spring"' in shown
    assert "1 lines come, 1 go" in shown
    assert operator.get("/policies/at/nothing").status_code == 404


def test_a_live_policy_that_cannot_be_used_is_told_where_it_stands(here: House) -> None:
    before = dict(here.shelf.policies.records()["fraud/live"])
    assert "cannot be used" not in here.visitor("viewer").page("/policies").text
    here.shelf.policies.know("fraud/live", {**before, "document": "name = 1"})
    page = here.visitor("viewer").page("/policies").text
    here.shelf.policies.know("fraud/live", before)
    assert "This version cannot be used" in page
    assert "The last good one goes on deciding." in page


def test_lists_say_why_until_when_and_what_is_over(here: House) -> None:
    page = here.visitor("analyst").page("/lists")
    for words in ("Entries: 2", "until it is taken off", "over", "card-123456789"):
        assert words in page.text


def test_who_may_not_see_a_token_cannot_find_it_by_asking(here: House) -> None:
    viewer, analyst = here.visitor("viewer"), here.visitor("analyst")
    assert "Entries: 1" in analyst.page("/lists?token=12345").text
    assert "Entries: 0" in analyst.page("/lists?token=nothing").text
    assert inner(viewer.get("/lists?token=nothing").text) == inner(viewer.get("/lists?token=12345").text)


def test_a_topic_that_was_not_read_yet_is_not_called_empty(here: House) -> None:
    here.shelf.read = False
    for path in ("/releases", "/letters", "/policies", "/lists", "/learn", "/quality"):
        assert "This is being read for the first time." in here.visitor("viewer").page(path).text
    here.shelf.trouble = "no broker listens; at 127.0.0.1:9"
    for path in ("/releases", "/letters", "/policies", "/lists", "/learn", "/quality"):
        text = here.visitor("viewer").page(path).text
        assert "Nothing could be read yet." in text
        assert "no broker listens" in text
    here.shelf.read = True
    assert "This may be out of date" in here.visitor("viewer").page("/releases").text


def test_pages_speak_chinese_to_who_asks_for_it(here: House) -> None:
    answer = here.visitor("operator").get("/releases", **{"Accept-Language": "zh-CN,zh;q=0.9"})
    page = Page(answer.text)
    assert page.all("html")[0]["lang"] == "zh-Hans"
    assert "当前线上" in inner(answer.text)


# -- what is done ------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("path", ["/releases/fraud/rollback", "/releases/fraud/pin", "/letters/replay", "/lists/add",
                                  "/lists/remove", "/learn/fraud"])  # fmt: skip
def test_what_cannot_be_done_is_said_where_it_was_asked_for_and_written_into_the_log(here: House, path: str) -> None:
    action, fields = POSTS[path]
    role = next(role for role in ROLES if allows(role, action))
    here.shelf.learning.wait_current = _away  # type: ignore[method-assign]  # as if the broker were away
    answer = here.visitor(role).post(path, **fields)
    assert answer.status_code == 503
    assert "Nothing was changed." in answer.text
    assert "no broker" in answer.text
    asked, refused = here.audited
    assert refused == (f"{asked[0]}.refused", asked[1])


def _away(timeout: float) -> None:
    raise BrokerUnavailable("no broker listens")


@pytest.mark.parametrize("path", sorted(POSTS.keys() - {"/audit/verify"}))  # which has no form
def test_a_form_that_is_not_packed_as_it_says_is_the_clients_mistake(here: House, path: str) -> None:
    """It was a 500, and a page of the log, where the session's token came in a header and not in the form."""
    action, fields = POSTS[path]
    who = here.visitor(next(role for role in ROLES if allows(role, action)))
    answer = who.session.post(
        who.where + path, data=fields, timeout=30, allow_redirects=False,
        headers={"X-CSRF-Token": who.csrf, "Content-Encoding": "gzip"},
    )  # fmt: skip
    assert answer.status_code == 400, answer.text
    assert here.audited == []


@pytest.mark.parametrize("path", POSTS)
def test_without_its_audit_entry_nothing_is_done(here: House, path: str) -> None:
    action, fields = POSTS[path]
    if path in ("/policies/check", "/policies/backtest", "/audit/verify"):
        return  # they change nothing
    here.shown.audit.error = BrokerUnavailable("the audit log is away")
    role = next(role for role in ROLES if allows(role, action))
    answer = here.visitor(role).post(path, **fields)
    assert answer.status_code == 503
    assert "the audit log is away" in answer.text
    assert len(here.shelf.lists.records()) == 2


def test_a_reason_is_asked_for_and_what_was_typed_stays(here: House) -> None:
    operator = here.visitor("operator")
    answer = operator.post("/releases/fraud/promote", version=OLD, expected=NEW, why="  ", pin="1")
    assert answer.status_code == 400
    page = Page(answer.text)
    assert "Say why" in page.text
    (why,) = [area for area in page.all("textarea") if area.get("name") == "why"]
    assert why["aria-invalid"] == "true"
    assert why["aria-describedby"] in page.ids
    (pin,) = [box for box in page.all("input") if box.get("name") == "pin"]
    assert "checked" in pin
    answer = operator.post("/releases/fraud/promote", version=OLD, expected=NEW, why="x" * 501)
    assert "At most 500 characters." in answer.text
    assert "x" * 501 in answer.text
    assert here.audited == []


def test_an_entry_that_is_typed_wrong_comes_back_with_the_reason_beside_its_field(here: House) -> None:
    fields = {"list": "watch", "type": "device", "token": "two words", "reason": "because"}
    answer = here.visitor("analyst").post("/lists/add", **fields)
    assert answer.status_code == 400
    page = Page(answer.text)
    inputs = {each.get("name", ""): each for each in page.all("input")}
    assert inputs["token"]["aria-describedby"] == "token-error"
    assert "token-error" in page.ids
    assert (inputs["token"]["value"], inputs["reason"]["value"]) == ("two words", "because")
    assert [option["value"] for option in page.all("option") if "selected" in option] == ["watch", "device"]
    assert here.audited == []


def test_a_policy_that_cannot_be_used_comes_back_whole_with_each_mistake(here: House) -> None:
    document = 'name = "Bad Name"\n[[rules]]\nid = "a"\nwhen = "true"\nthen = "explode"\n'
    answer = here.visitor("operator").post("/policies/check", document=document, note="n")
    assert answer.status_code == 400
    page = Page(answer.text)
    for words in ("name:", "rules[1].then:", document.replace("\n", "\r\n").splitlines()[0]):
        assert words in page.text
    assert "Make it live" not in page.text
    assert here.audited == []


def test_a_policy_is_shown_as_a_difference_before_it_can_be_applied(here: House) -> None:
    document = 'name = "spring"\n\n[[rules]]\nid = "seen"\nwhen = "order.amount > 500.0"\nthen = "review"\n'
    answer = here.visitor("operator").post("/policies/check", document=document.replace("\n", "\r\n"))
    assert answer.status_code == 200
    page = Page(answer.text)
    wanted = ("It can be used", "Rules: 1, then thresholds.", '+id = "seen"', "Make it live", "Shadow it", "Backtest")
    for words in wanted:
        assert words in page.text
    assert "\r" not in page.text.split("Document")[1][:60]


def test_a_policy_is_not_applied_over_one_that_was_not_looked_at(here: House) -> None:
    fields = {"document": 'name = "x"\n', "standing": "live", "note": "why", "expected-live": "winter@2"}
    answer = here.visitor("operator").post("/policies/apply", **fields)
    assert answer.status_code == 400
    assert "spring@1 is live by now" in answer.text
    assert "why" in [field.get("value") for field in Page(answer.text).all("input") if field.get("name") == "note"]
    assert here.audited == []


def test_a_policy_needs_a_reason_and_a_backtest_a_span(here: House) -> None:
    operator = here.visitor("operator")
    answer = operator.post("/policies/apply", document='name = "x"\n', standing="live", note="")
    assert "Say why" in answer.text
    answer = operator.post("/policies/backtest", document='name = "x"\n', **{"from": "2026-01-02", "to": "2026-01-01"})
    assert (answer.status_code, "After the beginning." in answer.text) == (400, True)
    answer = operator.post("/policies/backtest", document='name = "x"\n', **{"from": "soon", "to": ""})
    assert answer.text.count("A day and a time") == 2
    assert "soon" in answer.text


REPORT: dict[str, Any] = {
    "policy": "x@1", "orders": 12_840, "labelled": 9_120, "days": 31.0,
    "decisions": [{"approve": 12_400, "review": 340, "block": 100}, {"approve": 12_320, "review": 400, "block": 120}],
    "changed": {"approve->review": 90}, "alerts_per_day": [{"mean": 14.2, "most": 31}, {"mean": 16.8, "most": 35}],
    "outcomes": [{"caught": 140, "missed": 60, "false_positives": 300, "precision": 0.318, "recall": 0.7}] * 2,
    "rules": {EVIL: {"fired": 120, "decided": 110, "frauds": 80, "good": 20, "alerts_per_day": 3.55, "saved": 410.5}},
    "rule_failures": {EVIL: 3},
    "money": {"currency": "GBP", "orders": 9_000, "cost": [18_320.5, 15_210.25], "saved": 3_110.25},
    "budget": {"alerts_per_day": 15, "kept": False, "review_price": 1.25},
}  # fmt: skip


def backtest(here: House, monkeypatch: pytest.MonkeyPatch, tried: Callable[..., Any]) -> str:
    """Asks for one with another way to try; where its result is."""
    monkeypatch.setattr("streams.console.ops.backtests.require_broker", lambda _: None)
    monkeypatch.setattr("streams.tracing.trials.tried", tried)
    fields = {"document": 'name = "x"\n', "from": "2026-01-01T00:00", "to": "2026-02-01T00:00"}
    answer = here.visitor("operator").post("/policies/backtest", **fields)
    assert answer.status_code == 303
    return answer.headers["Location"]


class Trial:
    def __init__(self, report: dict[str, Any]) -> None:
        self._report = report

    def report(self) -> dict[str, Any]:
        return self._report


def test_a_backtest_runs_beside_the_page_which_looks_again(here: House, monkeypatch: pytest.MonkeyPatch) -> None:
    go_on, seen = threading.Event(), list[Any]()

    def tried(settings: Any, registry: Any, text: str, where: str, span: Any, tick: Callable[[], None]) -> Any:
        seen.extend((text, span))
        tick()
        assert go_on.wait(30)
        return Trial(REPORT), 12

    where = backtest(here, monkeypatch, tried)
    operator = here.visitor("operator")
    until(lambda: "1 parts are read" in operator.page(where).text, 20)
    assert "data-reload" in operator.get(where).text
    fields = {"document": 'name = "x"\n', "from": "2026-01-01T00:00", "to": "2026-02-01T00:00"}
    second = operator.post("/policies/backtest", **fields)
    assert "Another backtest runs" in second.text
    go_on.set()
    until(lambda: "Before and after" in operator.page(where).text, 20)
    text = operator.get(where).text
    for words in ("3,110.25", "review_price = 1.25 keeps it", "12 served orders", "approve → review: 90", "31.8%"):
        assert words in text
    assert "<script>alert" not in text
    assert seen == ['name = "x"\n', (1_767_225_600_000, 1_769_904_000_000)]
    assert "done" in operator.page("/policies").text


def test_a_backtest_that_comes_to_nothing_says_why(here: House, monkeypatch: pytest.MonkeyPatch) -> None:
    def away(*_: Any) -> Any:
        raise BrokerUnavailable("the broker is away")

    empty = Trial({**REPORT, "orders": 0})
    for tried, why in ((away, "the broker is away"), (lambda *_: (empty, 0), "no order was served in this span")):
        where = backtest(here, monkeypatch, tried)
        until(lambda: "It came to nothing" in here.visitor("viewer").page(where).text, 20)  # noqa: B023
        assert why in here.visitor("viewer").page(where).text
    assert here.visitor("viewer").get("/policies/backtests/999").status_code == 404
    assert here.visitor("viewer").get("/policies/backtests/x").status_code == 404


def test_what_is_no_choice_is_a_bad_request(here: House) -> None:
    operator = here.visitor("operator")
    assert operator.post("/learn/fraud", do="explode").status_code == 400
    assert operator.post("/learn/weather", do="pause").status_code == 404
    assert operator.post("/policies/clear", standing="kept").status_code == 400
    assert operator.post("/releases/fraud/explode", why="x").status_code in (404, 405)
    assert here.audited == []


# -- live --------------------------------------------------------------------------------------------------------


async def metrics(request: web.Request) -> web.Response:
    text = (
        "# TYPE headrace_events counter\n" f'headrace_events_total{{topic="{EVIL}"}} {time.time() * 10:.0f}\n'
        "# TYPE headrace_ready gauge\nheadrace_ready 1.0\n"
    )  # fmt: skip
    return web.Response(text=text)


def test_news_come_to_an_open_page_as_the_page_itself_shows_them(tmp_path: Path) -> None:
    worker = web.Application()
    worker.router.add_get("/metrics", metrics)
    with serving(worker) as address, house(tmp_path, workers=(address.removeprefix("http://"),)) as made:
        visitor = made.visitor("viewer")
        with visitor.session.get(made.where + "/live/events?minutes=5", stream=True, timeout=30) as stream:
            assert stream.headers["Content-Type"] == "text/event-stream"
            found = [json.loads(line[6:]) for line, _ in zip(_data(stream.iter_lines()), range(3), strict=False)]
        parts = found[-1]
        assert "The worker answers." in parts["headline"]
        assert "10/s" in parts["tiles"] or "9" in parts["tiles"]
        assert "<script>alert" not in json.dumps(parts)
        page = visitor.page("/live?minutes=5")
        places = {attributes["data-part"] for _, attributes in page.tags if "data-part" in attributes}
        assert set(parts) == places


def _data(lines: Iterator[bytes]) -> Iterator[bytes]:
    return (line for line in lines if line.startswith(b"data: "))


def test_a_stream_ends_with_the_session_of_who_looks(tmp_path: Path) -> None:
    with house(tmp_path, workers=("127.0.0.1:9",)) as made:
        visitor = made.visitor("viewer")
        with visitor.session.get(made.where + "/live/events", stream=True, timeout=30) as stream:
            lines = stream.iter_lines()
            next(_data(lines))
            made.shown.accounts.sessions.end(visitor.cookie)
            began = time.monotonic()
            assert len(list(_data(lines))) <= 1
            assert time.monotonic() - began < 10


def test_the_console_does_not_wait_for_who_looks_when_it_ends(tmp_path: Path) -> None:
    with house(tmp_path, workers=("127.0.0.1:9",)) as made:
        stream = made.visitor("viewer").session.get(made.where + "/live/events", stream=True, timeout=30)
        lines = stream.iter_lines()
        next(_data(lines))
        reading = threading.Thread(target=lambda: list(lines))
        reading.start()
        began = time.monotonic()
    assert time.monotonic() - began < 8
    reading.join(10)
    assert not reading.is_alive()
    stream.close()


def test_every_word_of_the_templates_is_known_in_chinese() -> None:
    """`t("...")` of the operations' templates; what is not translated would stand out in an English sentence."""
    import re

    from streams.console.words import dictionary

    known, missing = dictionary("zh"), set[str]()
    loader = environment().loader
    assert loader is not None
    for name in loader.list_templates():
        if name.startswith("ops/"):
            text, _, _ = loader.get_source(environment(), name)
            said = re.findall(r"""\bt\(\s*"((?:[^"\\]|\\.)*)"|\bt\(\s*'((?:[^'\\]|\\.)*)'""", text)
            missing |= {one or other for one, other in said} - known.keys()
    assert missing == set()


def test_a_status_of_a_task_that_the_shop_has_not_breaks_nothing(here: House) -> None:
    here.shelf.learning.said["weather"] = Status("weather", "waiting", {}, here.shown.now)
    try:
        assert "weather" not in here.visitor("viewer").page("/learn").text
    finally:
        del here.shelf.learning.said["weather"]
