"""Rendered photos: the same bytes whoever takes them, and a folder that is finished whatever interrupts it."""

import io
import json
import os
from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from typer.testing import CliRunner

import bench.rendered_cars.render as rendering
import bench.rendered_cars.sheet as sheets
from bench.__main__ import app, main
from bench.rendered_cars.assembly import build
from bench.rendered_cars.catalogue import cars
from bench.rendered_cars.geometry import body_of
from bench.rendered_cars.light import lighting
from bench.rendered_cars.plan import HEADINGS, Shot, Time, shots
from bench.rendered_cars.render import RECORD_NAME, FolderTaken, Order, render, take_all
from bench.rendered_cars.studio import Studio, world
from model.dataset import read_items
from service.demo.gallery import DemoGallery

pytestmark = pytest.mark.slow
CARS = cars("test")


def some_shots() -> list[Shot]:
    """Two photos each of two cars, one of the four at night."""
    planned = shots(CARS, "test")
    by_car = [[shot for shot in planned if shot.car == car] for car in (0, 60)]
    night = next(shot for shot in by_car[0] if shot.time is Time.NIGHT)
    return [by_car[0][5], night, by_car[1][11], by_car[1][3]]


@pytest.fixture(scope="module")
def studio() -> Studio:
    return Studio()


def photo(studio: Studio, shot: Shot) -> bytes:
    studio.enter(build(CARS[shot.car], lamps_lit=shot.time is Time.NIGHT))
    return studio.photo(shot.heading, shot.time, shot.entropy(0))


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The four photos, taken by two processes; tests leave it as it was."""
    folder = tmp_path_factory.mktemp("rendered")
    assert take_all(CARS, some_shots(), 0, folder, workers=2) == 4
    return folder


def test_photos_are_those_that_ship(studio: Studio) -> None:
    """The renderer still makes the photos of the demo's gallery; another graphics library may differ a little."""
    planned = {shot.path: shot for shot in shots(CARS, "test")}
    paths = [path for path in sorted(DemoGallery.load().photos.rglob("*.jpg")) if "-night" in path.name][:1]
    paths += [path for path in sorted(DemoGallery.load().photos.rglob("*.jpg")) if "-noon" in path.name][-1:]
    assert len(paths) == 2
    for path in paths:
        shot = planned[f"{path.parent.name}/{path.name}"]
        rendered, shipped = (
            np.asarray(Image.open(io.BytesIO(data)), np.int16) for data in (photo(studio, shot), path.read_bytes())
        )
        assert np.abs(rendered - shipped).mean() < 0.5


def test_a_photo_is_a_jpeg_of_512_by_384(folder: Path) -> None:
    for shot in some_shots():
        data = (folder / shot.path).read_bytes()
        image = Image.open(io.BytesIO(data))
        assert (image.format, image.size, image.mode) == ("JPEG", (512, 384), "RGB")
        assert 20_000 < len(data) < 45_000


def test_bytes_depend_neither_on_the_process_nor_on_what_was_taken_before(folder: Path, studio: Studio) -> None:
    for shot in reversed(some_shots()):
        assert photo(studio, shot) == (folder / shot.path).read_bytes()


def test_a_finished_folder_is_left_alone_and_a_broken_one_is_mended(folder: Path) -> None:
    planned = some_shots()
    paths = [folder / shot.path for shot in planned]
    before = {path: (path.read_bytes(), path.stat().st_mtime_ns) for path in paths}
    assert take_all(CARS, planned, 0, folder) == 0
    paths[2].unlink()  # as a kill leaves it: not there, but begun
    paths[2].with_name(f".{paths[2].name}{rendering.PARTIAL_SUFFIX}").write_bytes(b"half a photo")
    told: list[tuple[int, int]] = []
    assert take_all(CARS, planned, 0, folder, progress=lambda done, total: told.append((done, total))) == 1
    assert told == [(3, 4), (4, 4)]
    assert [path.read_bytes() for path in paths] == [before[path][0] for path in paths]
    assert [path.stat().st_mtime_ns == before[path][1] for path in paths] == [True, True, False, True]
    assert not [path for path in folder.rglob("*") if path.name.endswith(rendering.PARTIAL_SUFFIX)]


