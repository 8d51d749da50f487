"""Training by classification: recipes in, a model artifact out; Lightning runs the loop.

    python -m model.training --data DIR --recipe baseline --out MODEL_DIR

needs neither FAISS, OpenVINO nor the service's packages. The same command resumes a run that was stopped or killed: it
goes on after the last whole epoch. Validation is the benchmark's top-1 on classes that training never sees, each epoch,
and the weights of the best epoch, or of the last where the recipe says so, become the artifact.
"""

import argparse
import dataclasses
import importlib.metadata
import io
import json
import logging
import sys
import warnings
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import lightning as L
import torch
from lightning.pytorch.callbacks import ModelCheckpoint
from lightning.pytorch.loggers import CSVLogger, Logger, TensorBoardLogger
from lightning.pytorch.plugins.io import TorchCheckpointIO
from torch.utils.data import DataLoader

from model.artifact import create_artifact
from model.card import canonical_sha256
from model.errors import CarsearchError, RunMismatch, SettingsInvalid
from model.network.embedding_net import EmbeddingNetwork
from model.storage import read_json, write_durably
from model.training.dataset import TrainingSampler, TrainingSet, ValidationSampler, ValidationSet
from model.training.distillation import teacher_embeddings
from model.training.leakage import NO_MODEL, check_unseen, initialise, seen_classes
from model.training.module import Classifier
from model.training.options import PhotoSets, TrainOptions, load_sets
from model.training.recipes import Recipe, recipe_named

RUN_NAME = "run.json"
TRAINING_FOLDER = "training"
VERSIONS_KEPT = ("torch", "torchvision", "lightning", "pillow")


def train(options: TrainOptions) -> Path:
    """Trains a network and writes the model artifact to `options.out`; returns that directory.

    Raises DataInvalid when there is nothing to learn from, RunMismatch when `out` holds another run's checkpoints.
    """
    _quieten()
    recipe = recipe_named(options.recipe).shortened(options.epochs).batched(options.batch_size).cropped(options.crop)
    if options.init:
        recipe = dataclasses.replace(recipe, init=options.init)
    if min(recipe.epochs, recipe.batch_size, options.devices, options.validate_every) < 1 or options.workers < 0:
        raise SettingsInvalid(
            "Training needs at least 1 epoch, 1 photo a batch, 1 device and 1 epoch between validations, "
            "and no fewer than 0 workers."
        )
    sets = load_sets(options, recipe)
    check_unseen({item.label for item in sets.validation}, (recipe.init, options.teacher))
    folder = options.out / TRAINING_FOLDER
    _claim_run(folder, options, recipe, sets)
    L.seed_everything(recipe.seed, verbose=False)
    network = EmbeddingNetwork(recipe.architecture, recipe.input)
    initialise(network, recipe.init)
    training_set = TrainingSet(sets.train, recipe, sets.unlabelled, options.cache)
    validation_set = ValidationSet(sets.validation, recipe.input)
    teacher = teacher_embeddings(options.teacher, sets.unlabelled) if sets.unlabelled else None
    classifier = Classifier(network, recipe, len(training_set.labels), validation_set.targets, teacher)
    trainer = _trainer(options, recipe, folder, monitor=bool(sets.validation))
    loaders = _Loaders(options, recipe, training_set, validation_set)
    last = folder / "last.ckpt"
    trainer.fit(classifier, datamodule=loaders, ckpt_path=str(last) if last.exists() else None, weights_only=True)
    if trainer.is_global_zero:
        kept = "best.ckpt" if sets.validation and recipe.keep == "best" else "last.ckpt"
        checkpoint = torch.load(folder / kept, map_location="cpu", weights_only=True)
        classifier.load_state_dict(checkpoint["state_dict"])
        provenance = _provenance(options, recipe, sets, checkpoint)
        create_artifact(network.cpu(), options.out, name=options.out.resolve().name, training=provenance)
    trainer.strategy.barrier()
    return options.out


def _quieten() -> None:
    """Keeps Lightning's advertisements and notes about its own insides out of the user's terminal."""
    logging.getLogger("lightning.pytorch").setLevel(logging.WARNING)
    warnings.filterwarnings("ignore", ".*exists and is not empty.*")  # run.json is there on purpose
    warnings.filterwarnings("ignore", ".*treespec.*")


