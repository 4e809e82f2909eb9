"""Puts the pages of the site together: `python -m deploy.site.build FOLDER`. MkDocs makes HTML of them afterwards.
The folder is made anew each time; nothing is fetched.
"""

import html
import json
import shutil
import sys
from dataclasses import asdict
from pathlib import Path

from deploy.site.pages import DOCS, page, place, shown_file, sources
from deploy.site.reference import pages
from streams.capacity.measured import constants
from streams.capacity.model import MEANINGS, Load

HERE = Path(__file__).parent
CALCULATOR = "<!-- calculator -->"


def build(folder: Path) -> None:
    shutil.rmtree(folder, ignore_errors=True)
    shown = set[Path]()
    for path in sources():
        text, links = page(path)
        write(folder / place(path), text.replace(CALCULATOR, form()) if path.name == "capacity.md" else text)
        shown |= links
    for path in sorted(shown):
        write(folder / place(path), shown_file(path))
    for name, text in pages().items():
        write(folder / name, text)
    for picture in DOCS.rglob("*.png"):
        copy(picture, folder / picture.relative_to(DOCS))
    for name in ("calculator.js", "site.css"):
        copy(HERE / name, folder / name)


def form() -> str:
    """The calculator's form and its figures; deploy/site/calculator.js makes it live."""
    known = asdict(Load())
    fields = "".join(
        f"<label>{html.escape(what)} <input type='number' name='{name}' value='{known[name]:g}' min='{low:g}' "
        f"max='{high:.0f}' step='any' required></label>"
        for name, (what, low, high) in MEANINGS.items()
    )
    told = json.dumps({"constants": constants()}).replace("<", "\\u003c")
    return (
        f"<form id='capacity-form'>{fields}</form>\n"
        f"<script type='application/json' id='capacity-constants'>{told}</script>\n"
        "<table id='capacity-plan' aria-live='polite'></table>\n"
    )


def write(path: Path, text: str) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(text, "utf-8")


def copy(source: Path, target: Path) -> None:
    target.parent.mkdir(parents=True, exist_ok=True)
    shutil.copyfile(source, target)


if __name__ == "__main__":
    build(Path(sys.argv[1]))
