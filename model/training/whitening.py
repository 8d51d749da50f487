"""Fits a network's whitening on the photos that it was trained on."""

from collections.abc import Sequence

import numpy as np
import torch

from model.card import WhiteningRecord
from model.dataset import Item, spread
from model.network.embedding_net import EmbeddingNetwork
from model.training.whole_photos import rows_of
from model.whitening import EXPONENT, SHRINK, fit_whitening

MOST_PHOTOS = 20_000
"""Enough for a covariance of 1,280 values; more photos only take longer."""


def whiten_on(network: EmbeddingNetwork, items: Sequence[Item]) -> WhiteningRecord:
    """Fits a whitening on labelled photos, up to 20,000 spread over them, and puts it into the network.

    Photos that cannot be read are left out. Raises DataInvalid when fewer than ten classes have two photos.
    """
    chosen = spread(items, MOST_PHOTOS)
    features, used = rows_of(network, chosen, lambda crops: network.pooled(network.normalise(crops)))
    names, classes = np.unique(np.array([item.label for item in used]), return_inverse=True)
    network.whiten(torch.from_numpy(fit_whitening(features, classes)))
    return WhiteningRecord(SHRINK, EXPONENT, len(used), [str(name) for name in names])
