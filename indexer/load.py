"""An index version read into memory, as a server holds it, and its model."""

import faulthandler
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple

from indexer.decider import Decider
from indexer.items import ItemNames, ItemTable
from indexer.manifest import CLASSES_NAME, EMBEDDINGS_NAME, INDEX_NAME, ITEMS_NAME, Manifest
from indexer.stores.candidates import CandidateStore
from indexer.stores.faiss import FaissStore
from indexer.stores.ivf import IvfStore, Lists
from indexer.stores.originals import Originals, check_unit
from indexer.stores.precision import Storage
from model.card import BF16, DECODER, FP32, INT8, ONNX_NAME, Card, load_card
from model.embedder import Embedder, find_model, shipped_models
from model.errors import DimMismatch, IndexInvalid, IndexNotFound, IndexTooLarge, ModelMismatch

if TYPE_CHECKING:
    from indexer.versions import IndexDirectory

BESIDE_BYTES = 100 << 20
"""What loading takes beside the index itself: blocks of rows that are checked."""

IN_MEMORY = (INDEX_NAME, ITEMS_NAME, CLASSES_NAME)


class Contents(NamedTuple):
    """A version in memory."""

    store: CandidateStore
    items: ItemTable
    names: ItemNames
    decider: Decider | None


def read_contents(directory: Path, manifest: Manifest, store: CandidateStore) -> Contents:
    """Reads what lies beside the vectors of a version whose files have been verified.

    Raises IndexInvalid when they are not what its manifest says.
    """
    items = ItemTable(directory / ITEMS_NAME)
    try:
        if len(items) != manifest.count:
            raise IndexInvalid(f"{directory / ITEMS_NAME} has {len(items)} items for {manifest.count} vectors.")
        names = items.names()
        return Contents(store, items, names, Decider.read(directory, manifest, names.codes, names.labels))
    except IndexInvalid:
        items.close()
        raise


def read_store(directory: Path, manifest: Manifest, *, whole: bool = True) -> FaissStore | IvfStore:
    """Reads the vectors of a version whose files have been verified; raises IndexInvalid as `read_contents`.

    Unless they are read as a `whole`, vectors that stay in their file are not looked at.
    """
    if manifest.storage is Storage.milvus:
        raise IndexInvalid(f"The vectors of index version {manifest.id} are in Milvus: set CARSEARCH_STORE.")
    originals = None
    if manifest.storage.rescored:
        path = directory / EMBEDDINGS_NAME
        originals = Originals.read(path, manifest.dim, manifest.count)
        if whole:
            check_unit(originals.matrix.__getitem__, manifest.count, path)
    if originals is not None and manifest.lists is not None:
        return IvfStore.read(directory / INDEX_NAME, originals, Lists(*manifest.lists))
    return FaissStore.read(directory / INDEX_NAME, manifest.dim, manifest.count, manifest.storage, originals)


def refuse_too_large(directory: Path, manifest: Manifest, available_bytes: float) -> None:
    """Raises IndexTooLarge before a byte is read of a version that does not fit into the memory that is left."""
    needed = sum(manifest.files[name].bytes for name in IN_MEMORY if name in manifest.files) + BESIDE_BYTES
    if needed > available_bytes:
        raise IndexTooLarge(
            f"{directory} takes {needed >> 20} MiB of memory while it is loaded, and {int(available_bytes) >> 20} MiB "
            "are free; give the server more, or index fewer photos."
        )


@contextmanager
def marked_as_loading(state_dir: Path | None, version: str) -> Iterator[None]:
    """Leaves a mark in the state directory while a version is loaded, and refuses one that has crashed a server.

    When FAISS, SQLite or OpenVINO crash the process, Python's fault handler writes where it was into the mark: a volume
    that outlives an upgrade of FAISS cannot crash every replica for ever. A process that is killed leaves an empty one.
    """
    if state_dir is None:
        yield
        return
    mark = state_dir / "loading" / version
    mark.parent.mkdir(exist_ok=True)
    if mark.exists() and mark.stat().st_size:
        raise IndexInvalid(
            f"A server crashed while it loaded index version {version}; build the index again, or delete {mark} to "
            "have it tried once more."
        )
    with mark.open("a") as file:  # replicas that load at the same time share it
        faulthandler.enable(file)
        try:
            yield
        finally:
            faulthandler.enable()
            mark.unlink(missing_ok=True)


