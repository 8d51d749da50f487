"""Labelled sets in archives: names as every system writes them, and nothing that an archive does can do harm."""

import io
import stat
import struct
import tarfile
import tracemalloc
import unicodedata
import zipfile
import zlib
from collections.abc import Callable

import pytest
from hypothesis import given
from hypothesis import settings as tried
from hypothesis import strategies as st

from indexer.benchmark.evaluate import evaluate
from model.archive import MIB, ArchiveLimits, ArchivePhoto, ArchiveTooLarge, read_archive
from model.dataset import MAX_FILE_BYTES, Skipped
from model.embedder import Embedder
from model.errors import CarsearchError, DuplicateId, EvaluationSetInvalid, ManifestInvalid
from tests.support.bodies import tar_of, zip_of
from tests.support.photos import KOREAN, car_photo

Found = tuple[list[ArchivePhoto], list[Skipped]]
PHOTOS = {"a/1.jpg": car_photo(1, 0), "a/2.jpg": car_photo(1, 1), "b/1.jpg": car_photo(2, 0)}
STORED, DEFLATED = zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED


def read(archive: bytes, **limits: int) -> Found:
    return read_archive(io.BytesIO(archive), ArchiveLimits(**limits))


def zip_entry(name: str, data: bytes, mode: int = 0, extra: bytes = b"") -> bytes:
    """A zip of one member with a mode and an extra field of its own."""
    entry = zipfile.ZipInfo(name)
    entry.external_attr, entry.create_system, entry.extra = mode << 16, 3, extra
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w") as archive:
        archive.writestr(entry, data)
    return buffer.getvalue()


def tar_entry(name: str, kind: bytes, target: str = "") -> bytes:
    entry = tarfile.TarInfo(name)
    entry.type, entry.linkname = kind, target
    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode="w") as archive:
        archive.addfile(entry)
    return buffer.getvalue()


def tar_with_headers(count: int, size_bytes: int = 1, whole: bool = True) -> bytes:
    """A photo behind so many headers of so many bytes, which hold for the whole tar or for the photo."""
    headers = {f"X.{number}": "y" * size_bytes for number in range(count)}
    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode="w", pax_headers=headers if whole else {}) as archive:
        entry = tarfile.TarInfo("a/1.jpg")
        entry.pax_headers = {} if whole else headers
        archive.addfile(entry)
    return buffer.getvalue()


def cp949() -> bytes:
    """As Windows in Korea writes it: the name in CP949, and no flag that says so."""
    raw = KOREAN.encode("cp949")
    return zip_of({"?" * len(raw) + "/1.jpg": b"x"}).replace(b"?" * len(raw), raw)


def unicode_extra() -> bytes:
    name = f"{KOREAN}/1.jpg".encode()
    return zip_entry(
        "???/1.jpg", b"x", extra=struct.pack("<HHBL", 0x7075, 5 + len(name), 1, zlib.crc32(b"???/1.jpg")) + name
    )


@pytest.mark.parametrize(
    "archive",
    [
        pytest.param(zip_of({f"{KOREAN}/1.jpg": b"x"}), id="UTF-8 flag"),
        pytest.param(zip_of({unicodedata.normalize("NFD", f"{KOREAN}/1.jpg"): b"x"}), id="NFD"),
        pytest.param(cp949(), id="CP949"),
        pytest.param(unicode_extra(), id="unicode extra field"),
        pytest.param(tar_of({f"{KOREAN}/1.jpg": b"x"}), id="tar"),
        pytest.param(tar_of({unicodedata.normalize("NFD", f"./{KOREAN}/1.jpg"): b"x"}), id="tar of ./, NFD"),
    ],
)
def test_a_korean_class_is_the_same_however_the_archive_spells_it(archive: bytes) -> None:
    photos, skipped = read(archive)
    assert [photo.label for photo in photos] == [KOREAN]
    assert (photos[0].read(), skipped) == (b"x", [])


@pytest.mark.parametrize("pack", [zip_of, tar_of], ids=["zip", "tar"])
def test_photos_come_ordered_by_id_with_their_classes(pack: Callable[[dict[str, bytes]], bytes]) -> None:
    photos, skipped = read(pack(dict(reversed(PHOTOS.items()))))
    assert [(photo.id, photo.label, photo.read()) for photo in photos] == [
        (name, name[0], data) for name, data in PHOTOS.items()
    ]
    assert skipped == []


