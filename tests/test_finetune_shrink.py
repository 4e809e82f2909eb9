"""Smaller models from larger ones: what is cut out, what is learned of a teacher, and the releases they become."""

from pathlib import Path
from typing import Any, cast

import numpy as np
import pytest
import torch

from engines.blocks import Block
from engines.export import export
from engines.fraud_head import FraudHead
from engines.model import HeadraceConfig, HeadraceModel, load_model
from engines.releases import Release, ReleaseStore
from engines.samples import sample
from engines.signatures import CONVERSION, signature
from engines.trees import Trees
from finetune import incremental
from finetune.distill import student_of, taught
from finetune.first import PLANS
from finetune.fraud import Fraud
from finetune.ground import learned
from finetune.incremental import Recipe
from finetune.plan import Gate
from finetune.problems import PROBLEMS
from finetune.prune import importance, pruned, units_of
from finetune.shrink import as_served, shrink
from finetune.smaller import Smaller, check_encoder, checked
from finetune.trainer import TorchTable
from schemas.errors import ReleaseError, SettingsError, TrainingError
from streams.tasks import make_task
from tests.finetune_examples import small_catalog, small_model, small_release
from tests.small_shop import small_shop

pytestmark = pytest.mark.usefixtures("torch_as_it_was")

TASKS = ("recommendations", "fraud", "ctr")
PRUNE, DISTILL = Smaller("prune", {"hidden": 8, "heads": 1}, 4), Smaller("distill", {"layers": 1, "hidden": 16}, 4)


@pytest.fixture(scope="module")
def shop():
    return small_shop()


@pytest.fixture(scope="module")
def teachers(tmp_path_factory) -> tuple[ReleaseStore, dict[str, Release]]:
    """They have learned nothing; fraud's has trees."""
    store, models = ReleaseStore(str(tmp_path_factory.mktemp("store"))), {name: small_model(name) for name in TASKS}
    fraud = models["fraud"]
    fraud.config.trees, fraud.config.leaves, fraud.config.depth = 3, 4, 2
    head = cast(FraudHead, fraud.head)
    head.trees = Trees(3, 4, 2)
    head.trees.value.normal_()
    head.share.fill_(0.25)
    return store, {name: small_release(model, store) for name, model in models.items()}


def inputs_of(model: HeadraceModel, rows: int = 6) -> dict[str, torch.Tensor]:
    sizes = {name: getattr(model.config, name) for name in HeadraceConfig.__annotations__}
    made = sample(signature(sizes), rows, catalog=40, full=True)
    return {name: torch.from_numpy(each) for name, each in made.items()}


def numbers(model: HeadraceModel, inputs: dict[str, torch.Tensor]) -> dict[str, torch.Tensor]:
    with torch.no_grad():
        return {name: each for name, each in model(**inputs).items() if each.is_floating_point()}


