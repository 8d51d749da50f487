"""The demo's gallery is chosen out of a rendered test split: evenly, the same each time, and from nothing else."""

import json
from pathlib import Path

import pytest

from bench.demo_gallery import Chosen, DemoGalleryRefused, choose
from bench.rendered_cars.catalogue import Car, cars
from bench.rendered_cars.plan import HEADINGS, TIMES, shots
from bench.rendered_cars.render import RECORD_NAME
from model.storage import sha256_file
from service.demo.gallery import CONTENTS_NAME, DemoGallery


def write_rendered(root: Path, catalogue: list[Car], scale: float = 1.0, recorded_split: str = "test") -> Path:
    """A folder with the names of a rendered test split and, for photos, a few bytes each; no cars, no photos."""
    root.mkdir(exist_ok=True)
    for shot in shots(catalogue, "test", scale=scale) if catalogue else []:
        (root / shot.path).parent.mkdir(parents=True, exist_ok=True)
        (root / shot.path).write_bytes(shot.path.encode())
    record = {"renderer": 1, "split": recorded_split, "seed": 0, "likeness": 0.3, "scale": scale}
    (root / RECORD_NAME).write_text(json.dumps(record))
    return root


@pytest.fixture(scope="module")
def catalogue() -> list[Car]:
    """The cars of the test split."""
    return cars("test")


@pytest.fixture(scope="module")
def rendered(tmp_path_factory: pytest.TempPathFactory, catalogue: list[Car]) -> Path:
    """The whole test split by name; read only."""
    return write_rendered(tmp_path_factory.mktemp("rendered"), catalogue)


@pytest.fixture(scope="module")
def chosen(tmp_path_factory: pytest.TempPathFactory, rendered: Path) -> tuple[Chosen, Path]:
    """What is chosen of it when nothing else is asked for, and where it is."""
    out = tmp_path_factory.mktemp("chosen")
    return choose(rendered, out), out


def car_of(path: Path) -> str:
    return path.stem.rsplit("-", 3)[1]


def heading_of(path: Path) -> int:
    return int(path.stem.rsplit("-", 2)[1])


def test_a_few_hundred_photos_of_names_with_several_cars_are_chosen(chosen: tuple[Chosen, Path]) -> None:
    shipped, out = chosen
    folders = list((out / "gallery").iterdir())
    assert shipped.classes == len(folders) == 24
    assert 240 <= shipped.photos == len(list((out / "gallery").glob("*/*.jpg"))) <= 320
    for folder in folders:
        numbers = [car_of(path) for path in folder.iterdir()]
        counts = {numbers.count(number) for number in numbers}
        assert len(set(numbers)) >= 2
        assert max(counts) - min(counts) <= 1
    assert shipped.bytes == sum(path.stat().st_size for path in out.rglob("*") if path.is_file())


def test_headings_and_times_are_spread_evenly(chosen: tuple[Chosen, Path]) -> None:
    photos = list((chosen[1] / "gallery").glob("*/*.jpg"))
    assert {heading_of(path) for path in photos} == set(HEADINGS)
    times = [path.stem.rsplit("-", 1)[1] for path in photos]
    assert all(abs(times.count(time) / len(photos) - 1 / len(TIMES)) < 0.05 for time in TIMES)
    for car in {car_of(path) for path in photos}:
        around = sorted(heading_of(path) for path in photos if car_of(path) == car)
        gaps = [(after - before) % 360 for before, after in zip(around, [*around[1:], around[0]], strict=True)]
        assert max(gaps) - min(gaps) <= 30


def test_a_query_is_another_photo_of_a_car_that_the_gallery_has(chosen: tuple[Chosen, Path], rendered: Path) -> None:
    _, out = chosen
    queries = DemoGallery.load(out).queries
    assert 3 <= len(queries) <= 5
    assert len({query.label for query in queries}) == len(queries)
    shipped = {sha256_file(path) for path in (out / "gallery").rglob("*.jpg")}
    for query in queries:
        assert (out / query.file).read_bytes() == (rendered / query.photo).read_bytes()
        assert sha256_file(out / query.file) not in shipped
        assert car_of(Path(query.photo)) in {car_of(path) for path in (out / "gallery" / query.label).iterdir()}


def test_the_choice_is_the_same_each_time_and_replaces_the_one_before(
    chosen: tuple[Chosen, Path], rendered: Path, tmp_path: Path
) -> None:
    choose(rendered, tmp_path / "out", classes=5)
    assert choose(rendered, tmp_path / "out") == chosen[0]
    assert (tmp_path / "out" / CONTENTS_NAME).read_bytes() == (chosen[1] / CONTENTS_NAME).read_bytes()


def test_a_fraction_of_the_split_is_enough(catalogue: list[Car], tmp_path: Path) -> None:
    assert choose(write_rendered(tmp_path / "rendered", catalogue, scale=0.2), tmp_path / "out").photos >= 240


def test_names_with_one_car_fill_up_what_is_missing(catalogue: list[Car], rendered: Path, tmp_path: Path) -> None:
    shipped = choose(rendered, tmp_path / "out", classes=78, photos_a_class=4)
    assert (shipped.classes, shipped.photos, shipped.cars) == (78, 4 * 78, len(catalogue))


def test_a_folder_that_may_not_be_chosen_from_is_refused(catalogue: list[Car], tmp_path: Path) -> None:
    def refused(rendered: Path, words: str) -> None:
        with pytest.raises(DemoGalleryRefused, match=words):
            choose(rendered, tmp_path / "out")
        assert not (tmp_path / "out").exists()

    (tmp_path / "photos").mkdir()
    refused(tmp_path / "photos", "was not made by `python -m bench render`")
    refused(write_rendered(tmp_path / "train", catalogue[:0], recorded_split="train"), "is not a rendered test split")
    refused(write_rendered(tmp_path / "few", catalogue[:0]), "has 0 names and 24 are wanted")
    for name, words in (
        ("아반떼/HD-red-000-000-noon.jpg", '"아반떼" in .* is not a name'),
        ("a/b.jpg", "is not named like"),
    ):
        other = write_rendered(tmp_path / name.partition("/")[0], catalogue, scale=0.02)
        (other / name).parent.mkdir()
        (other / name).write_bytes(b"photo")
        refused(other, words)


def test_a_folder_with_something_else_in_it_is_left_as_it_is(rendered: Path, tmp_path: Path) -> None:
    (tmp_path / "mine.txt").write_text("mine")
    with pytest.raises(DemoGalleryRefused, match="holds something else"):
        choose(rendered, tmp_path)
    assert (tmp_path / "mine.txt").read_text() == "mine"


def test_a_gallery_that_is_too_large_or_takes_every_photo_is_refused(rendered: Path, tmp_path: Path) -> None:
    with pytest.raises(DemoGalleryRefused, match="bytes and may have 1000"):
        choose(rendered, tmp_path / "large", max_bytes=1000)
    with pytest.raises(DemoGalleryRefused, match="are in the gallery; choose fewer"):
        choose(rendered, tmp_path / "all", photos_a_class=1000)
