"""What deploys Headrace, judged by the tools of its field where no engine runs: hadolint, the Compose specification,
helm, and Kubernetes' own schemas. None of it is run here.
"""

import json
import re
import sys
from importlib.metadata import files
from pathlib import Path
from typing import Any

import jsonschema  # type: ignore[import-untyped]  # it has no types
import pytest
import yaml

from streams.config import Settings
from streams.config_sources import flatten
from tests.outside_programs import helm, ran

ROOT = Path(__file__).parent.parent
CHART = ROOT / "deploy" / "helm" / "headrace"
COMPOSE = ROOT / "docker-compose.yml"
IMAGES = (ROOT / "Dockerfile", *sorted((ROOT / "deploy/images").glob("*.Dockerfile")))
SCALED = {"autoscaling.enabled": "true", "releases.claim": "releases", "secret": "headrace"}


def manifests(**values: str) -> dict[tuple[str, str], Any]:
    """(kind, name) -> object, as helm writes them."""
    done = ran(helm(), "template", "shop", CHART, *(f"--set={name}={value}" for name, value in values.items()))
    assert done.returncode == 0, done.stderr
    return {(each["kind"], each["metadata"]["name"]): each for each in yaml.safe_load_all(done.stdout) if each}


def container(part: str, **values: str) -> dict[str, Any]:
    [found] = manifests(**values)["StatefulSet", f"shop-{part}"]["spec"]["template"]["spec"]["containers"]
    return dict(found)


@pytest.mark.parametrize("image", IMAGES, ids=lambda path: path.name)
def test_hadolint_has_nothing_to_say(image: Path) -> None:
    done = ran(Path(sys.executable).with_name("hadolint"), image)
    assert (done.returncode, done.stdout) == (0, "")


@pytest.mark.parametrize("image", IMAGES, ids=lambda path: path.name)
def test_an_image_copies_what_is_there_and_pins_what_it_installs(image: Path) -> None:
    ignored = (ROOT / ".dockerignore").read_text("utf-8").splitlines()
    copied = re.findall(r"^COPY (\S+) ", image.read_text("utf-8"), re.MULTILINE)
    assert all((ROOT / name).exists() and f"!{name}" in ignored for name in copied)
    assert "--require-hashes" in image.read_text("utf-8")


def test_the_learners_image_has_what_trains_and_the_same_versions() -> None:
    learner, whole, worker = (
        dict(re.findall(r"^([\w.-]+)==(\S+)", (ROOT / f"requirements{name}.txt").read_text("utf-8"), re.MULTILINE))
        for name in ("-learner", "", "-worker")
    )
    assert "torch" in learner
    assert worker.keys() <= learner.keys()
    assert learner.items() <= whole.items()


def test_the_compose_file_keeps_to_the_specification() -> None:
    [path] = [each for each in files("check-jsonschema") or [] if each.name == "compose-spec.json"]
    specification = json.loads(path.read_text("utf-8"))
    compose = yaml.safe_load(COMPOSE.read_text("utf-8"))
    jsonschema.validate(compose, specification)
    compose["services"]["worker"]["ports"] = "6066"
    with pytest.raises(jsonschema.ValidationError):
        jsonschema.validate(compose, specification)


def test_the_compose_file_names_what_is_there() -> None:
    compose = yaml.safe_load(COMPOSE.read_text("utf-8"))
    for name, service in compose["services"].items():
        for volume in service.get("volumes", ()):
            source = volume.partition(":")[0]
            assert (ROOT / source).exists() if source.startswith(".") else source in compose["volumes"], name
        for port in service.get("ports", ()):
            assert port.startswith("127.0.0.1:"), f"{name} would listen to other machines"
        if "build" in service and isinstance(service["build"], dict):
            assert (ROOT / service["build"]["dockerfile"]).exists()


def test_prometheus_asks_services_that_the_compose_file_has_or_that_a_shop_adds() -> None:
    config = yaml.safe_load((ROOT / "deploy/prometheus/prometheus.yml").read_text("utf-8"))
    asked = {name for job in config["scrape_configs"] for each in job["dns_sd_configs"] for name in each["names"]}
    assert asked - {"webhooks", "mapping"} <= yaml.safe_load(COMPOSE.read_text("utf-8"))["services"].keys()


def test_helm_has_nothing_to_say() -> None:
    done = ran(helm(), "lint", "--strict", CHART)
    assert done.returncode == 0, done.stdout


@pytest.mark.parametrize("values", [{}, SCALED, {"learner.enabled": "false"}], ids=["default", "scaled", "no learner"])
def test_what_the_chart_writes_is_of_kubernetes_schemas(values: dict[str, str], tmp_path: Path) -> None:
    written = [each for (kind, _), each in manifests(**values).items() if kind != "ScaledObject"]
    path = tmp_path / "all.yaml"
    path.write_text(yaml.safe_dump_all(written), "utf-8")
    program = Path(sys.executable).with_name("kubernetes-validate")
    assert ran(program, "--strict", "-k", "1.34", path).returncode == 0
    written[-1]["spec"]["replicaz"] = 1
    path.write_text(yaml.safe_dump_all(written), "utf-8")
    assert ran(program, "--strict", "-k", "1.34", path).returncode != 0


