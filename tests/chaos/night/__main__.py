"""`make chaos`: one night by its seed, its story on stderr, and one line of JSON; exit code 1 if a promise was broken.
Without a seed it draws one. The folder with the logs is kept when something is wrong."""

import argparse
import os
import random
import shutil
import signal
import sys
import tempfile
from collections import Counter
from dataclasses import asdict
from pathlib import Path
from typing import Any

from bench.report import show
from streams.config import Settings
from tests import checker
from tests.chaos.night.faults import FAULTS
from tests.chaos.night.judging import judged, morning
from tests.chaos.night.published import Published
from tests.chaos.night.scene import WORKERS, Scene, reopened, scene
from tests.chaos.night.schedule import draw
from tests.chaos.night.striking import Striking
from tests.chaos.night.telling import Story
from tests.shop import wait_for

MINUTES, RATE, PATIENCE_S = 30.0, 60.0, 600.0
PAUSE_S = (2.0, 8.0)
READY_S = 600.0
EXACTLY_ONCE = "exactly_once"
TARGETS = {"promises_broken": 0, "promises_not_judged": 0}


def parsed() -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="python -m tests.chaos.night", description=__doc__)
    parser.add_argument("--minutes", type=float, default=MINUTES)
    parser.add_argument("--rate", type=float, default=RATE, help="events per second")
    parser.add_argument("--seed", type=int, default=random.SystemRandom().randrange(1 << 30))
    parser.add_argument("--nights", type=int, default=1, help="one after another, each by the next seed")
    parser.add_argument("--only", type=kinds_of, default=list(FAULTS), help="kinds of fault, with commas between")
    parser.add_argument("--judge", type=Path, metavar="FOLDER", help="no night: judge again what one has left there")
    parser.add_argument("--delivery", default="", help="the workers' `delivery`; with exactly_once no score may repeat")
    return parser.parse_args()


def kinds_of(text: str) -> list[str]:
    """The kinds that are named, in FAULTS' order."""
    named = [name.strip() for name in text.split(",")]
    if unknown := [name for name in named if name not in FAULTS]:
        raise argparse.ArgumentTypeError(f"no fault {unknown[0]!r}; there are: {', '.join(FAULTS)}")
    return [name for name in FAULTS if name in named]


def rerun(seed: int, arguments: argparse.Namespace) -> str:
    """The command that draws the same night."""
    said = f"--minutes {arguments.minutes:g} --rate {arguments.rate:g} --seed {seed}"
    if arguments.only != list(FAULTS):
        said += f" --only '{','.join(arguments.only)}'"
    if arguments.delivery:
        said += f" --delivery {arguments.delivery}"
    return f'make chaos ARGS="{said}"'


def over(arguments: argparse.Namespace) -> dict[str, Any]:
    """Settings of this run."""
    if not arguments.delivery:
        return {}
    if "delivery" not in Settings.model_fields:
        raise SystemExit("this version has no setting `delivery`")
    return {"delivery": arguments.delivery}


def main() -> int:
    arguments = parsed()
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(143))  # told to end, it ends whom it has started
    for name in [name for name in os.environ if name.startswith("HEADRACE_")]:
        del os.environ[name]
    if arguments.judge is not None:
        return judged_again(arguments.judge)
    figures = Counter[str]()
    kinds = Counter[str]()
    for seed in range(arguments.seed, arguments.seed + arguments.nights):
        counts, struck = whole_night(seed, arguments)
        figures.update(counts)
        kinds.update(struck)
    said = {"seed": arguments.seed, "nights": arguments.nights, "minutes": arguments.minutes, "rate": arguments.rate}
    by_kind = {kind: kinds[kind] for kind in FAULTS if kinds[kind]}
    made = show("chaos", {**said, "kinds": len(by_kind), "by_kind": by_kind, **figures}, TARGETS)
    return 1 if made["missed"] else 0


def judged_again(folder: Path) -> int:
    """Of a folder that was kept, by the same promises; what its logs say of the night is not asked for again."""
    published, story = Published.read(folder), Story()
    with reopened(folder) as settings:
        report = judged(settings, published)
    for fault in report.faults:
        story.say(f"WRONG: {fault}")
    made = show("chaos", {"judged": str(folder), **told(report), "promises_broken": len(report.faults)}, TARGETS)
    return 1 if made["missed"] else 0


def whole_night(seed: int, arguments: argparse.Namespace) -> tuple[dict[str, int], Counter[str]]:
    """From an empty folder to the checker's word: figures, and faults by kind. The folder stays if one is broken."""
    story, again = Story(), rerun(seed, arguments)
    story.say(f"seed {seed}; the same night again: {again}")
    folder, seconds = Path(tempfile.mkdtemp(prefix="headrace-chaos-")), arguments.minutes * 60
    plan = draw(seed, seconds, {name: FAULTS[name].bounds for name in arguments.only}, PAUSE_S)
    wrong = True
    try:
        with scene(folder, seed, arguments.rate, story.say, **over(arguments)) as shop:
            striking = Striking(shop, plan, seconds)
            night(shop, striking)
            report = morning(shop, PATIENCE_S)
            if arguments.delivery == EXACTLY_ONCE:
                report.expect(not report.repeated_scores, f"{report.repeated_scores} scores are said twice")
            wrong = bool(report.faults or striking.broken)
            if wrong:
                story.say(shop.staff.logs())
            for fault in (*report.faults, *striking.broken):  # last: of a long output the end is read
                story.say(f"WRONG: {fault}")
            return counted(shop, striking, report), striking.struck
    finally:
        if wrong:
            story.say(f"seed {seed} failed; all of it is in {folder}; the same night again: {again}")
            story.say(f'the same topics judged again: make chaos ARGS="--judge {folder}"')
        else:
            shutil.rmtree(folder, ignore_errors=True)


def night(shop: Scene, striking: Striking) -> None:
    """Load and faults; returns when all is healed."""
    wait_for(lambda: all(shop.staff.members[name].ready() for name in WORKERS), READY_S, shop.staff.logs)
    shop.say("the load begins")
    shop.load.start()
    striking.run()
    shop.wait_in_sync()
    shop.say("all is healed")


def counted(shop: Scene, striking: Striking, report: checker.Report) -> dict[str, int]:
    return {
        "faults": striking.struck.total(), "left_out": striking.left_out,
        "starts": sum(member.starts for member in shop.staff.members.values()),
        **told(report), "poison": len(shop.load.poison),
        "promises_broken": len(report.faults), "promises_not_judged": len(striking.broken),
    }  # fmt: skip


def told(report: checker.Report) -> dict[str, int]:
    """What the checker has counted."""
    return {name: value for name, value in asdict(report).items() if name != "faults"}


if __name__ == "__main__":
    sys.exit(main())
