"""Building an index: what is embedded, what is published, and what is said of photos that cannot be used."""

import json
import shutil
from collections.abc import Callable
from dataclasses import asdict
from datetime import datetime, tzinfo
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from indexer import build
from indexer.build import BuildResult, build_index
from indexer.items import ItemTable, sha256_bytes
from indexer.stores.faiss import FaissStore
from indexer.versions import IndexDirectory
from model.dataset import Skipped
from model.embedder import Embedder
from model.errors import DataInvalid, DuplicateId, EmptyGallery, GalleryShrank, IndexInvalid, PhotosSkipped
from model.runtimes.fake import FakeRuntime
from service.engine import Engine
from tests.conftest import write_fake_model
from tests.support.photos import KOREAN, car_photo, encoded
from tests.unit.indexer.sets import TINY, assert_clean, content_of, files_of, items_of, write_photos

FIVE = ("a/0.jpg", "a/1.jpg", "b/0.jpg", f"{KOREAN}/0.jpg", f"{KOREAN}/deep/er/1.jpg")


@pytest.fixture
def photos(tmp_path: Path) -> Path:
    return write_photos(tmp_path / "photos", FIVE)


@pytest.fixture
def index(tmp_path: Path) -> IndexDirectory:
    return IndexDirectory(tmp_path / "index")


def numbers(result: BuildResult) -> tuple[int, int, int, int, int]:
    return result.photos, result.classes, result.embedded, result.reused, len(result.skipped)


def test_a_first_build_embeds_everything(photos: Path, index: IndexDirectory, fake_embedder: Embedder) -> None:
    told: list[tuple[int, int]] = []
    result = build_index(photos, index, fake_embedder, progress=lambda done, total: told.append((done, total)))
    assert numbers(result) == (5, 3, 5, 0, 0)
    assert result.changed
    assert told[-1] == (5, 5)
    assert items_of(index) == {
        f"{KOREAN}/0.jpg": KOREAN, f"{KOREAN}/deep/er/1.jpg": KOREAN, "a/0.jpg": "a", "a/1.jpg": "a", "b/0.jpg": "b"
    }  # fmt: skip
    assert_clean(index)


def test_row_and_item_belong_together(photos: Path, index: IndexDirectory, fake_embedder: Embedder) -> None:
    directory = index.path_of(build_index(photos, index, fake_embedder).version)
    store, table = FaissStore.read(directory / "index.faiss", 64, 5), ItemTable(directory / "items.sqlite")
    for item in table.all():
        data = photos.joinpath(item.path.decode()).read_bytes()
        assert item.sha256 == sha256_bytes(data)
        assert store.vectors(np.array([item.row]))[0].tobytes() == fake_embedder.embed_photo(data).tobytes()
    table.close()


def test_the_same_gallery_again_changes_nothing(photos: Path, index: IndexDirectory, fake_embedder: Embedder) -> None:
    first = build_index(photos, index, fake_embedder)
    before = files_of(index.root)
    again = build_index(photos, index, fake_embedder)
    assert numbers(again) == (5, 3, 0, 5, 0)
    assert (again.version, again.changed) == (first.version, False)
    assert files_of(index.root) == before


def test_the_same_photos_give_the_same_bytes(
    photos: Path, index: IndexDirectory, fake_embedder: Embedder, tmp_path: Path
) -> None:
    other = IndexDirectory(tmp_path / "other")
    build_index(photos, index, fake_embedder)
    build_index(write_photos(tmp_path / "copy", reversed(FIVE)), other, fake_embedder)
    assert content_of(index) == content_of(other)


def test_only_what_is_new_is_embedded(photos: Path, index: IndexDirectory, fake_embedder: Embedder) -> None:
    build_index(photos, index, fake_embedder)

    write_photos(photos, ["a/2.jpg"])
    assert numbers(build_index(photos, index, fake_embedder)) == (6, 3, 1, 5, 0)

    (photos / "a/0.jpg").write_bytes(car_photo(900, size=TINY))
    assert numbers(build_index(photos, index, fake_embedder)) == (6, 3, 1, 5, 0)

    (photos / "a/1.jpg").unlink()
    assert numbers(build_index(photos, index, fake_embedder, allow_removals=True)) == (5, 3, 0, 5, 0)

    (photos / "b").rename(photos / "z")
    renamed = build_index(photos, index, fake_embedder, allow_removals=True)
    assert numbers(renamed) == (5, 3, 0, 5, 0)
    assert (renamed.removed, renamed.removed_classes) == (1, ["b"])
    assert items_of(index)["z/0.jpg"] == "z"
    assert len(index.versions()) == 3


