"""Where settings are read from, and how a wrong one is explained: the environment and a TOML file.
The merge and the validation are pydantic's; names, origins and messages are made here."""

import difflib
import os
import tomllib
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from contextvars import ContextVar
from pathlib import Path
from typing import Any, TypeAlias, get_args

from pydantic import BaseModel, SecretStr, ValidationError
from pydantic_core import ErrorDetails
from pydantic_settings import BaseSettings, EnvSettingsSource, TomlConfigSettingsSource
from pydantic_settings.exceptions import SettingsError as EnvironmentValueError

from schemas.errors import SettingsError

PREFIX = "HEADRACE_"
CONFIG = "HEADRACE_CONFIG"
DEFAULT_FILE = "headrace.toml"
Schema: TypeAlias = type[BaseModel]

TENANT, TENANTS = "tenant", "tenants"

_file: ContextVar[Path | None] = ContextVar("headrace_config_file", default=None)
_tenant: ContextVar[str] = ContextVar("headrace_tenant", default="")


def config_path(given: str | Path | None) -> Path | None:
    """The TOML file to read: `given`, or what HEADRACE_CONFIG names, or ./headrace.toml if there is one."""
    named = given or os.environ.get(CONFIG)
    if named:
        path = Path(named).expanduser()
        if path.is_file():
            return path
        raise SettingsError(
            f"there is no settings file {path}",
            where="--config" if given else CONFIG,
            expected="the name of a TOML file",
        )
    path = Path(DEFAULT_FILE)
    return path if path.is_file() else None


@contextmanager
def reading(path: Path | None, tenant: str | None = None) -> Iterator[Path | None]:
    """pydantic makes the sources itself, so they learn the file's name, and whose part of it counts, from here."""
    token, named = _file.set(path), _tenant.set(tenant or os.environ.get(f"{PREFIX}{TENANT.upper()}") or "")
    try:
        yield path
    finally:
        _file.reset(token)
        _tenant.reset(named)


class File(TomlConfigSettingsSource):
    """The TOML file."""

    def __init__(self, settings_cls: type[BaseSettings]) -> None:
        super().__init__(settings_cls, _file.get())

    def _read_file(self, file_path: Any) -> dict[str, Any]:
        return settings_in(file_path)[0]

    @staticmethod
    def origins(schema: Schema, path: Path | None) -> dict[str, str]:
        """Dotted name -> `file:key` of each value in the file."""
        if path is None:
            return {}
        values, own = settings_in(path)
        found = {name: f"{path}:{name}" for name in flatten(values)}
        found |= {name: f"{path}:{TENANTS}.{values[TENANT]}.{name}" for name in flatten(own)}
        for name, origin in found.items():
            check_name(name, schema, origin, spell=str)
        return found


class Environment(EnvSettingsSource):
    """Variables HEADRACE_<NAME>, HEADRACE_<SECTION>__<NAME>."""

    def __call__(self) -> dict[str, Any]:
        try:
            return super().__call__()
        except EnvironmentValueError as error:
            raise SettingsError(
                str(error),
                where="the environment",
                expected=f"a variable {PREFIX}<SECTION>__<NAME> for each value",
            ) from error

    @staticmethod
    def origins(schema: Schema) -> dict[str, str]:
        """Dotted name -> `environment variable X` of each variable of ours that is set and not empty."""
        found = {}
        for variable, value in os.environ.items():
            if not variable.startswith(PREFIX) or variable == CONFIG or not value:
                continue
            name = variable.removeprefix(PREFIX).lower().replace("__", ".")
            check_name(name, schema, f"environment variable {variable}", spell=variable_name)
            found[name] = f"environment variable {variable}"
        return found


def settings_in(path: Path) -> tuple[dict[str, Any], dict[str, Any]]:
    """What the file says to this process, and what of it comes from the table `[tenants.NAME]` of its shop: that
    outranks what the file says to all. SettingsError where it has such tables and none is ours.
    """
    values = read_toml(path)
    tables = values.pop(TENANTS, {})
    tenant = _tenant.get() or values.get(TENANT, "")
    if not tables:
        return values, {}
    if not isinstance(tables, dict) or not isinstance(own := tables.get(tenant), dict) or TENANT in own:
        known = ", ".join(tables) if isinstance(tables, dict) else ""
        raise SettingsError(
            f"the settings of tenant {tenant!r} are not in the file" if tenant else "the file is of several tenants",
            where=f"{path}:{TENANTS}",
            expected=f"HEADRACE_TENANT as one of {known}" if known else f"tables [{TENANTS}.NAME]",
        )
    return {**merged(values, own), TENANT: tenant}, own


def merged(below: Mapping[str, Any], above: Mapping[str, Any]) -> dict[str, Any]:
    """Both, table by table; a value of `above` outranks the other."""
    found = dict(below)
    for name, value in above.items():
        old = found.get(name)
        found[name] = merged(old, value) if isinstance(old, Mapping) and isinstance(value, Mapping) else value
    return found


