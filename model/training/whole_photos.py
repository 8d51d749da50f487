"""What a network makes of whole photos, prepared as they are served."""

from collections.abc import Callable, Iterator, Sequence

import numpy as np
import torch
from torch import Tensor

from model.card import InputSpec
from model.dataset import Item
from model.errors import CarsearchError
from model.images.transform import prepare
from model.network.embedding_net import EmbeddingNetwork
from model.parallel import batched, decode_pool, map_in_order
from model.retrieval import leave_one_out_nearest
from model.types import Embeddings, Pixels

BATCH = 32


def readable_crops(items: Sequence[Item], spec: InputSpec) -> Iterator[tuple[Item, Pixels]]:
    """Items with their crops uint8 (S, S, 3), in order; photos that cannot be read are left out."""

    def crop(item: Item) -> tuple[Item, Pixels] | None:
        try:
            return item, prepare(item.read(), spec)
        except CarsearchError:
            return None

    with decode_pool() as pool:
        yield from filter(None, map_in_order(pool, crop, items))


def whole_photos(items: Sequence[Item], spec: InputSpec) -> Iterator[tuple[Tensor, list[Item]]]:
    """Batches of crops uint8 (B, S, S, 3) with their items, without photos that cannot be read."""
    for batch in batched(readable_crops(items, spec), BATCH):
        yield torch.from_numpy(np.stack([pixels for _, pixels in batch])), [item for item, _ in batch]


def rows_of(
    network: EmbeddingNetwork, items: Sequence[Item], forward: Callable[[Tensor], Tensor]
) -> tuple[Embeddings, list[Item]]:
    """What `forward` makes of crops uint8 (B, S, S, 3): float32 (n, D), and the photos that could be read."""
    network.eval()
    rows, used = [np.empty((0, network.dim), np.float32)], list[Item]()
    with torch.inference_mode():
        for crops, read in whole_photos(items, network.spec):
            rows.append(forward(crops.to(network.mean.device)).cpu().numpy())
            used += read
    return np.concatenate(rows), used


def score(network: EmbeddingNetwork, items: Sequence[Item]) -> float:
    """The benchmark's leave-one-out top-1 of labelled photos."""
    embeddings, used = rows_of(network, items, network)
    labels = np.array([item.label for item in used])
    return float((labels[leave_one_out_nearest(embeddings)] == labels).mean())
