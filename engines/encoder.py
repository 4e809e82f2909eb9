"""The text encoder: texts of items and ads to vectors of length 1, by OpenVINO, without torch.
It runs when the catalogue changes, never per event.
"""

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from tokenizers import Tokenizer

from engines import files
from engines.compiled import compile_graph, read, supported
from schemas.errors import DataUnavailable, EngineError

FORMAT = 1
GRAPH, TOKENIZER, CARD = "encoder.onnx", "tokenizer.json", "encoder.json"
AGAIN = "remove the folder and export it again with `headrace data fetch text-encoder`"
LENGTHS = (16, 32, 64, 128, 256)  # tokens: a text is padded to the first that holds it
ROWS = 16  # texts a call; the last one is filled up, so that a text always meets the same shapes


class TextEncoder:
    """Encodes texts in chunks of one shape per length, so no text's vector depends on the others with
    it.

    Call it from one thread at a time. About 1,500 ten-word titles a CPU second in bf16.
    """

    def __init__(self, folder: Path, *, precision: str = "bf16", threads: int = 1) -> None:
        """folder: what `export_encoder` made. Raises DataUnavailable if it is missing or damaged."""
        card = read_card(folder)
        self.precision = supported(precision)
        self.width, self.version = int(card["width"]), str(card["made_from"])[:16]
        self.tokenizer = Tokenizer.from_file(str(folder / TOKENIZER))
        self.tokenizer.no_padding()
        self.tokenizer.enable_truncation(int(card["max_tokens"]))
        compiled = compile_graph(read(folder / GRAPH), precision=self.precision, threads=threads)
        self._request = compiled.create_infer_request()

    def encode(self, texts: Sequence[str]) -> NDArray[np.float32]:
        """(N, width) vectors of length 1; texts are cut at 256 tokens. EngineError if one is no text."""
        vectors = np.zeros((len(texts), self.width), np.float32)
        if not all(isinstance(text, str) for text in texts):
            raise EngineError("the text encoder was given something else than text", where="TextEncoder.encode")
        tokens = [encoding.ids for encoding in self.tokenizer.encode_batch(list(texts))]
        sizes = np.array([len(ids) for ids in tokens], np.int64)
        held = np.searchsorted(LENGTHS, sizes)
        for bucket, length in enumerate(LENGTHS):
            rows = np.flatnonzero(held == bucket)
            for start in range(0, len(rows), ROWS):
                chunk = rows[start : start + ROWS]
                vectors[chunk] = self._run([tokens[row] for row in chunk], length)
        return vectors

    def _run(self, tokens: list[list[int]], length: int) -> NDArray[np.float32]:
        ids, mask = np.zeros((ROWS, length), np.int64), np.zeros((ROWS, length), np.int64)
        mask[:, 0] = 1  # a row of padding alone would divide by zero
        for row, text in enumerate(tokens):
            ids[row, : len(text)] = text
            mask[row, : len(text)] = 1
        outputs = self._request.infer({"input_ids": ids, "attention_mask": mask})
        vectors: NDArray[np.float32] = outputs[0][: len(tokens)]
        return vectors


def read_card(folder: Path) -> dict[str, Any]:
    """What the export noted, after every file was compared with it. Raises DataUnavailable."""
    try:
        card: dict[str, Any] = json.loads((folder / CARD).read_text())
        if card["format"] != FORMAT:
            raise DataUnavailable(f"the text encoder is of format {card['format']}", where=str(folder))
        for name in (GRAPH, TOKENIZER):
            if files.entry(folder / name).model_dump() != card["files"][name]:
                raise DataUnavailable(f"{name} of the text encoder was changed", where=str(folder), todo=AGAIN)
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise DataUnavailable(f"there is no text encoder: {error}", where=str(folder), todo=AGAIN) from error
    return card


def sound(folder: Path) -> bool:
    """Whether the folder holds a whole encoder of this format."""
    try:
        read_card(folder)
    except DataUnavailable:
        return False
    return True
