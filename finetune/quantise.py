"""int8 by post-training quantisation: the exported graph with 8-bit weights and activations, calibrated on real inputs.
It is a file of the release beside the float graph; whether it is served is for each worker's certificate to say.
"""

import io
import logging
import warnings
from contextlib import redirect_stdout
from pathlib import Path

import openvino as ov

from engines.base import Arrays, Signature
from engines.compiled import brief, read
from engines.openvino import GRAPH, INT8_GRAPH
from schemas.errors import EngineError

ROWS = 16  # of one calibration batch
LOGGER = "nncf"


def quantise(folder: Path, signature: Signature, inputs: Arrays) -> None:
    """Writes INT8_GRAPH and its weights into the folder that holds GRAPH. Takes 4 s and more.

    inputs: some hundred rows as the task makes them, with the catalogue. Raises EngineError where nncf is missing, or
    cannot quantise the graph.
    """
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            import nncf
    except ImportError as error:
        raise EngineError(
            "int8 needs nncf, which is not installed",
            where="engine.precision",
            todo="install Headrace's extra int8, or choose bf16",
        ) from error
    graph, logger = read(folder / GRAPH), logging.getLogger(LOGGER)
    level = logger.level
    logger.setLevel(logging.ERROR)
    try:
        with warnings.catch_warnings(), redirect_stdout(io.StringIO()):  # it draws its progress
            warnings.simplefilter("ignore")
            batches = batched(signature, inputs)
            made = nncf.quantize(
                graph, nncf.Dataset(batches), model_type=nncf.ModelType.TRANSFORMER, subset_size=len(batches)
            )
            ov.save_model(made, folder / INT8_GRAPH, compress_to_fp16=False)
    except Exception as error:
        raise EngineError(f"the graph cannot be quantised: {brief(error)}", where=str(folder / GRAPH)) from error
    finally:
        logger.setLevel(level)


def batched(signature: Signature, inputs: Arrays) -> list[dict[str, object]]:
    """The rows in batches of ROWS, each with the whole catalogue; rows that fill no batch are left out."""
    names = [spec.name for spec in signature.inputs if spec.batched]
    rows = len(inputs[names[0]])
    step = min(ROWS, rows)
    return [
        {
            spec.name: inputs[spec.name][start : start + step] if spec.batched else inputs[spec.name]
            for spec in signature.inputs
        }
        for start in range(0, rows - step + 1, step)
    ]
