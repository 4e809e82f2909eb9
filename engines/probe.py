"""The probe of a release: a few rows of inputs with what torch says of them, so that whoever serves can ask its own
engine, on its own processor, before the first event. Free of torch: the answers are in the file.
"""

import zipfile
import zlib
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np

from engines.base import Array, Arrays, Engine
from engines.parity import BOUNDS, Report, compared, outputs
from engines.releases import Release
from schemas.errors import EngineError

PROBE = "probe.npz"
INPUT, OUTPUT = "input.", "output."
THRESHOLDS = ("review", "block")  # what a manifest's settings call them


def write_probe(folder: Path, inputs: Arrays, outputs: Arrays) -> None:
    """Writes PROBE into the folder. inputs: as the signature has them; outputs: the oracle's (torch, f32) for them."""
    held = {INPUT + name: np.asarray(array) for name, array in inputs.items()}
    held |= {OUTPUT + name: np.asarray(array) for name, array in outputs.items()}
    np.savez_compressed(folder / PROBE, **held)  # type: ignore[arg-type]  # numpy's types take a keyword for an option


def certify(engine: Engine, release: Release) -> Report:
    """Runs the probe on the engine, in chunks of its largest bucket, and compares as `engines.parity` does.

    Raises EngineError for an engine outside the bounds of its precision, or a probe that it cannot read;
    ReleaseError for a release without one.
    """
    where = f"the probe of {release.task}/{release.version}"
    inputs, expected = _read(release.file(PROBE), where)
    return answered(engine, inputs, expected, where, thresholds=thresholds(release))


def thresholds(release: Release) -> tuple[float, ...]:
    """The probabilities of sigmoid(logit) at which the release's task decides: its own, before calibration."""
    manifest = release.manifest
    chosen = [manifest.settings[name] for name in THRESHOLDS if name in manifest.settings]
    a, b = manifest.calibration["a"], manifest.calibration["b"]
    if not a:
        return (0.5,)
    logits = [(np.log(each / (1 - each)) - b) / a for each in chosen if 0 < each < 1]
    return tuple(float(1 / (1 + np.exp(-logit))) for logit in logits) or (0.5,)


def answered(
    engine: Engine, inputs: Arrays, expected: Arrays, where: str, *, thresholds: Sequence[float] = (0.5,)
) -> Report:
    """What the engine says of inputs beside what it should say. Raises EngineError as `certify` does."""
    if engine.precision not in BOUNDS:
        raise EngineError(f"no bounds for precision {engine.precision!r}", where=where, expected=", ".join(BOUNDS))
    found = outputs(engine, _fitting(engine, inputs, where))
    for name, array in found.items():
        said = expected.get(name)
        if said is None or said.shape != array.shape or said.dtype.kind != array.dtype.kind:
            raise _unusable(f"output {name!r} has no answer of its shape", where)
    report, bounds = compared(engine, found, expected, thresholds=thresholds), BOUNDS[engine.precision]
    decided = expected["logit"].size if "logit" in expected else report.rows
    # One score that lies on the threshold may always fall on its other side: the share of one in few is large.
    report.check(replace(bounds, flips=max(bounds.flips, 1 / decided)))
    return report


def _read(path: Path, where: str) -> tuple[dict[str, Array], dict[str, Array]]:
    try:
        with path.open("rb") as file, np.load(file, allow_pickle=False) as held:
            arrays = {name: held[name] for name in held.files}
    except (OSError, ValueError, KeyError, EOFError, zipfile.BadZipFile, zlib.error) as error:
        raise _unusable(f"the probe cannot be read: {error}", where) from error
    found = ({name.removeprefix(kind): array for name, array in arrays.items() if name.startswith(kind)}
             for kind in (INPUT, OUTPUT))  # fmt: skip
    inputs, expected = found
    return inputs, expected


def _fitting(engine: Engine, inputs: Arrays, where: str) -> dict[str, Array]:
    """The inputs that the signature names, each with as many rows as the others."""
    specs = engine.signature.inputs
    for spec in specs:
        if spec.name not in inputs or not spec.fits(inputs[spec.name]):
            raise _unusable(f"there is no input {spec.name!r} of the release's shape", where)
    rows = {len(inputs[spec.name]) for spec in specs if spec.batched}
    if len(rows) != 1 or not min(rows):
        raise _unusable(f"the inputs have {sorted(rows)} rows", where)
    return {spec.name: inputs[spec.name] for spec in specs}


def _unusable(what: str, where: str) -> EngineError:
    return EngineError(
        what,
        where=where,
        expected="the inputs and outputs of the release's signature",
        todo="make the release again, or serve an older one",
    )
