"""The commands of README and docs, run in their order as a newcomer would, on made-up photos."""

import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from bench.serving import free_port
from tests.support.photos import car_photo, write_gallery
from tests.support.servers import clean_environment

ROOT = Path(__file__).resolve().parents[2]
SET_UP = re.compile(r"^make (demo|train-demo|test)\b")  # these install and test everything; .ci/run runs them

RUN_S = 900
"""On a machine where others work too; alone the longest takes two minutes."""

pytestmark = pytest.mark.timeout(RUN_S + 20)
needs_curl = pytest.mark.skipif(shutil.which("curl") is None, reason="curl is not installed")


def commands(document: Path) -> list[str]:
    """The commands of a document's `sh` blocks, one a line, without comments."""
    blocks = re.findall(r"^```sh\n(.*?)^```", document.read_text(encoding="utf-8"), re.DOTALL | re.MULTILINE)
    lines = [line.strip() for block in blocks for line in block.splitlines()]
    return [line for line in lines if line and not line.startswith("#")]


def script(lines: list[str], port: int) -> str:
    """One shell script of the commands: the server in the background, curl failing on a status that is an error."""
    steps = ["set -euo pipefail"]
    for line in lines:
        step = line.replace("8000", str(port))
        step = step.replace("curl ", "curl --fail-with-body -sS ")
        step = "curl -o /dev/null ".join(step.rsplit("curl ", 1))  # what goes through a pipe is not printed
        if " serve " in f" {step} ":
            step = (
                f"{step} 2> server.log & server=$!\n"
                "trap 'kill $server; wait $server || true' EXIT\n"
                f"curl -sS --retry 60 --retry-delay 1 --retry-all-errors -f -o /dev/null http://127.0.0.1:{port}/readyz"
            )
        steps.append(step)
    return "\n".join(steps)


def run(lines: list[str], folder: Path) -> None:
    """Runs the commands in a folder and fails with what they printed."""
    environment = clean_environment()
    environment["PATH"] = f"{Path(sys.executable).parent}:{environment['PATH']}"
    environment["PYTHONPATH"] = str(ROOT)  # as in a checkout, where `python -m bench` is at hand
    environment["XDG_CACHE_HOME"] = str(folder / "cache")
    environment["KEY"] = "an-example-of-a-key"  # of a server that asks for none
    command = ["bash", "-c", script(lines, free_port())]
    done = subprocess.run(
        command, cwd=folder, env=environment, capture_output=True, text=True, timeout=RUN_S, check=False
    )
    assert done.returncode == 0, f"{done.stdout}\n{done.stderr}"


def write_sets(root: Path) -> None:
    """Photos to train on and photos of other classes to validate on."""
    write_gallery(root / "train", classes=4, photos=6)
    write_gallery(root / "val", classes=3, photos=4, first_kind=4)


@needs_curl
@pytest.mark.slow
@pytest.mark.torch
def test_every_command_of_the_readme_works(tmp_path: Path) -> None:
    write_gallery(tmp_path / "training-photos", classes=4, photos=6)
    write_gallery(tmp_path / "photos", classes=3, photos=4, first_kind=4)
    (tmp_path / "cars.csv").write_text(
        "File;Class;Price;Year\nphotos\\car 4\\0.jpg;Kia;5;2019\nphotos\\car 5\\0.jpg;;;\n"
    )
    (tmp_path / "unsorted").mkdir()
    for shot in range(2):
        (tmp_path / "unsorted" / f"{shot}.jpg").write_bytes(car_photo(4, shot))
    (tmp_path / "photo.jpg").write_bytes(car_photo(4, 9))
    shutil.make_archive(str(tmp_path / "photos"), "zip", tmp_path / "photos")
    lines = [line for line in commands(ROOT / "README.md") if not SET_UP.match(line)]
    lines = [f"{line} --epochs 1" if line.startswith("carsearch train") else line for line in lines]
    assert len(lines) >= 15
    run(lines, tmp_path)
    assert (tmp_path / "report.json").is_file()
    assert len((tmp_path / "predictions.txt").read_text().splitlines()) == 12


@pytest.mark.slow
@pytest.mark.torch
def test_the_commands_behind_the_results_work_on_fewer_photos_and_epochs(tmp_path: Path) -> None:
    write_sets(tmp_path / "shared" / "cars")
    (tmp_path / "project").mkdir()
    lines = [re.sub(r"--epochs \d+", "--epochs 1", line) for line in commands(ROOT / "docs" / "results.md")]
    assert any(line.startswith("carsearch train") for line in lines)
    run(lines, tmp_path / "project")


@pytest.mark.slow
def test_the_commands_about_galleries_work(tmp_path: Path) -> None:
    for name in ("photos", "unsorted", "makes"):
        write_gallery(tmp_path / name, classes=3, photos=2)
    run(commands(ROOT / "docs" / "galleries.md"), tmp_path)


@needs_curl
def test_the_ways_to_search_and_to_find_duplicates_over_http_work(tmp_path: Path) -> None:
    for name, kind in (("one", 1), ("two", 2)):
        (tmp_path / "photos" / name).mkdir(parents=True)
        for shot in range(3):
            (tmp_path / "photos" / name / f"{shot}.jpg").write_bytes(car_photo(kind, shot))
    (tmp_path / "photo.jpg").write_bytes(car_photo(1, 9))
    (tmp_path / "another.jpg").write_bytes(car_photo(2, 9))
    lines = commands(ROOT / "docs" / "api.md")
    assert len(lines) == 7
    run(["carsearch index photos", "carsearch serve --port 8000", *lines], tmp_path)


def test_no_other_document_has_commands() -> None:
    documents = [path.name for path in sorted(ROOT.glob("docs/*.md")) if commands(path)]
    # tests/deploy/ follows clients.md and deploy.md, tests/engines/ cluster.md
    assert documents == [
        "api.md",
        "benchmark.md",
        "clients.md",
        "cluster.md",
        "deploy.md",
        "galleries.md",
        "results.md",
    ]


def test_the_first_command_is_the_demo_and_the_readme_checks_it() -> None:
    lines = commands(ROOT / "README.md")
    assert lines[:2] == ["make demo", "carsearch demo --check"]


def test_the_set_up_is_the_commands_that_ci_runs() -> None:
    set_up = [line for line in commands(ROOT / "README.md") if SET_UP.match(line)]
    assert set_up == ["make demo", "make train-demo GALLERY=training-photos", "make test"]
    ci = (ROOT / ".ci" / "run").read_text()
    for command in ("make demo VENV=", "make train-demo GALLERY=", "make test "):
        assert f"\n{command}" in ci
