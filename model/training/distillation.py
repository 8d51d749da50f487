"""What a trained teacher makes of photos without labels."""

from collections.abc import Sequence

from model.dataset import Item
from model.embedder import Embedder
from model.types import Embeddings


def teacher_embeddings(teacher: str, items: Sequence[Item]) -> Embeddings:
    """The teacher's (a model's name or directory) embedding of each whole photo: float32 (n, T), unit rows.

    A student sees crops and learns the embedding of the whole photo, which is the same target in every epoch.
    """
    return Embedder.load(teacher).embed_files([item.path for item in items])
