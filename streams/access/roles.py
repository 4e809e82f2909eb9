"""Four roles, each of which may do all that those before it may, and the least role that each action asks for.
An action that is not in the table is nobody's."""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass

from schemas.errors import SettingsError

ROLES = ("viewer", "analyst", "operator", "admin")

#: Action -> the least role that may.
LEAST: Mapping[str, str] = {
    "see": "viewer",  # alerts, cases, rates, releases; personal values masked
    "reveal": "analyst",  # personal values as they are
    "verdict": "analyst",
    "lists": "analyst",
    "score": "operator",  # POST /v1/score: what it scores is absorbed
    "letters": "operator",  # replay dead letters
    "policy": "operator",
    "release": "operator",  # promote, pin, roll back
    "learn": "operator",  # pause, resume, now
    "users": "admin",
    "audit": "admin",  # read the audit log
}


def allows(role: str, action: str) -> bool:
    least = LEAST.get(action)
    return least is not None and role in ROLES and ROLES.index(role) >= ROLES.index(least)


def lower(one: str, other: str) -> str:
    """The role of the two that may less."""
    return min(one, other, key=ROLES.index)


def checked_role(role: str) -> str:
    if role not in ROLES:
        raise SettingsError(f"there is no role {role!r}", where="role", expected=", ".join(ROLES))
    return role


def checked_actions(actions: Iterable[str]) -> tuple[str, ...]:
    """Each once, in the table's order."""
    asked = set(actions)
    if unknown := sorted(asked - LEAST.keys()):
        raise SettingsError(f"there is no action {unknown[0]!r}", where="actions", expected=", ".join(LEAST))
    return tuple(action for action in LEAST if action in asked)


@dataclass(frozen=True, slots=True)
class Identity:
    """Who asks."""

    name: str
    role: str
    csrf: str = ""
    """What a session has to send with each change; empty for a bearer token, which no other site can send."""
    only: tuple[str, ...] = ()
    """The actions that a token is narrowed to; empty: all of its role."""

    def can(self, action: str) -> bool:
        return allows(self.role, action) and (not self.only or action in self.only)
