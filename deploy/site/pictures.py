"""Draws the Mermaid diagrams of all pages into docs/pictures, as SVG, when one has changed: `make pictures`.
So neither the site nor its build holds Mermaid's script, of 3.6 MB; it is needed here alone, at a pinned digest (MIT).
"""

import hashlib
import sys
from pathlib import Path

from playwright.sync_api import Page

from deploy.site.pages import PICTURES, diagrams, picture_of
from schemas.errors import DataUnavailable
from tests.browser.driving import browser

DIGEST = "581ed7d74bd9048d0e3a91363927d72ef22942d7722546b27f7cc29e35390eb8"
OPTIONS = (
    "{startOnLoad: false, theme: 'neutral', htmlLabels: false, flowchart: {htmlLabels: false}, "
    "fontFamily: 'sans-serif'}"
)


def main(script: Path) -> None:
    text = script.read_bytes()
    if (found := hashlib.sha256(text).hexdigest()) != DIGEST:
        raise DataUnavailable("another Mermaid than the pinned one", where=f"{script}, sha256 {found}", expected=DIGEST)
    PICTURES.mkdir(exist_ok=True)
    wanted = {picture_of(diagram): diagram for diagram in diagrams()}
    with browser() as chromium:
        page = chromium.new_page()
        page.add_script_tag(content=text.decode())
        for picture, diagram in wanted.items():
            picture.write_text(draw(page, diagram, f"picture-{picture.stem}") + "\n", "utf-8")
    for old in set(PICTURES.glob("*.svg")) - wanted.keys():
        old.unlink()


def draw(page: Page, diagram: str, ident: str) -> str:
    made: str = page.evaluate(
        f"async ([ident, text]) => {{ mermaid.initialize({OPTIONS}); return (await mermaid.render(ident, text)).svg }}",
        [ident, diagram],
    )
    return made


if __name__ == "__main__":
    main(Path(sys.argv[1]))
