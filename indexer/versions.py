"""Index versions on disk: publish, verify, switch, keep N, roll back. The only code that changes index directories.

    <root>/versions/<id>/   index.faiss, items.sqlite, skipped.json, manifest.json; never modified under this name;
                            embeddings.f32, the vectors before rounding, where the index is not in fp32
    <root>/models/<sha256>/ the model of one or more versions
    <root>/work/<recipe>/   the checkpoint of an interrupted build
    <root>/CURRENT          the id of the version to serve

A version is written under a temporary name, made durable file by file and renamed. It is then verified and loaded as a
server will load it, before CURRENT is replaced. A crash at any moment, in FAISS or SQLite too, leaves CURRENT on a
complete version, and at worst a directory that the next run removes.
"""

import errno
import fcntl
import json
import logging
import os
import shutil
import socket
from collections.abc import Callable, Iterator, Set
from contextlib import contextmanager, nullcontext
from dataclasses import asdict
from pathlib import Path
from typing import Any

from indexer.load import Contents, read_contents, read_store, refuse_other_decoder
from indexer.manifest import INDEX_NAME, MANIFEST_NAME, Manifest
from indexer.recipes import create_store
from indexer.stores.candidates import CandidateStore
from indexer.stores.originals import Originals
from indexer.stores.precision import Storage
from model.card import CARD_NAME, card_sha256, verify_artifact
from model.errors import (
    CarsearchError,
    IndexInvalid,
    IndexLocked,
    IndexNotFound,
    ModelInvalid,
    ModelMismatch,
    VersionInUse,
    VersionNotFound,
)
from model.storage import FileRecord, fsync_directory, fsync_file, make_directory, naming, write_durably

CURRENT_NAME = "CURRENT"
KEEP_VERSIONS = 3
LOCK_NAME = ".lock"
HOLDER_NAME = ".lock.holder"
"""There while somebody writes, where the file system has no locks."""

HELD = frozenset({errno.EAGAIN, errno.EACCES})
NO_LOCKS = frozenset({errno.ENOLCK, errno.ENOSYS, errno.ENOTSUP, errno.EINVAL})

log = logging.getLogger("carsearch")


