"""What a worker serves with: a release must read the features that this version makes."""

from dataclasses import replace
from typing import Any

import pytest

from engines import open_engine
from engines.null import null_release, null_tower
from engines.slot import Loaded
from schemas.errors import ReleaseError
from streams.live import check_rows
from streams.tasks import TASKS, make_task
from streams.tasks.fraud import FIELDS


def loaded(task: str, **changed: Any) -> Loaded:
    """`changed`: of the input's specification, by input."""
    source = null_release(task, fields=len(FIELDS))
    inputs = tuple(changed.get(spec.name, spec) for spec in source.manifest.signature.inputs)
    signature = replace(source.manifest.signature, inputs=inputs)
    source = replace(source, manifest=source.manifest.model_copy(update={"signature": signature}))
    engine = open_engine("null", source, precision="f32", buckets=(1,), threads=1)
    return Loaded(source, engine, null_tower())


@pytest.mark.parametrize("task", TASKS)
def test_a_release_of_this_version_reads_what_the_task_makes(task: str) -> None:
    check_rows(make_task(task), loaded(task))


@pytest.mark.parametrize("change", [{"dtype": "float16"}, {"dims": ("B", 3)}, {"name": "fields_of_yore"}])
def test_a_release_of_other_features_is_refused_with_what_both_are(change: dict[str, Any]) -> None:
    spec = next(one for one in null_release("fraud").manifest.signature.inputs if one.name == "fields")
    with pytest.raises(ReleaseError, match=r"fraud/.* is of another version .*train a release with this version"):
        check_rows(make_task("fraud"), loaded("fraud", fields=replace(spec, **change)))
