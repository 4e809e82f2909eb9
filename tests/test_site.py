"""The documentation site: every page is in its navigation, every diagram has its picture, the reference names all that
the code has; and, once built, nothing of it comes from another host and its calculator works.
"""

import json
import os
import re
import socketserver
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from functools import partial
from http.server import SimpleHTTPRequestHandler
from pathlib import Path
from typing import Any

import pytest
import yaml
from typer.main import get_command

from deploy.site.build import build
from deploy.site.look import Fetched, foreign, scripted, styled
from deploy.site.pages import PICTURES, diagrams, drawn, picture_of, place, sources
from schemas.errors import DataUnavailable
from streams.capacity.model import Load, plan
from streams.cli import app
from streams.config import Settings
from streams.config_sources import flatten
from tests.browser.driving import browser, chromium, violations

ROOT = Path(__file__).parent.parent
SITE = ROOT / "build" / "site"


class Lenient(yaml.SafeLoader):  # type: ignore[misc]  # yaml has no types
    """MkDocs' file names a function to call, which is not called here."""


Lenient.add_multi_constructor("tag:yaml.org,2002:python/", lambda *_: None)


def navigation(part: Any) -> Iterator[str]:
    if isinstance(part, str):
        yield part
    for inner in part.values() if isinstance(part, dict) else part if isinstance(part, list) else ():
        yield from navigation(inner)


