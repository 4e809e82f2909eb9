"""Past examples that are kept for replay: bounded, spread over age and class, on the disk.
Who learns only what is new forgets what is old; who keeps all of it cannot keep for long.

Each example has a fixed random number, and a stratum (age and class) that is too full keeps its smallest ones
(a bottom-k sample). `share` is the chance with which an example is still there: 1 / share examples stand behind it.
"""

import hashlib
import json
import os
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from engines.files import sync
from finetune.examples import Examples, is_positive, layout, merged
from schemas.errors import StateError
from streams.tasks.base import Task

FORMAT = 1
INDEX = "index.json"
DAY_MS = 86_400_000
AGES = 12  # bins, each twice as long as the one before it; the last holds all that is older than 2^11 days

Chances = NDArray[np.float64]


@dataclass(frozen=True, slots=True)
class Draw:
    """A replay mix. weight (N,): brings the classes of each age back to their natural shares; 1 on average."""

    examples: Examples
    weight: NDArray[np.float32]


class Reservoir:
    """Examples of one task in a folder. One process at a time; equal seeds and additions give equal rows.

    `rows` and `bytes_` bound it, the smaller one counts. What `open` reads is verified; each change is a new file
    and a new index that takes the old one's name, so a crash leaves the reservoir as it was before or after.
    """

    def __init__(self, folder: Path, task: Task, *, rows: int, bytes_: int, seed: int = 0) -> None:
        """Opens what is in the folder, or starts an empty one there. Raises StateError for what cannot be read."""
        self._folder, self._task, self._seed = folder, task, seed
        self._dtype = np.dtype([("share", "<f8"), ("example", layout(task))])
        self.limit = min(rows, bytes_ // self._dtype.itemsize)
        folder.mkdir(parents=True, exist_ok=True)
        self._held: NDArray[np.void] = np.zeros(0, self._dtype)
        self._open()

    def __len__(self) -> int:
        return len(self._held)

    @property
    def examples(self) -> Examples:
        """(N,) in order of (time, key); mapped from the file, not to be written to."""
        held: Examples = self._held["example"]
        return held

    @property
    def share(self) -> Chances:
        """(N,) the chance with which each is still here."""
        chance: Chances = self._held["share"]
        return chance

    def add(self, new: Examples) -> int:
        """Takes examples in, once each: one that is here only brings newer revisions. How many rows are here now.

        What is full is thinned out afterwards, by age as of the newest example and by class.
        """
        every = merged(self.examples, new)
        share = np.ones(len(every))
        known = np.searchsorted(every["key"], self.examples["key"], sorter=(by_key := np.argsort(every["key"])))
        share[by_key[known]] = self.share
        keep = (every["weight"] > 0).any(axis=1)
        every, share = every[keep], share[keep]
        kept, share = self._thinned(every, share)
        held = np.zeros(len(kept), self._dtype)
        held["share"], held["example"] = share, every[kept]
        self._write(held)
        return len(held)

    def forget(self, user: int) -> int:
        """Takes a user's examples out, for good: their `user`, see `finetune.examples.layout`. How many there were."""
        theirs = np.asarray(self.examples["user"] == np.uint64(user))
        if (count := int(theirs.sum())) > 0:
            self._write(self._held[~theirs])
        return count

    def draw(self, count: int, seed: Sequence[int], *, before: int, without: NDArray[np.uint64]) -> Draw:
        """Up to `count` examples, none twice: as many of each age and class as there are, at most equally many.

        before: none with an event time after it, UTC ms. without: keys that are drawn from elsewhere.
        """
        usable = np.flatnonzero((self.examples["time"] <= before) & ~np.isin(self.examples["key"], without))
        examples, share = self.examples[usable], self.share[usable]
        rng = np.random.default_rng(seed)
        chosen, weight = [np.zeros(0, np.intp)], [np.zeros(0)]
        strata = self._strata(examples)
        names, inverse = np.unique(strata, return_inverse=True)
        sizes = np.bincount(inverse, minlength=len(names))
        taken = quotas(sizes, count)
        stands_for = np.bincount(inverse, 1 / share, minlength=len(names))
        for number, name in enumerate(names.tolist()):
            members = np.flatnonzero(inverse == number)
            chance = (1 / share[members]) / stands_for[number]
            chosen.append(rng.choice(members, int(taken[number]), replace=False, p=chance))
            same_age = names // 2 == name // 2
            natural = stands_for[number] / stands_for[same_age].sum()
            drawn = taken[number] / max(taken[same_age].sum(), 1)
            weight.append(np.full(taken[number], natural / max(drawn, 1e-12)))
        picked = np.concatenate(chosen)
        order = np.argsort(picked, kind="stable")
        weights = np.concatenate(weight)[order].astype(np.float32)
        return Draw(examples[picked[order]], weights)

    def _strata(self, examples: Examples) -> NDArray[np.int64]:
        """(N,) 2 * age + class. Age is counted from the newest example, in bins of 1, 1, 2, 4, … days."""
        if not len(examples):
            return np.zeros(0, np.int64)
        days = (examples["time"].max() - examples["time"]) / DAY_MS
        age = np.minimum(np.ceil(np.log2(np.maximum(days, 0.5)) + 1), AGES - 1).astype(np.int64)
        return np.asarray(2 * age + is_positive(self._task, examples), np.int64)

    def _thinned(self, examples: Examples, share: Chances) -> tuple[NDArray[np.intp], Chances]:
        """Numbers of the examples that stay, in their order, and the chances with which they are here now."""
        names, inverse = np.unique(self._strata(examples), return_inverse=True)
        rooms = quotas(np.bincount(inverse, minlength=len(names)), self.limit)
        luck = np.maximum(mixed(examples["key"], self._seed), np.uint64(1)) / 2.0**64
        stay, share = np.ones(len(examples), np.bool_), share.copy()
        for number, room in enumerate(rooms.tolist()):
            members = np.flatnonzero(inverse == number)
            if len(members) > room:
                order = members[np.lexsort((examples["key"][members], luck[members]))]
                stay[order[room:]] = False
                share[order[:room]] = np.minimum(share[order[:room]], luck[order[room]])
        kept = np.flatnonzero(stay)
        return kept, share[kept]

    # -- the folder

    def _open(self) -> None:
        path = self._folder / INDEX
        if not path.exists():
            return
        try:
            index: dict[str, Any] = json.loads(path.read_text("utf-8"))
            said = {name: index[name] for name in ("format", "task", "layout", "seed")}
            file, rows, sha256 = index["file"], int(index["rows"]), index["sha256"]
        except (OSError, ValueError, KeyError, TypeError) as error:
            raise self._unreadable(f"the index cannot be read: {error}") from error
        if said != self._about():
            differs = next(name for name, value in self._about().items() if said[name] != value)
            raise self._unreadable(f"{differs} is {said[differs]!r}", f"{self._about()[differs]!r}")
        self._held = self._mapped(self._folder / Path(file).name, rows, sha256)

    def _mapped(self, path: Path, rows: int, sha256: str) -> NDArray[np.void]:
        try:
            with path.open("rb") as file:
                found = hashlib.file_digest(file, "sha256").hexdigest()
        except OSError as error:
            raise self._unreadable(f"the rows cannot be read: {error}") from error
        if found != sha256:
            raise self._unreadable(f"sha256 {found} of {path.name}", sha256)
        return np.memmap(path, self._dtype, "r", shape=(rows,)) if rows else np.zeros(0, self._dtype)

    def _write(self, held: NDArray[np.void]) -> None:
        """Rows first, under a name of their own, then the index that names them; then the old rows go."""
        data = held.tobytes()
        sha256 = hashlib.sha256(data).hexdigest()
        rows = self._folder / f"rows-{sha256[:16]}.bin"
        index = self._about() | {"file": rows.name, "rows": len(held), "sha256": sha256}
        for path, content in ((rows, data), (self._folder / INDEX, json.dumps(index, indent=1).encode())):
            partial = path.with_name(f".{path.name}.partial")
            partial.write_bytes(content)
            sync(partial)
            os.replace(partial, path)
            sync(self._folder)
        self._held = self._mapped(rows, len(held), sha256)
        for old in (*self._folder.glob("rows-*.bin"), *self._folder.glob(".*.partial")):
            if old != rows:
                old.unlink(missing_ok=True)

    def _about(self) -> dict[str, Any]:
        described = hashlib.sha256(repr(self._dtype).encode()).hexdigest()[:16]
        return {"format": FORMAT, "task": self._task.name, "layout": described, "seed": self._seed}

    def _unreadable(self, what: str, expected: str = "") -> StateError:
        return StateError(
            what,
            where=f"reservoir {self._folder}",
            expected=expected or f"a reservoir of {self._task.name}, format {FORMAT}",
            todo="move the folder away: it fills up again from new examples",
        )


def quotas(sizes: NDArray[np.integer], total: int) -> NDArray[np.int64]:
    """How many each gets of `total`: equally many, but nobody more than its size; what is over goes to the first."""
    given = np.zeros(len(sizes), np.int64)
    left = min(total, int(sizes.sum()))
    while left > 0:
        open_ = np.flatnonzero(given < sizes)
        each = max(left // len(open_), 1)
        more = np.minimum(sizes[open_] - given[open_], each)
        more = np.minimum(more, np.maximum(left - np.cumsum(more) + more, 0))
        given[open_] += more
        left -= int(more.sum())
    return given


def mixed(keys: NDArray[np.uint64], seed: int) -> NDArray[np.uint64]:
    """(N,) a random number for each key (the finaliser of splitmix64): the same whenever it is asked."""
    one = keys.astype(np.uint64) + np.uint64((seed * 0x9E3779B97F4A7C15 + 0x632BE59BD9B4E019) % 2**64)
    one = (one ^ (one >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
    one = (one ^ (one >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
    return one ^ (one >> np.uint64(31))