def _claim_run(folder: Path, options: TrainOptions, recipe: Recipe, sets: PhotoSets) -> None:
    """Marks the training directory as this run's, so that a resumed run is the same run and not a mixture of two."""
    identity = canonical_sha256([dataclasses.asdict(recipe), options.teacher, sets.identity()])
    if (folder / RUN_NAME).exists():
        if read_json(folder / RUN_NAME, RunMismatch).get("identity") != identity:
            raise RunMismatch(
                f"{folder} holds checkpoints of another run (recipe, epochs or photos differ); "
                "choose another --out or delete it."
            )
        for unfinished in folder.glob("*.ckpt.*.tmp"):  # a kill while a checkpoint was written
            unfinished.unlink(missing_ok=True)
        return
    folder.mkdir(parents=True, exist_ok=True)
    photos = options.validation or options.data[0]
    run = {"identity": identity, "recipe": dataclasses.asdict(recipe), "photos": str(photos.resolve())}
    write_durably(folder / RUN_NAME, json.dumps(run, indent=1).encode())


def _trainer(options: TrainOptions, recipe: Recipe, folder: Path, monitor: bool) -> L.Trainer:
    common: dict[str, Any] = {"dirpath": folder, "enable_version_counter": False}
    callbacks: list[L.Callback] = []
    if monitor:
        callbacks.append(ModelCheckpoint(filename="best", monitor="val_top1", mode="max", **common))
    # After "best", whose score of this epoch it carries: a resumed run would otherwise let a worse epoch replace it.
    callbacks.append(ModelCheckpoint(filename="last", save_on_train_epoch_end=True, **common))
    loggers: list[Logger] = [CSVLogger(folder, name="csv")]
    if _installed("tensorboard"):
        loggers.append(TensorBoardLogger(folder, name="tensorboard"))
    accelerator = {"auto": "gpu" if torch.cuda.is_available() else "cpu", "cuda": "gpu", "cpu": "cpu"}[options.device]
    if accelerator == "gpu" and not torch.cuda.is_available():
        raise SettingsInvalid("There is no CUDA device; train with --device cpu.")
    return L.Trainer(
        accelerator=accelerator,
        devices=options.devices,
        strategy="ddp" if options.devices > 1 else "auto",
        precision=_precision(options.precision, accelerator),  # type: ignore[arg-type]  # Lightning's literal type
        max_epochs=recipe.epochs,
        check_val_every_n_epoch=min(options.validate_every, recipe.epochs),
        callbacks=callbacks,
        plugins=[_DurableCheckpoints()],
        logger=loggers,
        log_every_n_steps=1,
        num_sanity_val_steps=0,
        use_distributed_sampler=False,  # ours deal the rows; Lightning's pads with repeats that would be scored
        enable_model_summary=False,
    )


class _DurableCheckpoints(TorchCheckpointIO):
    """Lightning's own goes by way of the temporary folder; on another disk, a kill would leave half a checkpoint."""

    def save_checkpoint(self, checkpoint: dict[str, Any], path: str | Path, storage_options: Any = None) -> None:
        del storage_options
        buffer = io.BytesIO()
        torch.save(checkpoint, buffer)
        write_durably(Path(path), buffer.getvalue())


def _precision(wanted: str, accelerator: str) -> str:
    """bf16 autocast where the hardware has it; elsewhere it would be emulated, slower than fp32."""
    if wanted != "auto":
        return wanted
    if accelerator == "gpu":
        return "bf16-mixed" if torch.cuda.is_bf16_supported() else "32-true"
    return "bf16-mixed" if torch.cpu.get_capabilities().get("avx512_bf16") else "32-true"


