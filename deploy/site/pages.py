"""The pages of the site out of docs/ and the README: links lead inside it, pictures stand where Mermaid's text is.
The texts are those of the repository; what a page links to outside docs/ is shown on a page of its own.
"""

import hashlib
import html
import os
import re
from collections.abc import Iterator
from pathlib import Path

from schemas.errors import DataUnavailable

ROOT = Path(__file__).parents[2]
DOCS = ROOT / "docs"
PICTURES = DOCS / "pictures"
FENCE = re.compile(r"^```.*?^```$", re.MULTILINE | re.DOTALL)
MERMAID = re.compile(r"^```mermaid\n(.*?)^```$", re.MULTILINE | re.DOTALL)
LINK = re.compile(r"(\[[^\]]*\])\(([^)\s]+)\)")
PLACES = {"README.md": "index.md", "schemas/avro": "reference/contracts.md"}
WHOLE = 60_000
"""Bytes of a folder up to which its files are shown, and not only named."""


def sources() -> list[Path]:
    """The README and each page below docs/, not those of packages that clients installed."""
    found = (path for path in DOCS.rglob("*.md") if "node_modules" not in path.parts)
    return [ROOT / "README.md", *sorted(found)]


def place(path: Path) -> str:
    """Where a file or folder of the repository is on the site."""
    name = path.relative_to(ROOT).as_posix()
    if name in PLACES:
        return PLACES[name]
    if name.startswith("docs/") and path.is_file() and path.suffix in (".md", ".png"):
        return name.removeprefix("docs/")
    return f"files/{name}.md"


def page(path: Path) -> tuple[str, set[Path]]:
    """(its text on the site, files and folders outside docs/ that it links to)."""
    shown = set[Path]()
    text = path.read_text("utf-8")

    def lead(link: re.Match[str]) -> str:
        words, target = link[1], link[2]
        if "://" in target or target.startswith(("#", "mailto:")):
            return link[0]
        file, _, anchor = target.partition("#")
        other = Path(os.path.normpath(path.parent / file))
        if place(other).startswith("files/"):
            shown.add(other)
        relative = os.path.relpath(place(other), os.path.dirname(place(path)) or ".")
        return f"{words}({relative}{'#' + anchor if anchor else ''})"

    parts, end = list[str](), 0
    for fence in FENCE.finditer(text):
        parts += [LINK.sub(lead, text[end : fence.start()]), drawn(fence[0])]
        end = fence.end()
    return "".join([*parts, LINK.sub(lead, text[end:])]), shown


def drawn(fence: str) -> str:
    """A block of Mermaid as its picture; another block as it is. DataUnavailable where the picture is not there."""
    if not (block := MERMAID.fullmatch(fence)):
        return fence
    picture = picture_of(block[1])
    if not picture.exists():
        raise DataUnavailable(
            f"no picture of a diagram that begins {block[1].splitlines()[:2]}", where=str(picture), todo="make pictures"
        )
    return f'<figure class="picture">\n{picture.read_text("utf-8").strip()}\n</figure>'


def picture_of(diagram: str) -> Path:
    """Named by what it shows, so that an old one is never taken for a new one."""
    return PICTURES / f"{hashlib.sha256(diagram.encode()).hexdigest()[:16]}.svg"


def diagrams() -> Iterator[str]:
    """Mermaid's text, of all pages."""
    for path in sources():
        for block in MERMAID.finditer(path.read_text("utf-8")):
            yield block[1]


def shown_file(path: Path) -> str:
    """A page of a file, or of a folder: its names, and its files where they are few."""
    name = path.relative_to(ROOT).as_posix()
    if path.is_file():
        return f"# {name}\n\n{code(path)}"
    files = sorted(each for each in path.rglob("*") if each.is_file() and not installed(each))
    title = f"# {name}\n\n"
    if sum(each.stat().st_size for each in files) > WHOLE:
        return title + "".join(f"- `{each.relative_to(ROOT).as_posix()}`\n" for each in files)
    return title + "\n".join(f"## {each.relative_to(path).as_posix()}\n\n{code(each)}" for each in files)


def installed(path: Path) -> bool:
    """What a tool has put there: no part of the repository."""
    return bool({"node_modules", "__pycache__", "target", "build"} & set(path.parts))


def code(path: Path) -> str:
    return f"<pre><code>{html.escape(path.read_text('utf-8'))}</code></pre>\n"
