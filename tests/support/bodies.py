"""Multipart bodies and archives made by hand, so that they can be wrong in every way."""

import io
import tarfile
import zipfile
from collections.abc import Iterable, Mapping
from pathlib import Path

BOUNDARY = "frontier"
FORM = {"Content-Type": f"multipart/form-data; boundary={BOUNDARY}"}


def part(data: bytes, field: str = "file", filename: str | None = "photo.jpg") -> bytes:
    """One part of a form; without a filename it is a plain field."""
    name = f'; filename="{filename}"' if filename is not None else ""
    return f'Content-Disposition: form-data; name="{field}"{name}\r\n\r\n'.encode() + data


def multipart(*parts: bytes, closed: bool = True) -> bytes:
    """A form of parts between `BOUNDARY`s."""
    delimiter = f"--{BOUNDARY}".encode()
    body = b"".join(delimiter + b"\r\n" + one + b"\r\n" for one in parts)
    return body + delimiter + b"--\r\n" if closed else body


def form(data: bytes, field: str = "file") -> bytes:
    """The body that an ordinary client sends for one file."""
    return multipart(part(data, field))


def zip_of(members: Mapping[str, bytes] | Iterable[tuple[str, bytes]], packed: int = zipfile.ZIP_STORED) -> bytes:
    """A zip of named members."""
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w", packed) as archive:
        for name, data in members.items() if isinstance(members, Mapping) else members:
            archive.writestr(name, data)
    return buffer.getvalue()


def tar_of(members: Mapping[str, bytes] | Iterable[tuple[str, bytes]], mode: str = "w") -> bytes:
    """A tar of named regular files; mode "w:gz" compresses it."""
    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode=mode) as archive:  # type: ignore[call-overload]  # wants literal modes
        for name, data in members.items() if isinstance(members, Mapping) else members:
            entry = tarfile.TarInfo(name)
            entry.size = len(data)
            archive.addfile(entry, io.BytesIO(data))
    return buffer.getvalue()


def members_of(root: Path, folder: str = "") -> dict[str, bytes]:
    """A set of photos on disk as members of an archive, all inside `folder` when there is one."""
    files = (path for path in sorted(root.rglob("*")) if path.is_file())
    return {f"{folder}{path.relative_to(root).as_posix()}": path.read_bytes() for path in files}
