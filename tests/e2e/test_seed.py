"""`carsearch demo --seed`: what fills the index of a deployment's first start, and never touches one that is there."""

from collections.abc import Callable
from pathlib import Path

import pytest

from bench.demo_gallery import write_contents
from indexer.build import build_index
from indexer.versions import CURRENT_NAME, IndexDirectory
from model.embedder import Embedder
from service.demo import command as demo
from service.demo import gallery as demo_gallery
from service.demo.gallery import Query
from tests.conftest import Printed
from tests.support.calls import search
from tests.support.old_release import of_an_earlier_release
from tests.support.photos import car_photo, write_gallery
from tests.support.servers import running_server

pytestmark = pytest.mark.e2e

Carsearch = Callable[..., Printed]


@pytest.fixture
def ships(tmp_path: Path, real_model: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A small gallery in place of the one that ships, and the small model."""
    gallery = tmp_path / "ships"
    write_gallery(gallery / "gallery")
    (gallery / "queries").mkdir()
    (gallery / "queries" / "1.jpg").write_bytes(car_photo(1, 9))
    write_contents(gallery, [Query("queries/1.jpg", "car 1", "9.jpg")], {})
    monkeypatch.setattr(demo, "MODEL", str(real_model))
    monkeypatch.setattr(demo_gallery, "shipped_directory", lambda: gallery)
    return gallery


def test_an_empty_volume_gets_the_demo_s_index_and_a_server_serves_it(
    ships: Path, tmp_path: Path, carsearch: Carsearch
) -> None:
    del ships
    volume = tmp_path / "index"
    volume.mkdir()
    seeded = carsearch("demo", "--seed", volume)
    assert seeded.returncode == 0, seeded.stderr
    assert "12 rendered photos of 3 classes, 12 embedded" in seeded.stdout
    with running_server(volume, tmp_path / "log") as server:
        answer = search(server, car_photo(1, 9))
        assert answer["nearest"]["class"] == "car 1"
        assert server.client.get(answer["nearest"]["image"]).status_code == 200
    before = (volume / CURRENT_NAME).read_bytes()
    again = carsearch("demo", "--seed", volume)
    assert (again.returncode, again.stdout) == (0, f"{volume} has an index; it is left as it is.\n")
    assert (volume / CURRENT_NAME).read_bytes() == before


def test_an_operator_s_own_index_is_left_as_it_is(
    ships: Path, tmp_path: Path, real_embedder: Embedder, carsearch: Carsearch
) -> None:
    del ships
    index = IndexDirectory(tmp_path / "index")
    version = build_index(write_gallery(tmp_path / "own", classes=2), index, real_embedder).version
    assert carsearch("demo", "--seed", index.root).returncode == 0
    assert (index.current(), [one.name for one in (index.root / "versions").iterdir()]) == (version, [version])


def test_a_demo_index_of_an_earlier_release_is_replaced_and_one_of_an_operator_is_not(
    ships: Path, tmp_path: Path, real_embedder: Embedder, carsearch: Carsearch
) -> None:
    """Their models name the decoder of that release; whoever has photos of their own decides when to index them."""
    volume, own = IndexDirectory(tmp_path / "volume"), IndexDirectory(tmp_path / "own-index")
    assert carsearch("demo", "--seed", volume.root).returncode == 0
    build_index(write_gallery(tmp_path / "own", classes=2), own, real_embedder)
    for index in (volume, own):
        of_an_earlier_release(index)
    old = volume.current()
    seeded = carsearch("demo", "--seed", volume.root)
    assert "12 rendered photos of 3 classes, 12 embedded" in seeded.stdout
    assert volume.current() != old
    with running_server(volume.root, tmp_path / "log") as server:
        assert search(server, car_photo(1, 9))["nearest"]["class"] == "car 1"
    assert "it is left as it is" in carsearch("demo", "--seed", own.root).stdout
    del ships


def test_a_damaged_index_is_left_to_its_operator(ships: Path, tmp_path: Path, carsearch: Carsearch) -> None:
    del ships
    (tmp_path / CURRENT_NAME).write_text("nothing of this name\n")
    assert "it is left as it is" in carsearch("demo", "--seed", tmp_path).stdout
    assert (tmp_path / CURRENT_NAME).read_text() == "nothing of this name\n"


def test_a_volume_that_cannot_be_written_is_told(ships: Path, tmp_path: Path, carsearch: Carsearch) -> None:
    del ships
    (tmp_path / "file").write_text("no directory")
    told = carsearch("demo", "--seed", tmp_path / "file")
    assert told.returncode == 1
    assert told.stderr == f"error: {tmp_path / 'file'}: File exists.\n"