def load_embedder(
    index: "IndexDirectory", manifest: Manifest, runtime: str, cache_dir: Path | None, previous: Embedder | None
) -> Embedder:
    """The model of a version, `previous` if that is the same; raises DimMismatch, ModelMismatch or ModelInvalid."""
    again = f"build the index again: carsearch index GALLERY --index {index.root}"
    if previous is not None and _gives(previous, manifest):
        embedder = previous
    else:
        path = index.model_path(manifest.model_sha256)
        refuse_other_decoder(index, manifest)
        embedder = Embedder.load_like(path, manifest.embedding_id, runtime, cache_dir)
    if not _gives(embedder, manifest):
        precision = embedder.card.precision_of(manifest.embedding_id)
        in_fp32 = "onnx" if ONNX_NAME in embedder.card.files else "torch"
        runtime_of = {INT8: "openvino", FP32: in_fp32, BF16: "torch"}
        way_out = f"use the runtime {runtime_of[precision]}, or " if precision else ""
        raise ModelMismatch(
            f"Index version {manifest.id} was embedded in {precision or manifest.embedding_id}, and the runtime "
            f"{embedder.runtime.name} runs its model in {embedder.runtime.precision}; {way_out}{again} "
            f"--runtime {embedder.runtime.name}"
        )
    if manifest.dim != embedder.dim:
        directory = index.path_of(manifest.id)
        raise DimMismatch(f"{directory} has {manifest.dim} dimensions, and its model gives {embedder.dim}; {again}")
    return embedder


def embedder_for(
    index: "IndexDirectory", model: str | None, runtime: str = "auto", precision: str | None = None
) -> Embedder:
    """The model to build an index with: by default that of the current version, with its precision.

    A model that an earlier release shipped, which decoded photos in another way, gives way to the one of that name that
    ships now. Raises ModelMismatch for any other model of such a release.
    """
    if model is None:
        try:
            current = index.manifest(index.current())
        except IndexNotFound:
            return Embedder.load(None, runtime, precision)
        except IndexInvalid as problem:
            raise IndexInvalid(f"{problem} To build it anew, name the model: --model.") from problem
        path = index.model_path(current.model_sha256)
        if not is_of_todays_decoder(path):
            old = load_card(path)
            if not _has_shipped(old):
                raise ModelMismatch(
                    f"{index.root} was built with {old.name} of an earlier release, which decoded photos in another "
                    f"way; run carsearch export MODEL, then carsearch index GALLERY --index {index.root} --model MODEL."
                )
            path, precision = find_model(old.name), precision or old.precision_of(current.embedding_id)
        if precision is None:
            return Embedder.load_like(path, current.embedding_id, runtime)
        model = str(path)
    return Embedder.load(model, runtime, precision)


def refuse_other_decoder(index: "IndexDirectory", manifest: Manifest) -> None:
    """Raises ModelMismatch for a version whose photos an earlier release decoded in another way."""
    if not is_of_todays_decoder(index.model_path(manifest.model_sha256)):
        raise ModelMismatch(
            f"Index version {manifest.id} is of an earlier release, which decoded photos in another way; build the "
            f"index again: carsearch index GALLERY --index {index.root}"
        )


def _has_shipped(card: Card) -> bool:
    """True for a model that an earlier release shipped: today's model of that name has its architecture and classes."""
    if card.name not in shipped_models():
        return False
    now = load_card(find_model(card.name))
    learned = [one.training.get("labels", {}).get("train") for one in (card, now)]
    return card.architecture == now.architecture and learned[0] == learned[1]


def is_of_todays_decoder(model: Path) -> bool:
    """Whether a model's embeddings are of photos as this release decodes them; raises ModelNotFound, ModelInvalid."""
    return load_card(model).input.decoder == DECODER


def _gives(embedder: Embedder, manifest: Manifest) -> bool:
    """The embedder is the model that built the index, in a precision whose embeddings may be compared with it."""
    same = embedder.model_sha256 == manifest.model_sha256
    return same and embedder.card.interchangeable(manifest.embedding_id, embedder.embedding_id)
