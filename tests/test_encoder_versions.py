"""Vectors of two encoders never mix: one topic, one encoder; and a release goes with the vectors that it learned."""

from contextlib import closing
from types import SimpleNamespace
from typing import Any

import pytest

from schemas.confluent import ConfluentRegistry
from schemas.errors import ReleaseError, SettingsError
from streams.catalog import Catalogue
from streams.config import Settings
from streams.encoding import CatalogueEncoder
from streams.live import check_encoder
from streams.topics import create_topics
from streams.tracing.reading import TopicReader
from streams.vectors import HashingEncoder, catalogue_vectors
from tests.shop import catalog_records, furnish_catalog


class OtherEncoder(HashingEncoder):
    version = "hashed-words-2"


def step(settings: Settings, encoder: Any, rows_from: str = "") -> int:
    with closing(ConfluentRegistry(settings.registry())) as registry:
        following = CatalogueEncoder(settings, registry, encoder, rows_from)
        try:
            return following.step()
        finally:
            following.close()


def rows(settings: Settings) -> dict[str, tuple[int, str]]:
    """Row and encoder of each id on the topic."""
    with closing(ConfluentRegistry(settings.registry())) as registry:
        reader = TopicReader(settings, registry, settings.topics.vectors, "catalog_vector")
        found = [each.record for chunk in reader.chunks() for each in chunk]
    return {f"{each['kind']} {each['id']}": (each["row"], each["encoder"]) for each in found}


@pytest.mark.usefixtures("registry")
def test_another_encoder_is_refused_on_a_topic_and_takes_the_rows_to_its_own(settings):
    furnish_catalog(settings)
    assert step(settings, HashingEncoder()) == 0, "all of it is there"
    before = rows(settings)
    with pytest.raises(SettingsError, match="holds vectors of encoder hashed-words-1, not of hashed-words-2"):
        step(settings, OtherEncoder())
    assert rows(settings) == before
    topics = settings.topics.model_copy(update={"vectors": f"{settings.topics.vectors}.2"})
    other = settings.model_copy(update={"topics": topics})
    create_topics(other)
    assert step(other, OtherEncoder(), rows_from=settings.topics.vectors) == len(before)
    assert rows(other) == {name: (row, OtherEncoder.version) for name, (row, _) in before.items()}
    assert step(other, OtherEncoder()) == 0, "it goes on without the old topic"


def loaded(encoder: str | None) -> Any:
    trained = {} if encoder is None else {"encoder": encoder}
    return SimpleNamespace(
        source=SimpleNamespace(task="fraud", manifest=SimpleNamespace(trained=trained)), release="20260101T000000-a"
    )


def test_a_release_is_refused_beside_vectors_that_it_has_not_learned():
    catalog, (items, ads) = Catalogue(), catalog_records()
    for vector in catalogue_vectors(items, ads, OtherEncoder()):
        catalog.apply_vector(vector)
    check_encoder(loaded(OtherEncoder.version), catalog.encoder)
    with pytest.raises(ReleaseError, match="fraud/20260101T000000-a has learned vectors of encoder hashed-words-1"):
        check_encoder(loaded(HashingEncoder.version), catalog.encoder)


@pytest.mark.parametrize(("learned", "held"), [(None, "x"), ("", "x"), ("x", "")])
def test_what_is_not_known_is_not_refused(learned, held):
    check_encoder(loaded(learned), held)
