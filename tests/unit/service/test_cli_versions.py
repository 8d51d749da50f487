"""The commands about versions and classes: lines that can be copied, JSON, and the options that they replace."""

import json
import shutil
from collections.abc import Callable
from pathlib import Path

import pytest

from indexer.build import build_index
from indexer.items import ItemTable
from indexer.manifest import ITEMS_NAME
from indexer.versions import IndexDirectory
from model.embedder import Embedder
from model.errors import IndexLocked, UnknownClass, VersionInUse, VersionNotFound
from tests.conftest import Printed, write_fake_model
from tests.support.photos import KOREAN, write_gallery


@pytest.fixture
def index(tmp_path: Path, fake_embedder: Embedder) -> IndexDirectory:
    """Two versions: one of one class, and the current one of two."""
    directory = IndexDirectory(tmp_path / "index")
    for classes in (1, 2):
        build_index(write_gallery(tmp_path / str(classes), classes, photos=2), directory, fake_embedder)
    return directory


def test_a_line_begins_with_an_id_that_is_never_cut(
    carsearch: Callable[..., Printed], index: IndexDirectory, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("COLUMNS", "20")
    first, second = index.versions()
    lines = carsearch("versions", "list", "--index", index.root).stdout.splitlines()
    assert lines == [
        f"{first}  2 photos  1 classes  fake  fp32  probability as shipped",
        f"{second}  CURRENT  4 photos  2 classes  fake  fp32  probability as shipped",
    ]


def test_versions_are_told_in_json(carsearch: Callable[..., Printed], index: IndexDirectory) -> None:
    first, second = index.versions()
    told = json.loads(carsearch("versions", "list", "--index", index.root, "--json").stdout)
    assert [(one["id"], one["current"], one["photos"]) for one in told] == [(first, False, 2), (second, True, 4)]
    assert {one["verified"] for one in told} == {False}
    (index.path_of(first) / ITEMS_NAME).write_bytes(b"?")
    verified = carsearch("versions", "verify", "--index", index.root, "--json")
    bad, good = json.loads(verified.stdout)
    assert (verified.returncode, good["verified"]) == (1, True)
    assert verified.stderr == f"error: {bad['problem']}\n"
    assert json.loads(carsearch("versions", "rollback", second, "--index", index.root, "--json").stdout) == {
        "current": second
    }


def test_a_version_is_removed_with_the_model_that_no_other_needs(
    carsearch: Callable[..., Printed], index: IndexDirectory, tmp_path: Path
) -> None:
    other = Embedder.load(write_fake_model(tmp_path / "other", dim=32), "fake")
    build_index(tmp_path / "2", index, other)
    first, second, third = index.versions()
    assert len(list((index.root / "models").iterdir())) == 2
    assert carsearch("versions", "remove", first, "--index", index.root).stdout == f"removed {first}\n"
    assert index.versions() == [second, third]
    assert len(list((index.root / "models").iterdir())) == 2
    index.remove(second)
    assert [path.name for path in (index.root / "models").iterdir()] == [index.manifest(third).model_sha256]
    assert index.verify(index.current()).id == third


def test_the_current_version_and_one_that_is_not_there_are_not_removed(index: IndexDirectory) -> None:
    with pytest.raises(VersionInUse, match="is the current one"):
        index.remove(index.current())
    for name in ("x", "..", "../versions"):
        with pytest.raises(VersionNotFound):
            index.remove(name)
    with index.lock(), pytest.raises(IndexLocked):
        index.remove(index.versions()[0])
    assert len(index.versions()) == 2


@pytest.mark.parametrize(
    ("old", "new"),
    [
        (["--list"], ["list"]),
        (["--verify"], ["verify"]),
        (["--rollback"], ["rollback"]),
        (["--rollback", "--to", "SECOND"], ["rollback", "SECOND"]),
    ],
)
def test_the_old_options_of_index_still_work_and_name_the_new_command(
    carsearch: Callable[..., Printed], index: IndexDirectory, tmp_path: Path, old: list[str], new: list[str]
) -> None:
    def said(*command: str) -> Printed:
        root = tmp_path / f"index of {command[0]}"
        shutil.copytree(index.root, root)
        words = [index.versions()[1] if word == "SECOND" else word for word in command]
        return carsearch(*words, "--index", root)

    before, now = said("index", *old), said("versions", *new)
    assert (before.returncode, before.stdout) == (0, now.stdout)
    assert before.stderr == f"carsearch index {old[0]} will go; it is now: carsearch versions {new[0]}\n"
    assert now.stderr == ""
    assert old[0] not in carsearch("index", "--help").stdout


def test_classes_are_listed_with_their_numbers_of_photos(
    carsearch: Callable[..., Printed], index: IndexDirectory
) -> None:
    assert carsearch("classes", "--index", index.root).stdout == f"      2  car 1\n      2  {KOREAN}\n"
    assert json.loads(carsearch("classes", "--index", index.root, "--json").stdout) == {"car 1": 2, KOREAN: 2}


@pytest.mark.parametrize(
    ("asked", "meant"), [("Car  1", "car 1"), ("CAR1", "car 1"), ("car 11", "car 1"), ("x" * 10_000, None)]
)
def test_a_class_that_is_not_there_is_told_with_the_one_that_is_near(
    index: IndexDirectory, asked: str, meant: str | None
) -> None:
    table = ItemTable(index.path_of(index.current()) / ITEMS_NAME)
    with pytest.raises(UnknownClass) as refused:
        table.rows_of([asked])
    table.close()
    assert asked not in str(refused.value)
    assert ("did you mean" in str(refused.value)) is (meant is not None)
    if meant is not None:
        assert f'did you mean "{meant}"?' in str(refused.value)
