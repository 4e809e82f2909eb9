"""`python -m tests.fuzz --minutes 60 --target decoder --seed 7`: fuzzes, and prints one line of JSON.
Each target runs in a process of its own, which is watched: one that dies, hangs or grows is a finding like any other.
"""

import argparse
import random
import sys
import tempfile
from pathlib import Path
from typing import Any

from bench.report import show
from bench.testbed import say
from tests.fuzz import TARGETS
from tests.fuzz.child import repeat
from tests.fuzz.watch import LIMIT_S, Seen, watch

MINUTES = 3.0
GROWN_MB = 10.0
"""Over the second half of a run. Of an hour, so, less than 20 MB an hour."""


def main() -> int:
    parser = argparse.ArgumentParser(prog="python -m tests.fuzz", description=__doc__)
    parser.add_argument("--target", default=",".join(TARGETS), help="one, or several with commas between")
    parser.add_argument("--minutes", type=float, default=MINUTES, help="for each target")
    parser.add_argument("--seed", type=int, default=None)
    parser.add_argument("--only", type=int, default=None, metavar="NUMBER", help="look at this one input, here")
    parser.add_argument("--first", type=int, default=0, metavar="NUMBER", help="begin there")
    parser.add_argument("--keep", type=Path, default=None, help="a folder for findings")
    arguments = parser.parse_args()
    seed = random.SystemRandom().randrange(10**6) if arguments.seed is None else arguments.seed
    say(f"seed {seed}")
    names = arguments.target.split(",")
    if arguments.only is not None:
        print(repeat(names[0], seed, arguments.only))
        return 0
    figures: dict[str, Any] = {"seed": seed, "minutes": arguments.minutes}
    with tempfile.TemporaryDirectory(prefix="headrace-fuzz-") as folder:
        for name in names:
            kept = arguments.keep or Path(folder)
            seen = watch(name, seed, kept, 60 * arguments.minutes, first=arguments.first)
            tell(name, seed, seen)
            figures |= {f"{name}_{what}": value for what, value in seen.figures().items()}
    made = show("fuzz", figures, {name: most for each in names for name, most in targets(each).items()})
    return 1 if made["missed"] else 0


def targets(name: str) -> dict[str, float]:
    return {f"{name}_findings": 0, f"{name}_grown_mb": GROWN_MB, f"{name}_slowest_s": LIMIT_S}


def tell(name: str, seed: int, seen: Seen) -> None:
    ends = ", ".join(f"{count:,} {word}" for word, count in seen.outcomes.most_common())
    say(f"{name}: {seen.inputs:,} inputs: {ends}; slowest {seen.slowest[0]:.2f} s, number {seen.slowest[1]}")
    for finding in seen.findings.values():
        say(f"{finding.count} x {finding.what}\n{finding.text}")
        say(f"again: python -m tests.fuzz --target {name} --seed {seed} --only {finding.number}")


if __name__ == "__main__":
    sys.exit(main())
