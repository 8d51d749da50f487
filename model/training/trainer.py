"""Training: a recipe and photos in, a model artifact out; Lightning runs the loop.

The same command resumes a run that was stopped or killed, after its last whole epoch. Validation is the benchmark's
top-1 on classes that training never sees. The weights of the best epoch, or of the last where the recipe says so,
averaged with others where it says that, become the artifact.
"""

import dataclasses
import importlib.metadata
import importlib.util
import io
import json
import logging
import shutil
import warnings
from pathlib import Path
from typing import Any

import lightning as L
import torch
from lightning.pytorch.callbacks import ModelCheckpoint
from lightning.pytorch.loggers import CSVLogger, Logger, TensorBoardLogger
from lightning.pytorch.plugins.io import TorchCheckpointIO
from torch.utils.data import DataLoader

from model.artifact import create_artifact
from model.card import canonical_sha256, card_sha256, load_card, verify_artifact
from model.embedder import find_model
from model.errors import ModelInvalid, RunMismatch, SettingsInvalid
from model.network.backbones import BACKBONES
from model.network.embedding_net import EmbeddingNetwork, load_imagenet, load_network, load_weights_file
from model.storage import read_json, sha256_file, write_durably
from model.training.averaging import average_weights, measure_batch_statistics
from model.training.dataset import TrainingSet, ValidationSet
from model.training.distillation import teacher_embeddings
from model.training.leakage import NO_MODEL, check_unseen, is_weights_file, seen_classes
from model.training.module import Classifier
from model.training.options import TrainOptions
from model.training.photo_sets import PhotoSets, load_sets
from model.training.recipes import Recipe, recipe_named
from model.training.sampler import TrainingSampler, ValidationSampler
from model.training.whitening import can_be_whitened, whiten_on
from model.training.whole_photos import score

RUN_NAME = "run.json"
TRAINING_FOLDER = "training"
ENOUGH_FOR_STATISTICS = 256
"""With fewer photos the mean of the networks' own batch statistics is the better estimate."""

VERSIONS_KEPT = ("torch", "torchvision", "lightning", "pillow")


def train(options: TrainOptions) -> Path:
    """Trains a network and writes the model artifact to `options.out`; returns that directory.

    Raises DataInvalid when there is nothing to learn from, RunMismatch when `out` holds another run's checkpoints and
    `restart` is not set.
    """
    _quieten()
    recipe = recipe_named(options.recipe).adapted(options.epochs, options.batch_size, options.crop)
    if options.init:
        recipe = started_from(recipe, options.init)
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
    others = _networks_to_average(recipe, options.teacher)  # before hours of training: one may be missing
    trainer = _trainer(options, recipe, folder, monitor=bool(sets.validation))
    loaders = Loaders(options, recipe, training_set, validation_set)
    last = folder / "last.ckpt"
    trainer.fit(classifier, datamodule=loaders, ckpt_path=str(last) if last.exists() else None, weights_only=True)
    if trainer.is_global_zero:
        kept = "best.ckpt" if sets.validation and recipe.keep == "best" else "last.ckpt"
        checkpoint = torch.load(folder / kept, map_location="cpu", weights_only=True)
        classifier.load_state_dict(checkpoint["state_dict"])
        if others:
            average_weights(network, others)
            if len(sets.train) >= ENOUGH_FOR_STATISTICS:
                measure_batch_statistics(network, sets.train)
        whitening = whiten_on(network, sets.train) if recipe.whiten and can_be_whitened(sets.train) else None
        provenance = _provenance(options, recipe, sets, int(checkpoint["epoch"]) + 1, network)
        create_artifact(network.cpu(), options.out, options.out.resolve().name, provenance, whitening)
    trainer.strategy.barrier()
    return options.out


def _quieten() -> None:
    """Keeps Lightning's tips and internal notes out of the user's terminal."""
    logging.getLogger("lightning.pytorch").setLevel(logging.WARNING)
    warnings.filterwarnings("ignore", ".*exists and is not empty.*")  # run.json is there on purpose
    warnings.filterwarnings("ignore", ".*treespec.*")


def started_from(recipe: Recipe, init: str) -> Recipe:
    """The recipe with another start, whose pixels are normalised as those weights expect them.

    Raises ModelNotFound and ModelInvalid for a model that cannot be read.
    """
    if init == "random":
        return dataclasses.replace(recipe, init=init)
    published = init == "imagenet" or is_weights_file(init)
    source = BACKBONES[recipe.architecture] if published else load_card(find_model(init)).input
    spec = dataclasses.replace(recipe.input, mean=source.mean, std=source.std)
    return dataclasses.replace(recipe, init=init, input=spec)


def initialise(network: EmbeddingNetwork, init: str) -> None:
    """Starts a network's backbone from `init`: "random" leaves it, "imagenet" is load_imagenet, else it is a file of
    weights or names a model.

    Raises ModelNotFound; ModelInvalid, also when the weights are of another architecture.
    """
    if init == "imagenet":
        load_imagenet(network)
    if is_weights_file(init):
        load_weights_file(network, Path(init))
        return
    if init in NO_MODEL:
        return
    directory = find_model(init)
    card = verify_artifact(directory)
    if card.architecture != network.architecture:
        raise ModelInvalid(
            f"The architecture of {init} is {card.architecture}, and the recipe trains {network.architecture}; "
            "name a model of that architecture."
        )
    network.backbone.load_state_dict(load_network(directory, card).backbone.state_dict())


