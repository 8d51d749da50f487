"""Labelled sets in a zip or tar: read in place, never extracted, nothing that the sender named touches the disk.

Names follow the rule of class folders (`model.data`): the first folder is the class. A folder that wraps the whole set
("val/<class>/...") is looked through.
"""

import stat
import tarfile
import threading
import zipfile
import zlib
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from typing import BinaryIO

from model.data import LITTER, Skipped, id_of, normalise_label, printable
from model.errors import CarsearchError, EvaluationSetInvalid, ImageTooManyPixels, ImageUndecodable
from service.settings import MIB, Settings

MAX_RATIO = 100
MAX_NAME_BYTES = 1024
ENCRYPTED = 0x1
UTF8_NAME = 0x800
UNICODE_PATH_EXTRA = 0x7075


class UnsupportedArchive(CarsearchError):
    code = "unsupported_archive"


class ArchiveInvalid(CarsearchError):
    code = "archive_invalid"


class ArchiveUnsafePath(ArchiveInvalid):
    code = "archive_unsafe_path"


class ArchiveBomb(ArchiveInvalid):
    code = "archive_bomb"


class ArchiveTooLarge(ArchiveInvalid):
    code = "archive_too_large"


@dataclass(frozen=True, slots=True)
class ArchivePhoto:
    """A labelled photo inside an archive."""

    id: str
    label: str
    read_member: Callable[[], bytes]

    def read(self) -> bytes:
        return self.read_member()


@dataclass(frozen=True, slots=True)
class _Member:
    name: str
    size_bytes: int
    packed_bytes: int
    unusable: Skipped | None
    read: Callable[[], bytes]


def read_archive(file: BinaryIO, settings: Settings) -> tuple[list[ArchivePhoto], list[Skipped]]:
    """Lists the photos of a zip or tar of class folders, ordered by id, and what in it is not used.

    The photos can be read as long as `file` is open, from several threads. Raises UnsupportedArchive, ArchiveInvalid
    and its kinds, or EvaluationSetInvalid when photos lie in no class folder.
    """
    members = list(_checked(_members(file, settings), settings))
    skipped = [member.unusable for member in members if member.unusable is not None]
    usable = [member for member in members if member.unusable is None]
    prefix = _wrapping_folder([member.name for member in usable])
    usable = [replace(member, name=member.name.removeprefix(prefix)) for member in usable]
    stray = [member.name for member in usable if "/" not in member.name]
    if stray:
        names = ", ".join(printable(name)[:40] for name in stray[:10])
        raise EvaluationSetInvalid(f"{len(stray)} files lie in no class folder: {names}"[:290] + ".")
    photos = [
        ArchivePhoto(id_of(member.name), normalise_label(printable(member.name.partition("/")[0])), member.read)
        for member in usable
    ]
    return sorted(photos, key=lambda photo: photo.id), skipped


def _members(file: BinaryIO, settings: Settings) -> Iterator[_Member]:
    head = file.read(512)
    file.seek(0)
    if head[:4] in (b"PK\x03\x04", b"PK\x05\x06"):
        return _zip_members(file, settings)
    if head[257:262] == b"ustar":
        return _tar_members(file, settings)
    raise UnsupportedArchive("Send a zip, or a tar that is not compressed.")


def _checked(members: Iterator[_Member], settings: Settings) -> Iterator[_Member]:
    """Enforces the limits that hold for both formats, before any member is read."""
    total = 0
    for count, member in enumerate(members, 1):
        if count > settings.max_archive_entries:
            raise ArchiveTooLarge(f"The archive has more than {settings.max_archive_entries} files.")
        parts = member.name.split("/")
        if _is_unsafe(member.name, parts):
            raise ArchiveUnsafePath(f"The archive has a file name that leaves it: {printable(member.name)[:80]!r}.")
        total += member.size_bytes
        if total > settings.max_archive_total_bytes:
            raise ArchiveBomb(f"Unpacked, the archive is larger than {settings.max_archive_total_bytes} bytes.")
        if member.size_bytes > MIB and member.size_bytes > MAX_RATIO * max(1, member.packed_bytes):
            raise ArchiveBomb(f"The archive packs a file more than {MAX_RATIO} times.")
        if any(part.startswith(".") or part.lower() in LITTER for part in parts):
            continue
        if member.unusable is None and member.size_bytes > settings.max_photo_bytes:
            message = f"The file is larger than {settings.max_photo_bytes} bytes."
            member = replace(member, unusable=Skipped(printable(member.name), ImageTooManyPixels.code, message))
        yield member


