"""The text encoder: exported once, it computes what torch computes, for each text alone."""

import json
from pathlib import Path

import numpy as np
import pytest
import torch
from tokenizers import Tokenizer

from engines.encoder import CARD, GRAPH, ROWS, TOKENIZER, TextEncoder
from engines.encoder_export import SOURCES, export_encoder, load
from schemas.errors import DataUnavailable, EngineError
from tests.small_encoder import WIDTH, WORDS, small_encoder


def texts(count: int, seed: int = 0) -> list[str]:
    """Titles of 0 to 40 words."""
    draw = np.random.default_rng(seed)
    return [" ".join(draw.choice(WORDS, draw.integers(0, 40))) for _ in range(count)]


@pytest.fixture(scope="module")
def source(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return small_encoder(tmp_path_factory.mktemp("source"))


@pytest.fixture(scope="module")
def exported(source: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    return export_encoder(source, tmp_path_factory.mktemp("cache"))


def by_torch(source: Path, given: list[str]) -> np.ndarray:
    model, tokenizer = load(source), Tokenizer.from_file(str(source / TOKENIZER))
    tokenizer.no_padding()
    rows = []
    for text in given:
        ids = torch.tensor([tokenizer.encode(text).ids])
        with torch.inference_mode():
            rows.append(model(ids, torch.ones_like(ids))["vectors"][0].numpy())
    return np.stack(rows)


@pytest.mark.parametrize("precision", ["f32", "bf16"])
def test_vectors_are_those_of_torch(exported: Path, source: Path, precision: str) -> None:
    given = texts(50)
    vectors = TextEncoder(exported, precision=precision).encode(given)
    expected = by_torch(source, given)
    assert (vectors * expected).sum(axis=1).min() > 0.9999
    np.testing.assert_allclose(np.linalg.norm(vectors, axis=1), 1, atol=1e-3)


def test_a_texts_vector_does_not_depend_on_what_is_encoded_with_it(exported: Path) -> None:
    encoder, given = TextEncoder(exported), texts(3 * ROWS + 5)
    whole = encoder.encode(given)
    np.testing.assert_array_equal(encoder.encode(given[::-1])[::-1], whole)
    np.testing.assert_array_equal(np.concatenate([encoder.encode([text]) for text in given]), whole)
    np.testing.assert_array_equal(encoder.encode(given[7:30]), whole[7:30])


def test_nothing_gives_nothing_and_odd_texts_give_finite_vectors(exported: Path) -> None:
    encoder = TextEncoder(exported)
    assert encoder.encode([]).shape == (0, WIDTH)
    odd = encoder.encode(["", " ", "never seen words", "red " * 5000, "\x00", "🎈"])
    assert np.isfinite(odd).all()


def test_a_long_text_is_cut(exported: Path) -> None:
    encoder = TextEncoder(exported)
    long, longer = encoder.encode(["red " * 300, "red " * 300 + "tea"])
    np.testing.assert_array_equal(long, longer)


def test_what_is_no_text_is_refused(exported: Path) -> None:
    with pytest.raises(EngineError, match="text"):
        TextEncoder(exported).encode(["a", None])  # type: ignore[list-item]


def test_an_encoder_is_exported_once(exported: Path, source: Path) -> None:
    before = (exported / GRAPH).stat().st_mtime_ns
    assert export_encoder(source, exported.parent) == exported
    assert (exported / GRAPH).stat().st_mtime_ns == before
    assert [path.name for path in exported.parent.iterdir()] == [exported.name], "nothing half-made stays"


def test_the_version_is_that_of_the_source(exported: Path) -> None:
    assert exported.name.endswith(TextEncoder(exported).version)


@pytest.mark.parametrize("name", SOURCES)
def test_a_source_without_one_of_its_files_is_said_by_name(source: Path, tmp_path: Path, name: str) -> None:
    for other in SOURCES:
        if other != name:
            (tmp_path / other).write_bytes((source / other).read_bytes())
    with pytest.raises(DataUnavailable, match=f"no {name}"):
        export_encoder(tmp_path, tmp_path / "cache")


def test_a_source_that_is_no_encoder_is_refused_and_leaves_nothing(source: Path, tmp_path: Path) -> None:
    for name in SOURCES:
        (tmp_path / name).write_bytes((source / name).read_bytes())
    (tmp_path / "model.safetensors").write_bytes(b"no weights")
    with pytest.raises(EngineError, match="cannot be loaded"):
        export_encoder(tmp_path, tmp_path / "cache")
    assert list((tmp_path / "cache").iterdir()) == []


def copy(exported: Path, folder: Path) -> None:
    for path in exported.iterdir():
        (folder / path.name).write_bytes(path.read_bytes())


@pytest.mark.parametrize("name", [GRAPH, TOKENIZER])
def test_a_changed_file_is_refused_by_name(exported: Path, tmp_path: Path, name: str) -> None:
    copy(exported, tmp_path)
    (tmp_path / name).write_bytes((tmp_path / name).read_bytes()[:-1] + b"!")
    with pytest.raises(DataUnavailable, match=name):
        TextEncoder(tmp_path)


def test_a_missing_or_damaged_card_says_what_to_do(exported: Path, tmp_path: Path) -> None:
    with pytest.raises(DataUnavailable, match="headrace data fetch text-encoder"):
        TextEncoder(tmp_path)
    copy(exported, tmp_path)
    for text in ("{", "[]", "{}", json.dumps({"format": 99})):
        (tmp_path / CARD).write_text(text)
        with pytest.raises(DataUnavailable):
            TextEncoder(tmp_path)
