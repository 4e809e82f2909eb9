"""Several shops on one cluster: all that a shop calls its own begins with its name; so no right need reach further.
Names of topics, groups and transactions, folders, releases. Not applied twice: what begins with it already stays.

A process belongs to one shop. Nothing here reads or writes: the settings call it when they are made.
"""

from pathlib import Path
from typing import Annotated, Any, TypeVar

from pydantic import BaseModel, PrivateAttr, ValidationInfo

from streams.config_sections import Topics, matching

#: No dot and no underscore: Kafka takes a.b and a_b for one name where it counts, and a dot ends the prefix.
Tenant = Annotated[str, matching(r"([a-z][a-z0-9-]{0,39})?", "up to 40 lower-case letters, digits and dashes")]
LONGEST = 249

Model = TypeVar("Model", bound=BaseModel)


class OwnTopics(Topics):
    """A tenant's: those of tasks of its own too."""

    _prefix: str = PrivateAttr(default="")

    def scores(self, task: str) -> str:
        return self._own(super().scores(task))

    def served(self, task: str) -> str:
        return self._own(super().served(task))

    def _own(self, name: str) -> str:
        return name if name.startswith(self._prefix) else self._prefix + name


def begins(tenant: str) -> str:
    """What the names of a shop begin with; empty where there is only one."""
    return f"{tenant}." if tenant else ""


def own_name(value: str, info: ValidationInfo) -> str:
    """A topic or a group of the tenant."""
    return _named(value, info.data.get("tenant", ""))


def own_topics(topics: Topics, info: ValidationInfo) -> Topics:
    tenant = info.data.get("tenant", "")
    if not tenant:
        return topics
    own = OwnTopics(**{name: _named(getattr(topics, name), tenant) for name in Topics.model_fields})
    own._prefix = begins(tenant)
    return own


def own_folder(value: Path, info: ValidationInfo) -> Path:
    """Below the one that is shared: the state, the keys and the accounts of one shop."""
    tenant = info.data.get("tenant", "")
    return value / tenant if tenant and value.name != tenant else value


def own_store(value: str, info: ValidationInfo) -> str:
    """A folder or an fsspec address."""
    tenant = info.data.get("tenant", "")
    if not tenant or tenant in value.rstrip("/").split("/")[-2:]:
        return value
    return f"{value.rstrip('/')}/{tenant}"


def own_place(section: Model, info: ValidationInfo) -> Model:
    """A section whose `folder`, where one is given, is shared by several shops."""
    folder: Any = getattr(section, "folder", None)
    return section if folder is None else section.model_copy(update={"folder": own_folder(folder, info)})


def _named(value: str, tenant: str) -> str:
    begin = begins(tenant)
    made = value if value.startswith(begin) else begin + value
    if len(made) > LONGEST:
        raise ValueError(f"{LONGEST - len(begin)} characters at most, with {begin!r} before them")
    return made
