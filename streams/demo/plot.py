"""The demo's story as a picture: the share of frauds caught over the shop's time, with what happened when.
Written as PNG, and as a page of its own that needs nothing else.
"""

import html
import io
from datetime import UTC, datetime
from pathlib import Path
from textwrap import wrap
from typing import Any

from streams.demo.story import NEWEST, Mark, Story, day

NEW, OTHER, INK = "#c2410c", "#1d4ed8", "#374151"


def draw(story: Story, folder: Path, title: str) -> tuple[Path, Path] | None:
    """`story.png` and `story.html` in the folder; None where the plotting library is not installed."""
    try:
        from matplotlib.figure import Figure
    except ImportError:  # it is in the `bench` extra
        return None
    figure: Any = Figure(figsize=(10, 4.5), dpi=120, layout="constrained")
    axes = figure.subplots()
    for new, color, label in ((False, OTHER, "other frauds"), (True, NEW, f"new kind: {story.new_kind}")):
        if curve := story.curve(new):
            axes.plot([_moment(time) for time, _ in curve], [share for _, share in curve], color=color, label=label)
    for number, mark in enumerate(shown(story)):
        axes.axvline(_moment(mark.time), color=INK, linewidth=0.8, linestyle="--")
        axes.annotate(
            mark.text, (_moment(mark.time), 1.02 + 0.06 * (number % 3)), fontsize=7, color=INK, rotation=0,
            annotation_clip=False, ha="left",
        )  # fmt: skip
    axes.set_ylim(0, 1.22)
    axes.set_yticks([0, 0.25, 0.5, 0.75, 1], ["0 %", "25 %", "50 %", "75 %", "100 %"])
    axes.set_ylabel(f"caught, of the newest {NEWEST}")
    axes.set_title("\n".join(wrap(title, 120)), fontsize=8, loc="left")
    axes.spines[["top", "right"]].set_visible(False)
    if axes.get_legend_handles_labels()[0]:
        axes.legend(loc="center left", bbox_to_anchor=(0, 0.25), frameon=False)
    figure.autofmt_xdate()
    png, page = folder / "story.png", folder / "story.html"
    figure.savefig(png)
    picture = io.StringIO()
    figure.savefig(picture, format="svg")
    page.write_text(_page(story, title, picture.getvalue()), "utf-8")
    return png, page


def shown(story: Story) -> list[Mark]:
    """Marks that the picture has room for: not two of one text."""
    return list({mark.text: mark for mark in reversed(story.marks)}.values())[::-1]


def _moment(time: int) -> datetime:
    return datetime.fromtimestamp(time / 1000, UTC)


def _page(story: Story, title: str, svg: str) -> str:
    lines = "".join(f"<li>{html.escape(line)}</li>" for line in story.lines())
    marks = "".join(f"<tr><td>{day(mark.time)}</td><td>{html.escape(mark.text)}</td></tr>" for mark in story.marks)
    picture = svg[svg.index("<svg") :]
    return (
        f"<!doctype html><html lang=en><meta charset=utf-8><title>{html.escape(title)}</title>"
        "<style>body{font:16px/1.5 system-ui,sans-serif;max-width:64rem;margin:2rem auto;padding:0 1rem;color:#111827}"
        "svg{max-width:100%;height:auto}td{padding:0 1rem .25rem 0;vertical-align:top}</style>"
        f"<h1>{html.escape(title)}</h1>{picture}<ul>{lines}</ul><table>{marks}</table></html>"
    )