@pytest.mark.parametrize("pack", [zip_of, tar_of], ids=["zip", "tar"])
def test_a_folder_around_the_whole_set_is_looked_through(pack: Callable[[dict[str, bytes]], bytes]) -> None:
    photos, _ = read(pack({f"val/{name}": data for name, data in PHOTOS.items()}))
    assert [photo.id for photo in photos] == list(PHOTOS)


@pytest.mark.parametrize("pack", [zip_of, tar_of], ids=["zip", "tar"])
@pytest.mark.parametrize("folder", ["", "val/"])
def test_files_beside_the_class_folders_are_skipped(
    pack: Callable[[dict[str, bytes]], bytes], folder: str, fake_embedder: Embedder
) -> None:
    photos, skipped = read(pack({f"{folder}loose.jpg": b"x", **{folder + name: PHOTOS[name] for name in PHOTOS}}))
    assert [(photo.id, photo.label) for photo in photos] == [(name, name[0]) for name in PHOTOS]
    assert skipped == [Skipped("loose.jpg", "no_class", "The file lies in no class folder.")]
    assert evaluate(photos, fake_embedder).report.classes == 2


def test_a_file_beside_the_folder_around_the_set_does_not_make_it_a_class() -> None:
    photos, skipped = read(zip_of({"loose.jpg": b"x", **{f"val/{name}": data for name, data in PHOTOS.items()}}))
    assert [photo.id for photo in photos] == list(PHOTOS)
    assert [(one.name, one.code) for one in skipped] == [("loose.jpg", "no_class")]


def test_two_top_folders_are_classes_however_deep_their_photos_lie() -> None:
    photos, _ = read(zip_of({"a/x/1.jpg": b"x", "b/y/1.jpg": b"x"}))
    assert [photo.label for photo in photos] == ["a", "b"]


@pytest.mark.parametrize(
    "names", [["train/a/1.jpg", "val/b/1.jpg"], ["Audi/A4/1.jpg", "Audi/A6/1.jpg", "Kia/Rio/1.jpg"]]
)
def test_folders_that_may_be_no_classes_are_not_scored_unless_their_depth_is_named(names: list[str]) -> None:
    packed = io.BytesIO(zip_of(dict.fromkeys(names, b"x")))
    with pytest.raises(EvaluationSetInvalid, match=r"^The folders at the top .* \(class depth 2, for example\)\.$"):
        read_archive(packed)
    photos, _ = read_archive(packed, class_depth=2)
    assert [photo.label for photo in photos] == [name.split("/")[1] for name in names]
    assert {photo.label for photo in read_archive(packed, class_depth=1)[0]} == {name.split("/")[0] for name in names}


@pytest.mark.parametrize(
    "litter",
    [
        "__MACOSX/a/._1.jpg",
        "a/.DS_Store",
        "a/Thumbs.db",
        "desktop.ini",
        ".hidden/1.jpg",
        "a/@eaDir/1.jpg/SYNOPHOTO_THUMB_M.jpg",
        "#recycle/a/1.jpg",
        "README.txt",
        "a/1.json",
    ],
)
def test_what_systems_leave_behind_is_ignored(litter: str) -> None:
    photos, skipped = read(zip_of({**PHOTOS, litter: b"litter"}))
    assert ([photo.id for photo in photos], skipped) == (list(PHOTOS), [])


@pytest.mark.parametrize("pack", [zip_of, tar_of], ids=["zip", "tar"])
@pytest.mark.parametrize(
    "name",
    ["../1.jpg", "a/../../1.jpg", "/etc/1.jpg", "C:/1.jpg", "a\\1.jpg", "a/" + "x" * 2000 + ".jpg", ".git/../../x"],
)
def test_a_name_that_leaves_the_archive_is_refused(pack: Callable[[dict[str, bytes]], bytes], name: str) -> None:
    with pytest.raises(CarsearchError) as refused:
        read(pack({**PHOTOS, name: b"x"}))
    assert refused.value.code == "archive_unsafe_path"
    assert name not in str(refused.value)


