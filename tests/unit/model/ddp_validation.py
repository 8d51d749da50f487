"""A script: validates a model artifact on class folders as training does, in as many processes as it is told.

    python -m tests.unit.model.ddp_validation MODEL_DIR DATA_DIR PROCESSES SCORE_FILE

Lightning starts the other processes by running the same command again.
"""

import dataclasses
import sys
from pathlib import Path

import lightning as L

from model.card import load_card
from model.dataset import read_items
from model.network.embedding_net import load_network
from model.training.dataset import TrainingSet, ValidationSet
from model.training.module import Classifier
from model.training.options import TrainOptions
from model.training.recipes import recipe_named
from model.training.trainer import Loaders


def main(model: Path, data: Path, processes: int, score: Path) -> None:
    """Writes val_top1 of the first process to `score`."""
    card, items, recipe = load_card(model), read_items(data).items, recipe_named("quick")
    training, validation = (
        TrainingSet(items, dataclasses.replace(recipe, input=card.input)),
        ValidationSet(items, card.input),
    )
    classifier = Classifier(load_network(model, card), recipe, len(training.labels), validation.targets)
    options = TrainOptions([data], score.parent, device="cpu", devices=processes, workers=0)
    trainer = L.Trainer(
        accelerator="cpu",
        devices=processes,
        strategy="ddp" if processes > 1 else "auto",
        logger=False,
        enable_checkpointing=False,
        enable_progress_bar=False,
        use_distributed_sampler=False,
        default_root_dir=score.parent,
    )
    trainer.validate(classifier, datamodule=Loaders(options, recipe, training, validation), verbose=False)
    if trainer.is_global_zero:
        score.write_text(f"{trainer.world_size} {float(trainer.callback_metrics['val_top1'])!r}")


if __name__ == "__main__":
    main(Path(sys.argv[1]), Path(sys.argv[2]), int(sys.argv[3]), Path(sys.argv[4]))
