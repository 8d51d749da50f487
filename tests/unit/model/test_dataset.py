"""Sets of labelled photos: class folders and manifests of every kind, and splits that keep classes apart."""

import os
import unicodedata
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from model.dataset import Item, read_items, refuse_duplicate_ids, split_classes
from model.errors import DataInvalid, DuplicateId, EmptyGallery, FileUnreadable, ManifestInvalid
from tests.support.photos import KOREAN, car_photo


def write(root: Path, *names: str | bytes) -> Path:
    """Puts a photo at each of the relative paths."""
    for name in names:
        path = Path(os.fsdecode(os.path.join(os.fsencode(root), os.fsencode(name))))
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(car_photo())
    return root


def manifest(root: Path, content: str | bytes) -> Path:
    path = root / "set.csv"
    path.write_bytes(content if isinstance(content, bytes) else content.encode())
    return path


def found(source: Path) -> list[tuple[str, str]]:
    return [(item.id, item.label) for item in read_items(source).items]


def test_the_first_folder_is_the_class_at_any_depth(tmp_path: Path) -> None:
    write(tmp_path, "b/2.jpg", "a/deep/er/1.jpg", "a/0")
    assert found(tmp_path) == [("a/0", "a"), ("a/deep/er/1.jpg", "a"), ("b/2.jpg", "b")]


def test_folders_that_spell_one_korean_name_in_nfc_and_nfd_are_one_class(tmp_path: Path) -> None:
    decomposed = unicodedata.normalize("NFD", KOREAN)
    write(tmp_path, f"{KOREAN}/1.jpg", f"{decomposed}/1.jpg")
    items = read_items(tmp_path).items
    assert [item.label for item in items] == [KOREAN, KOREAN]
    assert len({item.id for item in items}) == 2


def test_names_that_are_not_utf8_are_kept_and_can_be_read(tmp_path: Path) -> None:
    write(tmp_path, b"Kia\xff/\xb1\xe2.jpg")
    (item,) = read_items(tmp_path).items
    assert (item.id, item.label) == ("Kia\ufffd/\ufffd\ufffd.jpg~95cfcf6e", "Kia\\xff")
    assert item.read() == car_photo()


def test_a_pipe_is_passed_over_and_links_to_files_are_followed(tmp_path: Path) -> None:
    write(tmp_path, "a/1.jpg")
    os.mkfifo(tmp_path / "a" / "pipe.jpg")
    (tmp_path / "a" / "2.jpg").symlink_to("1.jpg")
    assert found(tmp_path) == [("a/1.jpg", "a"), ("a/2.jpg", "a")]


@pytest.mark.parametrize("target", ["nowhere.jpg", "dangling.jpg"], ids=["dangling", "loop"])
def test_a_link_that_leads_nowhere_is_an_item_that_cannot_be_read(tmp_path: Path, target: str) -> None:
    (tmp_path / "a").mkdir()
    (tmp_path / "a" / "dangling.jpg").symlink_to(target)
    (item,) = read_items(tmp_path).items
    with pytest.raises(FileUnreadable, match="The file cannot be read: "):
        item.read()


@pytest.mark.parametrize("names", [(), ("README.txt",), (".hidden/1.jpg",)])
def test_a_set_without_photos_is_empty(tmp_path: Path, names: tuple[str, ...]) -> None:
    with pytest.raises(EmptyGallery, match="There are no photos in "):
        read_items(write(tmp_path, *names))


def test_a_set_that_is_not_there_is_named(tmp_path: Path) -> None:
    with pytest.raises(DataInvalid, match="nothing cannot be read: No such file or directory"):
        read_items(tmp_path / "nothing")


@pytest.mark.parametrize(
    ("content", "expected"),
    [
        ("path,class\nx/1.jpg,Kia\n", [("x/1.jpg", "Kia")]),
        ("path,class\r\nx/1.jpg,Kia\r\n\r\n", [("x/1.jpg", "Kia")]),
        ("\ufeffpath,class\nx/1.jpg,Kia", [("x/1.jpg", "Kia")]),
        ("path\nx/1.jpg\n", [("x/1.jpg", "")]),
        ("path,class\nx/1.jpg,\nx/2.jpg\nx/3.jpg,Kia\n", [("x/1.jpg", ""), ("x/2.jpg", ""), ("x/3.jpg", "Kia")]),
        ("class,id,path\nKia,seven,x/1.jpg\n", [("seven", "Kia")]),
        ("path,class,id\nb.jpg,Kia,\na.jpg,Kia,z\n", [("b.jpg", "Kia"), ("z", "Kia")]),
        (f"path,class\n{KOREAN}.jpg,{unicodedata.normalize('NFD', KOREAN)}\n", [(f"{KOREAN}.jpg", KOREAN)]),
        ('path,class\n"a,b.jpg","Say ""Kia"""\n', [("a,b.jpg", 'Say "Kia"')]),
        ("path,class\na.jpg,one\u2028two\x0cthree\n", [("a.jpg", "one\u2028two\x0cthree")]),
    ],
    ids=[
        "plain",
        "CRLF",
        "BOM",
        "no class",
        "empty classes",
        "other order",
        "some ids",
        "Korean",
        "quotes",
        "exotic line ends",
    ],
)
def test_a_manifest_gives_items_in_the_order_of_their_ids(
    tmp_path: Path, content: str, expected: list[tuple[str, str]]
) -> None:
    assert found(manifest(tmp_path, content)) == expected