@pytest.mark.parametrize(
    "archive",
    [
        pytest.param(zip_entry("a/link.jpg", b"/etc/passwd", stat.S_IFLNK | 0o777), id="zip, link"),
        pytest.param(zip_entry("a/pipe", b"", stat.S_IFIFO), id="zip, pipe"),
        pytest.param(tar_entry("a/link.jpg", tarfile.SYMTYPE, "/etc/passwd"), id="tar, link"),
        pytest.param(tar_entry("a/hard.jpg", tarfile.LNKTYPE, "../1.jpg"), id="tar, hard link"),
        pytest.param(tar_entry("a/pipe", tarfile.FIFOTYPE), id="tar, pipe"),
        pytest.param(tar_entry("a/disk", tarfile.BLKTYPE), id="tar, device"),
    ],
)
def test_links_and_special_files_are_listed_and_never_followed(archive: bytes) -> None:
    photos, skipped = read(archive)
    assert photos == []
    assert [one.code for one in skipped] == ["not_a_file"]


def with_flag(flag: int) -> bytes:
    archive = bytearray(zip_of(PHOTOS))
    archive[archive.index(b"PK\x01\x02") + 8] |= flag
    return bytes(archive)


def many_long_names() -> bytes:
    """A tar of headers that each say: the name of what follows is long."""
    header = tarfile.TarInfo("long")
    header.type, header.size = tarfile.GNUTYPE_LONGNAME, 512
    return (header.tobuf(tarfile.GNU_FORMAT) + b"a" * 512) * 3000


def far_away() -> bytes:
    """A zip of four photos; the directory, in zip64, puts the last one beyond what a file position can be."""
    extra = struct.pack("<HHQ", 1, 8, 2**63 + 5)
    buffer = io.BytesIO(zip_of(PHOTOS))
    entry = zipfile.ZipInfo("b/2.jpg")
    entry.extra = extra
    with zipfile.ZipFile(buffer, "a") as archive:
        archive.writestr(entry, car_photo(2, 1))
    changed = bytearray(buffer.getvalue())
    last = changed.rindex(b"PK\x01\x02")
    changed[last + 42 : last + 46] = b"\xff" * 4
    return bytes(changed)


def with_entries_declared(number: int) -> bytes:
    archive = bytearray(zip_of(PHOTOS))
    archive[-12:-10] = archive[-14:-12] = number.to_bytes(2, "little")
    return bytes(archive)


def as_zip64(archive: bytes) -> bytes:
    """The same zip with its directory described in the records of zip64 only."""
    count, size, offset = struct.unpack("<HLL", archive[-12:-2])
    record = struct.pack("<4sQHHLLQQQQ", b"PK\x06\x06", 44, 45, 45, 0, 0, count, count, size, offset)
    locator = struct.pack("<4sLQL", b"PK\x06\x07", 0, len(archive) - 22, 1)
    end = struct.pack("<4sHHHHLLH", b"PK\x05\x06", 0, 0, 0xFFFF, 0xFFFF, 0xFFFFFFFF, 0xFFFFFFFF, 0)
    return archive[:-22] + record + locator + end


