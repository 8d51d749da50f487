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
from model.embedder import Embedder, find_model
from model.errors import ModelInvalid, RunMismatch, SettingsInvalid
from model.network.backbones import BACKBONES
from model.network.embedding_net import EmbeddingNetwork, load_imagenet, load_network, load_weights_file
from model.storage import read_json, sha256_file, write_durably
from model.training.averaging import average_weights, measure_batch_statistics
from model.training.dataset import EpochSampler, TrainingSet
from model.training.leakage import NO_MODEL, check_unseen, is_weights_file, seen_classes
from model.training.module import Classifier
from model.training.options import TrainOptions
from model.training.photo_sets import PhotoSets, load_sets
from model.training.recipes import Recipe, recipe_named
from model.training.whitening import whiten_on
from model.training.whole_photos import score
from model.whitening import enough_classes

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
    photos = TrainingSet(sets.train, recipe, sets.unlabelled)
    # A student sees crops and learns the embedding of the whole photo, which is the same in every epoch.
    unlabelled = [item.path for item in sets.unlabelled]
    teacher = Embedder.load(options.teacher).embed_files(unlabelled) if unlabelled else None
    every = min(options.validate_every, recipe.epochs)
    classifier = Classifier(network, recipe, len(photos.labels), teacher, sets.validation, every)
    averaged = _network_to_average(recipe, options.teacher)  # before hours of training: it may be missing
    trainer = _trainer(options, recipe, folder, best_every=every if sets.validation else None)
    last = folder / "last.ckpt"
    resumed = str(last) if last.exists() else None
    trainer.fit(classifier, _loader(options, recipe, photos), ckpt_path=resumed, weights_only=True)
    kept = "best.ckpt" if sets.validation and recipe.keep == "best" else "last.ckpt"
    checkpoint = torch.load(folder / kept, map_location="cpu", weights_only=True)
    classifier.load_state_dict(checkpoint["state_dict"])
    if averaged:
        average_weights(network, averaged, recipe.teacher_share)
        if len(sets.train) >= ENOUGH_FOR_STATISTICS:
            measure_batch_statistics(network, sets.train)
    whitened = recipe.whiten and enough_classes(item.label for item in sets.train)
    whitening = whiten_on(network, sets.train) if whitened else None
    provenance = _provenance(options, recipe, sets, int(checkpoint["epoch"]) + 1, network)
    create_artifact(network.cpu(), options.out, options.out.resolve().name, provenance, whitening)
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


def _network_to_average(recipe: Recipe, teacher: str) -> EmbeddingNetwork | None:
    """The teacher's network, where the recipe averages its weights with those of the run, which share a start.

    Raises what `initialise` raises, and ModelInvalid for weights that expect other pixels than the run's.
    """
    if not teacher or not recipe.teacher_share or recipe.init == "random":
        return None
    if started_from(recipe, teacher).input != recipe.input:
        raise ModelInvalid(
            f"{teacher} expects pixels normalised in another way than this run; name another model to average."
        )
    network = EmbeddingNetwork(recipe.architecture, recipe.input)
    initialise(network, teacher)
    return network


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


def _trainer(options: TrainOptions, recipe: Recipe, folder: Path, best_every: int | None) -> L.Trainer:
    """`best_every` is the number of epochs from one validation to the next; None without photos to validate on."""
    common: dict[str, Any] = {"dirpath": folder, "enable_version_counter": False, "save_on_train_epoch_end": True}
    callbacks: list[L.Callback] = []
    if best_every:
        best = ModelCheckpoint(filename="best", monitor="val_top1", mode="max", every_n_epochs=best_every, **common)
        callbacks.append(best)
    # After "best", so that it holds the best score so far: otherwise a resumed run would accept a worse epoch as best.
    callbacks.append(ModelCheckpoint(filename="last", **common))
    loggers: list[Logger] = [CSVLogger(folder, name="csv")]
    if importlib.util.find_spec("tensorboard"):
        loggers.append(TensorBoardLogger(folder, name="tensorboard"))
    accelerator = {"auto": "gpu" if torch.cuda.is_available() else "cpu", "cuda": "gpu", "cpu": "cpu"}[options.device]
    if accelerator == "gpu" and not torch.cuda.is_available():
        raise SettingsInvalid("There is no CUDA device; train with --device cpu.")
    return L.Trainer(
        accelerator=accelerator,
        devices=1,
        precision=_precision(options.precision, accelerator),  # type: ignore[arg-type]  # Lightning's literal type
        max_epochs=recipe.epochs,
        callbacks=callbacks,
        plugins=[DurableCheckpoints()],
        logger=loggers,
        log_every_n_steps=1,
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


def _loader(options: TrainOptions, recipe: Recipe, photos: TrainingSet) -> DataLoader[Any]:
    return DataLoader(
        photos,  # type: ignore[arg-type]  # indexed by (epoch, row)
        batch_size=min(recipe.batch_size, len(photos)),
        sampler=EpochSampler(len(photos), recipe.seed),
        num_workers=options.workers,
        persistent_workers=options.workers > 0,
        drop_last=True,  # a last batch of one photo has no batch statistics
        pin_memory=torch.cuda.is_available() and options.device != "cpu",
    )


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