def _networks_to_average(recipe: Recipe, teacher: str) -> list[tuple[EmbeddingNetwork, float]]:
    """The networks whose weights are averaged with those of the run, with their shares; none without a common start.

    Raises what `initialise` raises, and ModelInvalid for weights that expect other pixels than the run's.
    """
    others = []
    for start, share in ((recipe.init, recipe.init_share), (teacher, recipe.teacher_share)):
        if start and share and recipe.init != "random":
            if started_from(recipe, start).input != recipe.input:
                raise ModelInvalid(
                    f"{start} expects pixels normalised in another way than this run; name another model to average."
                )
            other = EmbeddingNetwork(recipe.architecture, recipe.input)
            initialise(other, start)
            others.append((other, share))
    return others


def _claim_run(folder: Path, options: TrainOptions, recipe: Recipe, sets: PhotoSets) -> None:
    """Marks the training directory as this run's, so that two runs never mix."""
    sources = [_content_of(name) for name in (recipe.init, options.teacher)]
    identity = canonical_sha256([dataclasses.asdict(recipe), sources, sets.identity()])
    if (folder / RUN_NAME).exists():
        try:
            known = read_json(folder / RUN_NAME, RunMismatch).get("identity")
        except RunMismatch:
            if not options.restart:
                raise
            known = None
        if known == identity:
            for unfinished in folder.glob("*.ckpt.*.tmp"):  # left by a kill while a checkpoint was written
                unfinished.unlink(missing_ok=True)
            return
        if not options.restart:
            raise RunMismatch(
                f"{folder} holds checkpoints of another run (recipe, epochs or photos differ); "
                "choose another --out, or start over with --restart."
            )
        shutil.rmtree(folder)
    folder.mkdir(parents=True, exist_ok=True)
    photos = options.validation or options.data[0]
    run = {"identity": identity, "recipe": dataclasses.asdict(recipe), "photos": str(photos.resolve())}
    write_durably(folder / RUN_NAME, json.dumps(run, indent=1).encode())


def _content_of(source: str) -> str:
    """The sha256 of a model or a file of weights; a name without weights of its own stays as it is."""
    if source in NO_MODEL:
        return source
    return sha256_file(Path(source)) if is_weights_file(source) else card_sha256(find_model(source))


def _trainer(options: TrainOptions, recipe: Recipe, folder: Path, monitor: bool) -> L.Trainer:
    common: dict[str, Any] = {"dirpath": folder, "enable_version_counter": False}
    callbacks: list[L.Callback] = []
    if monitor:
        callbacks.append(ModelCheckpoint(filename="best", monitor="val_top1", mode="max", **common))
    # After "best", so that it holds the best score so far: otherwise a resumed run would accept a worse epoch as best.
    callbacks.append(ModelCheckpoint(filename="last", save_on_train_epoch_end=True, **common))
    loggers: list[Logger] = [CSVLogger(folder, name="csv")]
    if importlib.util.find_spec("tensorboard"):
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
        plugins=[DurableCheckpoints()],
        logger=loggers,
        log_every_n_steps=1,
        num_sanity_val_steps=0,
        use_distributed_sampler=False,  # Lightning's pads with repeats that would be scored
        enable_model_summary=False,
    )


class DurableCheckpoints(TorchCheckpointIO):
    """Replaces a checkpoint as a whole; Lightning copies it from the temporary folder, and a kill leaves half of it."""

    def save_checkpoint(self, checkpoint: dict[str, Any], path: str | Path, storage_options: Any = None) -> None:
        del storage_options
        buffer = io.BytesIO()
        torch.save(checkpoint, buffer)
        write_durably(Path(path), buffer.getvalue())


def _precision(wanted: str, accelerator: str) -> str:
    """bf16 autocast where the hardware has it; elsewhere it is emulated and slower than fp32."""
    if wanted != "auto":
        return wanted
    if accelerator == "gpu":
        return "bf16-mixed" if torch.cuda.is_bf16_supported() else "32-true"
    return "bf16-mixed" if torch.cpu.get_capabilities().get("avx512_bf16") else "32-true"


class Loaders(L.LightningDataModule):
    """Builds the data loaders once rank and world size are known."""

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

    def _rank(self) -> tuple[int, int]:
        trainer = self.trainer
        return (trainer.global_rank, trainer.world_size) if trainer else (0, 1)

    def train_dataloader(self) -> DataLoader[Any]:
        rank, world_size = self._rank()
        sampler = TrainingSampler(len(self.train_photos), self.recipe.seed, rank, world_size)
        batch_size = max(1, min(self.recipe.batch_size // world_size, len(sampler)))
        # A last batch of one photo has no batch statistics; dropping the remainder keeps every step alike.
        return self._loader(self.train_photos, sampler, batch_size, drop_last=True)

    def val_dataloader(self) -> DataLoader[Any] | list[Any]:
        if not len(self.val_photos):
            return []
        sampler = ValidationSampler(len(self.val_photos), *self._rank())
        return self._loader(self.val_photos, sampler, 64, drop_last=False)


def _provenance(
    options: TrainOptions, recipe: Recipe, sets: PhotoSets, epoch: int, network: EmbeddingNetwork
) -> dict[str, Any]:
    """What the card says about the run; its labels show what was trained on."""
    labels = {
        name: sorted({item.label for item in items})
        for name, items in (("train", sets.train), ("validation", sets.validation))
    }
    labels["earlier"] = sorted(seen_classes((recipe.init, options.teacher)))
    kind = "weights" if is_weights_file(recipe.init) else "model"
    init = recipe.init if recipe.init in NO_MODEL else f"the {kind} {Path(recipe.init).name}"
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
        "epoch": epoch,
        "validation_top1": round(score(network, sets.validation), 6) if sets.validation else None,
        "versions": {name: importlib.metadata.version(name) for name in VERSIONS_KEPT},
    }
