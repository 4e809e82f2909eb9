"""What the gate shows people: what a page is told, and plain pages for who brings none of their own.
Every value is text of somebody else's: a page that shows one escapes it."""

from dataclasses import dataclass
from html import escape
from urllib.parse import quote


@dataclass(frozen=True, slots=True)
class LoginView:
    """What the login page is told. It posts `name`, `password` and `next` to /login.

    With a `code` it has one button instead, and posts `code` and `next` to /login/once.
    """

    next: str = "/"
    name: str = ""
    """As it was typed, so that it need not be typed again."""
    error: str = ""
    """A sentence; empty at first."""
    wait_s: int = 0
    """Until the next try is judged."""
    code: str = ""
    sso: bool = False
    """There is an identity provider: a link to /login/sso?next=… leads to it."""


@dataclass(frozen=True, slots=True)
class RefusedView:
    """What the page is told that says no. `needed` is empty where no role would help."""

    what: str
    needed: str = ""
    name: str = ""
    role: str = ""


def plain_login(view: LoginView) -> str:
    error = f'<p role="alert">{escape(view.error)}</p>' if view.error else ""
    hidden = f'<input type="hidden" name="next" value="{escape(view.next)}">'
    if view.code:
        form = f"""<form method="post" action="/login/once">{hidden}
<input type="hidden" name="code" value="{escape(view.code)}"><button autofocus>Log in</button></form>"""
    else:
        form = f"""<form method="post" action="/login">{hidden}
<p><label>Name <input name="name" value="{escape(view.name)}" autocomplete="username" required></label></p>
<p><label>Password <input name="password" type="password" autocomplete="current-password" required></label></p>
<button>Log in</button></form>"""
        if view.sso:
            form += (
                f'<p><a href="/login/sso?next={quote(view.next, safe="/")}">Log in through your organisation</a></p>'
            )
    return _page("Log in", error + form)


def plain_refused(view: RefusedView) -> str:
    needed = f"<p>It needs the role {escape(view.needed)}; {escape(view.name)} is {escape(view.role)}.</p>"
    return _page("Not allowed", f"<p>{escape(view.what)}</p>{needed if view.needed else ''}")


def onward(path: str) -> str:
    """After a login that came from another site. A redirect would still count as theirs, and be sent no cookie."""
    link = escape(path)
    return f"""<!doctype html>
<html lang="en"><head><meta charset="utf-8"><meta http-equiv="refresh" content="0;url={link}"><title>Headrace</title>
</head><body><p><a href="{link}">Continue</a></p></body></html>
"""


def _page(title: str, body: str) -> str:
    return f"""<!doctype html>
<html lang="en"><head><meta charset="utf-8"><meta name="viewport" content="width=device-width">
<title>{title} - Headrace</title></head><body><main><h1>{title}</h1>{body}</main></body></html>
"""