def test_settings_of_the_chart_are_settings(tmp_path: Path) -> None:
    found = manifests(**SCALED)
    (tmp_path / "headrace.toml").write_text(found["ConfigMap", "shop-settings"]["data"]["headrace.toml"], "utf-8")
    known = flatten(Settings(config_file=tmp_path / "headrace.toml").model_dump())
    for part in ("worker", "learner"):
        names = [each["name"] for each in container(part, **SCALED)["env"]]
        ours = [name for name in names if name.startswith("HEADRACE_") and name != "HEADRACE_CONFIG"]
        assert ours
        assert {name.removeprefix("HEADRACE_").lower().replace("__", ".") for name in ours} <= known.keys()


def test_a_worker_is_asked_whether_it_lives_and_whether_it_is_ready() -> None:
    worker = container("worker")
    assert worker["livenessProbe"]["httpGet"]["path"] == "/healthz"
    assert worker["readinessProbe"]["httpGet"]["path"] == "/readyz"
    startup = worker["startupProbe"]
    assert startup["periodSeconds"] * startup["failureThreshold"] >= 600, "recovery takes its time"
    pod = manifests()["StatefulSet", "shop-worker"]["spec"]["template"]["spec"]
    assert pod["terminationGracePeriodSeconds"] > Settings().session_timeout_s + 5


def test_no_container_is_root_or_writes_where_it_should_not() -> None:
    for part in ("worker", "learner"):
        assert container(part)["securityContext"]["readOnlyRootFilesystem"] is True
        pod = manifests()["StatefulSet", f"shop-{part}"]["spec"]["template"]["spec"]
        assert pod["securityContext"]["runAsNonRoot"] is True
        assert pod["automountServiceAccountToken"] is False


def test_secrets_come_from_a_secret_and_not_from_the_chart() -> None:
    assert container("worker", **SCALED)["envFrom"] == [{"secretRef": {"name": "headrace"}}]
    assert "envFrom" not in container("worker")
    assert not re.search("password|token", str(yaml.safe_load((CHART / "values.yaml").read_text("utf-8"))))


def test_workers_are_scaled_by_the_lag_of_their_group_and_not_beyond_the_partitions() -> None:
    found = manifests(**SCALED, app_id="mine")
    scaled = found["ScaledObject", "shop-worker"]["spec"]
    [trigger] = scaled["triggers"]
    assert (trigger["type"], trigger["metadata"]["consumerGroup"]) == ("kafka", "mine")
    assert scaled["scaleTargetRef"] == {"apiVersion": "apps/v1", "kind": "StatefulSet", "name": "shop-worker"}
    assert "replicas" not in found["StatefulSet", "shop-worker"]["spec"], "helm would fight the autoscaler"
    refused = ran(helm(), "template", "shop", CHART, "--set=autoscaling.enabled=true,autoscaling.max=13")
    assert "would be idle" in refused.stderr


def test_a_static_worker_is_known_to_its_group_by_its_pods_name() -> None:
    named = [entry for entry in container("worker", **{"worker.static": "true"})["env"] if "INSTANCE" in entry["name"]]
    where = {"fieldRef": {"fieldPath": "metadata.name"}}
    assert named == [{"name": "HEADRACE_INSTANCE_ID", "valueFrom": where}]
    assert not [entry for entry in container("worker")["env"] if "INSTANCE" in entry["name"]]


def test_a_shop_among_several_is_named_to_its_processes_and_to_the_autoscaler() -> None:
    found = manifests(**SCALED, app_id="mine", tenant="north")
    [trigger] = found["ScaledObject", "shop-worker"]["spec"]["triggers"]
    assert trigger["metadata"]["consumerGroup"] == Settings(tenant="north", app_id="mine").app_id
    for part in ("worker", "learner"):
        env = {entry["name"]: entry.get("value") for entry in container(part, tenant="north")["env"]}
        assert env["HEADRACE_TENANT"] == "north"
        assert "HEADRACE_TENANT" not in {entry["name"] for entry in container(part)["env"]}


def test_one_worker_at_a_time_may_be_taken_away() -> None:
    found = manifests()
    budget = found["PodDisruptionBudget", "shop-worker"]["spec"]
    assert budget["maxUnavailable"] == 1
    labels = found["StatefulSet", "shop-worker"]["spec"]["template"]["metadata"]["labels"]
    assert budget["selector"]["matchLabels"] == labels


def test_values_that_cannot_be_used_are_refused() -> None:
    for wrong in ("partitions=none", "worker.grace_s=1", "wroker.replicas=3"):
        assert ran(helm(), "template", "shop", CHART, f"--set={wrong}").returncode != 0, wrong
