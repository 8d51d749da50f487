"""Labelled sets in a zip or tar: read in place, never extracted, nothing that the sender named touches the disk.

Names follow the rule of class folders (`model.dataset`): the first folder is the class. A folder that wraps the
whole set ("val/<class>/...") is looked through: taken for the one class of all photos, it would make every score
perfect.
"""

import stat
import struct
import tarfile
import threading
import zipfile
import zlib
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from typing import BinaryIO, Self

from model.archive_sheet import ArchiveSheet, SheetFile, read_archive_sheet
from model.dataset import MAX_FILE_BYTES, Skipped
from model.errors import CarsearchError, EvaluationSetInvalid, ImageUndecodable
from model.folders import SAY_DEPTH, doubt_about_classes, is_litter, is_side_file, label_of
from model.names import ids_of, printable

MIB = 1 << 20
MAX_RATIO = 100
MAX_NAME_BYTES = 1024
ENCRYPTED = 0x1
UTF8_NAME = 0x800
ZIP_ENTRY = b"PK\x01\x02"
READ_BYTES = 1 << 20
UNICODE_PATH_EXTRA = 0x7075
NOT_A_FILE = ("not_a_file", "Links and special files are not followed.")
MAX_HEADERS = 1_000
"""Attributes that a tar gives to all of its files."""

MAX_HEADER_BYTES = 64 << 10
"""A tar's header with names and attributes, which tarfile reads as a whole, may have so many bytes."""

EXTENDED_HEADERS = (
    tarfile.XHDTYPE, tarfile.XGLTYPE, tarfile.SOLARIS_XHDTYPE, tarfile.GNUTYPE_LONGNAME, tarfile.GNUTYPE_LONGLINK,
)  # fmt: skip

# The errors that zipfile and tarfile raise on damaged archives. zipfile raises NotImplementedError for a compression
# method that it cannot read.
DAMAGED = (
    zipfile.BadZipFile, tarfile.TarError, zlib.error, struct.error, EOFError, OSError, ValueError, KeyError, IndexError,
    NotImplementedError, OverflowError, RecursionError, MemoryError,
)  # fmt: skip


class UnsupportedArchive(CarsearchError, code="unsupported_archive", status=415): ...


class ArchiveInvalid(CarsearchError, code="archive_invalid", status=422): ...


class ArchiveUnsafePath(ArchiveInvalid, code="archive_unsafe_path"): ...


class ArchiveBomb(ArchiveInvalid, code="archive_bomb"): ...


class ArchiveTooLarge(ArchiveInvalid, code="archive_too_large", status=413): ...


@dataclass(frozen=True, slots=True)
class ArchiveLimits:
    """The most that an archive may hold."""

    entries: int = 20_000
    unpacked_bytes: int = 2048 * MIB
    photo_bytes: int = MAX_FILE_BYTES


@dataclass(frozen=True, slots=True)
class ArchivePhoto:
    """A labelled photo inside an archive."""

    id: str
    label: str
    read: Callable[[], bytes]


@dataclass(frozen=True, slots=True)
class _Member:
    """A file in an archive; `unusable` is why it is none of the photos, as a code and a sentence."""

    name: str
    size_bytes: int
    packed_bytes: int
    unusable: tuple[str, str] | None
    read: Callable[[], bytes]


def read_archive(
    file: BinaryIO, limits: ArchiveLimits = ArchiveLimits(), class_depth: int | None = None
) -> tuple[list[ArchivePhoto], list[Skipped]]:
    """Lists the photos of a zip or tar of class folders, ordered by id, and what in it is not used.

    A CSV file at its top may name the classes instead (`model.archive_sheet`). `class_depth` is that of
    `model.dataset.read_items`; with it no folder around the set is looked through. The photos can be read as long as
    `file` is open, from several threads. Raises UnsupportedArchive, ArchiveInvalid and its kinds, ManifestInvalid, or
    EvaluationSetInvalid when there are photos but none of them has a class, or their folders may be no classes.
    """
    members = list(_checked(_members(file, limits), limits))
    files = [member for member in members if not is_side_file(member.name)]
    usable = [member.name for member in files if member.unusable is None]
    wrapping = _wrapping_folder(usable)
    sheet = read_archive_sheet(_sheets_at_the_top(members, wrapping), usable, limits.entries)
    prefix = wrapping if class_depth is None else ""
    names = [member.name.removeprefix(prefix) for member in files]
    photos, skipped, stray = [], [] if sheet is None else list(sheet.missing), []
    for member, name, identity in zip(files, names, ids_of(names), strict=True):
        of_folder = label_of(name.split("/")[:-1], 1 if class_depth is None else class_depth)
        label, known_as = (of_folder, identity) if sheet is None else _by_sheet(sheet, member.name, of_folder, identity)
        if member.unusable is not None:
            skipped.append(Skipped(printable(name), *member.unusable))
        elif not label:
            stray.append(printable(name))
        else:
            photos.append(ArchivePhoto(known_as, label, member.read))
    if stray and not photos:
        told = ", ".join(name[:40] for name in stray[:10])
        raise EvaluationSetInvalid(f"{len(stray)} files lie in no class folder: {told}"[:290] + ".")
    if class_depth is None and not (sheet and sheet.has_classes):
        _refuse_doubtful([name.removeprefix(prefix) for name in usable])
    skipped += [Skipped(name, "no_class", "The file lies in no class folder.") for name in stray]
    return sorted(photos, key=lambda photo: photo.id), skipped