def read_toml(path: Path) -> dict[str, Any]:
    try:
        return tomllib.loads(path.read_text("utf-8"))
    except (tomllib.TOMLDecodeError, UnicodeDecodeError, OSError, RecursionError) as error:
        raise SettingsError(
            f"the settings file cannot be read: {error}", where=str(path), expected="TOML in UTF-8"
        ) from error


def variable_name(name: str) -> str:
    return PREFIX + name.upper().replace(".", "__")


def flatten(values: Mapping[str, Any], prefix: str = "") -> dict[str, Any]:
    """{'batch': {'max_events': 1}} -> {'batch.max_events': 1}; a section object is taken apart too."""
    flat: dict[str, Any] = {}
    for key, value in values.items():
        if isinstance(value, BaseModel):
            value = value.model_dump(exclude_unset=True)
        if isinstance(value, Mapping):
            flat |= flatten(value, f"{prefix}{key}.")
        else:
            flat[prefix + key] = value
    return flat


def names(schema: Schema, prefix: str = "") -> Iterator[str]:
    """Dotted names of all settings; a mapping of free names ends in `.*`."""
    for key, field in schema.model_fields.items():
        kind = field.annotation
        if isinstance(kind, type) and issubclass(kind, BaseModel):
            yield from names(kind, f"{prefix}{key}.")
        elif getattr(kind, "__origin__", None) is dict:
            yield f"{prefix}{key}.*"
        else:
            yield prefix + key


def check_name(name: str, schema: Schema, where: str, spell: Any) -> None:
    """SettingsError if `name` is no setting, with the nearest that is one, spelt as its source spells it."""
    known = list(names(schema))
    if name in known or any(known_one.endswith(".*") and name.startswith(known_one[:-1]) for known_one in known):
        return
    known = [known_one.removesuffix(".*") for known_one in known]
    if any(known_one == name or known_one.startswith(name + ".") for known_one in known):
        raise SettingsError(
            f"{name} is a group of settings",
            where=where,
            expected=f"one of its own, such as {spell(_member(name, known))}",
        )
    raise SettingsError(
        f"{name} is not a setting",
        where=where,
        expected=f"{spell(nearest(name, known))}, as the nearest name",
        todo="`headrace config show` lists all settings",
    )


def _member(group: str, known: list[str]) -> str:
    return next((name for name in known if name.startswith(group + ".")), group + ".<name>")


def nearest(name: str, known: list[str]) -> str:
    """Also near: the right last part in the wrong section."""
    plain = {candidate.replace(".", "_"): candidate for candidate in known}
    close = difflib.get_close_matches(name.replace(".", "_"), plain, n=1, cutoff=0.5)
    if close:
        return plain[close[0]]
    last = {candidate.rpartition(".")[2]: candidate for candidate in known}
    close = difflib.get_close_matches(name.rpartition(".")[2], last, n=1, cutoff=0)
    return last[close[0]] if close else known[0]


def explain(error: ValidationError, schema: Schema, origins: Mapping[str, str]) -> SettingsError:
    """The first thing wrong as one error, and how many more there are."""
    details = error.errors(include_url=False)
    first, others = details[0], len(details) - 1
    name = ".".join(str(part) for part in first["loc"] if not isinstance(part, int))
    where = origin(name, origins)
    if first["type"] == "extra_forbidden":
        known = [known_one.removesuffix(".*") for known_one in names(schema)]
        return SettingsError(
            f"{name} is not a setting", where=where, expected=f"{nearest(name, known)}, as the nearest name"
        )
    return SettingsError(
        f"{name or 'the settings'} {_given(first, name, schema)}".rstrip(),
        where=where,
        expected=expectation(first),
        todo=f"{others} more cannot be used either" if others else "",
    )


def origin(name: str, origins: Mapping[str, str]) -> str:
    """Where `name` came from; of a group, where its given members came from."""
    if name in origins:
        return origins[name]
    members = [origin for key, origin in origins.items() if not name or key.startswith(name + ".")]
    return ", ".join(dict.fromkeys(members)) or "defaults"


def _given(detail: ErrorDetails, name: str, schema: Schema) -> str:
    value = detail["input"]
    if isinstance(value, (Mapping, BaseModel)):
        return "do not fit together"
    if isinstance(value, SecretStr) or _is_secret(name, schema):
        return "cannot be used (its value is not shown)"
    return f"cannot be {value!r}"


def _is_secret(name: str, schema: Schema) -> bool:
    """Whether the setting is one whose value is never shown, also where it is wrong."""
    key, _, rest = name.partition(".")
    field = schema.model_fields.get(key)
    kind = field.annotation if field else None
    if rest:
        return isinstance(kind, type) and issubclass(kind, BaseModel) and _is_secret(rest, kind)
    return kind is SecretStr or SecretStr in get_args(kind)


def expectation(detail: ErrorDetails) -> str:
    """pydantic's sentence, less its first words."""
    message = detail["msg"].removeprefix("Value error, ").removeprefix("Input should be ")
    return message.split(", unable to parse")[0]
