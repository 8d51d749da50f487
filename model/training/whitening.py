"""Fits a network's whitening on the photos that it was trained on."""

from collections import Counter
from collections.abc import Sequence

import numpy as np
import torch

from model.card import WhiteningRecord
from model.dataset import Item
from model.network.embedding_net import EmbeddingNetwork
from model.training.whole_photos import rows_of
from model.whitening import MIN_CLASSES, WhiteningOptions, fit_whitening

MOST_PHOTOS = 20_000
"""Enough for a covariance of 1,280 values; more photos only take longer."""


def whiten_on(
    network: EmbeddingNetwork, items: Sequence[Item], options: WhiteningOptions | None = None
) -> WhiteningRecord:
    """Fits a whitening on labelled photos, up to 20,000 spread over them, and puts it into the network.

    Photos that cannot be read are left out. Raises DataInvalid when fewer than ten classes have two photos.
    """
    options = options or WhiteningOptions()
    count = min(MOST_PHOTOS, len(items))
    spread = [items[place * len(items) // count] for place in range(count)]
    features, used = rows_of(network, spread, lambda crops: network.pooled(network.normalise(crops)))
    names, classes = np.unique(np.array([item.label for item in used]), return_inverse=True)
    network.whiten(torch.from_numpy(fit_whitening(features, classes, options)))
    return WhiteningRecord(options.shrink, options.exponent, len(used), [str(name) for name in names])


def can_be_whitened(items: Sequence[Item]) -> bool:
    """Whether at least ten classes have two photos, as `fit_whitening` needs."""
    return sum(count >= 2 for count in Counter(item.label for item in items).values()) >= MIN_CLASSES
