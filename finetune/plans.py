"""The file of training plans that `headrace train --plans` takes and `headrace tune` writes: TOML, a table a task.
What a table does not name stays as in `finetune.first.PLANS`; a name that is none is refused.
"""

import json
import os
import tomllib
from collections.abc import Mapping
from dataclasses import asdict, replace
from pathlib import Path
from typing import Annotated, Literal

from pydantic import BaseModel, ConfigDict, Field, TypeAdapter, ValidationError

from finetune.first import PLANS
from finetune.trainer import Plan
from schemas.errors import SettingsError

Size = Literal["width", "layers", "heads", "hidden"]
Part = Literal["item_tower", "history", "read", "head"]


class Given(BaseModel):
    """The fields of `finetune.trainer.Plan`, with what each may be."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    steps: int = Field(0, gt=0)
    batch: int = Field(0, gt=0)
    rate: float = Field(0, gt=0, lt=1)
    weight_decay: float = Field(0, ge=0, le=1)
    dropout: float = Field(0, ge=0, lt=1)
    frozen: tuple[Part, ...] = ()
    seed: int = Field(0, ge=0, lt=2**32)
    sizes: dict[Size, Annotated[int, Field(gt=0)]] = {}
    loss_weights: dict[str, Annotated[float, Field(gt=0)]] = {}


FILE: TypeAdapter[dict[str, Given]] = TypeAdapter(dict[str, Given])


def read_plans(path: Path, usual: Mapping[str, Plan] = PLANS) -> dict[str, Plan]:
    """`usual` with what the file says. Raises SettingsError that names the first thing that is wrong."""
    try:
        given = FILE.validate_python(tomllib.loads(path.read_text("utf-8")))
    except (OSError, tomllib.TOMLDecodeError, UnicodeDecodeError) as error:
        raise SettingsError(f"the plans cannot be read: {error}", where=str(path), expected="a TOML file") from error
    except ValidationError as error:
        first = error.errors()[0]
        place = ".".join(str(part) for part in first["loc"])
        raise SettingsError(f"{place}: {first['msg']}", where=str(path), expected="fields of a plan") from error
    if strange := [name for name in given if name not in usual]:
        raise SettingsError(f"no task named {strange[0]!r}", where=str(path), expected=f"one of {', '.join(usual)}")
    named = {name: {field: getattr(each, field) for field in each.model_fields_set} for name, each in given.items()}
    return {name: replace(plan, **named.get(name, {})) for name, plan in usual.items()}


def write_plan(path: Path, task: str, plan: Plan, says: str) -> None:
    """Puts a task's plan into the file, beside those of other tasks. says: a comment above all."""
    plans = {}
    if path.exists():
        kept = tomllib.loads(path.read_text("utf-8"))
        everything = read_plans(path)
        plans = {name: everything[name] for name in kept}
    plans[task] = plan
    path.parent.mkdir(parents=True, exist_ok=True)
    partial = path.with_name(f".{path.name}.partial")
    partial.write_text("\n".join([f"# {says}", *(_table(name, plans[name]) for name in sorted(plans))]), "utf-8")
    os.replace(partial, path)


def _table(task: str, plan: Plan) -> str:
    fields = asdict(plan)
    inner = {name: fields.pop(name) for name in ("sizes", "loss_weights")}
    lines = [f"\n[{task}]", *(f"{name} = {json.dumps(value)}" for name, value in fields.items())]
    for name, values in inner.items():
        if values:
            lines += [f"[{task}.{name}]", *(f"{key} = {json.dumps(value)}" for key, value in values.items())]
    return "\n".join(lines)
