"""The Lightning module: classification and distillation, validated by the benchmark on classes never seen."""

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any, cast

import lightning as L
import numpy as np
import numpy.typing as npt
import torch
import torch.nn.functional as F
from lightning.pytorch.utilities.types import OptimizerLRScheduler
from torch import Tensor, nn
from torch.optim.lr_scheduler import OneCycleLR, StepLR

from model.network.embedding_net import EmbeddingNetwork
from model.retrieval import leave_one_out_nearest
from model.training.clustering import cluster_centres
from model.training.losses import NormalisedHead, PseudoClassLoss, TeacherLoss
from model.training.recipes import Recipe
from model.types import Embeddings


@contextmanager
def without_tf32() -> Iterator[None]:
    """Full float32 products on CUDA inside the block; TF32 keeps 10 bits of mantissa."""
    before = torch.backends.cuda.matmul.allow_tf32, torch.backends.cudnn.allow_tf32
    torch.backends.cuda.matmul.allow_tf32 = torch.backends.cudnn.allow_tf32 = False
    try:
        yield
    finally:
        torch.backends.cuda.matmul.allow_tf32, torch.backends.cudnn.allow_tf32 = before


class Classifier(L.LightningModule):
    """An embedding network with a classification head that is used for training only."""

    teacher: Tensor

    def __init__(
        self,
        network: EmbeddingNetwork,
        recipe: Recipe,
        classes: int,
        validation_targets: npt.NDArray[np.int64],
        teacher: Embeddings | None = None,
    ) -> None:
        super().__init__()
        self.network = network.to(memory_format=torch.channels_last)
        linear = recipe.head == "linear"
        self.head = nn.Linear(network.dim, classes) if linear else NormalisedHead(network.dim, classes, recipe.scale)
        rows = torch.from_numpy(teacher if teacher is not None else np.empty((0, 1), np.float32))
        self.register_buffer("teacher", rows, persistent=False)
        self.agreement = _teaching(network.dim, rows, recipe) if len(rows) else None
        self.recipe = recipe
        self.validation_targets = validation_targets
        self.validated: list[tuple[Tensor, Tensor]] = []

    def training_step(self, batch: tuple[Tensor, Tensor, Tensor], _: int) -> Tensor:
        crops, targets, taught = batch
        # The crops have their channels last in memory and `normalise` only changes the view: convolutions need no copy.
        images = self.network.normalise(crops).contiguous(memory_format=torch.channels_last)
        loss = self.loss(self.network.features(images), targets, taught)
        self.log("train_loss", loss, prog_bar=True)
        return loss

    def loss(self, features: Tensor, targets: Tensor, taught: Tensor) -> Tensor:
        """Features (B, D), class codes and the teacher's rows, -1 where there is none -> the mean loss of the batch."""
        labelled, unlabelled = targets >= 0, taught >= 0
        loss = features.sum() * 0.0
        if labelled.any():
            logits = self.head(features[labelled])
            smoothing = self.recipe.label_smoothing
            loss = (
                loss + F.cross_entropy(logits, targets[labelled], label_smoothing=smoothing) * labelled.float().mean()
            )
        if self.agreement is not None and unlabelled.any():
            wanted = self.teacher[taught[unlabelled]]
            distance = self.agreement(features[unlabelled], wanted)
            loss = loss + self.recipe.teacher_weight * distance * unlabelled.float().mean()
        return loss

    def validation_step(self, batch: tuple[Tensor, Tensor], _: int) -> None:
        crops, rows = batch
        # In fp32 whatever precision it trains in, because that is what is exported.
        with torch.autocast(self.device.type, enabled=False), without_tf32():
            self.validated.append((rows, self.network(crops)))

    def on_validation_epoch_end(self) -> None:
        rows = torch.cat([rows for rows, _ in self.validated])
        embeddings = torch.cat([embeddings for _, embeddings in self.validated])
        self.validated.clear()
        if self.trainer.world_size > 1:  # the sampler pads the shares to equal length
            rows = cast(Tensor, self.all_gather(rows)).flatten()
            embeddings = cast(Tensor, self.all_gather(embeddings)).flatten(0, 1)
        top1 = self.top1(rows.cpu().numpy(), embeddings.float().cpu().numpy())
        self.log("val_top1", top1, prog_bar=True, rank_zero_only=True)

    def top1(self, rows: npt.NDArray[np.int64], embeddings: npt.NDArray[np.float32]) -> float:
        """The benchmark's leave-one-out top-1 of gathered shares: rows (n,), embeddings (n, D), with padding."""
        ordered = np.empty((len(self.validation_targets), embeddings.shape[1]), np.float32)
        ordered[rows] = embeddings  # a padded row occurs twice, with the same embedding
        nearest = leave_one_out_nearest(ordered)
        return float((self.validation_targets[nearest] == self.validation_targets).mean())

    def configure_optimizers(self) -> OptimizerLRScheduler:
        recipe = self.recipe
        kind = {"adam": torch.optim.Adam, "adamw": torch.optim.AdamW}[recipe.optimizer]
        rest = [*self.head.parameters(), *(self.agreement.parameters() if self.agreement else ())]
        rates = [recipe.lr, recipe.lr * recipe.head_lr_factor]
        groups = [{"params": list(self.network.parameters()), "lr": rates[0]}, {"params": rest, "lr": rates[1]}]
        optimizer = kind(groups, weight_decay=recipe.weight_decay)
        schedule: dict[str, Any]
        if recipe.schedule == "step":
            schedule = {"scheduler": StepLR(optimizer, recipe.lr_step_epochs, recipe.lr_factor), "interval": "epoch"}
        else:
            steps = int(self.trainer.estimated_stepping_batches)
            schedule = {"scheduler": OneCycleLR(optimizer, rates, total_steps=steps), "interval": "step"}
        return cast(OptimizerLRScheduler, {"optimizer": optimizer, "lr_scheduler": schedule})


def _teaching(dim: int, teacher: Tensor, recipe: Recipe) -> TeacherLoss | PseudoClassLoss:
    if not recipe.pseudo_classes:
        return TeacherLoss(dim, teacher.shape[1])
    centres = cluster_centres(teacher.numpy(), recipe.pseudo_classes, recipe.seed)
    return PseudoClassLoss(dim, torch.from_numpy(centres), recipe.scale)
