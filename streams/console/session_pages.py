"""What is shown at the door, and what each browser keeps for itself.
Language and theme are cookies that say no more than that.
"""

import logging
from contextvars import ContextVar

from aiohttp import web

from schemas.errors import HeadraceError
from streams.access.gate import Handler, form, requires
from streams.access.login import local
from streams.access.pages import LoginView, RefusedView
from streams.console.page import THEMES, YEAR_S, fragment, render
from streams.console.words import LANGUAGES

log = logging.getLogger(__name__)

_current: ContextVar[web.Request] = ContextVar("request")


@web.middleware
async def remembered(request: web.Request, handler: Handler) -> web.StreamResponse:
    """The gate's pages are given what to show, not the request: its language and theme are found here."""
    _current.set(request)
    return await handler(request)


def login(view: LoginView) -> str:
    return fragment(_current.get(), "login.html", view=view)


def refused(view: RefusedView) -> str:
    return fragment(_current.get(), "refused.html", view=view)


@requires("see")
async def preferences(request: web.Request) -> web.StreamResponse:
    """Back to the page it was chosen on."""
    fields = await form(request)
    answer = web.HTTPSeeOther(local(fields.get("back", "")))
    for name, known in (("lang", LANGUAGES), ("theme", THEMES)):
        if fields.get(name) in known:
            secure = request.secure
            answer.set_cookie(
                name, fields[name], max_age=YEAR_S, path="/", samesite="Lax", httponly=True, secure=secure
            )
    raise answer


@web.middleware
async def designed(request: web.Request, handler: Handler) -> web.StreamResponse:
    """What is not there, what nobody can read just now and faults of ours look like pages, too."""
    for_people = request.get("identity") is not None and "text/html" in request.headers.get("Accept", "")
    try:
        return await handler(request)
    except web.HTTPNotFound:
        if not for_people:
            raise
        return render(request, "missing.html", status=404)
    except web.HTTPException:
        raise
    except HeadraceError as error:
        log.warning("%s cannot be shown: %s", request.path, error)
        if not for_people:
            raise web.HTTPServiceUnavailable(text=str(error)) from error
        return render(request, "problem.html", status=503, error=str(error), counts=None)
    except Exception:
        log.exception("a fault in %s", request.path)
        if not for_people:
            raise
        return render(request, "problem.html", status=500, error="", counts=None)