@pytest.fixture(scope="module")
def pages(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("site")
    build(folder)
    return folder


def test_every_page_is_in_the_navigation_once() -> None:
    # Lenient is a SafeLoader: of the tags that MkDocs knows it makes nothing, and no other object either.
    named = sorted(navigation(yaml.load((ROOT / "mkdocs.yml").read_text("utf-8"), Lenient)["nav"]))
    assert [name for name in named if not name.startswith("reference/")] == sorted(map(place, sources()))


def test_every_diagram_has_its_picture_and_there_are_no_others() -> None:
    assert {picture_of(diagram) for diagram in diagrams()} == set(PICTURES.glob("*.svg"))


def test_a_diagram_without_a_picture_says_what_to_do() -> None:
    with pytest.raises(DataUnavailable, match="no picture") as found:
        drawn("```mermaid\nflowchart LR\n    new --> diagram\n```")
    assert "make pictures" in str(found.value)


def test_no_page_keeps_a_link_that_leads_out_of_the_site(pages: Path) -> None:
    out = {
        (path.name, target)
        for path in pages.rglob("*.md")
        if "files" not in path.relative_to(pages).parts  # code
        for target in re.findall(
            r"\]\(([^)\s#]+)", re.sub(r"^```.*?^```$", "", path.read_text("utf-8"), flags=re.M | re.S)
        )
        if "://" not in target and not (path.parent / target).resolve().is_file()
    }
    assert not out


def test_the_reference_names_every_setting_contract_and_command(pages: Path) -> None:
    text = {path.stem: path.read_text("utf-8") for path in (pages / "reference").glob("*.md")}
    rows = set(re.findall(r"^\| `([a-z0-9_.]+)` \| `HEADRACE_", text["settings"], re.MULTILINE))
    wanted = {
        re.sub(r"^deadlines_ms\..*", "deadlines_ms", name) for name in flatten(Settings().model_dump(mode="json"))
    }
    missing = {name for name in wanted if not any(name == row or name.startswith(f"{row}.") for row in rows)}
    assert not missing
    contracts = {path.stem for path in (ROOT / "schemas" / "avro").glob("*.avsc")}
    assert set(re.findall(r"^## (\w+)$", text["contracts"], re.MULTILINE)) == contracts
    assert {f"### headrace {name}" for name, each in top().items() if not hasattr(each, "commands")} <= set(
        text["commands"].splitlines()
    )
    assert "`headrace_lag`" in text["metrics"]
    assert "`headrace_join`" in text["metrics"]


def top() -> dict[str, Any]:
    found: dict[str, Any] = get_command(app).commands  # type: ignore[attr-defined]  # a group's
    return found


@pytest.mark.parametrize(
    ("page", "found"),
    [
        ('<script src="https://cdn.example/x.js"></script>', ["https://cdn.example/x.js"]),
        ('<link rel="stylesheet" href="//fonts.example/a.css">', ["//fonts.example/a.css"]),
        ('<p style="background: url(http://a.example/b.png)">', ["http://a.example/b.png"]),
        ("<style>@import 'https://a.example/b.css'</style>", ["https://a.example/b.css"]),
        ('<script>fetch("https://a.example/b")</script>', ["https://a.example/b"]),
        ('<a href="https://a.example">read</a><img src="b.png"><svg xmlns="http://www.w3.org/2000/svg">', []),
    ],
)
def test_what_a_page_would_fetch_is_found(page: str, found: list[str]) -> None:
    parser = Fetched()
    parser.feed(page)
    assert parser.found == found


def test_what_a_style_or_script_would_fetch_is_found_and_comments_are_none() -> None:
    assert styled("a{b:url(data:x)} c{d:url('//e.example/f')}") == ["//e.example/f"]
    assert scripted("/* 'https://a.example' */ x=`https://b.example/c`;y='http://www.w3.org/2000/svg'") == [
        "https://b.example/c"
    ]


built = pytest.mark.skipif(not (SITE / "index.html").exists(), reason="no site: make site")


@pytest.mark.slow
@built
def test_nothing_of_the_built_site_comes_from_another_host() -> None:
    assert not list(foreign(SITE))


@contextmanager
def served() -> Iterator[str]:
    class Quiet(SimpleHTTPRequestHandler):
        def log_message(self, format: str, *args: Any) -> None:
            pass

    class Server(socketserver.ThreadingTCPServer):
        daemon_threads = True

    with Server(("127.0.0.1", 0), partial(Quiet, directory=os.fspath(SITE))) as server:
        thread = threading.Thread(target=server.serve_forever)
        thread.start()
        yield f"http://127.0.0.1:{server.server_address[1]}"
        server.shutdown()
        thread.join()


@pytest.mark.slow
@built
@pytest.mark.skipif(not chromium(), reason="no Chromium: apt-get install chromium, or set HEADRACE_CHROMIUM")
def test_in_a_browser_the_pages_ask_no_other_host_and_the_calculator_says_what_the_command_says() -> None:
    with served() as base, browser() as made:
        page, asked, broken = made.new_page(), list[str](), list[str]()
        page.on("request", lambda request: asked.append(request.url))
        page.on("pageerror", lambda error: broken.append(str(error)))
        page.goto(f"{base}/concepts.html")
        assert page.locator("figure.picture svg").count() == 3
        page.goto(f"{base}/capacity.html")
        page.locator("input[name=events_per_s]").fill("20000")
        wanted = plan(Load(events_per_s=20_000))
        caption = page.locator("#capacity-plan caption").inner_text()
        assert caption == f"{wanted.workers} workers, {wanted.partitions} partitions, state.slots of {wanted.slots:,}"
        row = page.locator("#capacity-plan tr", has_text="training.examples").inner_text()
        assert f"{wanted.disk_gb['training.examples']:,.1f} GB" in row
        page.locator("input[name=headroom]").fill("2")
        assert "out of its bounds" in page.locator("#capacity-plan caption").inner_text()
        assert not [each for each in violations(page) if "capacity" in each]
        assert not broken
        assert {url for url in asked if not url.startswith((base, "data:", "blob:"))} == set()


def test_the_calculators_constants_are_in_the_page(pages: Path) -> None:
    text = (pages / "capacity.md").read_text("utf-8")
    told = json.loads(text.partition("id='capacity-constants'>")[2].partition("</script>")[0])
    assert told["constants"]["row_bytes"] > 0
    assert set(re.findall(r"<input type='number' name='(\w+)'", text)) == set(Load.__slots__)
