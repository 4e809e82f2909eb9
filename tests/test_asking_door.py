"""Who may ask a worker for scores: each role, each token, each page; and what it is believed by."""

import json
from pathlib import Path

import aiohttp
import pytest

from schemas.errors import SettingsError
from streams.access.roles import LEAST, ROLES
from streams.asking.door import Bearers, Door
from streams.asking.pages import Pages
from streams.asking.peers import Peers
from streams.config import Settings
from streams.config_sections import Web
from streams.health import Status
from streams.metrics import Metrics
from streams.web import Server, application
from tests.access_accounts import BY, NOW, open_accounts
from tests.test_asking_pages import KNOWN, ORDER, PARTITIONS, TASK_LIST, Desk, bearing, known, one, post, serving, told


class Here:
    """A worker that has nothing yet."""

    def status(self) -> Status:
        return Status()


@pytest.mark.parametrize("host", ["127.0.0.1", "0.0.0.0"])
@pytest.mark.parametrize("token", KNOWN)
def test_a_token_opens_the_page_to_those_whose_role_and_actions_it_is_wherever_the_worker_listens(
    host: str, token: str
) -> None:
    may = KNOWN[token].can("score")
    assert may == (token == "headrace_narrow" or (KNOWN[token].role in ("operator", "admin") and not KNOWN[token].only))
    for scheme in ("Bearer", "bearer"):
        given = {"Authorization": f"{scheme} {token}", "Host": "workers.shop.example"}
        assert one(door=Door(known, host), headers=given).status == (200 if may else 403)


def test_a_worker_that_others_reach_is_never_without_tokens() -> None:
    with pytest.raises(SettingsError, match=r"ask\.without_token"):
        Door(known, "0.0.0.0", without_token=True)


def test_the_workers_pages_are_those_that_read_nothing_of_people_and_the_one_that_takes_a_token() -> None:
    """The role x route table: every page of a worker, each role's answer by each method."""

    async def story() -> dict[tuple[str, str, str], int]:
        peers = Peers("orders", dict)
        pages = Pages(TASK_LIST, Door(known, "0.0.0.0"), peers, Metrics(), partitions=PARTITIONS, deadline_ms=250)
        pages.asker = Desk()  # type: ignore[assignment]  # a stand-in
        app = application(Here(), Metrics(), 60, more=pages)
        found = {}
        async with Server(app, Web(port=0)) as server, aiohttp.ClientSession() as http:
            for route in app.router.routes():
                assert route.resource is not None
                path = route.resource.canonical.replace("{task}", "fraud")
                for role in ("", *ROLES):
                    headers = {"Content-Type": "application/json", **(bearing(f"headrace_{role}") if role else {})}
                    method = "POST" if route.method == "*" else route.method
                    url = f"http://127.0.0.1:{server.port}{path}"
                    async with http.request(method, url, data=json.dumps(ORDER), headers=headers) as answer:
                        found[method, path, role] = answer.status
        return found

    table = told(story)
    opened = {"/healthz", "/readyz", "/metrics", "/openapi.json"}
    assert {path for _, path, _ in table} == opened | {"/v1/score/fraud"}
    for (method, path, role), status in table.items():
        if path in opened:
            assert (method in ("GET", "HEAD"), status) == (True, 200 if path != "/readyz" else 503), path
        else:
            may = role != "" and ROLES.index(role) >= ROLES.index(LEAST["score"])
            assert status == (200 if may else 401 if not role else 403), role


def test_a_token_of_the_accounts_opens_the_page_until_it_is_revoked(tmp_path: Path) -> None:
    made = Settings(data_dir=tmp_path)
    clock = [NOW / 1000]
    with open_accounts(made) as accounts:
        accounts.users.add("checkout", "operator", None, **BY)
        row, token = accounts.tokens.make("checkout", "", days=1, only=["score"], **BY)
        bearers = Bearers(made, lambda: clock[0])

        async def story() -> list[int]:
            found = []
            async with serving(Desk(), door=Door(bearers.find, "0.0.0.0")) as url:
                found.append((await post(url, headers=bearing(token))).status)
                accounts.tokens.revoke(row.id, **BY)
                clock[0] += 3
                found.append((await post(url, headers=bearing(token))).status)
            return found

        assert told(story) == [200, 401]
        bearers.close()


def test_accounts_that_cannot_be_read_let_nobody_ask(tmp_path: Path) -> None:
    (tmp_path / "access").mkdir(mode=0o700)
    (tmp_path / "access" / "accounts.db").write_text("no database at all, but long enough to be looked at" * 40)
    answer = one(door=Door(Bearers(Settings(data_dir=tmp_path)).find, "0.0.0.0"), headers=bearing("headrace_x"))
    assert (answer.status, answer.body["type"]) == (503, "urn:headrace:problem:no-accounts")
