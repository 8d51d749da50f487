"""Folders as people keep them: litter, links, levels, and photos without classes."""

import os
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from model.dataset import read_items, read_labelled
from model.errors import DataInvalid, EmptyGallery
from tests.support.photos import car_photo

LITTER = [
    "@eaDir/car.jpg/SYNOPHOTO_THUMB_M.jpg", "#recycle/old.jpg", "$RECYCLE.BIN/x.jpg", "System Volume Information/x.jpg",
    "lost+found/x.jpg", "__MACOSX/a/._1.jpg", ".hidden.jpg", ".git/x.jpg", "Thumbs.db", "ehthumbs.db", "desktop.ini",
    "Icon\r", "README.txt", "1.json", "@Recycle/x.jpg", "#snapshot/x.jpg",
]  # fmt: skip


def write(root: Path, *names: str) -> Path:
    """Puts a photo at each of the relative paths."""
    for name in names:
        path = root / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(car_photo())
    return root


def found(source: Path, **options: object) -> dict[str, str]:
    return {item.id: item.label for item in read_items(source, **options).items}  # type: ignore[arg-type]


@pytest.mark.parametrize("folder", ["", "a/"], ids=["at the top", "in a class"])
@pytest.mark.parametrize("name", LITTER)
def test_litter_and_side_files_are_passed_over_without_a_word(tmp_path: Path, folder: str, name: str) -> None:
    write(tmp_path, "a/1.jpg", folder + name)
    read = read_items(tmp_path)
    assert ([item.id for item in read.items], read.skipped) == (["a/1.jpg"], [])


def test_patterns_leave_out_files_and_folders(tmp_path: Path) -> None:
    write(tmp_path, "a/1.jpg", "a/1_small.jpg", "a/drafts/2.jpg", "b/3.jpg")
    assert found(tmp_path, exclude=["*_small*", "drafts", "b/*"]) == {"a/1.jpg": "a"}


def test_a_flat_folder_and_a_mixture_have_photos_without_a_class(tmp_path: Path) -> None:
    assert found(write(tmp_path, "1.jpg", "2.jpg")) == {"1.jpg": "", "2.jpg": ""}
    assert found(write(tmp_path, "a/3.jpg")) == {"1.jpg": "", "2.jpg": "", "a/3.jpg": "a"}
    labelled = read_labelled(tmp_path)
    assert [item.id for item in labelled.items] == ["a/3.jpg"]
    assert [(one.name, one.code) for one in labelled.skipped] == [("1.jpg", "no_class"), ("2.jpg", "no_class")]


def test_where_classes_are_needed_a_set_without_them_is_refused(tmp_path: Path) -> None:
    with pytest.raises(DataInvalid, match=r"The 2 photos of .* have no classes, which are needed here"):
        read_labelled(write(tmp_path, "1.jpg", "2.jpg"))


def test_the_depth_of_the_classes_can_be_chosen(tmp_path: Path) -> None:
    write(tmp_path, "Audi/A4/1.jpg", "Audi/A6/1.jpg", "Kia/Rio/1.jpg", "Kia/1.jpg")
    by_depth = [sorted(set(found(tmp_path, class_depth=depth).values())) for depth in (0, 1, 2)]
    assert by_depth == [[""], ["Audi", "Kia"], ["", "A4", "A6", "Rio"]]


@pytest.mark.parametrize(
    ("names", "sentence"),
    [
        (["train/a/1.jpg", "val/b/1.jpg"], "look like parts of a set and not like classes: train, val"),
        (["Images/1.jpg"], "look like parts of a set and not like classes: Images"),
        (["Audi/A4/1.jpg", "Audi/A6/1.jpg", "Kia/Rio/1.jpg"], r"\(Audi, Kia\) hold no photos but other folders"),
    ],
)
def test_folders_that_may_be_no_classes_are_told_and_not_scored(
    tmp_path: Path, names: list[str], sentence: str
) -> None:
    write(tmp_path, *names)
    assert read_items(tmp_path).doubt
    with pytest.raises(DataInvalid, match=sentence):
        read_labelled(tmp_path)
    assert len(read_labelled(tmp_path, class_depth=1).items) == len(names)


@pytest.mark.parametrize(
    "names", [["a/1.jpg", "b/1.jpg"], ["a/front/1.jpg", "b/front/1.jpg"], ["train/1.jpg", "b/1.jpg"]]
)
def test_ordinary_class_folders_raise_no_doubt(tmp_path: Path, names: list[str]) -> None:
    assert read_items(write(tmp_path, *names)).doubt is None


def test_few_classes_and_classes_that_look_alike_are_told(tmp_path: Path) -> None:
    write(tmp_path, "Audi A4/1.jpg", "audi a4/2.jpg", " Kia /3.jpg")
    assert read_items(tmp_path).notes == (
        "The classes found are: Audi A4, Kia, audi a4.",
        'These classes differ only in case or blanks: "Audi A4", "audi a4".',
    )


