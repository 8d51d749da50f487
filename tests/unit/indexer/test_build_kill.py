"""kill -9 of an index build at any moment: CURRENT stays on a whole version, and the next run finishes the work."""

import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from random import Random
from typing import Any

import pytest

from indexer.build import build_index
from indexer.versions import CURRENT_NAME, IndexDirectory
from model.embedder import Embedder
from model.runtimes.fake import FakeRuntime
from tests.conftest import write_fake_model
from tests.support.servers import clean_environment, run_cli
from tests.unit.indexer.sets import assert_clean, content_of, ordered_builds, write_photos

pytestmark = pytest.mark.slow
OLD = ["a/0.jpg", "a/1.jpg", "b/0.jpg"]
NEW = [*OLD, "b/1.jpg", "c/0.jpg"]
MANY = [f"{label}/{shot}.jpg" for label in "abcde" for shot in range(16)]

Killed = Callable[..., dict[str, Any]]


@pytest.fixture(scope="module")
def killed(fake_model: Path) -> Iterator[Killed]:
    """Builds an index in a child process that dies just before step `last`; 0 lets it finish."""
    with ordered_builds(fake_model) as order:

        def build(photos: Path, index: IndexDirectory, model: Path, keep: int = 1, last: int = 0) -> dict[str, Any]:
            names = {"photos": str(photos), "index": str(index.root), "model": str(model)}
            answer = order({**names, "keep": keep, "last": last})
            assert answer["signal"] == (signal.SIGKILL if last else 0)
            return answer

        yield build


@dataclass(frozen=True)
class Scenario:
    """A build to be killed: the index directory before it, the photos, the model, and what it must come to."""

    before: IndexDirectory
    photos: Path
    model: Path
    finished: IndexDirectory


def scenario(kind: str, root: Path, fake_model: Path) -> Scenario:
    """A first build; a build after photos were added; a build with another model."""
    before, finished = IndexDirectory(root / "before"), IndexDirectory(root / "finished")
    before.root.mkdir()
    first = Embedder.load(fake_model, "fake")
    if kind != "first build":
        build_index(write_photos(root / "old", OLD), before, first)
    model = write_fake_model(root / "other", dim=16) if kind == "another model" else fake_model
    photos = write_photos(root / "photos", NEW)
    build_index(photos, finished, Embedder.load(model, "fake"))
    return Scenario(before, photos, model, finished)


def current_of(index: IndexDirectory) -> str | None:
    return index.current() if (index.root / CURRENT_NAME).exists() else None


@pytest.mark.parametrize("kind", ["first build", "more photos", "another model"])
def test_a_kill_at_any_step_leaves_a_whole_version_and_the_next_run_finishes(
    kind: str, killed: Killed, fake_model: Path, tmp_path: Path
) -> None:
    case = scenario(kind, tmp_path, fake_model)
    embedder = Embedder.load(case.model, "fake")
    old, wanted = current_of(case.before), content_of(case.finished)
    counted = IndexDirectory(Path(shutil.copytree(case.before.root, tmp_path / "counted")))
    steps = killed(case.photos, counted, case.model)["steps"]
    assert len(steps) > 30
    assert {"fsync", "rename", "replace", "after add", "rmdir", "end"} <= set(steps)

    left = set()
    for last in range(1, len(steps) + 1):
        index = IndexDirectory(Path(shutil.copytree(case.before.root, tmp_path / "index")))
        assert killed(case.photos, index, case.model, last=last)["steps"] == steps[:last]

        current = current_of(index)
        assert current is not None or old is None
        for version in index.versions():
            index.verify(version)
        if current is not None:
            assert current in index.versions()
            if current != old:
                assert content_of(index) == wanted
        left.add(current == old)

        result = build_index(case.photos, index, embedder, keep=1)
        assert result.photos == len(NEW)
        assert content_of(index) == wanted
        assert_clean(index)
        assert index.versions() == [result.version]
        shutil.rmtree(index.root)
    assert left == {True, False}


def test_a_kill_while_embedding_costs_at_most_one_batch(killed: Killed, fake_model: Path, tmp_path: Path) -> None:
    photos = write_photos(tmp_path / "photos", MANY)
    embedder = Embedder.load(fake_model, "fake")
    steps = killed(photos, IndexDirectory(tmp_path / "counted"), fake_model)["steps"]
    places = [number for number, name in enumerate(steps, 1) if name.endswith(("embed", "add"))]
    assert len(places) == 4 * 3  # 80 photos are three batches
    again = []
    for last in places:
        index = IndexDirectory(tmp_path / str(last))
        before = killed(photos, index, fake_model, last=last)["embedded"]
        after = build_index(photos, index, embedder).embedded
        assert len(MANY) <= before + after <= len(MANY) + FakeRuntime.batch
        again.append(before + after - len(MANY))
    assert again == [0, 32, 32, 0, 0, 32, 32, 0, 0, 16, 16, 0]


def test_one_run_killed_again_and_again_still_ends(killed: Killed, fake_model: Path, tmp_path: Path) -> None:
    photos, index = write_photos(tmp_path / "photos", MANY), IndexDirectory(tmp_path / "index")
    embedded = 0
    for last in (5, 9, 13, 17, 21):
        embedded += killed(photos, index, fake_model, last=last)["embedded"]
    assert (
        embedded + build_index(photos, index, Embedder.load(fake_model, "fake")).embedded
        <= len(MANY) + 5 * FakeRuntime.batch
    )
    assert_clean(index)


def test_the_command_line_may_be_killed_at_any_time(tmp_path: Path) -> None:
    photos, index = write_photos(tmp_path / "photos", MANY[:60]), IndexDirectory(tmp_path / "index")
    arguments = ("index", photos, "--index", index.root, "--model", "resnet18")
    assert run_cli(*arguments).returncode == 0
    random = Random(0)
    command = [sys.executable, "-m", "carsearch", *map(str, arguments)]
    for turn in range(8):
        write_photos(photos, [f"turn {turn}/{shot}.jpg" for shot in range(8)])
        old = index.current()
        with subprocess.Popen(command, env=clean_environment(), stderr=subprocess.DEVNULL) as process:
            while process.poll() is None and not (index.root / "work").exists():  # until then it only loads the model
                time.sleep(0.001)
            time.sleep(random.uniform(0, 0.3))
            process.kill()
        assert index.verify(index.current()).id >= old
    final = run_cli(*arguments)
    assert final.returncode == 0
    assert f"{60 + 8 * 8} photos of 12 classes" in final.stdout
    assert_clean(index)
