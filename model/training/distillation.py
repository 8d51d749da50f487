"""Photos without labels, and what a trained teacher makes of them."""

from collections.abc import Sequence
from typing import Any

from PIL import Image

from model.dataset import Item
from model.embedder import Embedder
from model.errors import ModelNotFound
from model.images.decode import decode
from model.parallel import decode_pool, map_in_order
from model.types import Embeddings

NEAR_BITS = 10
"""Two photos whose 64-bit perceptual hashes differ in at most this many bits count as one."""


def teacher_embeddings(teacher: str, items: Sequence[Item]) -> Embeddings:
    """What the teacher (a model's name or directory) embeds each whole photo as: float32 (n, T), unit rows.

    A student sees crops and is asked for the embedding of the whole: one and the same target in every epoch.
    """
    if not teacher:
        raise ModelNotFound("Photos without labels teach only through a model: name one with --teacher.")
    return Embedder.load(teacher).embed_files([item.path for item in items])


def without_near_duplicates(items: Sequence[Item], held_out: Sequence[Item]) -> list[Item]:
    """Leaves out what looks like a held-out photo or its mirror image, by perceptual hash (DCT, 64 bits)."""
    with decode_pool() as pool:
        known = [code for pair in map_in_order(pool, _hashes, held_out) for code in pair]
        found = list(map_in_order(pool, _hash, items))
    return [item for item, code in zip(items, found, strict=True) if all(code - other > NEAR_BITS for other in known)]


def _hash(item: Item) -> Any:
    import imagehash  # only runs with photos without labels need it

    return imagehash.phash(Image.fromarray(decode(item.read())))


def _hashes(item: Item) -> tuple[Any, Any]:
    import imagehash

    photo = Image.fromarray(decode(item.read()))
    return imagehash.phash(photo), imagehash.phash(photo.transpose(Image.Transpose.FLIP_LEFT_RIGHT))