def test_paths_of_a_manifest_are_relative_to_it(tmp_path: Path) -> None:
    write(tmp_path, "photos/1.jpg")
    (item,) = read_items(manifest(tmp_path, "path,class\nphotos/1.jpg,Kia\n")).items
    assert item.read() == car_photo()


@pytest.mark.parametrize(
    ("content", "sentence"),
    [
        ("where,class\na.jpg,Kia\n", 'has the columns "where", "class"; it needs "path"'),
        ("", 'has no columns; it needs "path"'),
        ("path,class\na.jpg,Kia,1,2\n", "line 2: 4 cells for 2 columns; a cell with a delimiter in it needs quotes"),
        ("path,class\n,Kia\n", 'line 2: the cell of "path" is empty'),
        ("path,class\nC:\\cars\\a.jpg,Kia\n", "line 2: .* is a path of Windows"),
        ('path,class\na.jpg,"Kia\n', "line 2: unexpected end of data"),
        ("path,class,id\na.jpg,Kia,one\ttwo\n", "line 2: an id has no unprintable characters"),
        ('path,class,id\na.jpg,Kia,"one\ntwo"\n', "line 3: an id has no unprintable characters"),
    ],
)
def test_a_bad_manifest_says_what_is_wrong_in_which_line(tmp_path: Path, content: str | bytes, sentence: str) -> None:
    with pytest.raises(ManifestInvalid, match=sentence):
        read_items(manifest(tmp_path, content))


def test_a_pipe_or_device_in_the_place_of_a_manifest_is_refused(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "set.csv")
    for source in (tmp_path / "set.csv", Path("/dev/zero")):
        with pytest.raises(ManifestInvalid, match=rf"^{source} is a folder, a pipe or a device\.$"):
            read_items(source)


def test_two_spellings_of_one_path_are_one_photo(tmp_path: Path) -> None:
    assert found(manifest(tmp_path, "path,class\n./x//1.jpg,Kia\n")) == [("x/1.jpg", "Kia")]
    with pytest.raises(DuplicateId, match=r'"a\.jpg" occurs twice'):
        read_items(manifest(tmp_path, "path,class\na.jpg,Kia\n./a.jpg,Kia\n"))


def test_an_id_that_stands_twice_is_refused(tmp_path: Path) -> None:
    with pytest.raises(DuplicateId, match='"x" occurs twice'):
        read_items(manifest(tmp_path, "path,class,id\na.jpg,Kia,x\nb.jpg,Kia,x\n"))


def test_a_manifest_with_only_a_header_is_empty(tmp_path: Path) -> None:
    with pytest.raises(EmptyGallery):
        read_items(manifest(tmp_path, "path,class\n"))


@pytest.mark.parametrize("name", ["missing.jpg", "file:///nul%00byte.jpg", "x" * 300], ids=["missing", "NUL", "long"])
def test_a_path_that_no_file_has_is_unreadable_and_not_a_crash(tmp_path: Path, name: str) -> None:
    (item,) = read_items(manifest(tmp_path, f"path,class\n{name},Kia\n")).items
    with pytest.raises(FileUnreadable, match="cannot be read: "):
        item.read()


@given(text=st.text(st.characters(codec="utf-8"), max_size=60))
def test_any_text_is_a_manifest_or_a_kind_of_invalid_data(tmp_path_factory: pytest.TempPathFactory, text: str) -> None:
    path = manifest(tmp_path_factory.getbasetemp(), "path,class,id\n" + text)
    try:
        items = read_items(path).items
    except DataInvalid:
        return
    refuse_duplicate_ids(items)
    assert all(item.id for item in items)


def items_of(labels: list[str]) -> list[Item]:
    return [Item(id=f"{label}/{shot}", label=label, path=Path(label)) for label in labels for shot in range(2)]


@given(labels=st.sets(st.text(max_size=5), max_size=30), seed=st.integers(0, 9))
def test_a_split_shares_no_class_and_loses_no_item(labels: set[str], seed: int) -> None:
    items = items_of(sorted(labels))
    train, held = split_classes(items, seed)
    assert sorted([*train, *held], key=lambda item: item.id) == sorted(items, key=lambda item: item.id)
    assert {item.label for item in train} & {item.label for item in held} == set()
    wanted = 0 if len(labels) < 5 else max(2, round(0.2 * len(labels)))
    assert len({item.label for item in held}) == wanted


def test_new_photos_move_no_class_across_and_another_seed_does() -> None:
    labels = [f"car {number}" for number in range(20)]
    before = {item.label for item in split_classes(items_of(labels))[1]}
    more = [Item(id=f"new {label}", label=label, path=Path(label)) for label in reversed(labels)]
    assert {item.label for item in split_classes([*more, *items_of(labels)])[1]} == before
    assert {item.label for item in split_classes(items_of(labels), seed=1)[1]} != before
