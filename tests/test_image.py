"""The worker's image and the compose file, as far as files can be judged without a container engine: what is copied
is there, what is installed is pinned and free of torch, and variables are settings.
"""

import re
from pathlib import Path

from streams.jars import KAFKA, REGISTRY

ROOT = Path(__file__).parent.parent


def text(page: str) -> str:
    return (ROOT / page).read_text("utf-8")


def test_the_image_copies_what_is_there_and_what_is_not_ignored() -> None:
    copied = re.findall(r"^COPY (\S+) ", text("Dockerfile"), re.MULTILINE)
    assert copied
    for name in copied:
        assert (ROOT / name).exists()
        assert f"!{name}" in text(".dockerignore").splitlines()


def test_the_image_is_free_of_torch_and_pins_what_the_environment_pins() -> None:
    worker, whole = (
        dict(re.findall(r"^([\w.-]+)==(\S+)", text(page), re.MULTILINE))
        for page in ("requirements-worker.txt", "requirements.txt")
    )
    assert worker.items() <= whole.items()
    assert not {"torch", "transformers", "onnx"} & worker.keys()
    dependencies = text("pyproject.toml").partition("\ndependencies = [")[2].partition("\n]")[0]
    assert set(re.findall(r'^\s+"([\w-]+)', dependencies, re.MULTILINE)) <= worker.keys()


def test_the_image_shows_its_health_to_other_machines() -> None:
    assert "HEADRACE_WEB__HOST=0.0.0.0" in text("Dockerfile")
    assert "HEADRACE_WEB__HOST: 0.0.0.0" in text("docker-compose.yml")


def test_the_compose_file_runs_the_kafka_that_the_embedded_broker_is() -> None:
    """One version to test against, and one registry."""
    compose = text("docker-compose.yml")
    assert f"image: apache/kafka:{KAFKA.rpartition(':')[2]}\n" in compose
    assert f"image: apicurio/apicurio-registry:{REGISTRY.split(':')[2]}\n" in compose
