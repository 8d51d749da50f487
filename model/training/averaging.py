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


def average_weights(network: EmbeddingNetwork, others: Sequence[tuple[EmbeddingNetwork, float]]) -> None:
    """Adds the weights of other networks of the same architecture to a network's, in place, each with its share.

    The network's own weights have the share that is left. The averaged batch statistics match no network; call
    `measure_batch_statistics` afterwards.
    """
    own = 1 - sum(share for _, share in others)
    states = [other.backbone.state_dict() for other, _ in others]
    mean = {}
    for name, value in network.backbone.state_dict().items():
        if not value.is_floating_point():  # how many batches were seen
            continue
        mean[name] = own * value
        for state, (_, share) in zip(states, others, strict=True):
            mean[name] += share * state[name].to(value.device)
    network.backbone.load_state_dict({**network.backbone.state_dict(), **mean})


def measure_batch_statistics(network: EmbeddingNetwork, items: Sequence[Item]) -> None:
    """Measures means and variances of batch normalisation on whole photos, as they are served, in place."""
    order = np.random.default_rng(0).permutation(len(items))  # so that a batch has photos of many classes
    batches = (crops for crops, _ in whole_photos([items[place] for place in order], network.spec) if len(crops) > 1)
    with torch.no_grad():
        update_bn(batches, network, network.mean.device)
    network.eval()
