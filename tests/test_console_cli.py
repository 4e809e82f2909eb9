"""`headrace console` as a process: it starts without a broker and says so, lets in by a link once, ends in order."""

import http.cookiejar
import os
import signal
import subprocess
import sys
import time
import urllib.error
import urllib.parse
import urllib.request
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from streams.config import Settings
from streams.demo.stage import environment

NOWHERE = "127.0.0.1:9"


@contextmanager
def headrace(tmp_path: Path, *arguments: str) -> Iterator["subprocess.Popen[str]"]:
    settings = Settings(data_dir=tmp_path, brokers=NOWHERE, registry_url=f"http://{NOWHERE}", console={"port": 0})
    process = subprocess.Popen(
        [sys.executable, "-m", "streams", "console", *arguments], env=os.environ | environment(settings), text=True,
        stdout=subprocess.PIPE, stderr=subprocess.PIPE,
    )  # fmt: skip
    try:
        yield process
    finally:
        if process.poll() is None:
            process.kill()
        process.communicate()


def get(browser: urllib.request.OpenerDirector, address: str, **fields: str) -> str:
    data = urllib.parse.urlencode(fields).encode() if fields else None
    with browser.open(address, data) as answer:
        text: str = answer.read().decode()
        return text


def test_it_serves_without_a_broker_lets_in_once_and_ends_in_order(tmp_path: Path) -> None:
    with headrace(tmp_path, "--one-time-login", "analyst") as process:
        assert process.stdout is not None
        where = process.stdout.readline().split()[-1]
        code = process.stdout.readline().rpartition("code=")[2].strip()
        browser = urllib.request.build_opener(urllib.request.HTTPCookieProcessor(http.cookiejar.CookieJar()))
        assert "Sign in" in get(browser, where)
        page = get(browser, f"{where}/login/once", code=code, next="/queue")
        deadline = time.monotonic() + 20
        while "no broker listens" not in page and time.monotonic() < deadline:
            time.sleep(0.2)
            page = get(browser, f"{where}/queue")
        assert "New alerts may be missing." in page
        assert "no broker listens" in page
        with pytest.raises(urllib.error.HTTPError, match="401"):
            get(urllib.request.build_opener(), f"{where}/login/once", code=code)
        process.send_signal(signal.SIGTERM)
        assert process.wait(30) == 0


def test_an_unknown_role_and_a_link_to_no_port_are_refused(tmp_path: Path) -> None:
    for arguments, said in (
        (("--one-time-login", "boss", "--only-link"), "no link to print"),
        (("--one-time-login", "boss"), "there is no role 'boss'"),
        (("--only-link",), "no link to print"),
    ):
        with headrace(tmp_path, *arguments) as process:
            _, errors = process.communicate(timeout=60)
            assert process.returncode == 2
            assert said in errors


def test_the_store_is_for_this_user_alone_and_notes_are_on_no_disk(tmp_path: Path) -> None:
    with headrace(tmp_path) as process:
        assert process.stdout is not None
        process.stdout.readline()
        folder = tmp_path / "console"
        assert folder.stat().st_mode & 0o077 == 0
        assert {path.name: path.stat().st_mode & 0o077 for path in folder.glob("*.db")} == {
            "console.db": 0,
        }
