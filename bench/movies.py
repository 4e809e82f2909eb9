"""MovieLens-1M as sequences and a catalogue: each rating is an event, its kind the stars, its item the film's text.
Events of equal time stay in the file's order, as every published figure has it.
"""

import csv
from pathlib import Path

import numpy as np

from finetune.sequences import Sequences
from streams.catalog import Catalogue
from streams.demo.models import text_encoder
from streams.sources.fetch import cache_folder, fetch
from streams.vectors import catalogue_vectors


def load() -> tuple[Sequences, Catalogue]:
    """6,040 users' ratings in order of time, and 3,706 films (row 0 is none). Raises DataUnavailable."""
    folder = fetch("ml-1m")
    users, films, stars, times = zip(*_rows(folder / "ml-1m.inter"), strict=True)
    catalog = _catalogue(folder / "ml-1m.item", sorted(set(films)))
    _, user = np.unique(np.array(users), return_inverse=True)
    time = np.array(times, np.float64).astype(np.int64) * 1000
    order = np.lexsort((np.arange(len(time)), time, user))
    item = np.array([catalog.items[film] for film in films], np.int32)
    ones = np.zeros(len(time), np.float32)
    start = np.concatenate([[0], np.cumsum(np.bincount(user))]).astype(np.int64)
    kind = np.array(stars, np.float32).astype(np.uint8)
    return Sequences(start, item[order], kind[order], time[order], ones, ones), catalog


def _rows(path: Path) -> list[list[str]]:
    with path.open(encoding="utf-8", newline="") as file:
        return list(csv.reader(file, delimiter="\t", quoting=csv.QUOTE_NONE))[1:]


def _catalogue(path: Path, films: list[str]) -> Catalogue:
    about = {film: f"{title} ({year}): {genres}" for film, title, year, genres in _rows(path)}
    items = [{"item_id": film, "text": about.get(film, film)} for film in films]
    catalog = Catalogue()
    for record in catalogue_vectors(items, [], text_encoder(cache_folder())):
        catalog.apply_vector(record)
    return catalog
