"""Texts of the catalogue to the records of catalog.vectors: run when items or ads change, never per event.
Rows are numbered here, once and for ever: an id keeps its row, a new id gets the next one.
"""

import hashlib
from collections.abc import Iterable, Iterator, Sequence
from typing import Protocol

import numpy as np
from numpy.typing import NDArray

from streams.catalog import TEXT_DIMS, UNKNOWN_ROW
from streams.events import Record


class Encoder(Protocol):
    """engines.encoder.TextEncoder, or anything that makes vectors of length 1."""

    version: str

    def encode(self, texts: Sequence[str]) -> NDArray[np.float32]: ...


def catalogue_vectors(
    items: Iterable[Record], ads: Iterable[Record], encoder: Encoder, known: Iterable[Record] = ()
) -> list[Record]:
    """CatalogVector records for what is new, or has new text, or was encoded by another encoder.

    `known`: the vectors that are on the topic. Equal texts share one encoding; the order of rows is that of the input.
    """
    rows = {(vector["kind"], vector["id"]): vector["row"] for vector in known}
    current = {(vector["kind"], vector["id"]): (vector["encoder"], vector["digest"]) for vector in known}
    wanted = [
        (kind, ident, text, digest)
        for kind, ident, text, digest in _texts(items, ads)
        if current.get((kind, ident)) != (encoder.version, digest)
    ]
    texts = list(dict.fromkeys(text for _, _, text, _ in wanted))
    vectors = dict(zip(texts, encoder.encode(texts).astype("<f4"), strict=True)) if texts else {}
    following = max(rows.values(), default=UNKNOWN_ROW) + 1
    out: list[Record] = []
    for kind, ident, text, digest in wanted:
        if (row := rows.get((kind, ident))) is None:
            row = rows[kind, ident] = following
            following += 1
        vector = vectors[text].tobytes()
        out.append(
            {"id": ident, "kind": kind, "row": row, "encoder": encoder.version, "digest": digest, "vector": vector}
        )
    return out


def vector_key(vector: Record) -> bytes:
    """The message key on catalog.vectors."""
    return f"{vector['kind']}:{vector['id']}".encode()


def _texts(items: Iterable[Record], ads: Iterable[Record]) -> Iterator[tuple[str, str, str, str]]:
    for item in items:
        yield "item", item["item_id"], item["text"], _digest(item["text"])
    for ad in ads:
        yield "ad", ad["ad_id"], ad["text"], _digest(ad["text"])


def _digest(text: str) -> str:
    return hashlib.sha256(text.encode()).hexdigest()


class HashingEncoder:
    """Words hashed to random directions and summed (Weinberger et al. 2009): for where no text encoder is at hand.

    Texts that share words are near each other; nothing is known of meaning.
    """

    version = "hashed-words-1"

    def encode(self, texts: Sequence[str]) -> NDArray[np.float32]:
        """(N, 384) vectors of length 1; an empty text gets the vector of the empty word."""
        vectors = np.zeros((len(texts), TEXT_DIMS), np.float32)
        for row, text in enumerate(texts):
            for word in text.lower().split() or [""]:
                seed = int.from_bytes(hashlib.sha256(word.encode()).digest()[:8], "little")
                vectors[row] += np.random.default_rng(seed).standard_normal(TEXT_DIMS, np.float32)
        norms: NDArray[np.float32] = np.linalg.norm(vectors, axis=1, keepdims=True)
        return vectors / norms