def test_linked_class_folders_are_followed_and_no_photo_is_found_twice(tmp_path: Path) -> None:
    write(tmp_path / "elsewhere", "kia/1.jpg", "kia/2.jpg")
    photos = write(tmp_path / "photos", "z/1.jpg")
    (photos / "kia").symlink_to(tmp_path / "elsewhere" / "kia", target_is_directory=True)
    (photos / "again").symlink_to(photos / "z", target_is_directory=True)
    (photos / "z" / "loop").symlink_to(photos, target_is_directory=True)
    read = read_items(photos)
    assert [item.id for item in read.items] == ["kia/1.jpg", "kia/2.jpg", "z/1.jpg"]
    told = "The link leads to a folder that is in the set already."
    assert [(one.name, one.code, one.message) for one in read.skipped] == [
        ("again", "link_to_folder", told),
        ("z/loop", "link_to_folder", told),
    ]


def test_the_folder_of_the_index_is_left_out_of_a_gallery_that_holds_it(tmp_path: Path) -> None:
    write(tmp_path, "a/1.jpg", "index/models/golden.jpg")
    assert found(tmp_path, without=tmp_path / "index") == {"a/1.jpg": "a"}
    assert found(tmp_path, without=tmp_path / "not there yet").keys() == {"a/1.jpg", "index/models/golden.jpg"}


def test_a_gallery_that_is_the_index_itself_leaves_out_the_entries_of_the_index(tmp_path: Path) -> None:
    write(tmp_path, "a/1.jpg", "a/models/2.jpg", "models/abc/golden.jpg", "versions/v1/x.jpg", "work/x.jpg", "CURRENT")
    assert found(tmp_path, without=tmp_path) == {"a/1.jpg": "a", "a/models/2.jpg": "a"}


@pytest.mark.skipif(os.geteuid() == 0, reason="root reads every folder")
def test_a_folder_that_cannot_be_read_is_an_error_and_not_an_empty_one(tmp_path: Path) -> None:
    write(tmp_path, "a/1.jpg", "b/1.jpg")
    (tmp_path / "b").chmod(0)
    try:
        with pytest.raises(DataInvalid, match=r"The folder .*/b cannot be read: Permission denied"):
            read_items(tmp_path)
    finally:
        (tmp_path / "b").chmod(0o755)


def test_an_error_of_the_disk_in_a_folder_is_told(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    write(tmp_path, "a/1.jpg", "b/1.jpg")
    scandir = os.scandir

    def failing(path: Path) -> object:
        if Path(path).name == "b":
            raise OSError(5, "Input/output error")
        return scandir(path)

    monkeypatch.setattr(os, "scandir", failing)
    with pytest.raises(DataInvalid, match=r"The folder .*/b cannot be read: Input/output error"):
        read_items(tmp_path)


def test_the_first_reasons_are_told_where_nothing_can_be_used(tmp_path: Path) -> None:
    (tmp_path / "a").symlink_to(tmp_path, target_is_directory=True)
    with pytest.raises(EmptyGallery, match=r"None of the 1 files .* can be used\. a: The link leads to a folder"):
        read_items(tmp_path)


NAMES = st.sampled_from(["1.jpg", "아.JPG", "b c.png", "noend", "x.webp"])
FOLDERS = st.sampled_from(["a", "KIA", "아반떼", "b c", "@eaDir", ".git", "train", "a.b"])
TREES = st.sets(
    st.tuples(st.lists(FOLDERS, max_size=3), NAMES).map(lambda path: "/".join([*path[0], path[1]])), max_size=8
)
LINKS = st.lists(st.tuples(FOLDERS, st.sampled_from(["a", "KIA", "아반떼", "b c", "train"])), max_size=3)


@settings(suppress_health_check=[HealthCheck.function_scoped_fixture], deadline=None)
@given(
    tree=TREES, links=LINKS, litter=st.sets(st.sampled_from(LITTER), max_size=3), depth=st.sampled_from([None, 0, 1, 2])
)
def test_the_photos_that_are_found_are_those_that_were_put_there(
    tmp_path_factory: pytest.TempPathFactory,
    tree: set[str],
    links: list[tuple[str, str]],
    litter: set[str],
    depth: int | None,
) -> None:
    root = write(tmp_path_factory.mktemp("tree"), *tree, *litter)
    for name, target in links:
        if (root / target).is_dir() and not (root / name).exists():
            (root / name).symlink_to(target, target_is_directory=True)
    put = {name for name in tree if not any(part.startswith(".") or part == "@eaDir" for part in name.split("/"))}
    if not put:
        with pytest.raises(EmptyGallery):
            read_items(root, class_depth=depth)
        return
    items = read_items(root, class_depth=depth).items
    level = 1 if depth is None else depth
    wanted = {}
    for name in put:
        folders = name.split("/")[:-1]
        wanted[name] = folders[level - 1] if 1 <= level <= len(folders) else ""
    assert {item.id: item.label for item in items if (root / item.id).resolve() == root.resolve() / item.id} == wanted
    assert len({item.path.resolve() for item in items}) == len(items)
