"""The photos of a training run: readable ones only, and no class of validation in training."""

import hashlib
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from model.dataset import Item, ItemList, Skipped, read_items, read_labelled, split_classes
from model.errors import CarsearchError, DataInvalid
from model.images.decode import decode
from model.parallel import decode_pool, map_in_order
from model.training.leakage import refuse_overlap, without_near_duplicates
from model.training.options import TrainOptions
from model.training.recipes import Recipe

SKIPPED_SHOWN = 20


@dataclass(frozen=True)
class PhotoSets:
    """What a run reads; `near_duplicates` counts unlabelled photos left out because they look like validation's."""

    train: list[Item]
    validation: list[Item]
    unlabelled: list[Item]
    near_duplicates: int = 0

    def identity(self) -> list[list[tuple[str, str]]]:
        """What tells two runs apart: id and label of every photo, by set."""
        return [[(item.id, item.label) for item in items] for items in (self.train, self.validation, self.unlabelled)]


def load_sets(options: TrainOptions, recipe: Recipe) -> PhotoSets:
    """Reads the photos of a run; raises DataInvalid when there is nothing to learn from or a class is in both sets."""
    contents: dict[Path, str] = {}
    side = recipe.input.resize
    usable = [item for data in options.data for item in _readable(read_labelled(data), side, contents)]
    if options.validation is not None:
        train_items, val_items = usable, _readable(read_labelled(options.validation), side, contents)
    else:
        train_items, val_items = split_classes(usable, recipe.seed)
    refuse_overlap(train_items, val_items, contents)
    if options.validation is not None and len({item.label for item in val_items}) < 2:
        raise DataInvalid(
            f"{options.validation} has readable photos of fewer than two classes; name another --val, or leave it out."
        )
    if len({item.label for item in train_items}) < 2:
        raise DataInvalid("Training needs photos of at least two classes.")
    if bool(options.unlabelled) != bool(options.teacher):
        raise DataInvalid("Photos without labels are learned from through a teacher: give both or neither.")
    unlabelled = [
        item for data in options.unlabelled for item in _readable(read_items(data, class_depth=0), side, contents)
    ]
    kept = without_near_duplicates(unlabelled, val_items) if unlabelled else []
    return PhotoSets(train_items, val_items, kept, len(unlabelled) - len(kept))


def _readable(found: ItemList, side: int, contents: dict[Path, str]) -> list[Item]:
    """Leaves out photos that cannot be decoded and lists them on standard error; one could end a run after hours.

    `side` is the length in pixels that the shorter side of a photo will be resized to. The sha256 of each of the others
    is noted in `contents`, by its path.
    """

    def problem_with(item: Item) -> Skipped | None:
        try:
            data = item.read()
            decode(data, side)
        except CarsearchError as problem:
            return Skipped.because(item.id, problem)
        contents[item.path] = hashlib.sha256(data).hexdigest()
        return None

    with decode_pool() as pool:
        problems = list(map_in_order(pool, problem_with, found.items))
    _list_skipped([*found.skipped, *(problem for problem in problems if problem is not None)])
    return [item for item, problem in zip(found.items, problems, strict=True) if problem is None]


def _list_skipped(skipped: Sequence[Skipped]) -> None:
    for photo in skipped[:SKIPPED_SHOWN]:
        sys.stderr.write(f"skipped {photo.name}: {photo.message}\n")
    if len(skipped) > SKIPPED_SHOWN:
        sys.stderr.write(f"... and {len(skipped) - SKIPPED_SHOWN} more\n")
