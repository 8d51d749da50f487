"""Fits a network's whitening on the photos that it was trained on."""

from collections import Counter
from collections.abc import Sequence

import numpy as np
import torch

from model.card import WhiteningRecord
from model.dataset import Item
from model.errors import CarsearchError
from model.images.transform import prepare
from model.network.embedding_net import EmbeddingNetwork
from model.parallel import batched, decode_pool, map_in_order
from model.types import Embeddings, Pixels
from model.whitening import MIN_CLASSES, WhiteningOptions, fit_whitening

MOST_PHOTOS = 20_000
"""Enough for a covariance of 1,280 values; more photos only take longer."""

BATCH = 32


def whiten_on(
    network: EmbeddingNetwork, items: Sequence[Item], options: WhiteningOptions | None = None
) -> WhiteningRecord:
    """Fits a whitening on labelled photos, up to 20,000 spread over them, and puts it into the network.

    Photos that cannot be read are left out. Raises DataInvalid when fewer than ten classes have two photos.
    """
    options = options or WhiteningOptions()
    count = min(MOST_PHOTOS, len(items))
    features, used = pooled_features(network, [items[place * len(items) // count] for place in range(count)])
    names, classes = np.unique(np.array([item.label for item in used]), return_inverse=True)
    network.whiten(torch.from_numpy(fit_whitening(features, classes, options)))
    return WhiteningRecord(options.shrink, options.exponent, len(used), [str(name) for name in names])


def can_be_whitened(items: Sequence[Item]) -> bool:
    """Whether at least ten classes have two photos, as `fit_whitening` needs."""
    return sum(count >= 2 for count in Counter(item.label for item in items).values()) >= MIN_CLASSES


def pooled_features(network: EmbeddingNetwork, items: Sequence[Item]) -> tuple[Embeddings, list[Item]]:
    """Features of whole photos before whitening, float32 (n, D), and the photos that could be read."""
    network = network.eval()
    device = network.mean.device

    def crop(item: Item) -> tuple[Item, Pixels] | None:
        try:
            return item, prepare(item.read(), network.spec)
        except CarsearchError:
            return None

    rows, used = [np.empty((0, network.dim), np.float32)], list[Item]()
    with decode_pool() as pool, torch.inference_mode():
        for batch in batched(filter(None, map_in_order(pool, crop, items)), BATCH):
            crops = torch.from_numpy(np.stack([pixels for _, pixels in batch])).to(device)
            rows.append(network.pooled(network.normalise(crops)).cpu().numpy())
            used += [item for item, _ in batch]
    return np.concatenate(rows), used
