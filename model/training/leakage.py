"""What keeps validation honest: no class, and no photo, of it has been learned from, not even by an earlier model."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from PIL import Image

from model.card import load_card
from model.dataset import Item
from model.embedder import find_model
from model.errors import DataInvalid
from model.images.decode import decode
from model.names import folded_label
from model.parallel import decode_pool, map_in_order

NO_MODEL = ("", "random", "imagenet")
"""Values of `init` and `teacher` that name no model."""

HASHED_SIDE = 256
"""Pixels of the shorter side that a perceptual hash, of 32 by 32 pixels, is at least made from."""

NEAR_BITS = 10
"""Two photos whose 64-bit perceptual hashes differ in at most this many bits count as one."""


def is_weights_file(init: str) -> bool:
    """Whether `init` is a file of weights and not a model. Such a file does not record what it was trained on."""
    return init not in NO_MODEL and Path(init).is_file()


def seen_classes(models: Sequence[str]) -> set[str]:
    """Labels that models, by name or directory, were trained on, or were themselves started from or taught with."""
    seen: set[str] = set()
    for model in models:
        if model not in NO_MODEL and not is_weights_file(model):
            card = load_card(find_model(model))
            labels = card.training.get("labels", {})
            seen.update(labels.get("train", ()), labels.get("earlier", ()))
            for fitted in (card.whitening, card.car_head):
                seen.update(fitted.labels if fitted else ())
    return seen


def refuse_overlap(train: Sequence[Item], held_out: Sequence[Item], contents: Mapping[Path, str]) -> None:
    """Raises DataInvalid where a class, however it is written, or a photo's content is in both sets.

    `contents` has the sha256 of every photo by its path.
    """
    classes = {folded_label(item.label): item.label for item in train}
    for item in held_out:
        if (label := classes.get(folded_label(item.label))) is not None:
            also = "" if label == item.label else f' (also written "{label}")'
            raise DataInvalid(
                f'The class "{item.label}"{also} is in both sets; validation needs classes never trained on.'
            )
    photos = {contents[item.path]: item for item in train}
    for item in held_out:
        if (same := photos.get(contents[item.path])) is not None:
            raise DataInvalid(
                f"{item.path} and {same.path} are the same photo, one for validation and one for training."
            )


def check_unseen(labels: set[str], models: Sequence[str]) -> None:
    """Raises DataInvalid when a model that a run learns from has been trained on a class of validation."""
    seen = {folded_label(label) for label in seen_classes(models)}
    shared = sorted(label for label in labels if folded_label(label) in seen)
    if shared:
        raise DataInvalid(
            f'The class "{shared[0]}" of validation is one that a model to start or learn from was trained on; '
            "validation needs classes that no weight has seen."
        )


def without_near_duplicates(items: Sequence[Item], held_out: Sequence[Item]) -> list[Item]:
    """Leaves out what looks like a held-out photo or its mirror image, by perceptual hash (DCT, 64 bits)."""
    with decode_pool() as pool:
        known = [code for pair in map_in_order(pool, _hashes, held_out) for code in pair]
        found = list(map_in_order(pool, _hashes, items))
    return [
        item for item, (code, _) in zip(items, found, strict=True) if all(code - other > NEAR_BITS for other in known)
    ]


def _hashes(item: Item) -> tuple[Any, Any]:
    """Perceptual hashes of a photo and of its mirror image."""
    import imagehash  # only runs with photos without labels need it

    photo = Image.fromarray(decode(item.read(), HASHED_SIDE))
    return imagehash.phash(photo), imagehash.phash(photo.transpose(Image.Transpose.FLIP_LEFT_RIGHT))