def test_reused_embeddings_are_those_of_a_fresh_build(
    photos: Path, index: IndexDirectory, fake_embedder: Embedder, tmp_path: Path
) -> None:
    fresh = IndexDirectory(tmp_path / "fresh")
    build_index(photos, index, fake_embedder)
    write_photos(photos, [f"0/{shot}.jpg" for shot in range(FakeRuntime.batch + 3)])
    assert build_index(photos, index, fake_embedder).embedded == FakeRuntime.batch + 3
    build_index(photos, fresh, fake_embedder)
    assert content_of(index) == content_of(fresh)


def test_equal_content_is_embedded_once_and_found_twice(
    photos: Path, index: IndexDirectory, fake_embedder: Embedder
) -> None:
    (photos / "b/copy.jpg").write_bytes((photos / "a/0.jpg").read_bytes())
    assert numbers(build_index(photos, index, fake_embedder)) == (6, 3, 5, 1, 0)
    assert {"a/0.jpg", "b/copy.jpg"} <= set(items_of(index))


def spoil(photos: Path) -> dict[str, str]:
    """Adds things to a gallery that are no photos; returns their names with the code each must get."""
    photo = car_photo(7)
    contents = {
        "a/empty.jpg": (b"", "empty_file"),
        "a/text.jpg": (b"not a photo", "unsupported_image_format"),
        "a/cut.jpg": (photo[: len(photo) // 2], "image_undecodable"),
        "a/narrow.jpg": (car_photo(7, size=(500, 17)), "image_degenerate"),
    }
    for name, (data, _) in contents.items():
        (photos / name).write_bytes(data)
    (photos / "b/dangling.jpg").symlink_to("nowhere.jpg")
    (photos / "linked").symlink_to(photos / "a")
    return {
        **{name: code for name, (_, code) in contents.items()},
        "b/dangling.jpg": "file_unreadable",
        "linked": "link_to_folder",
    }


def test_119_what_cannot_be_used_is_skipped_and_listed(
    photos: Path, index: IndexDirectory, fake_embedder: Embedder
) -> None:
    expected = spoil(photos)
    result = build_index(photos, index, fake_embedder)
    assert numbers(result) == (5, 3, 5, 0, 6)
    assert {one.name: one.code for one in result.skipped} == expected
    listed = json.loads((index.path_of(result.version) / "skipped.json").read_bytes())
    assert listed == [asdict(one) for one in result.skipped]
    assert index.manifest(result.version).gallery["skipped"] == 6
    assert not build_index(photos, index, fake_embedder).changed
    (photos / "a/empty.jpg").unlink()
    without = build_index(photos, index, fake_embedder)
    assert (without.changed, without.embedded, len(without.skipped)) == (True, 0, 5)


def test_strict_publishes_nothing_and_loses_no_work(
    photos: Path, index: IndexDirectory, fake_embedder: Embedder
) -> None:
    (photos / "a/empty.jpg").touch()
    with pytest.raises(
        PhotosSkipped, match=r"^1 photos cannot be used, the first is a/empty\.jpg: The file is empty\."
    ):
        build_index(photos, index, fake_embedder, strict=True)
    assert index.versions() == []
    (photos / "a/empty.jpg").unlink()
    assert numbers(build_index(photos, index, fake_embedder, strict=True)) == (5, 3, 0, 5, 0)
    assert_clean(index)


def test_a_gallery_of_nothing_but_bad_photos_is_refused(
    photos: Path, index: IndexDirectory, fake_embedder: Embedder
) -> None:
    version = build_index(photos, index, fake_embedder).version
    for name in FIVE:
        (photos / name).write_bytes(b"no photo")
    with pytest.raises(EmptyGallery, match="None of the 5 files"):
        build_index(photos, index, fake_embedder)
    assert index.verify(index.current()).id == version


@pytest.mark.parametrize("make", [Path.mkdir, lambda path: (path / "empty class").mkdir(parents=True)])
def test_an_empty_gallery_is_refused(
    tmp_path: Path, index: IndexDirectory, fake_embedder: Embedder, make: Callable[[Path], None]
) -> None:
    make(tmp_path / "nothing")
    with pytest.raises(EmptyGallery):
        build_index(tmp_path / "nothing", index, fake_embedder)
    assert index.versions() == []


def test_a_gallery_that_is_not_there_is_refused(tmp_path: Path, index: IndexDirectory, fake_embedder: Embedder) -> None:
    with pytest.raises(DataInvalid, match="cannot be read"):
        build_index(tmp_path / "absent", index, fake_embedder)


def test_a_manifest_names_photos_classes_and_ids(photos: Path, index: IndexDirectory, fake_embedder: Embedder) -> None:
    table = photos / "gallery.csv"
    table.write_text(f"path,class,id\na/0.jpg,Avante,first\na/1.jpg,{KOREAN},\nabsent.jpg,x,gone\n")
    result = build_index(table, index, fake_embedder)
    assert items_of(index) == {"first": "Avante", "a/1.jpg": KOREAN}
    assert result.skipped == [Skipped("gone", "file_unreadable", "The file cannot be read: No such file or directory.")]


def test_a_photo_that_moved_is_found_where_it_lies_now(
    photos: Path, index: IndexDirectory, fake_embedder: Embedder
) -> None:
    table = photos / "gallery.csv"
    for place in ("a/0.jpg", "b/moved.jpg"):
        (photos / "a/0.jpg").rename(photos / place)
        table.write_text(f"path,class,id\n{place},Avante,first\n")
        result = build_index(table, index, fake_embedder, allow_removals=True)
        items = ItemTable(index.path_of(result.version) / "items.sqlite")
        assert items.by_id("first").path == place.encode()
        items.close()
    assert (result.embedded, result.changed) == (0, True)


def test_an_id_that_stands_twice_is_refused(photos: Path, index: IndexDirectory, fake_embedder: Embedder) -> None:
    (photos / "gallery.csv").write_text("path,class,id\na/0.jpg,x,same\na/1.jpg,y,same\n")
    with pytest.raises(DuplicateId, match='"same"'):
        build_index(photos / "gallery.csv", index, fake_embedder)


def test_any_bytes_may_name_gallery_class_and_photo(
    index: IndexDirectory, fake_embedder: Embedder, tmp_path: Path
) -> None:
    strange = b"\xff\xfe \n'\"%.jpg".decode("utf-8", "surrogateescape")
    photos = write_photos(tmp_path / f"gallery{strange}", ["plain/0.jpg"])
    (photos / strange).mkdir()
    (photos / strange / strange).write_bytes(car_photo(3))
    (photos / strange / f"bad{strange}").touch()
    result = build_index(photos, index, fake_embedder)
    text = "\ufffd\ufffd \ufffd'\"%.jpg"
    assert items_of(index) == {f"{text}/{text}~a41759c3": "\\xff\\xfe \n'\"%.jpg", "plain/0.jpg": "plain"}
    assert [one.code for one in result.skipped] == ["empty_file"]
    manifest = index.verify(result.version)
    assert Path(manifest.gallery["root"]) == photos.resolve()
    assert not build_index(photos, index, fake_embedder).changed


def test_a_gallery_reached_through_a_link_is_the_same_gallery(
    photos: Path, index: IndexDirectory, fake_embedder: Embedder, tmp_path: Path
) -> None:
    (tmp_path / "deep").mkdir()
    (tmp_path / "deep" / "link").symlink_to(photos)
    build_index(tmp_path / "deep" / "link", index, fake_embedder)
    assert not build_index(photos, index, fake_embedder).changed
    table = ItemTable(index.path_of(index.current()) / "items.sqlite")
    assert {(photos / item.path.decode()).is_file() for item in table.all()} == {True}
    assert b".." not in b"".join(item.path for item in table.all())
    table.close()


@pytest.mark.parametrize("names", [["a/0.jpg", "a/1.jpg"], ["a/0.jpg", "b/0.jpg"], ["a/0.jpg"]])
def test_a_gallery_may_be_as_small_as_one_photo(
    tmp_path: Path, index: IndexDirectory, fake_embedder: Embedder, names: list[str]
) -> None:
    result = build_index(write_photos(tmp_path / "small", names), index, fake_embedder)
    assert (result.photos, list(items_of(index))) == (len(names), names)


def test_another_model_embeds_everything_again_and_both_versions_stay(
    photos: Path, index: IndexDirectory, fake_embedder: Embedder, tmp_path: Path
) -> None:
    first = build_index(photos, index, fake_embedder)
    other = Embedder.load(write_fake_model(tmp_path / "other", dim=16), "fake")
    second = build_index(photos, index, other)
    assert numbers(second) == (5, 3, 5, 0, 0)
    assert [index.verify(version).dim for version in (first.version, second.version)] == [64, 16]
    assert index.rollback() == first.version
    assert_clean(index)


def test_png_and_webp_are_photos_whatever_their_names(
    tmp_path: Path, index: IndexDirectory, fake_embedder: Embedder
) -> None:
    folder = tmp_path / "mixed" / "a"
    folder.mkdir(parents=True)
    for name, kind in (("0.JPG", "PNG"), ("noending", "WEBP")):
        (folder / name).write_bytes(encoded(Image.new("RGB", TINY, "red"), kind))
    assert build_index(tmp_path / "mixed", index, fake_embedder).photos == 2


def test_a_gallery_that_shrank_by_more_than_a_tenth_is_not_published_unasked(
    photos: Path, index: IndexDirectory, fake_embedder: Embedder
) -> None:
    version = build_index(photos, index, fake_embedder).version
    shutil.rmtree(photos / "a")
    with pytest.raises(
        GalleryShrank, match=r"^2 photos of the version before are gone \(a 2\)\. Nothing was published"
    ):
        build_index(photos, index, fake_embedder)
    assert index.current() == version
    result = build_index(photos, index, fake_embedder, allow_removals=True)
    assert (result.photos, result.removed, result.removed_classes) == (3, 2, ["a"])


def test_how_a_gallery_was_read_is_remembered_for_the_same_gallery(
    tmp_path: Path, index: IndexDirectory, fake_embedder: Embedder
) -> None:
    photos = write_photos(tmp_path / "makes", ["audi/a4/0.jpg", "kia/rio/0.jpg", "kia/drafts/0.jpg"])
    build_index(photos, index, fake_embedder, class_depth=2, exclude=["drafts"])
    again = build_index(photos, index, fake_embedder)
    assert not again.changed
    assert again.notes[0] == "The gallery is read as before, with --class-depth 2 --exclude drafts."
    assert items_of(index) == {"audi/a4/0.jpg": "a4", "kia/rio/0.jpg": "rio"}
    build_index(photos, index, fake_embedder, class_depth=1)
    assert items_of(index) == {"audi/a4/0.jpg": "audi", "kia/rio/0.jpg": "kia"}
    build_index(photos, index, fake_embedder, exclude=[""])
    assert set(items_of(index).values()) == {"audi", "kia"}
    assert len(items_of(index)) == 3
    other = write_photos(tmp_path / "other", ["vw/drafts/0.jpg"])
    build_index(other, index, fake_embedder)
    assert items_of(index) == {"vw/drafts/0.jpg": "vw"}


@pytest.mark.parametrize("wrong", [{"exclude": "drafts"}, {"exclude": [1]}, {"class_depth": "2"}])
def test_a_manifest_that_says_otherwise_how_its_gallery_was_read_is_refused(
    photos: Path, index: IndexDirectory, fake_embedder: Embedder, wrong: dict[str, object]
) -> None:
    version = build_index(photos, index, fake_embedder).version
    path = index.path_of(version) / "manifest.json"
    manifest = json.loads(path.read_bytes())
    manifest["gallery"] |= wrong
    path.write_text(json.dumps(manifest))
    with pytest.raises(IndexInvalid, match="has a gallery of the wrong form"):
        index.manifest(version)


def test_photos_without_a_class_are_found_and_decide_nothing(
    tmp_path: Path, index: IndexDirectory, fake_embedder: Embedder
) -> None:
    photos = write_photos(tmp_path / "flat", ["0.jpg", "1.jpg"])
    result = build_index(photos, index, fake_embedder)
    assert (result.photos, result.classes) == (2, 0)
    engine = Engine.load(index, runtime="fake")
    assert [(hit.id, hit.label) for hit in engine.search(photos / "0.jpg", 1)] == [("0.jpg", "")]
    assert engine.decide(photos / "0.jpg") is None
    assert engine.items.classes() == {}
    assert not build_index(photos, index, fake_embedder).changed


def test_in_a_mixture_only_photos_with_a_class_decide(
    tmp_path: Path, index: IndexDirectory, fake_embedder: Embedder
) -> None:
    photos = write_photos(tmp_path / "mixed", ["0.jpg", "kia/1.jpg", "kia/2.jpg", "vw/3.jpg"])
    assert build_index(photos, index, fake_embedder).classes == 2
    engine = Engine.load(index, runtime="fake")
    decision = engine.decide(photos / "kia/1.jpg")
    assert decision is not None
    assert (decision.label, round(decision.agreement, 3)) == ("kia", 0.667)  # of three photos with a class
    assert engine.search(photos / "0.jpg", 1)[0].label == ""


def test_a_clock_that_went_back_does_not_change_the_order_of_versions(
    photos: Path, index: IndexDirectory, fake_embedder: Embedder, monkeypatch: pytest.MonkeyPatch
) -> None:
    first = build_index(photos, index, fake_embedder).version

    class Yesterday(datetime):
        @classmethod
        def now(cls, tz: tzinfo | None = None) -> "Yesterday":
            return cls(2020, 1, 1, tzinfo=tz)

    monkeypatch.setattr(build, "datetime", Yesterday)
    write_photos(photos, ["a/2.jpg"])
    second = build_index(photos, index, fake_embedder).version
    assert index.versions() == [first, second]
    assert index.rollback() == first