def test_night_is_darker_than_noon(studio: Studio) -> None:
    def brightness(time: Time) -> float:
        studio.enter(build(CARS[7], lamps_lit=time is Time.NIGHT))
        photos = [studio.photo(heading, time, (9, heading)) for heading in (30, 150, 270)]
        return float(np.mean([np.asarray(Image.open(io.BytesIO(data)).convert("L")).mean() for data in photos]))

    assert brightness(Time.NIGHT) < 0.75 * brightness(Time.NOON)


@pytest.mark.parametrize("time", list(Time))
def test_the_car_fills_the_frame_and_stays_in_it(time: Time) -> None:
    body = body_of(build(CARS[0], lamps_lit=False))
    for heading in HEADINGS:
        camera = world(np.random.default_rng((1, heading)), heading, time, body.points).camera
        assert 2 < camera.eye[2] < 5
        x, y, depth = camera.project(body.points)
        assert depth.min() > 1
        assert 0.45 < max(np.ptp(x), np.ptp(y)) < 0.75
        assert min(x.min(), y.min(), 1 - x.max(), 1 - y.max()) > 0


@pytest.mark.parametrize("time", list(Time))
def test_light_is_finite_and_the_sun_is_up(time: Time) -> None:
    for number in range(12):
        light = lighting(np.random.default_rng(number), time, 1.0)
        assert np.isfinite(light.sky).all()
        assert light.sky.min() >= 0
        assert all(source.place[2] > 1 for source in light.lights)
        assert light.lamps_lit is light.dark is (time is Time.NIGHT)


def test_a_folder_belongs_to_one_benchmark(tmp_path: Path, folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    planned = some_shots()
    for shot in planned:  # as if they had been rendered here
        rendering.write_whole(tmp_path / shot.path, (folder / shot.path).read_bytes())
    with pytest.raises(FolderTaken, match="something else"):
        render(Order("test", 0, 0.3, 1.0), tmp_path)
    monkeypatch.setattr(rendering, "shots", lambda *_: planned)
    (tmp_path / RECORD_NAME).write_text(
        json.dumps(
            {"renderer": rendering.RENDERER, "split": "test", "seed": 0, "likeness": 0.3, "scale": 0.1, "photos": 3}
        )
    )
    assert render(Order("test", 0, 0.3, 0.2), tmp_path).made == 0  # a larger scale goes on
    record = json.loads((tmp_path / RECORD_NAME).read_text(encoding="utf-8"))
    assert (record["photos"], record["scale"], record["renderer"]) == (4, 0.2, rendering.RENDERER)
    for other in (Order("test", 1, 0.3, 0.2), Order("test", 0, 0.4, 0.2), Order("train", 0, 0.3, 0.2)):
        with pytest.raises(FolderTaken, match="name another folder"):
            render(other, tmp_path)
    monkeypatch.setattr(rendering, "shots", lambda *_: planned[:2])
    with pytest.raises(FolderTaken, match=r"scale 0\.2 already"):
        render(Order("test", 0, 0.3, 0.1), tmp_path)


def test_the_command_renders_a_set_that_reads_as_class_folders(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    planned = some_shots()[1:3]
    monkeypatch.setattr(rendering, "shots", lambda *_: planned)
    before = dict(os.environ)
    result = CliRunner().invoke(app, ["render", "--split", "test", "--out", str(tmp_path / "set"), "--workers", "2"])
    assert result.exit_code == 0, result.output
    assert "2 photos of 2 cars, 78 classes (2 new" in result.stdout
    assert dict(os.environ) == before
    found = read_items(tmp_path / "set")
    assert found.skipped == []
    assert {item.label for item in found.items} == {CARS[shot.car].name for shot in planned}


def test_a_wrong_scale_is_one_sentence(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    for value in ("1.5", "0", "nan"):
        command = ["bench", "render", "--split", "test", "--out", str(tmp_path / "set"), "--scale", value]
        monkeypatch.setattr("sys.argv", command)
        with pytest.raises(SystemExit) as stopped:
            main()
        assert stopped.value.code == 1
        said = capsys.readouterr().err
        assert said.startswith(f"error: --scale is {float(value)}")
        assert said.count("\n") == 1
    assert not (tmp_path / "set").exists()


def test_a_contact_sheet_is_small(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sheets, "COLUMNS", 2)
    monkeypatch.setattr(sheets, "ROWS", 1)
    result = CliRunner().invoke(app, ["sheet", "--out", str(tmp_path / "sheet.jpg"), "--split", "test"])
    assert result.exit_code == 0, result.output
    with Image.open(tmp_path / "sheet.jpg") as image:
        assert (image.format, image.size) == ("JPEG", (512, 192))