@pytest.mark.parametrize("task", TASKS)
def test_what_feeds_nothing_is_found_and_cut_out_and_the_model_says_the_same(task):
    model = small_model(task).eval()
    sizes, rng = {"hidden": 16, "heads": 1}, np.random.default_rng(0)
    with torch.no_grad():
        for each in units_of(model):
            fed = model.get_parameter(each.feeds)
            fed += 0.3 * torch.randn_like(fed)
            units = fed.shape[-1] // each.each
            for start in range(0, units, units // each.groups):
                for unit in start + rng.permutation(units // each.groups)[: units // each.groups // 2]:
                    fed[..., unit * each.each : (unit + 1) * each.each] = 0
    inputs = inputs_of(model)

    def loss(model: HeadraceModel, table: Any, batch: Any, rng: Any) -> Any:
        said = [each for each in model(**inputs).values() if each.is_floating_point()]
        return sum((each**2).sum() for each in said), torch.tensor(1.0)

    before = numbers(model, inputs)
    scores = importance(model, 6, loss, TorchTable(model, small_catalog()))
    smaller = pruned(model, sizes, scores)
    after = numbers(smaller, inputs)
    assert before.keys() == after.keys()
    for name, said in before.items():
        torch.testing.assert_close(after[name], said, rtol=1e-4, atol=1e-4)
    assert (smaller.config.hidden, smaller.config.heads, smaller.config.head_width) == (16, 1, 8)
    blocks = [part for part in smaller.modules() if isinstance(part, Block)]
    assert {part.expand.out_features for part in blocks} == {16}
    assert {tuple(part.mix.weight.shape) for part in blocks} == {(16, 8)}
    again = pruned(smaller, {"hidden": 8}, importance(smaller, 6, loss, TorchTable(smaller, small_catalog())))
    assert (again.config.hidden, again.config.head_width) == (8, 8)


def test_a_student_of_fewer_layers_begins_with_what_fits_it():
    teacher = small_model("ctr").eval()
    student = student_of(teacher, {"layers": 1}, None)  # type: ignore[arg-type]  # of the same width nothing is asked
    assert not len(student.history.blocks)
    for name, each in student.state_dict().items():
        assert torch.equal(each, teacher.state_dict()[name]), name
    inputs = inputs_of(teacher)
    said = [numbers(each.eval(), inputs)[CONVERSION] for each in (teacher, student)]
    assert torch.equal(*said), "of the same vectors the head of conversions says the same"


def test_a_student_of_another_width_knows_items_by_their_texts(shop, teachers):
    recording, catalog = shop
    for task, teacher in teachers[1].items():
        problem = PROBLEMS[task](make_task(task), recording, catalog)
        known = load_model(teacher.folder)
        student = student_of(known, {"width": 8}, problem)
        rows = np.arange(1, len(catalog), dtype=np.int32)
        vectors = TorchTable(student, catalog).look_up(rows).detach().numpy()
        assert vectors.shape == (len(rows), 8)
        near = (vectors @ vectors.T).ravel(), (catalog.text[rows] @ catalog.text[rows].T).ravel()
        assert np.corrcoef(*near)[0, 1] > 0.3
        if task == "fraud":
            assert torch.equal(*(each.state_dict()["head.trees.value"] for each in (student, known))), "trees stay"


@pytest.mark.parametrize("task", ["recommendations", "ctr"])
def test_who_says_what_the_teacher_says_has_nothing_to_learn_of_it(task, shop, teachers):
    recording, catalog = shop
    problem = PROBLEMS[task](make_task(task), recording, catalog)
    teacher = load_model(teachers[1][task].folder)
    table, batch = TorchTable(teacher, catalog), np.arange(32)

    def gradient(share: float) -> float:
        teacher.zero_grad()
        total, weight = taught(problem, teacher, share, problem.bias)(teacher, table, batch, np.random.default_rng(1))
        (total / weight).backward()
        return float(sum((each.grad**2).sum() for each in teacher.head.parameters() if each.grad is not None))

    assert gradient(1.0) < 1e-4 * gradient(0.0)


def test_without_a_share_for_the_teacher_labels_alone_are_learned(shop, teachers):
    recording, catalog = shop
    for task, teacher in teachers[1].items():
        problem, known = PROBLEMS[task](make_task(task), recording, catalog), load_model(teacher.folder).train()
        if isinstance(problem, Fraud):
            problem.learned = problem.columns(known, np.arange(problem.learning))
        table, batch = TorchTable(known, catalog), np.arange(16)
        losses = [
            float(each(known.train(), table, batch, np.random.default_rng(1))[0].detach())
            for each in (problem.loss(), taught(problem, known.eval(), 0.0, problem.bias))
        ]
        assert losses[0] == pytest.approx(losses[1], rel=1e-5)


@pytest.mark.parametrize("task", TASKS)
@pytest.mark.parametrize("smaller", [PRUNE, DISTILL], ids=lambda each: each.by)
def test_a_smaller_release_is_a_release_like_any_other(task, smaller, shop, teachers, tmp_path, caplog):
    recording, catalog = shop
    store, releases = teachers
    teacher = releases[task]
    rule = Gate(labels=20, positives=1, budget_ms=1000, seed=0)
    release = shrink(teacher, smaller, recording, catalog, store, rule=rule, trained={"data": "a little shop"})
    manifest = release.manifest
    assert manifest.trained["champion"] == teacher.version
    assert manifest.trained["data"] == "a little shop"
    said = manifest.trained["smaller"]
    assert (said["by"], said["sizes"], said["teacher"]) == (smaller.by, smaller.sizes, teacher.digest)
    assert said["parameters"] < said["teacher_parameters"]
    assert manifest.files["model.onnx"].size < teacher.manifest.files["model.onnx"].size
    assert manifest.settings.keys() >= teacher.manifest.settings.keys()
    assert manifest.metrics["parity"]["rows"] > 0
    assert manifest.metrics["gate"]["verdict"] in ("pass", "refuse")
    assert manifest.metrics["window"].keys() == {"champion", "candidate"}
    model = load_model(release.folder)
    assert {name: getattr(model.config, name) for name in smaller.sizes} == smaller.sizes
    # a fine-tune goes on from it, and takes its graphs over by the names of weights
    problem = PROBLEMS[task](make_task(task), recording, catalog)
    problem.learning //= 2
    served = as_served(problem, learned(problem), release)
    incremental.fit(model, served, Recipe(steps=3, batch=16, rank=2), tmp_path / "fit", "these")
    with caplog.at_level("INFO"):
        export(model, tmp_path / "made", release)
    assert "traced anew" not in caplog.text


def test_the_gate_judges_it_on_the_newest_examples_which_have_not_trained(shop, teachers):
    recording, catalog = shop
    store, releases = teachers
    before = store.list("ctr")
    rule = Gate(labels=10**6, positives=1, budget_ms=1000, seed=0)
    release = shrink(releases["ctr"], PRUNE, recording, catalog, store, rule=rule)
    report = {check["name"]: check for check in release.manifest.metrics["gate"]["checks"]}
    assert report["never trained"]["passed"]
    assert not report["enough labels"]["passed"], "and so it is refused"
    assert release.manifest.metrics["gate"]["verdict"] == "refuse"
    assert store.list("ctr") == [*before, release.version], "kept all the same"
    with pytest.raises(TrainingError, match=r"clicks on|no examples to"):
        shrink(releases["ctr"], PRUNE, recording.before(recording.examples["ctr"].time[3]), catalog, store)


def test_what_cannot_be_made_smaller_is_refused_in_words(tmp_path):
    store = ReleaseStore(str(tmp_path))
    fraud = small_release(small_model("fraud"), store, {"encoder": "v1"})
    for smaller, said in (
        (Smaller("prune", {"hidden": 33}), "hidden 33; at --hidden; expected from 1 to 32"),
        (Smaller("distill", {"width": 32}), "width 32; at --width; expected from 1 to 16"),
        (Smaller("distill", {"layers": 0}), "layers 0; at --layers; expected from 1 to 2"),
        (Smaller("prune", {"layers": 1}), "pruning takes no layers away"),
        (Smaller("prune", {"hidden": 32}), "nothing of fraud/"),
        (Smaller("distill"), "expected a size below width 16, layers 2, heads 2, hidden 32"),
    ):
        with pytest.raises(SettingsError, match=said):
            checked(fraud, smaller)
    assert checked(fraud, Smaller("prune", {"heads": 1})).config.width == 16
    catalog = small_catalog()
    catalog.encoder = "v2"
    with pytest.raises(ReleaseError, match="has learned vectors of encoder v1"):
        check_encoder(fraud, catalog)
    pointwise = HeadraceModel(HeadraceConfig(task="recommendations", width=16, heads=2, pointwise=1))
    with pytest.raises(SettingsError, match="layers without softmax"):
        checked(small_release(pointwise, store), Smaller("prune", {"heads": 1}))
    Path(fraud.folder / "model.safetensors").write_bytes(b"something else")
    with pytest.raises(ReleaseError):
        store.open("fraud", fraud.version)


def test_pruned_heads_need_no_width_that_they_divide():
    config: dict[str, Any] = {"task": "fraud", "width": 16, "heads": 3, "head_width": 4, "fields": 5}
    model = HeadraceModel(HeadraceConfig(**config)).eval()
    assert numbers(model, inputs_of(model))["logit"].isfinite().all()


def test_the_usual_plan_is_shorter_for_what_was_pruned():
    for task, plan in PLANS.items():
        assert Smaller("prune").plan(task, narrower=False).steps == plan.steps // 2
        assert Smaller("distill").plan(task, narrower=False).frozen == ("item_tower",)
        assert Smaller("distill").plan(task, narrower=True).frozen == ()
        assert Smaller("distill", steps=7).plan(task, narrower=False).steps == 7
