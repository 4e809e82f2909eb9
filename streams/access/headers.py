"""The headers of every answer: no foreign script, frame, address or cache gets at a page.
Set when an answer is prepared, so streams and errors have them, too."""

from collections.abc import Mapping

from aiohttp import web

CONTENT = {
    "default-src": "'none'",
    "script-src": "'self'",
    "style-src": "'self'",
    "img-src": "'self'",
    "font-src": "'self'",
    "connect-src": "'self'",
    "manifest-src": "'self'",
    "form-action": "'self'",
    "base-uri": "'none'",
    "frame-ancestors": "'none'",
}
HEADERS: Mapping[str, str] = {
    "Content-Security-Policy": "; ".join(f"{name} {value}" for name, value in CONTENT.items()),
    "X-Content-Type-Options": "nosniff",
    "X-Frame-Options": "DENY",
    # Not no-referrer: that makes the browser say `Origin: null` on our own forms.
    "Referrer-Policy": "same-origin",
    "Cross-Origin-Opener-Policy": "same-origin",
    "Cross-Origin-Resource-Policy": "same-origin",
    "Permissions-Policy": "camera=(), geolocation=(), microphone=(), payment=(), usb=()",
}
TRANSPORT = "max-age=31536000"  # of a year; only where https was used already


def secure(response: web.StreamResponse, *, cached: bool, https: bool) -> None:
    """`cached`: a file of ours that says nothing of anybody. What a handler has set of these stays out."""
    response.headers.update(HEADERS)
    if not cached:
        response.headers["Cache-Control"] = "no-store"
    if https:
        response.headers["Strict-Transport-Security"] = TRANSPORT
