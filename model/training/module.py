"""The Lightning module: classification and distillation, validated by the benchmark on classes never seen."""

from collections.abc import Sequence
from typing import Any, cast

import lightning as L
import numpy as np
import torch
import torch.nn.functional as F
from lightning.pytorch.utilities.types import OptimizerLRScheduler
from torch import Tensor, nn
from torch.optim.lr_scheduler import OneCycleLR, StepLR

from model.dataset import Item
from model.network.embedding_net import EmbeddingNetwork
from model.training.losses import NormalisedHead, PseudoClassLoss, TeacherLoss, cluster_centres
from model.training.recipes import Recipe
from model.training.whole_photos import score
from model.types import Embeddings


class Classifier(L.LightningModule):
    """An embedding network with a classification head that is used for training only."""

    teacher: Tensor

    def __init__(
        self,
        network: EmbeddingNetwork,
        recipe: Recipe,
        classes: int,
        teacher: Embeddings | None = None,
        validation: Sequence[Item] = (),
        validate_every: int = 1,
    ) -> None:
        super().__init__()
        self.network = network.to(memory_format=torch.channels_last)
        self.head = (nn.Linear if recipe.head == "linear" else NormalisedHead)(network.dim, classes)
        rows = torch.from_numpy(teacher if teacher is not None else np.empty((0, 1), np.float32))
        self.register_buffer("teacher", rows, persistent=False)
        self.agreement = _teaching(network.dim, rows, recipe) if len(rows) else None
        self.recipe = recipe
        self.validation = validation
        self.validate_every = validate_every

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
            loss = loss + self.agreement(features[unlabelled], wanted) * unlabelled.float().mean()
        return loss

    def on_train_epoch_end(self) -> None:
        """Validates, in fp32 whatever precision it trains in, because that is what is exported."""
        if self.validation and (self.current_epoch + 1) % self.validate_every == 0:
            self.log("val_top1", score(self.network, self.validation), prog_bar=True)
            self.network.train()

    def configure_optimizers(self) -> OptimizerLRScheduler:
        recipe = self.recipe
        kind = {"adam": torch.optim.Adam, "adamw": torch.optim.AdamW}[recipe.optimizer]
        rest = [*self.head.parameters(), *(self.agreement.parameters() if self.agreement else ())]
        rates = [recipe.lr, recipe.lr * recipe.head_lr_factor]
        groups = [{"params": list(self.network.parameters()), "lr": rates[0]}, {"params": rest, "lr": rates[1]}]
        optimizer = kind(groups, weight_decay=recipe.weight_decay)
        schedule: dict[str, Any]
        if recipe.schedule == "step":
            schedule = {"scheduler": StepLR(optimizer, recipe.lr_step_epochs), "interval": "epoch"}
        else:
            steps = int(self.trainer.estimated_stepping_batches)
            schedule = {"scheduler": OneCycleLR(optimizer, rates, total_steps=steps), "interval": "step"}
        return cast(OptimizerLRScheduler, {"optimizer": optimizer, "lr_scheduler": schedule})


def _teaching(dim: int, teacher: Tensor, recipe: Recipe) -> TeacherLoss | PseudoClassLoss:
    if not recipe.pseudo_classes:
        return TeacherLoss(dim, teacher.shape[1])
    centres = cluster_centres(teacher.numpy(), recipe.pseudo_classes, recipe.seed)
    return PseudoClassLoss(dim, torch.from_numpy(centres))
