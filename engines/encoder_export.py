"""Export of a sentence encoder (BERT family, mean pooled) to ONNX, once: the worker runs it without torch.
Pooling and normalisation are in the graph. The result is cached under a digest of what it was made from.
"""

import json
import shutil
from pathlib import Path
from typing import Any

import torch
import torch.nn.functional as F
from safetensors import SafetensorError
from torch import Tensor, nn
from transformers import AutoModel

from engines import files
from engines.encoder import CARD, FORMAT, GRAPH, TOKENIZER, sound
from engines.export import quiet
from engines.manifest import FileEntry
from engines.releases import renamed
from schemas.errors import DataUnavailable, EngineError

SOURCES = ("config.json", "model.safetensors", TOKENIZER)
MAX_TOKENS = 256


class SentenceEncoder(nn.Module):
    """Token states of the encoder, averaged over real tokens and brought to length 1."""

    def __init__(self, encoder: nn.Module) -> None:
        super().__init__()
        self.encoder = encoder

    def forward(self, input_ids: Tensor, attention_mask: Tensor) -> dict[str, Tensor]:
        """(B, L) int64 each to (B, D) float32."""
        states_BLD = self.encoder(input_ids=input_ids, attention_mask=attention_mask).last_hidden_state
        real_BL1 = attention_mask[..., None].to(states_BLD.dtype)
        mean_BD = (states_BLD * real_BL1).sum(1) / real_BL1.sum(1)
        return {"vectors": F.normalize(mean_BD, dim=-1)}


def export_encoder(source: Path, cache: Path) -> Path:
    """The folder, below `cache`, of the exported encoder: for TextEncoder. Takes 8 s the first time.

    source: a folder with config.json, model.safetensors and tokenizer.json. Raises DataUnavailable if one
    is missing, EngineError if it cannot be exported.
    """
    entries = {name: source_entry(source, name) for name in SOURCES}
    made_from = files.digest(entries)
    folder = cache / f"text-encoder-{FORMAT}-{made_from[:16]}"
    if sound(folder):
        return folder
    shutil.rmtree(folder, ignore_errors=True)
    with renamed(folder) as partial:
        width = write_graph(source, partial / GRAPH)
        shutil.copyfile(source / TOKENIZER, partial / TOKENIZER)
        card: dict[str, Any] = {
            "format": FORMAT,
            "made_from": made_from,
            "width": width,
            "max_tokens": MAX_TOKENS,
            "files": {name: files.entry(partial / name).model_dump() for name in (GRAPH, TOKENIZER)},
        }
        (partial / CARD).write_text(json.dumps(card, indent=1))
    return folder


def source_entry(source: Path, name: str) -> FileEntry:
    try:
        return files.entry(source / name)
    except OSError as error:
        raise DataUnavailable(
            f"the text encoder has no {name}",
            where=str(source),
            expected=", ".join(SOURCES),
            todo="headrace data fetch text-encoder",
        ) from error


def load(source: Path) -> SentenceEncoder:
    """The torch encoder: what is exported, and the oracle of the exported one."""
    try:
        encoder = AutoModel.from_pretrained(
            source, local_files_only=True, use_safetensors=True, attn_implementation="eager"
        )
    except (OSError, ValueError, RuntimeError, SafetensorError) as error:
        raise EngineError(f"the text encoder cannot be loaded: {error}", where=str(source)) from error
    return SentenceEncoder(encoder).eval()


def write_graph(source: Path, path: Path) -> int:
    """Writes the ONNX file and returns the width of its vectors."""
    model = load(source)
    ids = torch.ones(2, 16, dtype=torch.int64)
    rows, length = torch.export.Dim("B", min=1, max=1024), torch.export.Dim("L", min=2, max=MAX_TOKENS)
    shape = {0: rows, 1: length}
    try:
        with quiet():
            program = torch.onnx.export(
                model,
                (),
                kwargs={"input_ids": ids, "attention_mask": ids.clone()},
                dynamic_shapes={"input_ids": shape, "attention_mask": shape},
                dynamo=True,
                external_data=False,
                verbose=False,
                input_names=["input_ids", "attention_mask"],
                output_names=["vectors"],
            )
            assert program is not None
            program.save(path)
    except (torch.onnx.errors.OnnxExporterError, RuntimeError) as error:
        raise EngineError(f"the text encoder cannot be exported: {error}", where=str(source)) from error
    with torch.inference_mode():
        return int(model(ids, ids)["vectors"].shape[1])
