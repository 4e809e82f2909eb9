"""What `make bench-shops` sets up: two shops on one bed that can live beside each other, with the shares asked for."""

from pathlib import Path

from bench.shops import BUSY, NAMES, QUIET, Nothing, of, write
from streams.config import Settings
from streams.shops.plan import apart, shop_of


def test_the_two_shops_of_the_benchmark_are_apart_and_have_the_shares_asked_for(tmp_path: Path) -> None:
    bed = Settings(data_dir=tmp_path / "run", release_store=str(tmp_path / "releases"))
    file = write(bed, {QUIET: 3.0, BUSY: 1.0})
    quiet, busy = (of(file, name) for name in NAMES)
    assert (quiet.share, busy.share) == (3.0, 1.0)
    assert quiet.data_dir != busy.data_dir
    assert quiet.release_store != busy.release_store
    assert set(quiet.topics.inputs).isdisjoint(busy.topics.inputs)
    apart(map(shop_of, (quiet, busy)), quiet.shops_web)


def test_without_shares_nobody_is_told_anything() -> None:
    assert Nothing().keep("north", 1, 3.0, 3.0) == "not kept"