class IndexDirectory:
    """One index directory and its versions."""

    def __init__(self, root: Path) -> None:
        self.root = root

    def path_of(self, version: str) -> Path:
        return self.root / "versions" / version

    def model_path(self, model_sha256: str) -> Path:
        return self.root / "models" / model_sha256

    def current(self) -> str:
        """The id that CURRENT names; raises IndexNotFound when there is none."""
        try:
            name = (self.root / CURRENT_NAME).read_text(encoding="utf-8").strip()
        except (OSError, UnicodeDecodeError) as problem:
            raise IndexNotFound(f"There is no index in {self.root}; make one: carsearch index GALLERY") from problem
        if not name or "/" in name or name.startswith(".") or len(name) > 255:
            raise IndexInvalid(f"{self.root / CURRENT_NAME} does not name a version.")
        return name

    def pointer(self) -> tuple[str, int]:
        """The current version, and a number that changes when it is published again; raises as `current`, OSError."""
        return self.current(), (self.root / CURRENT_NAME).stat().st_mtime_ns

    def point_at(self, version: str) -> None:
        """Makes a version the current one, whatever it is."""
        write_durably(self.root / CURRENT_NAME, f"{version}\n".encode())

    def holds(self, manifest: Manifest) -> bool:
        """Tells if this directory has the vectors of a verified version in its store."""
        return manifest.storage is not Storage.milvus

    def write_vectors(
        self, directory: Path, originals: Originals, choice: str
    ) -> tuple[CandidateStore, dict[str, Any]]:
        """Stores the vectors of the version that is being written to a directory; gives the store and its recipe.

        Raises StorageTooLossy.
        """
        store, recipe = create_store(originals, choice)
        store.write(directory / INDEX_NAME)
        return store, recipe

    def contents(self, manifest: Manifest, *, whole: bool = True) -> Contents:
        """Loads a version that has been verified, as a server does; `whole` as in `read_store`; raises IndexInvalid."""
        directory = self.path_of(manifest.id)
        return read_contents(directory, manifest, read_store(directory, manifest, whole=whole))

    def versions(self) -> list[str]:
        """Ids of the published versions, oldest first."""
        folder = self.root / "versions"
        names = (path.name for path in folder.iterdir() if path.is_dir()) if folder.is_dir() else iter(())
        return sorted(name for name in names if not name.startswith(".") and not name.endswith(".tmp"))

    def manifest(self, version: str) -> Manifest:
        """Raises VersionNotFound or IndexInvalid."""
        directory = self.path_of(version)
        if not directory.is_dir():
            raise VersionNotFound(f"There is no version {version} in {self.root}.")
        manifest = Manifest.read(directory)
        if manifest.id != version:
            raise IndexInvalid(f"{directory} holds the manifest of version {manifest.id}.")
        return manifest

    def verify(self, version: str, *, contents: bool = True) -> Manifest:
        """Checks every byte of a version and its model; raises IndexInvalid, ModelInvalid or VersionNotFound.

        Without `contents` the version's own files are there with their sizes.
        """
        manifest = self.manifest(version)
        directory = self.path_of(version)
        if directory.is_symlink():
            raise IndexInvalid(f"{directory} is a link; a version is a directory of its own.")
        for name, record in manifest.files.items():
            problem = record.problem(directory / name, content=contents)
            if problem:
                raise IndexInvalid(f"The index version {directory.name} is damaged: {name} {problem}.")
        model = self.model_path(manifest.model_sha256)
        card = verify_artifact(model)
        if card_sha256(model) != manifest.model_sha256:
            raise ModelMismatch(f"{model} is not the model that version {manifest.id} was built with.")
        if card.input.sha256 != manifest.preprocessing_sha256:
            raise ModelMismatch(f"Version {manifest.id} was built with other preprocessing than its model's.")
        return manifest

    @contextmanager
    def lock(self) -> Iterator[None]:
        """Holds the directory for one writer; raises IndexLocked when another process has it.

        Where the file system has no locks a file takes their place. It stays behind when its process is killed, so the
        error says how to remove it.
        """
        make_directory(self.root)
        path = self.root / LOCK_NAME
        with path.open("w") as file:
            why = None
            try:
                with naming(path):
                    fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except OSError as problem:
                if problem.errno in HELD:
                    raise IndexLocked(f"Another process is writing to {self.root}; wait for it to end.") from problem
                if problem.errno not in NO_LOCKS:
                    raise
                why = problem.strerror
            with _holder(self.root / HOLDER_NAME, why) if why else nullcontext():
                yield

    def publish_model(self, source: Path) -> str:
        """Copies a model artifact into `models/` in the same steps as a version; returns the sha256 that names it."""
        card = verify_artifact(source)
        name = card_sha256(source)
        target = self.model_path(name)
        if target.is_dir():
            try:
                verify_artifact(target)
                return name
            except ModelInvalid:
                _remove(target)  # a damaged copy, replaced by the verified source

        def write(directory: Path) -> None:
            for file in (*card.files, CARD_NAME):  # the card last, because it names the others
                (directory / file).parent.mkdir(exist_ok=True)
                shutil.copyfile(source / file, directory / file)

        self._publish(target, write)
        verify_artifact(target)
        return name

    def publish(self, version: str, write: Callable[[Path], Manifest]) -> Manifest:
        """Publishes a version and points CURRENT at it; a version that cannot be loaded is removed again.

        `write` fills a directory and returns the manifest without files; the manifest is completed and written last.
        Raises IndexInvalid, ModelInvalid and their kinds, with CURRENT untouched.
        """

        def write_all(directory: Path) -> None:
            manifest = write(directory)
            files = {path.name: asdict(FileRecord.of(path)) for path in sorted(directory.iterdir())}
            # ASCII escapes, because the gallery's path may hold bytes that are not UTF-8.
            text = json.dumps({**manifest.to_json(), "files": files}, indent=1)
            write_durably(directory / MANIFEST_NAME, text.encode())

        self._publish(self.path_of(version), write_all)
        try:
            return self.switch(version)
        except CarsearchError:
            self.remove_directory(self.path_of(version))
            raise

    def _publish(self, target: Path, write: Callable[[Path], None]) -> None:
        temporary = target.with_name(f"{target.name}.tmp")
        shutil.rmtree(temporary, ignore_errors=True)
        temporary.mkdir(parents=True)
        try:
            write(temporary)
            for folder, _, names in os.walk(temporary):
                for name in names:
                    fsync_file(Path(folder, name))
                fsync_directory(Path(folder))
        except (OSError, CarsearchError) as problem:
            self.remove_directory(temporary)  # the disk may be full
            if isinstance(problem, CarsearchError):
                raise
            where = problem.filename or temporary
            raise IndexInvalid(f"{where} cannot be written: {problem.strerror or problem}.") from problem
        temporary.rename(target)
        fsync_directory(target.parent)
        fsync_directory(target.parent.parent)

    def switch(self, version: str) -> Manifest:
        """Points CURRENT at a version, after verifying it and loading it as a server will."""
        manifest = self.verify(version)
        refuse_other_decoder(self, manifest)
        self.contents(manifest).items.close()
        self.point_at(version)
        return manifest

    def rollback(self, version: str | None = None) -> str:
        """Points CURRENT at `version`, by default the one published before the current one; returns its id."""
        current = self.current()  # before the lock, which would create the directory
        with self.lock():
            if version is None:
                earlier = [name for name in self.versions() if name < current]
                if not earlier:
                    raise VersionNotFound(f"There is no version before {current} to roll back to.")
                version = earlier[-1]
            self.switch(version)
        return version

    def remove(self, version: str) -> None:
        """Removes a version, and models that no other version needs.

        Raises VersionNotFound, VersionInUse for the current version, and IndexLocked.
        """
        self.current()  # before the lock, which would create the directory
        with self.lock():
            published = set(self.versions())
            if version not in published:
                raise VersionNotFound(f"There is no version {version} in {self.root}.")
            if version == self.current():
                raise VersionInUse(f"Version {version} is the current one; go to another one before you remove it.")
            self._keep_only(published - {version})

    def clean(self, keep: int = KEEP_VERSIONS) -> None:
        """Removes leftovers of crashes, versions beyond the newest `keep`, and models that no kept version needs.

        The current version is always kept. The caller holds the lock.
        """
        self._keep_only({*self.versions()[-keep:], self.current()})

    def _keep_only(self, kept: Set[str]) -> None:
        """Removes other versions, their models and leftovers.

        A directory is renamed before it is deleted, so that a half-deleted one never looks like a version. No model
        is removed while a kept version's manifest cannot be read: the disk may fail for a moment.
        """
        models = {self._model_of(version) for version in kept}
        if None in models:
            models = {path.name for path in (self.root / "models").iterdir() if path.name[:1] != "."}
        for leftover in self.root.glob(f"{CURRENT_NAME}.*.tmp"):
            leftover.unlink()
        for folder, names in (("versions", kept), ("models", models)):
            for path in sorted((self.root / folder).iterdir()):
                if path.name not in names:
                    self.remove_directory(path)

    def remove_directory(self, path: Path) -> None:
        """Removes the directory of a version or a model, under whatever name a crash has left it."""
        _remove(path)

    def _model_of(self, version: str) -> str | None:
        try:
            return self.manifest(version).model_sha256
        except IndexInvalid:
            return None  # an old, damaged version must not stop a build


@contextmanager
def _holder(path: Path, why: str) -> Iterator[None]:
    """Keeps a file that says who writes; raises IndexLocked where there is one. `why` there is no lock."""
    try:
        file = path.open("x", encoding="utf-8")
    except FileExistsError as problem:
        raise IndexLocked(
            f"{_who(path)} is writing to {path.parent}; wait for it to end, or remove {path} if it was killed."
        ) from problem
    try:
        with file:
            file.write(f"Process {os.getpid()} on {socket.gethostname()}")
        log.warning(
            "The file system of %s has no locks (%s): until this is done %s keeps other writers out. If it is killed, "
            "remove that file.",
            path.parent,
            why,
            path,
        )
        yield
    finally:
        path.unlink(missing_ok=True)


def _who(holder: Path) -> str:
    try:
        return holder.read_text(encoding="utf-8", errors="replace") or "Another process"
    except OSError:
        return "Another process"


def _remove(path: Path) -> None:
    doomed = path if path.name.startswith(".") else path.with_name(f".{path.name}.deleted")
    if doomed != path:
        shutil.rmtree(doomed, ignore_errors=True)
        path.rename(doomed)
    shutil.rmtree(doomed, ignore_errors=True)