@pytest.mark.parametrize(
    ("archive", "limits", "code"),
    [
        pytest.param(with_flag(0x1), {}, "unsupported_archive", id="encrypted"),
        pytest.param(zip_of(PHOTOS, zipfile.ZIP_BZIP2), {}, "unsupported_archive", id="bzip2"),
        pytest.param(zip_of(PHOTOS, zipfile.ZIP_LZMA), {}, "unsupported_archive", id="lzma"),
        pytest.param(tar_of(PHOTOS, "w:gz"), {}, "unsupported_archive", id="tar.gz"),
        pytest.param(tar_of(PHOTOS, "w:xz"), {}, "unsupported_archive", id="tar.xz"),
        pytest.param(b"Rar!\x1a\x07\x00", {}, "unsupported_archive", id="rar"),
        pytest.param(b"", {}, "unsupported_archive", id="nothing"),
        pytest.param(zip_of({"a/1.jpg": bytes(2 * MIB)}, DEFLATED), {}, "archive_bomb", id="packed 1000 times"),
        pytest.param(zip_of({".a": bytes(2 * MIB)}, DEFLATED), {}, "archive_bomb", id="a bomb among the litter"),
        pytest.param(zip_of(PHOTOS), {"unpacked_bytes": 4000}, "archive_bomb", id="too large in sum"),
        pytest.param(zip_of(PHOTOS), {"entries": 2}, "archive_too_large", id="too many in a zip"),
        pytest.param(tar_of(PHOTOS), {"entries": 2}, "archive_too_large", id="too many in a tar"),
        pytest.param(with_entries_declared(1), {"entries": 2}, "archive_too_large", id="a zip that lies"),
        pytest.param(as_zip64(zip_of(PHOTOS)), {"entries": 2}, "archive_too_large", id="too many in zip64"),
        pytest.param(
            zip_of({f"{name}/": b"" for name in "abc"}),
            {"entries": 2},
            "archive_too_large",
            id="zip folders",
        ),
        pytest.param(
            tar_entry("a", tarfile.DIRTYPE)[:512] * 3 + bytes(1024),
            {"entries": 2},
            "archive_too_large",
            id="tar folders",
        ),
        pytest.param(many_long_names(), {}, "archive_invalid", id="tar of 3000 long names"),
        pytest.param(tar_with_headers(1001), {}, "archive_invalid", id="tar of many headers"),
        pytest.param(tar_with_headers(1, 66_000), {}, "archive_invalid", id="tar of a long header"),
        pytest.param(tar_with_headers(1, 66_000, whole=False), {}, "archive_invalid", id="tar, long header of a file"),
        pytest.param(zip_of(PHOTOS)[:-40], {}, "archive_invalid", id="zip cut off"),
        pytest.param(tar_of(PHOTOS)[:1000], {}, "archive_invalid", id="tar cut off in a photo"),
        pytest.param(tar_of(PHOTOS)[: 512 * 10 + 100], {}, "archive_invalid", id="tar cut off further on"),
        pytest.param(
            tar_of(PHOTOS).replace(b"b/1.jpg", b"b/2.jpg", 1), {}, "archive_invalid", id="tar, damaged header"
        ),
        pytest.param(zip_of({"1.jpg": b"x"}), {}, "evaluation_set_invalid", id="no class folder"),
    ],
)
def test_an_archive_that_cannot_be_used_says_why(archive: bytes, limits: dict[str, int], code: str) -> None:
    with pytest.raises(CarsearchError) as refused:
        read(archive, **limits)
    assert refused.value.code == code


def test_photos_that_all_lie_in_no_class_folder_are_named() -> None:
    with pytest.raises(EvaluationSetInvalid, match=r"^12 files lie in no class folder: photo 0.jpg, .*photo 9.jpg\.$"):
        read(zip_of({f"photo {number}.jpg": b"x" for number in range(12)}))


def test_headers_of_a_tar_are_not_kept_for_each_file() -> None:
    photos = {f"a/{number}.jpg": b"x" for number in range(100)}
    plain = tar_of(photos)
    headed = tar_with_headers(1000, 20)[:-10240] + plain  # its own photo's block, and then the others
    tracemalloc.start()
    found, _ = read(headed)
    held_bytes, _ = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert len(found) >= 100
    assert held_bytes < 1_000_000


@pytest.mark.parametrize("pack", [zip_of, tar_of])
def test_names_may_begin_with_the_folder_itself(pack: Callable[[dict[str, bytes]], bytes]) -> None:
    photos, skipped = read(pack({f"./{name}": photo for name, photo in PHOTOS.items()}))
    assert ([photo.id for photo in photos], skipped) == (list(PHOTOS), [])


