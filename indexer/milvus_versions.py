"""Index versions whose vectors are in Milvus: a version is a collection there, and an alias names the current one.

Everything else of a version lies in the index directory as ever, `embeddings.f32` too: servers do not search in it, the
next build reads it, and what Milvus has lost is made from it. Until something is published into Milvus, and when it has
lost its alias, CURRENT counts. An index directory has a database of Milvus for itself.
"""

from pathlib import Path
from typing import Any

from indexer.benchmark.storage_recall import MIN_RECALL_OF_LISTS, recall_of, refuse_lossy, sampled
from indexer.load import Contents, read_contents
from indexer.manifest import EMBEDDINGS_NAME, Manifest
from indexer.recipes import LISTS_FROM, calibrated
from indexer.stores.ivf import lists_for
from indexer.stores.milvus import CHECKED_ROWS, SEGMENT_BYTES, Lists, Milvus, MilvusStore
from indexer.stores.originals import Originals
from indexer.stores.precision import CHOSEN, Storage
from indexer.versions import CURRENT_NAME, KEEP_VERSIONS, IndexDirectory
from model.errors import CarsearchError, IndexInvalid, VersionInUse

ALIAS, PREFIX = "carsearch", "carsearch_"


class MilvusDirectory(IndexDirectory):
    """An index directory beside a database of Milvus; what Milvus does not do raises StoreUnavailable."""

    def __init__(self, root: Path, address: str, token: str = "") -> None:
        super().__init__(root)
        self.milvus = Milvus(address, token)

    def current(self) -> str:
        """The version that the alias names, else the one of CURRENT; raises IndexNotFound or IndexInvalid."""
        name = self.milvus.named(ALIAS)
        if name is None:
            return super().current()
        for version in self.versions():
            if collection_of(version) == name:
                return version
        raise IndexInvalid(f"In Milvus the alias {ALIAS} names {name}, and {self.root} has no such version.")

    def pointer(self) -> tuple[str, int]:
        """The current version, and when CURRENT was written last; see `IndexDirectory.pointer`."""
        path = self.root / CURRENT_NAME
        return self.current(), path.stat().st_mtime_ns if path.exists() else 0

    def point_at(self, version: str) -> None:
        if self.manifest(version).storage is not Storage.milvus:
            raise IndexInvalid(f"The vectors of version {version} are not in Milvus; build the index again.")
        self.milvus.point(ALIAS, collection_of(version))
        super().point_at(version)  # for a Milvus that has lost its data

    def holds(self, manifest: Manifest) -> bool:
        name = collection_of(manifest.id)
        return manifest.storage is Storage.milvus and self.milvus.count(name) == manifest.count

    def write_vectors(self, directory: Path, originals: Originals, choice: str) -> tuple[MilvusStore, dict[str, Any]]:
        """Makes the collection of a version that is being written; see `IndexDirectory.write_vectors`."""
        if choice != "auto":
            raise CarsearchError(f"Milvus stores vectors in its own way and not in {choice}: use --storage auto.")
        count, dim = originals.matrix.shape
        # Lists are made of every segment apart.
        nlist = lists_for(min(count, SEGMENT_BYTES // (4 * dim))) if count > LISTS_FROM else 0
        store = MilvusStore.create(self.milvus, collection_in(directory), originals, nlist)
        if nlist:
            store, recall = calibrated(store.with_nprobe, nlist, originals, sampled(originals))
        else:
            recall = recall_of(store, originals, sampled(originals, CHECKED_ROWS))
        if nlist and recall.share < MIN_RECALL_OF_LISTS:  # half of the lists are too few
            store = store.with_nprobe(nlist)
            recall = recall_of(store, originals, sampled(originals, CHECKED_ROWS))
        if store.lists.nprobe == nlist:  # all rows are compared
            refuse_lossy(Storage.milvus, recall)
        measured = {"recall_at_1": recall.share, "queries": recall.queries}
        return store, {**Storage.milvus.recipe, **store.lists._asdict(), **measured, CHOSEN: "auto"}

    def contents(self, manifest: Manifest, *, whole: bool = True) -> Contents:
        """Opens the collection of a version; one that an earlier release or another store made is read as ever."""
        if manifest.storage is not Storage.milvus:
            return super().contents(manifest, whole=whole)
        store = self._store_of(manifest)
        if (found := self.milvus.count(store.collection)) != manifest.count:
            raise IndexInvalid(
                f"Milvus has {found or 'no'} rows of version {manifest.id} for {manifest.count}; make them again: "
                f"carsearch versions rollback {manifest.id} --index {self.root}"
            )
        return read_contents(self.path_of(manifest.id), manifest, store)

    def _store_of(self, manifest: Manifest) -> MilvusStore:
        """The collection of a version."""
        lists = Lists(manifest.index_recipe["nlist"], manifest.index_recipe["nprobe"])
        return MilvusStore(self.milvus, collection_of(manifest.id), manifest.dim, manifest.count, lists)

    def switch(self, version: str) -> Manifest:
        """Moves the alias to a version, after checking its rows in Milvus; makes those that Milvus has lost again."""
        manifest = self.verify(version)
        if manifest.storage is Storage.milvus:
            originals = Originals.read(self.path_of(version) / EMBEDDINGS_NAME, manifest.dim, manifest.count)
            store = self._store_of(manifest)
            if self.milvus.count(store.collection) != manifest.count:
                if self.milvus.named(ALIAS) == store.collection:
                    self.milvus.call("drop_alias", ALIAS)  # a collection that has one cannot be made again
                self.milvus.fill(store.collection, originals, store.lists.nlist)
            store.check(originals)
        return super().switch(version)

    def clean(self, keep: int = KEEP_VERSIONS) -> None:
        """Removes old versions, and keeps only the current one and the one before it in the memory of Milvus."""
        super().clean(keep)
        current = self.current()
        for version in self.versions()[:-2]:
            if version != current and self.milvus.call("has_collection", collection_of(version)):
                self.milvus.call("release_collection", collection_of(version))

    def remove_directory(self, path: Path) -> None:
        """Drops the collection of a version first, so that none is left that no directory names."""
        if path.parent.name == "versions":
            name = collection_in(path)
            if self.milvus.named(ALIAS) == name:  # Milvus 2.3 would drop what servers search in
                raise VersionInUse(f"Version {path.name} is the current one in Milvus.")
            self.milvus.drop(name)
        super().remove_directory(path)


def collection_of(version: str) -> str:
    """The name of a version's collection."""
    return PREFIX + version.replace(".", "_").replace("-", "_")


def collection_in(directory: Path) -> str:
    """The name of the collection of the version in a directory, under whatever name a crash has left that."""
    return collection_of(directory.name.removeprefix(".").removesuffix(".deleted").removesuffix(".tmp"))