class _Loaders(L.LightningDataModule):
    """Builds the loaders once rank and world size are known."""

    def __init__(self, options: TrainOptions, recipe: Recipe, train: TrainingSet, val: ValidationSet) -> None:
        super().__init__()
        self.options, self.recipe, self.train_photos, self.val_photos = options, recipe, train, val

    def _loader(self, photos: Any, sampler: Any, batch_size: int, drop_last: bool) -> DataLoader[Any]:
        return DataLoader(
            photos,
            batch_size=batch_size,
            sampler=sampler,
            num_workers=self.options.workers,
            persistent_workers=self.options.workers > 0,
            drop_last=drop_last,
            pin_memory=torch.cuda.is_available() and self.options.device != "cpu",
        )

    def _place(self) -> tuple[int, int]:
        trainer = self.trainer
        return (trainer.global_rank, trainer.world_size) if trainer else (0, 1)

    def train_dataloader(self) -> DataLoader[Any]:
        rank, world_size = self._place()
        sampler = TrainingSampler(len(self.train_photos), self.recipe.seed, rank, world_size)
        batch_size = min(self.recipe.batch_size // world_size, len(sampler))
        # A last batch of one photo has no batch statistics; dropping the remainder keeps every step alike.
        return self._loader(self.train_photos, sampler, batch_size, drop_last=True)

    def val_dataloader(self) -> DataLoader[Any] | list[Any]:
        if not len(self.val_photos):
            return []
        sampler = ValidationSampler(len(self.val_photos), *self._place())
        return self._loader(self.val_photos, sampler, 64, drop_last=False)


def _provenance(options: TrainOptions, recipe: Recipe, sets: PhotoSets, checkpoint: dict[str, Any]) -> dict[str, Any]:
    """What the card says about the run; the labels, so that anybody can check what was never trained on."""
    labels = {
        name: sorted({item.label for item in items})
        for name, items in (("train", sets.train), ("validation", sets.validation))
    }
    labels["earlier"] = sorted(seen_classes((recipe.init, options.teacher)))
    init = recipe.init if recipe.init in NO_MODEL else f"the model {Path(recipe.init).name}"
    top1 = [state["current_score"] for state in checkpoint["callbacks"].values() if state.get("monitor")]
    return {
        "recipe": {**dataclasses.asdict(recipe), "init": init},
        "train": {"photos": len(sets.train), "classes": len(labels["train"])},
        "unlabelled": {
            "photos": len(sets.unlabelled),
            "near_validation_left_out": sets.near_duplicates,
            "teacher": Path(options.teacher).name,
        },
        "validation": {"photos": len(sets.validation), "classes": len(labels["validation"])},
        "labels": labels,
        "epoch": int(checkpoint["epoch"]) + 1,
        "validation_top1": round(float(top1[0]), 6) if top1 else None,
        "versions": {name: importlib.metadata.version(name) for name in VERSIONS_KEPT},
    }


def _installed(package: str) -> bool:
    try:
        importlib.metadata.version(package)
    except importlib.metadata.PackageNotFoundError:
        return False
    return True


def main(arguments: Sequence[str] | None = None) -> int:
    """`python -m model.training`: the same as `carsearch train`, for machines that have only the training packages."""
    parser = argparse.ArgumentParser(prog="python -m model.training", description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("--data", type=Path, required=True, action="append", help="may be repeated")
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("--val", type=Path, dest="validation", help="photos of other classes to validate on")
    parser.add_argument("--recipe", default=TrainOptions.recipe)
    parser.add_argument("--unlabelled", type=Path, action="append", default=[], help="photos for --teacher")
    parser.add_argument("--teacher", default=TrainOptions.teacher, help="a model to learn from, by name or directory")
    parser.add_argument("--init", help="random, imagenet or a model; by default the recipe's own")
    parser.add_argument("--device", choices=("auto", "cpu", "cuda"), default=TrainOptions.device)
    parser.add_argument("--devices", type=int, default=TrainOptions.devices, help="processes, one a GPU")
    parser.add_argument("--epochs", type=int)
    parser.add_argument("--batch-size", type=int, help="the learning rate is scaled with it")
    parser.add_argument("--crop", type=int, help="another side of the crops than the recipe's, in pixels")
    parser.add_argument("--workers", type=int, default=TrainOptions.workers, help="decoding processes a device")
    parser.add_argument("--cache", action="store_true", help="keep decoded photos in memory, in every worker")
    parser.add_argument("--validate-every", type=int, default=TrainOptions.validate_every, metavar="EPOCHS")
    parser.add_argument("--precision", choices=("auto", "bf16-mixed", "32-true"), default=TrainOptions.precision)
    options = TrainOptions(**vars(parser.parse_args(arguments)))
    try:
        print(train(options))
    except CarsearchError as problem:
        print(f"error: {problem}", file=sys.stderr)
        return 1
    except OSError as problem:
        print(f"error: {problem.filename or options.out}: {problem.strerror or problem}.", file=sys.stderr)
        return 1
    return 0
