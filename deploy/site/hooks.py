"""What MkDocs does besides: the theme's script would fetch what a page lacks from other hosts; here it cannot.
It runs in the site's own environment, so nothing of Headrace is imported.
"""

from pathlib import Path
from typing import Any

HOSTS = ("https://unpkg.com/", "https://api.github.com/")
"""Mermaid and a polyfill of an old browser; facts of a repository, which the site does not name."""


def on_post_build(config: Any) -> None:
    for path in Path(config["site_dir"]).rglob("*.js"):
        text = made = path.read_text("utf-8")
        for host in HOSTS:
            made = made.replace(host, "/nowhere/")
        if made != text:
            path.write_text(made, "utf-8")
    for path in Path(config["site_dir"]).rglob("*.js.map"):  # sources of the theme, with the addresses again
        path.unlink()
