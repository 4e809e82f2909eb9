"""What every chart has: a caption, a picture with title and description, and its data as a table behind a <details>.
Colours, dashes and sizes are classes of static/ops.css: no style is written here, as the pages allow none inline.
"""

from collections.abc import Sequence

from markupsafe import Markup


def table(caption: str, heads: Sequence[str], rows: Sequence[Sequence[str]], note: str = "") -> Markup:
    """Figures as a table that a screen reader can walk through; behind a <details>, as the picture says it first."""
    head = Markup("").join(Markup('<th scope="col">{}</th>').format(each) for each in heads)
    body = Markup("").join(
        Markup('<tr><th scope="row">{}</th>{}</tr>').format(
            first, Markup("").join(Markup("<td>{}</td>").format(cell) for cell in rest)
        )
        for first, *rest in rows
    )
    return Markup(
        '<details class="chart-data"><summary>Data<span class="visually-hidden"> of {caption}</span></summary>'
        '<div class="scroll" tabindex="0" role="region" aria-label="{caption}"><table class="table compact">'
        "<thead><tr>{head}</tr></thead><tbody>{body}</tbody></table></div>{note}</details>"
    ).format(caption=caption, head=head, body=body, note=Markup('<p class="hint">{}</p>').format(note) if note else "")


def chart_figure(key: str, title: str, note: str, picture: Markup, data: Markup) -> Markup:
    return Markup(
        '<figure class="ops-chart"><figcaption><span class="chart-title">{title}</span>{note}</figcaption>'
        '<div data-part="plot-{key}">{picture}</div>{data}</figure>'
    ).format(
        title=title,
        note=Markup(' <span class="chart-note">{}</span>').format(note) if note else "",
        key=key,
        picture=picture,
        data=data,
    )


def svg(key: str, title: str, text: str, height: int, content: Markup) -> Markup:
    return Markup(
        '<svg class="plot" width="100%" height="{height}" role="img" aria-labelledby="{key}-t {key}-d">'
        '<title id="{key}-t">{title}</title><desc id="{key}-d">{text}</desc>{content}</svg>'
    ).format(height=height, key=key, title=title, text=text, content=content)
