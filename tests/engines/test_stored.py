"""Photos of a storage or of shards: which are found, under which ids and classes, and what is told where none are."""

import shutil
import tarfile
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from indexer.distributed.stored import is_stored, read_stored
from model.dataset import read_items
from model.errors import DataInvalid, DuplicateId, EmptyGallery, FileUnreadable
from tests.support.photos import car_photo, write_gallery

pytestmark = pytest.mark.engines


def write_parquet(path: Path, **columns: list[object]) -> str:
    pq.write_table(pa.table(columns), path, row_group_size=2)
    return str(path)


def test_a_url_and_a_folder_have_the_same_photos(tmp_path: Path) -> None:
    folder = write_gallery(tmp_path / "photos", classes=3, photos=2)
    (folder / "drafts" / "deep").mkdir(parents=True)
    (folder / "drafts" / "deep" / "1.jpg").write_bytes(car_photo(4))
    for name in ("Thumbs.db", ".hidden.jpg", "notes.txt", "loose.jpg"):
        (folder / name).write_bytes(b"")
    for options in ({}, {"exclude": ["drafts"]}, {"exclude": ["*/0.jpg"]}, {"class_depth": 2}, {"class_depth": 0}):
        there, here = read_stored(f"file://{folder}", **options), read_items(folder, **options)
        assert [(one.id, one.label, one.read()) for one in there.items] == [
            (one.id, one.label, one.read()) for one in here.items
        ]
        assert (there.doubt, there.notes) == (here.doubt, here.notes)


def test_the_file_that_tells_more_of_the_photos_is_told_to_be_left_out(tmp_path: Path) -> None:
    folder = write_gallery(tmp_path / "photos")
    (folder / "photos.csv").write_text("path,price\n")
    assert "photos.csv is read in a local folder only." in read_stored(f"file://{folder}").notes


def test_members_of_a_tar_are_read_where_they_lie(tmp_path: Path) -> None:
    folder = write_gallery(tmp_path / "photos", classes=2, photos=2)
    (folder / "car 1" / "empty.jpg").write_bytes(b"")
    with tarfile.open(tmp_path / "photos.tar", "w") as archive:
        archive.add(folder, "./")
    found = read_stored(str(tmp_path / "photos.tar")).items
    expected = read_items(folder).items
    assert [(one.id, one.label, one.read()) for one in found] == [(one.id, one.label, one.read()) for one in expected]


def test_a_name_in_two_shards_is_refused(tmp_path: Path) -> None:
    folder = write_gallery(tmp_path / "photos")
    for number in range(2):
        with tarfile.open(tmp_path / f"{number}.tar", "w") as archive:
            archive.add(folder, ".")
    with pytest.raises(DataInvalid, match="occurs twice"):
        read_stored(f"{tmp_path}/*.tar")


def test_rows_of_parquet_have_ids_and_classes_where_there_are_columns_of_them(tmp_path: Path) -> None:
    photos: list[object] = [car_photo(0, shot) for shot in range(3)]
    plain = read_stored(write_parquet(tmp_path / "plain.parquet", image=photos)).items
    assert [(one.id, one.label) for one in plain] == [(f"plain.parquet/{row:09d}", "") for row in range(3)]
    labelled = write_parquet(tmp_path / "labelled.parquet", image=photos, id=["c", "a", "b"], label=[7, None, 8])
    assert [(one.id, one.label) for one in read_stored(labelled).items] == [("a", ""), ("b", "8"), ("c", "7")]
    assert [one.read() for one in read_stored(labelled).items] == [photos[1], photos[2], photos[0]]
    assert {one.label for one in read_stored(labelled, class_depth=0).items} == {""}


def test_photos_of_hugging_face_s_datasets_are_structures(tmp_path: Path) -> None:
    path = write_parquet(tmp_path / "hub.parquet", image=[{"bytes": car_photo(), "path": "1.jpg"}, None])
    first, second = read_stored(path).items
    assert first.read() == car_photo()
    with pytest.raises(FileUnreadable, match="no photo in this row"):
        second.read()


def test_what_cannot_be_read_is_told_in_a_sentence(tmp_path: Path) -> None:
    no_photos = write_parquet(tmp_path / "other.parquet", price=[1])
    twice = write_parquet(tmp_path / "twice.parquet", image=[b"1", b"2"], id=["same", "same"])
    (tmp_path / "text.tar").write_text("not a tar")
    (tmp_path / "empty").mkdir()
    for gallery, error, said in (
        (no_photos, DataInvalid, 'has no column "image"; it has: price'),
        (twice, DuplicateId, '"same" occurs twice'),
        (f"{tmp_path}/text.tar", DataInvalid, "cannot be read"),
        (f"{tmp_path}/none-*.tar", DataInvalid, "there is no such file"),
        ("nowhere://photos", DataInvalid, "cannot be read"),
        (f"file://{tmp_path}/empty", EmptyGallery, "no photos"),
    ):
        assert is_stored(gallery)
        with pytest.raises(error, match=said):
            read_stored(gallery)
    with pytest.raises(DataInvalid, match="Parquet has no folders"):
        read_stored(twice, exclude=["*"])


def test_a_photo_that_is_gone_is_one_that_cannot_be_read(tmp_path: Path) -> None:
    folder = write_gallery(tmp_path / "photos")
    photo = read_stored(f"file://{folder}").items[0]
    shutil.rmtree(folder)
    with pytest.raises(FileUnreadable):
        photo.read()
