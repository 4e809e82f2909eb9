"""Shared fixtures: a real broker and a real registry, started once a run if a test asks, gone with the run.
Tests share them and so use names of their own: `fresh_settings` gives an app id and topics nobody else has.
"""

import itertools
import logging
import os
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path
from typing import Any

import hypothesis
import pytest

from streams.config import Settings
from streams.config_sections import Topics
from streams.local import LocalBroker, LocalRegistry
from streams.topics import create_topics
from tests.observer import Observer, until

FreshSettings = Callable[..., Settings]

_numbers = itertools.count()

hypothesis.settings.register_profile("headrace", deadline=None)  # how long a test takes says what else runs here
hypothesis.settings.load_profile("headrace")


@pytest.fixture(autouse=True, scope="session")
def _no_settings_from_outside() -> Iterator[None]:
    """A developer's own HEADRACE_* must not reach the tests."""
    with pytest.MonkeyPatch.context() as patch:
        for name in [name for name in os.environ if name.startswith("HEADRACE_")]:
            patch.delenv(name)
        yield


@pytest.fixture(autouse=True)
def logging_as_it_was() -> Iterator[None]:
    """Commands set the root logger up for a process of their own, and so may a library."""
    root = logging.getLogger()
    handlers, level, disabled = root.handlers[:], root.level, logging.root.manager.disable
    yield
    root.handlers[:] = handlers
    root.setLevel(level)
    logging.disable(disabled)
    logging.captureWarnings(False)


@pytest.fixture
def observer(settings: Settings) -> Iterator[Observer]:
    """Of the topics of the test's own `settings`, once they are there."""
    observer = Observer(settings)
    for topic in (*settings.topics.inputs, settings.topics.scores_ctr):
        until(partial(observer.has, topic))
    yield observer
    observer.close()


@pytest.fixture(scope="module")
def torch_as_it_was() -> Iterator[None]:
    """For tests that train in this process: how they do it is for a process of its own."""
    import torch

    threads, deterministic = torch.get_num_threads(), torch.are_deterministic_algorithms_enabled()
    yield
    torch.set_num_threads(threads)
    torch.use_deterministic_algorithms(deterministic)


@pytest.fixture(scope="session")
def broker(tmp_path_factory: pytest.TempPathFactory) -> Iterator[LocalBroker]:
    """A running Kafka. Do not stop it: a test that must takes a LocalBroker of its own."""
    server = LocalBroker(tmp_path_factory.mktemp("kafka"), outlive=False)
    server.start()
    yield server
    server.stop()


@pytest.fixture(scope="session")
def registry(tmp_path_factory: pytest.TempPathFactory) -> Iterator[LocalRegistry]:
    """A running schema registry with the Confluent API at `.url`."""
    server = LocalRegistry(tmp_path_factory.mktemp("registry"), outlive=False)
    server.start()
    yield server
    server.stop()


@pytest.fixture
def fresh_settings(broker: LocalBroker, tmp_path: Path, request: pytest.FixtureRequest) -> FreshSettings:
    """`fresh_settings(create=True, **over)`: settings on the shared broker, own app id, topics and folder.

    The topics exist afterwards unless `create=False`; `over` are settings by name (a dict for a section).
    The registry's address is set only if the test also uses the fixture `registry`.
    """

    def make(create: bool = True, **over: Any) -> Settings:
        prefix = f"t{next(_numbers)}"
        topics = {key: f"{prefix}.{name}" for key, name in Topics().model_dump().items()}
        values: dict[str, Any] = {
            "brokers": broker.address,
            "app_id": prefix,
            "data_dir": tmp_path / prefix,
            "partitions": 2,
            "topics": topics | over.pop("topics", {}),
        }
        if "registry" in request.fixturenames:
            values["registry_url"] = request.getfixturevalue("registry").url
        settings = Settings(**values | over)
        if create:
            create_topics(settings)
        return settings

    return make


@pytest.fixture
def settings(fresh_settings: FreshSettings) -> Settings:
    """Settings of one test's own, with created topics."""
    return fresh_settings()