def _by_sheet(sheet: ArchiveSheet, name: str, of_folder: str, identity: str) -> tuple[str, str]:
    """The class and the id of a member where a CSV file names classes, by what they would be without it."""
    label = sheet.labels.get(name) or ("" if sheet.only_listed else of_folder)
    return label, sheet.ids.get(name) or identity


def _sheets_at_the_top(members: Sequence[_Member], prefix: str) -> list[SheetFile]:
    """The CSV files beside the class folders, or beside the folder that wraps them all."""
    return [
        SheetFile(member.name, member.size_bytes, member.read)
        for member in members
        if member.name.lower().endswith(".csv") and "/" not in member.name.removeprefix(prefix) and not member.unusable
    ]


def _refuse_doubtful(names: Sequence[str]) -> None:
    doubt = doubt_about_classes([name.split("/")[:-1] for name in names])
    if doubt is not None:
        raise EvaluationSetInvalid(f"{doubt} {SAY_DEPTH}")


def _members(file: BinaryIO, limits: ArchiveLimits) -> Iterator[_Member | None]:
    """The files of an archive, and None for each of its folders."""
    head = file.read(512)
    file.seek(0)
    if head[:4] in (b"PK\x03\x04", b"PK\x05\x06"):
        return _zip_members(file, limits)
    if head[257:262] == b"ustar":
        return _tar_members(file)
    raise UnsupportedArchive("Send a zip, or a tar that is not compressed.")


def _checked(members: Iterator[_Member | None], limits: ArchiveLimits) -> Iterator[_Member]:
    """Enforces the limits that hold for both formats, before any member is read."""
    total = 0
    for count, member in enumerate(members, 1):
        if count > limits.entries:
            raise _too_many(limits)
        if member is None:
            continue
        parts = member.name.split("/")
        if _is_unsafe(member.name, parts):
            raise ArchiveUnsafePath("The archive has a file whose name is too long or leads out of it.")
        total += member.size_bytes
        if total > limits.unpacked_bytes:
            raise ArchiveBomb(f"Unpacked, the archive is larger than {limits.unpacked_bytes} bytes.")
        if member.size_bytes > MIB and member.size_bytes > MAX_RATIO * max(1, member.packed_bytes):
            raise ArchiveBomb(f"The archive packs a file more than {MAX_RATIO} times.")
        if any(map(is_litter, parts)):
            continue
        if member.unusable is None and member.size_bytes > limits.photo_bytes:
            message = f"The file is larger than {limits.photo_bytes} bytes."
            member = replace(member, unusable=("payload_too_large", message))
        yield member


def _too_many(limits: ArchiveLimits) -> ArchiveTooLarge:
    return ArchiveTooLarge(f"The archive has more than {limits.entries} files and folders.")


def _is_unsafe(name: str, parts: list[str]) -> bool:
    drive = len(parts[0]) == 2 and parts[0][1] == ":"
    too_long = len(name.encode("utf-8", "surrogateescape")) > MAX_NAME_BYTES
    return name.startswith("/") or "\\" in name or "\0" in name or ".." in parts or drive or too_long


def _wrapping_folder(names: list[str]) -> str:
    """The folder around the set, with its "/": the only one at the top, when there are folders with photos in it."""
    top = {name.partition("/")[0] for name in names if "/" in name}
    wraps = len(top) == 1 and any(name.count("/") >= 2 for name in names)
    return f"{top.pop()}/" if wraps else ""


def _refuse_many_entries(file: BinaryIO, limits: ArchiveLimits) -> None:
    """zipfile reads the whole directory of a zip before it gives the first entry, so its entries are counted before.

    The number that the archive declares may be a lie. A photo that happens to hold the mark of an entry counts too: one
    is expected in 4 GB.
    """
    found, before = 0, b""
    file.seek(0)
    while chunk := file.read(READ_BYTES):
        text = before + chunk
        found, before = found + text.count(ZIP_ENTRY), text[-len(ZIP_ENTRY) + 1 :]
        if found > limits.entries:
            raise _too_many(limits)