def _is_unsafe(name: str, parts: list[str]) -> bool:
    drive = len(parts[0]) == 2 and parts[0][1] == ":"
    too_long = len(name.encode("utf-8", "surrogateescape")) > MAX_NAME_BYTES
    return name.startswith("/") or "\\" in name or "\0" in name or ".." in parts or drive or too_long


def _wrapping_folder(names: list[str]) -> str:
    """The folder that all photos lie in, when their classes are the folders below it."""
    first = {name.partition("/")[0] for name in names}
    deep = all(name.count("/") >= 2 for name in names)
    return f"{first.pop()}/" if len(first) == 1 and deep else ""


def _zip_members(file: BinaryIO, settings: Settings) -> Iterator[_Member]:
    try:
        archive = zipfile.ZipFile(file)
        entries = archive.infolist()
    except (zipfile.BadZipFile, NotImplementedError, ValueError, OSError) as problem:
        raise ArchiveInvalid("The zip is damaged or cut off.") from problem
    lock = threading.Lock()  # ZipFile shares one file position between readers

    for entry in entries:
        if entry.is_dir():
            continue
        if entry.flag_bits & ENCRYPTED:
            raise UnsupportedArchive("The zip is encrypted.")
        if entry.compress_type not in (zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED):
            raise UnsupportedArchive("The zip uses a compression other than deflate.")
        name = _zip_name(entry)
        unusable = _not_a_file(name, entry.external_attr >> 16)

        def read(entry: zipfile.ZipInfo = entry) -> bytes:
            try:
                with lock, archive.open(entry) as member:
                    return _read_limited(member, settings.max_photo_bytes)  # type: ignore[arg-type]
            except (zipfile.BadZipFile, zlib.error, EOFError, OSError, ValueError, NotImplementedError) as problem:
                raise ImageUndecodable("The file is damaged inside the archive.") from problem

        yield _Member(name, entry.file_size, entry.compress_size, unusable, read)


def _zip_name(entry: zipfile.ZipInfo) -> str:
    """A member's name: zips without the UTF-8 flag hold whatever the sender's system wrote, in Korea CP949."""
    if entry.flag_bits & UTF8_NAME:
        return entry.filename
    extra = _unicode_path(entry.extra)
    if extra is not None:
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


def _tar_members(file: BinaryIO, settings: Settings) -> Iterator[_Member]:
    lock = threading.Lock()
    try:
        archive = tarfile.open(fileobj=file, mode="r:")  # noqa: SIM115  # lives as long as the photos
        for entry in archive:
            if entry.isdir():
                continue
            name = entry.name.removeprefix("./")
            unusable = None if entry.isreg() else _special(name)

            def read(entry: tarfile.TarInfo = entry) -> bytes:
                with lock:
                    member = archive.extractfile(entry)
                    data = _read_limited(member, settings.max_photo_bytes) if member else b""  # type: ignore[arg-type]
                if len(data) != entry.size:
                    raise ImageUndecodable("The file is cut off inside the archive.")
                return data

            yield _Member(name, entry.size, entry.size, unusable, read)
        file.seek(archive.offset)
        if file.read(tarfile.BLOCKSIZE) != bytes(tarfile.BLOCKSIZE):  # tarfile takes a damaged header for the end
            raise ArchiveInvalid("The tar is damaged or cut off.")
    except (tarfile.TarError, ValueError, OSError, EOFError) as problem:
        raise ArchiveInvalid("The tar is damaged or cut off.") from problem


def _not_a_file(name: str, mode: int) -> Skipped | None:
    if mode and stat.S_IFMT(mode) not in (0, stat.S_IFREG):
        return _special(name)
    return None


def _special(name: str) -> Skipped:
    return Skipped(printable(name), "not_a_file", "Links and special files are not followed.")


def _read_limited(member: BinaryIO, limit: int) -> bytes:
    data = member.read(limit + 1)
    if len(data) > limit:
        raise ImageTooManyPixels(f"The file is larger than {limit} bytes.")
    return data
