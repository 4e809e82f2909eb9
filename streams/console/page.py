"""How a page is made: one call renders a template with all that the frame around it needs, in the reader's language.
Filters write numbers, money and times for people; nothing that comes from an event reaches a page unescaped.
"""

import hashlib
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any

import jinja2
from aiohttp import web
from markupsafe import Markup

from streams.console import words
from streams.console.keys import CLOCK, COUNTS
from streams.console.words import LANGUAGES
from streams.events import money as minor_units
from streams.tasks.field_words import FIELD_WORDS

HERE = Path(__file__).parent
STATIC = HERE / "static"
THEMES = ("auto", "light", "dark")
YEAR_S = 365 * 86_400
LEAST_LOGIT = 0.05  # a contribution below it has no bar


@dataclass(frozen=True, slots=True)
class Entry:
    """Of the navigation: shown to who may do `action`."""

    key: str
    name: str
    path: str
    icon: str
    action: str = "see"


NAV = (
    Entry("queue", "Queue", "/queue", "queue"),
    Entry("live", "Live", "/live", "live"),
    Entry("quality", "Quality", "/quality", "quality"),
    Entry("releases", "Releases", "/releases", "releases"),
    Entry("policies", "Policies", "/policies", "policies"),
    Entry("letters", "Dead letters", "/letters", "letters", "letters"),
    Entry("audit", "Audit", "/audit", "audit", "audit"),
)


def language(request: web.Request) -> str:
    """What the reader chose, else the first that the browser asks for and we speak, else English."""
    chosen = request.cookies.get("lang", "")
    if chosen in LANGUAGES:
        return chosen
    asked = [
        part.partition(";")[0].strip()[:2].lower() for part in request.headers.get("Accept-Language", "").split(",")
    ]
    return next((code for code in asked if code in LANGUAGES), LANGUAGES[0])


def theme(request: web.Request) -> str:
    chosen = request.cookies.get("theme", "")
    return chosen if chosen in THEMES else THEMES[0]


def render(request: web.Request, template: str, *, status: int = 200, page: str = "", **values: Any) -> web.Response:
    """The page; `page` is the navigation entry it belongs to, `values` are the template's own."""
    text = fragment(request, template, page=page, **values)
    return web.Response(text=text, status=status, content_type="text/html")


def fragment(request: web.Request, template: str, **values: Any) -> str:
    """The text of a template: a whole page, or a part of one that a script asks for."""
    identity, lang = request.get("identity"), language(request)
    frame = {
        "identity": identity,
        "csrf": getattr(identity, "csrf", "") or request.get("csrf", ""),
        "lang": lang,
        "theme": theme(request),
        "path": request.path_qs,
        "nav": [entry for entry in NAV if identity is not None and identity.can(entry.action)],
        "t": words.translator(lang),
        "page": "",
        "now_ms": request.app[CLOCK](),
        "may": identity.can if identity is not None else lambda action: False,
    }
    if "counts" not in values:
        counts = request.app.get(COUNTS)
        frame["counts"] = counts() if counts is not None and identity is not None else None
    return environment().get_template(template).render(frame | values)


@cache
def environment() -> jinja2.Environment:
    made = jinja2.Environment(
        loader=jinja2.FileSystemLoader(HERE / "templates"),
        autoescape=True,
        undefined=jinja2.StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
        auto_reload=False,
    )
    made.tests["weighty"] = lambda logit: abs(logit) >= LEAST_LOGIT
    made.globals.update(asset=asset, reason_words=words.reason)
    made.filters.update(
        number=number, decimal=decimal, percent=percent, money=money, amount=amount, instant=words.instant,
        clock=words.clock, ago=ago, mask=mask, duration=duration, minor=minor_units, translated=translated,
        field_name=field_name,
    )  # fmt: skip
    return made


@cache
def asset(name: str) -> str:
    """The address of a static file; it changes with the file's content, so that browsers may keep it for ever."""
    digest = hashlib.sha256((STATIC / name).read_bytes()).hexdigest()[:10]
    return f"/static/{name}?{digest}"


# -- filters ---------------------------------------------------------------------------------------------------


def number(value: float | None) -> str:
    """1234567 -> 1,234,567; None -> a dash."""
    return "–" if value is None else f"{value:,.0f}"


def decimal(value: float | None, places: int = 2) -> str:
    return "–" if value is None else f"{value:,.{places}f}"


def percent(value: float | None, places: int = 0) -> str:
    return "–" if value is None else f"{100 * value:.{places}f}%"


def money(minor: int | None, currency: str = "") -> str:
    """Minor units (1/10,000) with two places; the currency's code after a no-break space."""
    return "–" if minor is None else amount(minor / 10_000, currency)


def amount(units: float | None, currency: str = "") -> str:
    if units is None:
        return "–"
    return f"{units:,.2f}\N{NO-BREAK SPACE}{currency}".rstrip()


@jinja2.pass_context
def duration(context: jinja2.runtime.Context, seconds: float) -> str:
    return words.duration(seconds, context["lang"])


@jinja2.pass_context
def ago(context: jinja2.runtime.Context, ms: int) -> str:
    """How long ago, in the reader's language; past a day the date."""
    return words.ago(ms, context["now_ms"], context["lang"])


@jinja2.pass_context
def mask(context: jinja2.runtime.Context, token: str | None) -> Markup | str:
    """A personal token as the reader may see it: whole for who may see it, else its end alone."""
    if not token:
        return "–"
    if context["may"]("reveal"):
        return Markup('<span class="mono">{}</span>').format(token)
    return Markup('<span class="masked" title="{}">••••{}</span>').format(
        context["t"]("masked for your role"), token[-3:] if len(token) > 6 else ""
    )


@jinja2.pass_context
def field_name(context: jinja2.runtime.Context, field: str) -> str:
    """What a column of the model's facts is called; one that this version does not know, by its own name."""
    said = FIELD_WORDS.get(field)
    return field.replace("_", " ") if said is None else said.zh if context["lang"] == "zh" else said.en


@jinja2.pass_context
def translated(context: jinja2.runtime.Context, text: str) -> str:
    said: str = context["t"](text)
    return said
