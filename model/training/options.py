"""What a training run is asked for, and the photos it reads."""

import os
import sys
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

from model.dataset import Item, ItemList, Skipped, read_items, read_unlabelled, split_classes
from model.errors import CarsearchError, DataInvalid
from model.images.decode import decode
from model.parallel import decode_pool, map_in_order
from model.training.distillation import without_near_duplicates
from model.training.recipes import Recipe


def print_skipped(skipped: Sequence[Skipped]) -> None:
    """Lists photos that training leaves out on the standard error output."""
    for photo in skipped:
        sys.stderr.write(f"skipped {photo.name}: {photo.message}\n")


@dataclass(frozen=True)
class TrainOptions:
    """What a user may choose; `validation` None holds classes of `data` out, None elsewhere is the recipe's own.

    Sets of `data` that name a class alike mean one class. Photos of `unlabelled` are learned from through `teacher`, a
    model's name or directory; those that look like one of validation are left out.
    """

    data: Sequence[Path]
    out: Path
    recipe: str = "baseline"
    validation: Path | None = None
    unlabelled: Sequence[Path] = ()
    teacher: str = ""
    init: str | None = None
    device: str = "auto"
    devices: int = 1
    epochs: int | None = None
    batch_size: int | None = None
    crop: int | None = None
    workers: int = 2
    cache: bool = False
    validate_every: int = 1
    precision: str = "auto"
    on_skipped: Callable[[Sequence[Skipped]], None] = print_skipped


@dataclass(frozen=True)
class PhotoSets:
    """What a run reads: readable photos only, and no class of validation in training."""

    train: list[Item]
    validation: list[Item]
    unlabelled: list[Item]
    near_duplicates: int = 0
    """Photos without labels that were left out, because they look like one of validation."""

    def identity(self) -> list[list[tuple[str, str]]]:
        return [[(item.id, item.label) for item in items] for items in (self.train, self.validation, self.unlabelled)]


def load_sets(options: TrainOptions, recipe: Recipe) -> PhotoSets:
    """Reads the photos of a run; raises DataInvalid when there is nothing to learn from or a class is in both sets."""
    usable = [item for data in options.data for item in _readable(read_items(data), options)]
    if options.validation is not None:
        train_items, val_items = usable, _readable(read_items(options.validation), options)
    else:
        train_items, val_items = split_classes(usable, recipe.holdout, recipe.seed)
    shared = {item.label for item in train_items} & {item.label for item in val_items}
    if shared:
        raise DataInvalid(f'The class "{min(shared)}" is in both sets; validation needs classes never trained on.')
    if len({item.label for item in train_items}) < 2:
        raise DataInvalid("Training needs photos of at least two classes.")
    if len(train_items) < 2 * options.devices:
        raise DataInvalid(f"Training needs at least two photos for each of {options.devices} processes.")
    if bool(options.unlabelled) != bool(options.teacher):
        raise DataInvalid("Photos without labels are learned from through a teacher: give both or neither.")
    unlabelled = [item for data in options.unlabelled for item in _readable(read_unlabelled(data), options)]
    kept = without_near_duplicates(unlabelled, val_items) if unlabelled else []
    return PhotoSets(train_items, val_items, kept, len(unlabelled) - len(kept))


def _readable(found: ItemList, options: TrainOptions) -> list[Item]:
    """Takes unreadable photos out before training, where one would end a night's run."""

    def problem_with(item: Item) -> Skipped | None:
        try:
            decode(item.read())
        except CarsearchError as problem:
            return Skipped.because(item.id, problem)
        return None

    with decode_pool() as pool:
        problems = list(map_in_order(pool, problem_with, found.items))
    if os.environ.get("LOCAL_RANK", "0") == "0":  # every process of a run looks, one speaks
        options.on_skipped([*found.skipped, *(problem for problem in problems if problem is not None)])
    return [item for item, problem in zip(found.items, problems, strict=True) if problem is None]
