"""What a smaller release is to be like, and whether such a one can be made of its teacher.
Sizes are those of the model's config, by name; which of them may become smaller depends on how it is made.
"""

from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from typing import Literal

from engines.model import HeadraceModel, load_model
from engines.releases import Release
from finetune.distill import DISTILLED
from finetune.first import PLANS
from finetune.problems import PROBLEMS
from finetune.prune import PRUNED
from finetune.trainer import Plan
from schemas.errors import ReleaseError, SettingsError
from streams.catalog import Catalogue
from streams.tasks.fraud import FIELDS

SHARE = 0.5  # of what is learned, what the teacher says
TAKES: Mapping[str, tuple[str, ...]] = {"prune": PRUNED, "distill": DISTILLED}
"""Which sizes may become smaller, by how."""
WAYS = {"prune": "pruning", "distill": "distilling"}


@dataclass(frozen=True, slots=True)
class Smaller:
    """What is to come out: `sizes` of the model's config by name. steps: of training, 0 for the usual number.

    share: how much of what is learned is what the teacher says.
    """

    by: Literal["distill", "prune"]
    sizes: Mapping[str, int] = field(default_factory=dict)
    steps: int = 0
    share: float = SHARE

    def plan(self, task: str, *, narrower: bool) -> Plan:
        """As a first training's, but that the items' vectors stay where they can. What was pruned needs less."""
        plan = replace(PLANS[task], frozen=() if narrower else ("item_tower",))
        if self.by == "prune":
            plan = replace(plan, steps=plan.steps // 2, rate=plan.rate / 3)
        return replace(plan, steps=self.steps or plan.steps)


def checked(teacher: Release, smaller: Smaller) -> HeadraceModel:
    """The teacher's model, of which such a smaller one can be made."""
    if teacher.task not in PROBLEMS:
        raise SettingsError(f"{teacher.task} has no first training", expected=f"a release of {', '.join(PROBLEMS)}")
    model, name = load_model(teacher.folder), f"{teacher.task}/{teacher.version}"
    takes = TAKES[smaller.by]
    if smaller.by == "prune" and model.config.pointwise:
        raise SettingsError(
            f"{name} has layers without softmax, which cannot be pruned", expected="layers of attention",
            todo="distil it (--by distill)",
        )  # fmt: skip
    for size, wanted in smaller.sizes.items():
        if size not in takes:
            raise SettingsError(
                f"{WAYS[smaller.by]} takes no {size} away", where=f"--{size}", expected=f"one of {', '.join(takes)}",
                todo="distil it (--by distill)",
            )  # fmt: skip
        there = int(getattr(model.config, size))
        if not 0 < wanted <= there:
            raise SettingsError(f"{size} {wanted}", where=f"--{size}", expected=f"from 1 to {there}, what {name} has")
    if all(wanted == getattr(model.config, size) for size, wanted in smaller.sizes.items()):
        sizes = ", ".join(f"{size} {getattr(model.config, size)}" for size in takes)
        raise SettingsError(
            f"nothing of {name} would be smaller", expected=f"a size below {sizes}", todo=f"name one, as --{takes[-1]}"
        )
    if model.config.fields != len(FIELDS) and teacher.task == "fraud":
        raise ReleaseError(
            f"{name} is of another version of the task's features", expected=f"{len(FIELDS)} fields",
            todo="train a release with this version (`headrace train`)",
        )  # fmt: skip
    return model


def check_encoder(teacher: Release, catalog: Catalogue) -> None:
    """Raises ReleaseError where the catalogue's vectors are not those that the teacher learned."""
    encoder = teacher.manifest.trained.get("encoder")
    if encoder and catalog.encoder and encoder != catalog.encoder:
        raise ReleaseError(
            f"{teacher.task}/{teacher.version} has learned vectors of encoder {encoder}",
            where=f"a catalogue of encoder {catalog.encoder}", expected="vectors of the encoder that it learned",
            todo="name that encoder's topic in topics.vectors",
        )  # fmt: skip
