"""What is shipped agrees with itself: versions, constraints, changelog, packages."""

import json
import re
import shutil
import subprocess
import sys
import tomllib
import zipfile
from importlib.metadata import version
from pathlib import Path

import pytest
from packaging.version import Version

from bench.demo_gallery import MAX_BYTES
from bench.model_md import DESCRIPTION_NAME, describe
from bench.rendered_cars.catalogue import cars
from model.card import CARD_NAME, load_card, verify_artifact
from model.dataset import read_items
from model.embedder import DEFAULT_MODEL
from model.names import normalise_label
from model.storage import sha256_file
from service.demo.command import MODEL as DEMO_MODEL
from service.demo.gallery import CONTENTS_NAME, DemoGallery
from tests.conftest import CARS

ROOT = Path(__file__).resolve().parents[2]
PACKAGES = ("carsearch", "model", "indexer", "service")
PRETRAINED = ROOT / "model" / "pretrained"
MAX_PRETRAINED_BYTES = 60_000_000
PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]

FLOORS = {
    "pillow": "12.3.0",
    "starlette": "1.3.1",
    "python-multipart": "0.0.31",
    "uvicorn": "0.51.0",
    "faiss-cpu": "1.15.0",
    "faiss-gpu-cuvs": "1.15.0",
}
"""Before these there are known ways in: through a decoder, the forms, the files of an index; or lost requests."""


def name_of(requirement: str) -> str:
    """The package that a requirement names, normalised."""
    return re.split(r"[\[<>=!~; ]", requirement, maxsplit=1)[0].lower().replace("_", "-")


def constraints() -> dict[str, str]:
    """Package -> the version that CI and images install."""
    lines = [line for line in (ROOT / "constraints.txt").read_text().splitlines() if line and not line.startswith("#")]
    return {name_of(line): line.partition("==")[2] for line in lines}


def test_everything_the_project_asks_for_is_pinned() -> None:
    extras = PROJECT["optional-dependencies"].values()
    asked = {name_of(requirement) for group in (PROJECT["dependencies"], *extras) for requirement in group}
    assert asked <= constraints().keys()


@pytest.mark.parametrize(("package", "floor"), FLOORS.items())
def test_versions_with_known_vulnerabilities_are_neither_allowed_nor_pinned_nor_installed(
    package: str, floor: str
) -> None:
    extras = PROJECT["optional-dependencies"].values()
    asked = [one for group in (PROJECT["dependencies"], *extras) for one in group if name_of(one) == package]
    assert asked
    assert all(Version(re.split("[,;]", one.rpartition(">=")[2])[0]) >= Version(floor) for one in asked)
    assert Version(constraints()[package]) >= Version(floor)
    if package != "faiss-gpu-cuvs":  # where there is a GPU, instead of faiss-cpu
        assert Version(version(package)) >= Version(floor)


@pytest.mark.slow
def test_the_audit_reads_every_pinned_version(tmp_path: Path) -> None:
    """As `make audit` calls it, but without asking anybody."""
    told = subprocess.run(["make", "-n", "audit", f"VENV={sys.prefix}"], cwd=ROOT, check=True, capture_output=True)
    command = next(line for line in told.stdout.decode().splitlines() if "pip-audit" in line).split()
    collected = subprocess.run(
        [sys.executable, "-m", "pip_audit", *command[1:], "--dry-run", "--verbose", f"--cache-dir={tmp_path}"],
        cwd=ROOT, capture_output=True, text=True, check=False,
    )  # fmt: skip
    assert collected.returncode == 0, collected.stderr
    assert f"would have audited {len(constraints())} packages" in collected.stderr


def test_constraints_are_names_and_versions_and_nothing_else() -> None:
    assert all(re.fullmatch(r"[\d.]+(post\d+|b\d+)?", version) for version in constraints().values())


def test_the_slim_install_asks_for_no_torch() -> None:
    slim = {name_of(requirement) for requirement in PROJECT["dependencies"] + PROJECT["optional-dependencies"]["cpu"]}
    assert slim.isdisjoint({"torch", "torchvision", "lightning"})


def test_the_changelog_speaks_of_this_version() -> None:
    newest = re.search(r"^## (\S+)", (ROOT / "CHANGELOG.md").read_text(), re.MULTILINE)
    assert newest is not None
    assert newest[1] == PROJECT["version"]


def files_of(folder: Path) -> list[Path]:
    """Every file below a folder but what Python leaves behind."""
    return [path for path in sorted(folder.rglob("*")) if path.is_file() and path.parent.name != "__pycache__"]


def size_of(folder: Path) -> int:
    """Bytes of all files below a folder."""
    return sum(path.stat().st_size for path in files_of(folder))


def shipped_models() -> list[str]:
    """Names of the models that ship."""
    return [path.name for path in sorted(PRETRAINED.iterdir())] if PRETRAINED.is_dir() else []


