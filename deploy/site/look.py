"""What the built site would fetch from other hosts: `python -m deploy.site.look FOLDER` lists it; any is a failure.
A link that a reader follows is none; a picture, font, style, frame or script is, and an address in a script's text.
"""

import re
import sys
from collections.abc import Iterator
from html.parser import HTMLParser
from pathlib import Path

FOREIGN = re.compile(r"^\s*(?:[a-z][a-z0-9+.-]*:)?//", re.IGNORECASE)
STYLE = re.compile(r"url\(\s*['\"]?([^)'\"]+)|@import\s+['\"]([^'\"]+)")
# An address that begins a string; namespaces of XML are names and are never fetched.
SCRIPT = re.compile(r"""["'`]((?:https?:)?//(?!www\.w3\.org/)[\w-]+(?:\.[\w-]+)+[^"'`\s]*)""")
COMMENT = re.compile(r"/\*.*?\*/", re.DOTALL)
FETCHED = ("src", "srcset", "poster", "data", "action", "formaction", "xlink:href")


class Fetched(HTMLParser):
    """Addresses that a browser fetches by itself for one page."""

    def __init__(self) -> None:
        super().__init__()
        self.found: list[str] = []
        self._inside = ""

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self._inside = tag
        for name, value in attrs:
            fetches = name in FETCHED or (name == "href" and tag not in ("a", "area"))
            if name == "href" and tag == "link" and dict(attrs).get("rel") == "canonical":
                fetches = False
            if fetches and value and FOREIGN.match(value):
                self.found.append(value)
            if name == "style" and value:
                self.found += styled(value)

    def handle_endtag(self, tag: str) -> None:
        self._inside = ""

    def handle_data(self, data: str) -> None:
        if self._inside == "style":
            self.found += styled(data)
        if self._inside == "script":
            self.found += scripted(data)


def styled(text: str) -> list[str]:
    return [one for found in STYLE.findall(text) for one in found if FOREIGN.match(one)]


def scripted(text: str) -> list[str]:
    return SCRIPT.findall(COMMENT.sub("", text))


def foreign(folder: Path) -> Iterator[tuple[str, str]]:
    """(file, address) of all that the files of a site would fetch from elsewhere."""
    for path in sorted(folder.rglob("*")):
        name = path.relative_to(folder).as_posix()
        if path.suffix in (".html", ".svg"):
            page = Fetched()
            page.feed(path.read_text("utf-8"))
            yield from ((name, one) for one in page.found)
        elif path.suffix == ".css":
            yield from ((name, one) for one in styled(path.read_text("utf-8")))
        elif path.suffix == ".js":
            yield from ((name, one) for one in scripted(path.read_text("utf-8")))


def main(folder: Path) -> int:
    found = list(foreign(folder))
    for name, address in found:
        print(f"{name} fetches {address}", file=sys.stderr)
    if not found:
        print(f"{folder}/index.html")
    return 1 if found else 0


if __name__ == "__main__":
    sys.exit(main(Path(sys.argv[1])))
