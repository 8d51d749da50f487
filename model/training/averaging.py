"""Averages weights of networks that started from the same ones, which keeps what each alone would forget.

Wortsman et al., "Model soups" (ICML 2022) and "Robust fine-tuning of zero-shot models" (CVPR 2022).
"""

from collections.abc import Sequence

import numpy as np
import torch
from torch.optim.swa_utils import update_bn

from model.dataset import Item
from model.network.embedding_net import EmbeddingNetwork
from model.training.whole_photos import whole_photos


def average_weights(network: EmbeddingNetwork, other: EmbeddingNetwork, share: float) -> None:
    """Moves a network's weights by `share` of the way to those of another of the same architecture, in place.

    The averaged batch statistics match no network; call `measure_batch_statistics` afterwards.
    """
    state = other.backbone.state_dict()
    for name, value in network.backbone.state_dict().items():
        if value.is_floating_point():  # all but how many batches were seen
            value.lerp_(state[name].to(value.device), share)


def measure_batch_statistics(network: EmbeddingNetwork, items: Sequence[Item]) -> None:
    """Measures means and variances of batch normalisation on whole photos, as they are served, in place."""
    order = np.random.default_rng(0).permutation(len(items))  # so that a batch has photos of many classes
    batches = (crops for crops, _ in whole_photos([items[place] for place in order], network.spec) if len(crops) > 1)
    with torch.no_grad():
        update_bn(batches, network, network.mean.device)
    network.eval()