@pytest.fixture(scope="module")
def wheel(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The wheel, built from the checkout by the tools at hand."""
    folder = tmp_path_factory.mktemp("wheel")
    source = folder / "source"  # a copy: building leaves files behind, and takes what an earlier build left
    for package in (*PACKAGES, "bench"):
        shutil.copytree(ROOT / package, source / package, ignore=shutil.ignore_patterns("__pycache__"))
    for name in ("pyproject.toml", "README.md", "LICENSE"):
        shutil.copy(ROOT / name, source)
    command = [
        sys.executable,
        "-m",
        "pip",
        "wheel",
        "-q",
        "--no-deps",
        "--no-build-isolation",
        "-w",
        str(folder),
        str(source),
    ]
    subprocess.run(command, check=True, capture_output=True)
    return next(folder.glob("*.whl"))


def test_the_wheel_holds_every_file_of_the_packages_and_no_other(wheel: Path) -> None:
    """Modules, recipes, the models that ship with their cards, the demo's gallery and its queries."""
    packed = {name for name in zipfile.ZipFile(wheel).namelist() if ".dist-info/" not in name}
    assert packed == {str(path.relative_to(ROOT)) for package in PACKAGES for path in files_of(ROOT / package)}


def test_bench_is_a_checkout_s_and_not_the_wheel_s(wheel: Path) -> None:
    archive = zipfile.ZipFile(wheel)
    assert not [name for name in archive.namelist() if name.startswith("bench/")]
    (entry_points,) = (name for name in archive.namelist() if name.endswith("entry_points.txt"))
    assert archive.read(entry_points).decode().split() == [
        "[console_scripts]",
        "carsearch",
        "=",
        "carsearch.__main__:main",
    ]
    helped = subprocess.run([sys.executable, "-m", "bench", "--help"], cwd=ROOT, capture_output=True, check=True)
    assert b"python -m bench" in helped.stdout


def test_the_models_that_ship_are_whole_and_small() -> None:
    assert {DEMO_MODEL, DEFAULT_MODEL} <= set(shipped_models())
    for name in shipped_models():
        card = verify_artifact(PRETRAINED / name)
        packed = {str(path.relative_to(PRETRAINED / name)) for path in files_of(PRETRAINED / name)}
        assert packed == {CARD_NAME, DESCRIPTION_NAME, *card.files}
        assert (PRETRAINED / name / DESCRIPTION_NAME).read_text() == describe(card)
    assert size_of(PRETRAINED) <= MAX_PRETRAINED_BYTES


def test_the_demo_s_gallery_ships_and_is_whole_and_small() -> None:
    gallery = DemoGallery.load()
    directory = gallery.directory
    assert 240 <= len(list(directory.glob("gallery/*/*.jpg"))) <= 320
    assert 3 <= len(gallery.queries) <= 5
    recorded = json.loads((directory / CONTENTS_NAME).read_text())["files"]
    assert {str(path.relative_to(directory)) for path in files_of(directory)} == {CONTENTS_NAME, *recorded}
    assert size_of(directory) <= MAX_BYTES == 12_000_000


def test_the_demo_s_gallery_shows_names_that_no_network_was_trained_on() -> None:
    gallery = DemoGallery.load()
    seed = json.loads((gallery.directory / CONTENTS_NAME).read_text())["rendered"]["seed"]
    train, test = ({car.name for car in cars(split, seed)} for split in ("train", "test"))
    shown = {normalise_label(path.name) for path in gallery.photos.iterdir()}
    assert {query.label for query in gallery.queries} <= shown <= test
    assert shown.isdisjoint(train)


def learned_classes(name: str) -> set[str]:
    """All classes that any part of a model has seen, by its card: weights, whitening, car head and quantisation."""
    card = load_card(PRETRAINED / name)
    labels = card.training["labels"]
    fitted = [*card.calibration, *(one for one in (card.whitening, card.car_head) if one is not None)]
    return {*labels["train"], *labels["earlier"]}.union(*(one.labels for one in fitted))


@pytest.mark.parametrize("name", shipped_models())
def test_no_class_that_is_scored_reached_a_model_that_ships(name: str) -> None:
    learned = learned_classes(name)
    assert len(learned) >= 70
    assert learned.isdisjoint(car.name for car in cars("test"))
    assert learned.isdisjoint(load_card(PRETRAINED / name).training["labels"]["validation"])


@pytest.mark.parametrize("name", shipped_models())
def test_no_held_out_class_of_real_cars_reached_a_model_that_ships(name: str) -> None:
    if not CARS.is_dir():
        pytest.skip("the real photos (../shared/cars) are not here")
    held_out = {item.label for item in read_items(CARS / "val").items}
    assert len(held_out) == 28
    assert learned_classes(name).isdisjoint(held_out)
    assert held_out == set(load_card(PRETRAINED / name).training["labels"]["validation"])


def test_no_query_is_in_the_demo_s_gallery() -> None:
    gallery = DemoGallery.load()
    shown = {sha256_file(path) for path in files_of(gallery.photos)}
    assert shown.isdisjoint(sha256_file(gallery.directory / query.file) for query in gallery.queries)
    assert not any((gallery.photos / query.photo).exists() for query in gallery.queries)
