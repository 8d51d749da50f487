"""`photos.csv` in a gallery's folder, and the other columns of a manifest."""

import unicodedata
from pathlib import Path

import pytest

from model.dataset import Item, read_items
from model.errors import DataInvalid, ManifestInvalid
from tests.support.photos import KOREAN, car_photo


def gallery(root: Path, side_file: str, *names: str) -> Path:
    for name in names or ("audi/a1.jpg", "audi/a2.jpg", "vw/golf.jpg"):
        (root / name).parent.mkdir(parents=True, exist_ok=True)
        (root / name).write_bytes(car_photo())
    (root / "photos.csv").write_text(side_file)
    return root


def told(items: list[Item]) -> dict[str, tuple[str, dict[str, str]]]:
    return {item.id: (item.label, dict(item.metadata)) for item in items}


def test_rows_are_joined_by_path_and_a_class_wins_over_the_folder(tmp_path: Path) -> None:
    rows = "Path;Class;Price;id\naudi\\a1.jpg;;19999;7\n./vw/golf.jpg;VW Golf;;\nvw/polo.jpg;VW;5;\n"
    found = read_items(gallery(tmp_path, rows))
    assert told(found.items) == {
        "audi/a1.jpg": ("audi", {"price": "19999", "id": "7"}),
        "audi/a2.jpg": ("audi", {}),
        "vw/golf.jpg": ("VW Golf", {"price": "", "id": ""}),
    }
    assert [(one.name, one.code) for one in found.skipped] == [("vw/polo.jpg", "photo_missing")]


def test_a_name_of_macos_meets_the_row_of_a_spreadsheet(tmp_path: Path) -> None:
    name = unicodedata.normalize("NFD", f"{KOREAN}/1.jpg")
    (item,) = read_items(gallery(tmp_path, f"path,price\n{KOREAN}/1.jpg,5\n", name)).items
    assert (item.label, item.metadata) == (KOREAN, {"price": "5"})


@pytest.mark.parametrize("row", ["../secret.jpg", "/etc/passwd", "~/a.jpg", "file:///etc/passwd"])
def test_a_row_gives_a_photo_data_and_never_adds_a_photo(tmp_path: Path, row: str) -> None:
    (tmp_path / "secret.jpg").write_bytes(car_photo())
    found = read_items(gallery(tmp_path / "gallery", f"path,price\n{row},5\n"))
    assert [item.id for item in found.items] == ["audi/a1.jpg", "audi/a2.jpg", "vw/golf.jpg"]
    assert [one.code for one in found.skipped] == ["photo_missing"]


@pytest.mark.parametrize(
    ("side_file", "sentence"),
    [
        ("path,price\naudi/a1.jpg,1\naudi\\a1.jpg,2\n", r"photos\.csv, line 3: an earlier row is of the same photo"),
        ("name,price\naudi/a1.jpg,1\n", r'photos\.csv has the columns "name", "price"; it needs "path"'),
        ("path,price\nC:\\audi\\a1.jpg,1\n", r"photos\.csv, line 2: .* is a path of Windows"),
    ],
)
def test_a_side_file_that_cannot_be_used_is_told(tmp_path: Path, side_file: str, sentence: str) -> None:
    with pytest.raises(ManifestInvalid, match=sentence):
        read_items(gallery(tmp_path, side_file))


def test_a_row_of_a_photo_that_is_left_out_is_not_missing(tmp_path: Path) -> None:
    gallery(tmp_path, "path,price\naudi/a1.jpg,1\nvw/golf.jpg,2\n@eaDir/x.jpg,3\n")
    found = read_items(tmp_path, exclude=["vw"])
    assert ([item.id for item in found.items], found.skipped) == (["audi/a1.jpg", "audi/a2.jpg"], [])


def test_patterns_and_a_depth_of_no_classes_hold_for_a_manifest(tmp_path: Path) -> None:
    manifest = tmp_path / "cars.csv"
    manifest.write_text(f"path,class\na.jpg,Kia\ndrafts/b.jpg,Kia\n{tmp_path}/c_small.jpg,Kia\n../d.jpg,VW\n")
    assert [item.label for item in read_items(manifest, exclude=["drafts", "c_*"]).items] == ["VW", "Kia"]
    assert {item.label for item in read_items(manifest, class_depth=0).items} == {""}
    with pytest.raises(DataInvalid, match="is a manifest, which names the classes itself"):
        read_items(manifest, class_depth=1)


def test_only_the_file_at_the_top_tells_more(tmp_path: Path) -> None:
    gallery(tmp_path, "path,price\naudi/a1.jpg,1\n")
    (tmp_path / "audi" / "photos.csv").write_text("path,price\na1.jpg,2\n")
    found = told(read_items(tmp_path).items)
    assert found["audi/a1.jpg"] == ("audi", {"price": "1"})


def test_the_other_columns_of_a_manifest_are_metadata(tmp_path: Path) -> None:
    manifest = tmp_path / "cars.csv"
    manifest.write_text("id,File,Label,Price,\nx,a.jpg,Kia,5,note\ny,b.jpg,,,\n")
    assert told(read_items(manifest).items) == {"x": ("Kia", {"price": "5"}), "y": ("", {"price": ""})}