def _zip_members(file: BinaryIO, limits: ArchiveLimits) -> Iterator[_Member | None]:
    try:
        _refuse_many_entries(file, limits)
        archive = zipfile.ZipFile(file)
        entries = archive.infolist()
    except DAMAGED as problem:
        raise ArchiveInvalid("The zip is damaged or cut off.") from problem
    lock = threading.Lock()  # ZipFile shares one file position between readers

    for entry in entries:
        if not entry.filename:  # zipfile looks at its last character
            raise ArchiveInvalid("The zip has a file without a name.")
        if entry.is_dir():
            yield None
            continue
        if entry.flag_bits & ENCRYPTED:
            raise UnsupportedArchive("The zip is encrypted.")
        if entry.compress_type not in (zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED):
            raise UnsupportedArchive("The zip uses a compression other than deflate.")
        name = _zip_name(entry).removeprefix("./")
        plain = stat.S_IFMT(entry.external_attr >> 16) in (0, stat.S_IFREG)
        unusable = None if plain else NOT_A_FILE

        def read(entry: zipfile.ZipInfo = entry) -> bytes:
            try:
                with lock, archive.open(entry) as member:
                    return member.read(entry.file_size + 1)  # one more meets the end, where the checksum is compared
            except DAMAGED as problem:
                raise ImageUndecodable("The file is damaged inside the archive.") from problem

        yield _Member(name, entry.file_size, entry.compress_size, unusable, read)


def _zip_name(entry: zipfile.ZipInfo) -> str:
    """A member's name: zips without the UTF-8 flag hold whatever the sender's system wrote, in Korea CP949."""
    if entry.flag_bits & UTF8_NAME:
        return entry.filename
    if (extra := _unicode_path(entry.extra)) is not None:
        return extra
    try:
        raw = entry.filename.encode("cp437")  # what zipfile decoded it as
    except UnicodeEncodeError:
        return entry.filename
    for encoding in ("utf-8", "cp949"):
        try:
            return raw.decode(encoding)
        except UnicodeDecodeError:
            continue
    return entry.filename


def _unicode_path(extra: bytes) -> str | None:
    """The Info-ZIP unicode path field: header id, size, version 1, CRC of the plain name, then the name in UTF-8."""
    while len(extra) >= 4:
        kind, size = int.from_bytes(extra[:2], "little"), int.from_bytes(extra[2:4], "little")
        if kind == UNICODE_PATH_EXTRA and size > 5 and extra[4:5] == b"\x01":
            try:
                return extra[9 : 4 + size].decode("utf-8")
            except UnicodeDecodeError:
                return None
        extra = extra[4 + size :]
    return None


class _Entry(tarfile.TarInfo):
    """An entry of a tar; an extended header, which only describes the next entry, has a limit."""

    @classmethod
    def frombuf(cls, buf: bytes | bytearray, encoding: str, errors: str) -> Self:
        """See tarfile; raises ArchiveInvalid."""
        entry = super().frombuf(buf, encoding, errors)
        if entry.type in EXTENDED_HEADERS and entry.size > MAX_HEADER_BYTES:
            raise ArchiveInvalid(f"The tar has a header of more than {MAX_HEADER_BYTES} bytes.")
        return entry


def _tar_members(file: BinaryIO) -> Iterator[_Member | None]:
    lock = threading.Lock()
    try:
        # It lives as long as the photos.
        archive = tarfile.open(fileobj=file, mode="r:", tarinfo=_Entry)  # noqa: SIM115
        for entry in archive:
            entry.pax_headers = {}  # a copy of all that hold for the whole archive, which every entry would keep
            if len(archive.pax_headers) > MAX_HEADERS:
                raise ArchiveInvalid(f"The tar has more than {MAX_HEADERS} headers that hold for all of its files.")
            if entry.isdir():
                yield None
                continue

            def read(entry: tarfile.TarInfo = entry) -> bytes:
                try:
                    with lock:
                        member = archive.extractfile(entry)
                        data = member.read(entry.size) if member else b""
                except DAMAGED as problem:
                    raise ImageUndecodable("The file is damaged inside the archive.") from problem
                if len(data) != entry.size:
                    raise ImageUndecodable("The file is cut off inside the archive.")
                return data

            name = entry.name.removeprefix("./")
            yield _Member(name, entry.size, entry.size, None if entry.isreg() else NOT_A_FILE, read)
        file.seek(archive.offset)
        if file.read(tarfile.BLOCKSIZE) != bytes(tarfile.BLOCKSIZE):  # tarfile takes a damaged header for the end
            raise ArchiveInvalid("The tar is damaged or cut off.")
    except DAMAGED as problem:
        raise ArchiveInvalid("The tar is damaged or cut off.") from problem
