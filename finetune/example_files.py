"""Files that the fine-tune is handed: examples as Avro, and the catalogue as arrays, each with its sha256.
What is trained on is named by these digests, so that a release says exactly which data made it.
"""

import hashlib
import json
import os
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any

import fastavro
import numpy as np

from engines.files import sync
from finetune.examples import Record
from schemas import catalog as contracts
from schemas.errors import TrainingError
from streams.catalog import AD, ITEM, Catalogue

AGAIN = "hand the file over again"


def write_examples(path: Path, records: Iterable[Record]) -> str:
    """An Avro container file of TrainingExample records in physical types, written whole or not at all; its sha256."""
    with whole(path) as partial, partial.open("wb") as file:
        fastavro.writer(file, contracts.physical("training_example"), records)
    return digest(path)


def read_examples(path: Path, sha256: str) -> Iterator[Record]:
    """The records of such a file. Raises TrainingError where it is another file than the digest says, or damaged."""
    verify(path, sha256)
    try:
        with path.open("rb") as file:
            for record in fastavro.reader(file, contracts.physical("training_example")):
                assert isinstance(record, dict)  # the contract is a record
                yield record
    except (ValueError, EOFError, KeyError, fastavro.read.SchemaResolutionError) as error:
        raise TrainingError(
            f"the examples cannot be read: {error}", where=str(path), expected="an Avro file of TrainingExample"
        ) from error


def write_catalog(path: Path, catalog: Catalogue) -> str:
    """The catalogue as one .npz, written whole or not at all; its sha256."""
    candidate = catalog.candidate_bias() == 0
    price = [catalog.price(row) for row in range(len(catalog))]
    ids = np.frombuffer(json.dumps(catalog.ids).encode(), np.uint8)
    with whole(path) as partial, partial.open("wb") as file:
        np.savez(file, ids=ids, text=catalog.text, kind=catalog.kind, price=np.array(price), candidate=candidate)
    return digest(path)


def read_catalog(path: Path, sha256: str) -> Catalogue:
    """What `write_catalog` wrote, row for row. Raises TrainingError."""
    verify(path, sha256)
    try:
        with np.load(path, allow_pickle=False) as held:
            ids: list[str] = json.loads(held["ids"].tobytes())
            columns = [held[name] for name in ("text", "kind", "price", "candidate")]
    except (OSError, ValueError, KeyError) as error:
        raise TrainingError(f"the catalogue cannot be read: {error}", where=str(path), todo=AGAIN) from error
    catalog = Catalogue(max(len(ids), 1))
    for row, (ident, text, kind, price, candidate) in enumerate(zip(ids, *columns, strict=True)):
        if not ident:  # row 0, or a row that was never filled
            continue
        if kind == ITEM:
            coded = round(float(price) * 10_000).to_bytes(9, "big", signed=True)
            catalog.apply_item({"item_id": ident, "price": coded, "available": bool(candidate)})
        else:
            catalog.apply_ad({"ad_id": ident, "active": True})
        named = "ad" if kind == AD else "item"
        catalog.apply_vector({"kind": named, "id": ident, "row": row, "vector": text.astype("<f4").tobytes()})
    return catalog


def digest(path: Path) -> str:
    """sha256 of a file's bytes."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def verify(path: Path, sha256: str) -> None:
    """Raises TrainingError where the file is not there or not the one that was meant."""
    try:
        found = digest(path)
    except OSError as error:
        raise TrainingError(f"the file cannot be read: {error}", where=str(path), todo=AGAIN) from error
    if found != sha256:
        raise TrainingError(f"sha256 {found}", where=str(path), expected=sha256, todo=AGAIN)


class whole:
    """A path to write to that takes its name when all went well and is on the disk."""

    def __init__(self, path: Path) -> None:
        self._path, self._partial = path, path.with_name(f".{path.name}.{os.getpid()}")

    def __enter__(self) -> Path:
        self._path.parent.mkdir(parents=True, exist_ok=True)
        return self._partial

    def __exit__(self, kind: Any, *_: object) -> None:
        if kind is None:
            sync(self._partial)
            os.replace(self._partial, self._path)
            sync(self._path.parent)
        self._partial.unlink(missing_ok=True)
