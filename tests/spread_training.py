"""One process of a training that is spread: run by torchrun, it leaves what it has learned in OUT/RANK.safetensors."""

import json
import sys
from dataclasses import replace
from pathlib import Path

import numpy as np
import torch
from safetensors.torch import save_file

from engines.releases import ReleaseStore
from finetune.first import train, trained_model
from finetune.problems import PROBLEMS
from finetune.spread import Spread, spread
from finetune.trainer import TorchTable
from schemas.errors import TrainingError
from streams.tasks import make_task
from tests.small_shop import FEW, small_shop


def learned(process: Spread) -> dict[str, torch.Tensor]:
    """Of all three tasks, by task and name: weights, and what the model says of held-out examples, as `says.NAME`.

    Without dropout, which is drawn otherwise in each process.
    """
    recording, catalog = small_shop()
    out: dict[str, torch.Tensor] = {}
    for name, plan in FEW.items():
        problem = PROBLEMS[name](make_task(name), recording, catalog)
        model, _ = trained_model(problem, replace(plan, dropout=0.0), None, spread=process)
        out |= {f"{name}.{key}": value for key, value in model.state_dict().items()}
        table = TorchTable(model, catalog)
        table.freeze()
        said = problem.outputs(model, table, problem.held_out)
        floats = {key: torch.from_numpy(value) for key, value in said.items() if value.dtype == np.float32}
        out |= {f"{name}.says.{key}": value for key, value in floats.items()}
    return out


def main(out: Path) -> None:
    torch.set_num_threads(1)
    with spread() as process:
        save_file(learned(process), out / f"{process.rank}.safetensors")
        again = learned(process)
        save_file(again, out / f"{process.rank}-again.safetensors")
        try:
            process.agree("examples", np.arange(10 + process.rank))
            refused = ""
        except TrainingError as error:
            refused = str(error)
        recording, catalog = small_shop()
        made = train(recording, catalog, ReleaseStore(str(out / "store")), plans={"ctr": FEW["ctr"]}, spread=process)
        (out / f"{process.rank}.json").write_text(json.dumps({"refused": refused, "made": list(made)}))


if __name__ == "__main__":
    main(Path(sys.argv[1]))
