"""What the console's handlers find in the application, by key.
`streams.console.app.application` sets them; all read them.
"""

from collections.abc import Callable, Mapping
from typing import Any

from aiohttp import web

from schemas.registry import Registry
from streams.access.accounts import Accounts
from streams.access.gate import Gate
from streams.audit.log import Audit
from streams.config import Settings

SETTINGS: web.AppKey[Settings] = web.AppKey("settings", Settings)
REGISTRY: web.AppKey[Registry] = web.AppKey("registry", Registry)
ACCOUNTS: web.AppKey[Accounts] = web.AppKey("accounts", Accounts)
AUDIT: web.AppKey[Audit] = web.AppKey("audit", Audit)
GATE: web.AppKey[Gate] = web.AppKey("gate", Gate)
CLOCK: web.AppKey[Callable[[], int]] = web.AppKey("clock")
"""UTC ms."""
COUNTS: web.AppKey[Callable[[], Mapping[str, Any]]] = web.AppKey("counts")
"""What the navigation says beside its entries."""