@pytest.mark.parametrize("archive", [zip_of(PHOTOS), as_zip64(zip_of(PHOTOS))], ids=["zip", "zip64"])
def test_a_directory_that_is_too_long_is_refused_before_it_is_parsed(
    archive: bytes, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert len(read(archive, entries=3)[0]) == 3
    monkeypatch.setattr(zipfile, "ZipFile", None)
    with pytest.raises(ArchiveTooLarge):
        read(archive, entries=2)


def test_a_member_that_cannot_be_reached_is_skipped_and_the_others_count(fake_embedder: Embedder) -> None:
    photos, _ = read(far_away())
    report = evaluate(photos, fake_embedder).report
    assert (report.total, [(one.name, one.code) for one in report.skipped]) == (3, [("b/2.jpg", "image_undecodable")])


def test_a_file_larger_than_a_photo_may_be_is_skipped() -> None:
    photos, skipped = read(zip_of({**PHOTOS, "b/2.jpg": bytes(5000)}), photo_bytes=4000)
    assert [photo.id for photo in photos] == list(PHOTOS)
    assert [(one.name, one.code) for one in skipped] == [("b/2.jpg", "payload_too_large")]


def test_a_photo_in_an_archive_may_be_as_large_as_one_in_a_folder() -> None:
    assert ArchiveLimits().photo_bytes == MAX_FILE_BYTES


@pytest.mark.parametrize("archive", [zip_of({}), zip_of({"a/": b""})], ids=["empty", "only a folder"])
def test_an_archive_of_nothing_is_no_set(archive: bytes, fake_embedder: Embedder) -> None:
    photos, skipped = read(archive)
    assert (photos, skipped) == ([], [])
    with pytest.raises(EvaluationSetInvalid):
        evaluate(photos, fake_embedder)


@pytest.mark.parametrize("pack", [zip_of, tar_of], ids=["zip", "tar"])
@pytest.mark.filterwarnings("ignore:Duplicate name")
def test_a_name_that_stands_twice_is_refused(
    pack: Callable[[list[tuple[str, bytes]]], bytes], fake_embedder: Embedder
) -> None:
    photos, _ = read(pack([*PHOTOS.items(), ("a/1.jpg", car_photo(3))]))
    with pytest.raises(DuplicateId, match=r"a/1\.jpg"):
        evaluate(photos, fake_embedder)


def test_one_damaged_member_is_skipped_and_the_others_count(fake_embedder: Embedder) -> None:
    damaged = bytearray(zip_of({**PHOTOS, "a/3.jpg": car_photo(1, 2)}))
    damaged[damaged.index(PHOTOS["a/2.jpg"]) + 600] ^= 0xFF
    photos, skipped = read(bytes(damaged))
    report = evaluate(photos, fake_embedder, skipped=skipped).report
    assert (report.total, [(one.name, one.code) for one in report.skipped]) == (3, [("a/2.jpg", "image_undecodable")])


def test_an_archive_inside_is_a_file_that_is_no_photo(fake_embedder: Embedder) -> None:
    photos, _ = read(zip_of({**PHOTOS, "b/inner.zip": zip_of(PHOTOS)}))
    report = evaluate(photos, fake_embedder).report
    assert [(one.name, one.code) for one in report.skipped] == [("b/inner.zip", "unsupported_image_format")]


SMALL = {"a/1": b"first " * 40, f"{KOREAN}/2": b"second" * 40}
VALID = [
    zip_of(SMALL),
    zip_of(SMALL, DEFLATED),
    tar_of(SMALL),
    cp949(),
    unicode_extra(),
    as_zip64(zip_of(SMALL)),
    zip_entry("a/l", b"x", stat.S_IFLNK),
]


@st.composite
def damaged_archives(draw: st.DrawFn) -> bytes:
    """A valid archive with bytes changed, and perhaps a piece cut out or put in."""
    archive = bytearray(draw(st.sampled_from(VALID)))
    for place, value in draw(st.lists(st.tuples(st.integers(0, len(archive) - 1), st.integers(0, 255)), max_size=8)):
        archive[place] = value
    start, end = sorted(draw(st.tuples(st.integers(0, len(archive)), st.integers(0, len(archive)))))
    piece = draw(st.sampled_from([bytes(archive[start:end]), b"", b"\xff" * 8, bytes(512)]))
    archive[start:end] = piece
    return bytes(archive)


@tried(max_examples=500, deadline=None)
@given(archive=damaged_archives())
def test_whatever_is_damaged_gives_a_set_or_one_of_our_errors(archive: bytes) -> None:
    try:
        photos, _ = read(archive, entries=100, unpacked_bytes=MIB, photo_bytes=MIB)
    except CarsearchError:
        return
    for photo in photos:
        try:
            assert len(photo.read()) <= MIB
        except CarsearchError as problem:
            assert problem.code == "image_undecodable"  # noqa: PT017


@pytest.mark.parametrize("pack", [zip_of, tar_of], ids=["zip", "tar"])
def test_a_manifest_in_an_archive_names_the_classes(pack: Callable[[dict[str, bytes]], bytes]) -> None:
    table = b"path;Class;id\nimages/1.jpg;Kia;one\nimages\\2.jpg;Audi;\nimages/9.jpg;Audi;\n"
    photos, skipped = read(pack({"set.csv": table, **{f"images/{shot}.jpg": b"x" for shot in range(4)}}))
    assert [(photo.id, photo.label) for photo in photos] == [("images/2.jpg", "Audi"), ("one", "Kia")]
    assert [(one.name, one.code) for one in skipped] == [
        ("images/9.jpg", "photo_missing"),
        ("images/0.jpg", "no_class"),
        ("images/3.jpg", "no_class"),
    ]


def test_photos_csv_in_an_archive_adds_to_its_folders() -> None:
    table = "path,class\nb/1.jpg,Kia\n".encode("utf-16")
    photos, skipped = read(
        zip_of({"val/photos.csv": table, "val/a/1.jpg": b"x", "val/b/1.jpg": b"x", "val/b/2.jpg": b"x"})
    )
    assert [(photo.id, photo.label) for photo in photos] == [("a/1.jpg", "a"), ("b/1.jpg", "Kia"), ("b/2.jpg", "b")]
    assert skipped == []


@pytest.mark.parametrize(
    "path", ["~/x.jpg", "/etc/passwd", "file:///etc/passwd", "../a/1.jpg", "a/../../x", "C:\\x.jpg"]
)
def test_a_path_of_a_manifest_does_not_leave_its_archive(path: str) -> None:
    with pytest.raises(
        ManifestInvalid, match=r"set\.csv, line 2: a path in an archive is relative and does not leave it"
    ):
        read(zip_of({"set.csv": f"path,class\n{path},Kia\n".encode(), "a/1.jpg": b"x"}))


def test_two_manifests_in_an_archive_are_one_too_many_and_other_tables_are_none() -> None:
    table = b"path,class\na/1.jpg,Kia\n"
    with pytest.raises(EvaluationSetInvalid, match=r"Several CSV files .*: one\.csv, two\.csv\."):
        read(zip_of({"one.csv": table, "two.csv": table, "a/1.jpg": b"x"}))
    photos, _ = read(zip_of({"results.csv": b"epoch,loss\n1,2\n", "a/1.jpg": b"x", "b/1.jpg": b"x"}))
    assert [photo.label for photo in photos] == ["a", "b"]


def test_with_a_depth_no_folder_around_the_set_is_looked_through() -> None:
    packed = io.BytesIO(zip_of({"val/a/1.jpg": b"x", "val/b/1.jpg": b"x"}))
    by_depth = [[(photo.id, photo.label) for photo in read_archive(packed, class_depth=depth)[0]] for depth in (1, 2)]
    assert by_depth == [
        [("val/a/1.jpg", "val"), ("val/b/1.jpg", "val")],
        [("val/a/1.jpg", "a"), ("val/b/1.jpg", "b")],
    ]


def test_a_manifest_has_no_more_rows_than_an_archive_may_have_files_and_few_missing_ones_are_listed() -> None:
    table = b"path,class\na/1.jpg,Kia\n" + b"".join(b"a/%d.jpg,Kia\n" % number for number in range(2, 300))
    packed = zip_of({"set.csv": table, "a/1.jpg": b"x"})
    photos, skipped = read(packed, entries=299)
    assert ([photo.label for photo in photos], len(skipped)) == (["Kia"], 101)
    assert (skipped[0].name, skipped[-1].name) == ("a/2.jpg", "set.csv")
    assert "lacks 198 more" in skipped[-1].message
    with pytest.raises(ManifestInvalid, match=r"^set\.csv has more than 298 rows"):
        read(packed, entries=298)


def test_an_id_in_an_archive_is_printable_and_photos_csv_names_none() -> None:
    photos, _ = read(zip_of({"photos.csv": b"path,id\na/1.jpg,one\nb/1.jpg,one\n", "a/1.jpg": b"x", "b/1.jpg": b"x"}))
    assert [(photo.id, photo.label) for photo in photos] == [("a/1.jpg", "a"), ("b/1.jpg", "b")]
    with pytest.raises(ManifestInvalid, match=r"^set\.csv, line 2: an id has no unprintable characters"):
        read(zip_of({"set.csv": b"path,class,id\na/1.jpg,a,o\x01e\n", "a/1.jpg": b"x"}))


def test_a_name_that_is_no_utf8_is_told_as_text() -> None:
    name = b"\xff.csv".decode("utf-8", "surrogateescape")
    packed = tar_of({name: b"path,class\n/x,Kia\n", "a/1.jpg": b"x"})
    with pytest.raises(ManifestInvalid, match=r"^\\xff\.csv, line 2: a path in an archive is relative"):
        read(packed)


def test_a_table_that_is_damaged_in_its_archive_is_named() -> None:
    table = b"path,class\na/1.jpg,a\n" * 20
    packed = zip_of({"a/1.jpg": b"x", "set.csv": table})
    with pytest.raises(ManifestInvalid, match=r"set\.csv is damaged inside the archive"):
        read(packed.replace(table, table[:-1] + b"?", 1))
