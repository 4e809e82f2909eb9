"""A Triton model repository of releases: one model a release, its name the task's and the version's, so that two
releases are served side by side and a swap asks for another name. `python -m engines.triton_repository --help`.
"""

import argparse
import shutil
from pathlib import Path

from engines.base import Signature, TensorSpec
from engines.files import sync
from engines.openvino import GRAPH
from engines.releases import Release, ReleaseStore, renamed
from schemas.errors import EngineError, HeadraceError

VERSION, PRECISION = "1", "f32"
TYPES = {"float32": "TYPE_FP32", "int32": "TYPE_INT32", "int64": "TYPE_INT64"}
GPU, CPU = "KIND_GPU", "KIND_CPU"


def model_name(task: str, version: str) -> str:
    return f"headrace.{task}.{version}"


def write_model(release: Release, repository: Path, *, kind: str = GPU, tensorrt: bool = False) -> Path:
    """The release's folder in the repository: `config.pbtxt` and `1/model.onnx`. It appears whole or not at all.

    kind: GPU or CPU. tensorrt: let the server's ONNX Runtime run it by TensorRT. Raises EngineError if it is there.
    """
    source, name = release.file(GRAPH), model_name(release.task, release.version)
    folder = repository / name
    if folder.exists():
        raise EngineError(f"the repository has {name}", where=str(repository), todo="a release never changes: keep it")
    try:
        with renamed(folder) as partial:
            (partial / VERSION).mkdir()
            shutil.copyfile(source, partial / VERSION / "model.onnx")
            (partial / "config.pbtxt").write_text(config(name, release.manifest.signature, kind, tensorrt), "utf-8")
            sync(partial / VERSION / "model.onnx")
    except OSError as error:
        raise EngineError(f"the model cannot be written: {error}", where=str(folder)) from error
    return folder


def config(name: str, signature: Signature, kind: str, tensorrt: bool) -> str:
    """The model's configuration, as protobuf text.

    max_batch_size 0 leaves batching to the worker, which fills buckets already: of a batch that the server put
    together from several callers a row's last bits would depend on the others.
    """
    inputs, outputs = (",\n".join(map(block, specs)) for specs in (signature.inputs, signature.outputs))
    parts = [
        f'name: "{name}"',
        'platform: "onnxruntime_onnx"',
        "max_batch_size: 0",
        f"input [\n{inputs}\n]",
        f"output [\n{outputs}\n]",
        f"instance_group [ {{ count: 1 kind: {kind} }} ]",
    ]
    if tensorrt:
        parts.append(
            'optimization { execution_accelerators { gpu_execution_accelerator [ { name: "tensorrt" '
            'parameters { key: "precision_mode" value: "FP32" } } ] } }'
        )
    return "\n".join(parts) + "\n"


def block(spec: TensorSpec) -> str:
    dims = ", ".join(str(dim) for dim in (-1, *spec.dims[1:]))
    return f'  {{ name: "{spec.name}" data_type: {TYPES[spec.dtype]} dims: [ {dims} ] }}'


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m engines.triton_repository", description=__doc__)
    parser.add_argument("store", help="release store: a path or an fsspec URL")
    parser.add_argument("task")
    parser.add_argument("repository", type=Path, help="the server's --model-repository")
    parser.add_argument("--version", default="", help="by default the newest")
    parser.add_argument("--cache", type=Path, help="for a store that is not a local disk")
    parser.add_argument("--cpu", action="store_true", help="the server has no GPU")
    parser.add_argument("--tensorrt", action="store_true", help="run by TensorRT inside the server's ONNX Runtime")
    given = parser.parse_args()
    try:
        store = ReleaseStore(given.store, cache=given.cache)
        release = store.open(given.task, given.version) if given.version else store.latest(given.task)
        print(write_model(release, given.repository, kind=CPU if given.cpu else GPU, tensorrt=given.tensorrt))
    except HeadraceError as error:
        parser.exit(1, f"{error}\n")


if __name__ == "__main__":
    main()
