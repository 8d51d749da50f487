"""Baselines without a network: nearest neighbours on raw pixels and on colour histograms.

A set on which these score high says little about a network.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
from PIL import Image

from model.dataset import Photo
from model.embedder import Progress, silent
from model.images.decode import decode
from model.parallel import decode_pool, map_in_order
from model.retrieval import Interval, bootstrap_over_classes, leave_one_out_nearest
from model.types import Embeddings, Pixels

PIXEL_SIZE = (32, 24)
BINS = 8


@dataclass(frozen=True, slots=True)
class TrivialScore:
    """Leave-one-out top-1 of one baseline, with its 95% interval over classes."""

    name: str
    top1: float
    ci95: Interval


def raw_pixels(photo: Pixels) -> Embeddings:
    """The photo at 32 x 24 pixels, its mean taken away, at unit length: float32 (2304,)."""
    small = np.asarray(Image.fromarray(photo).resize(PIXEL_SIZE, Image.Resampling.BOX), np.float32).ravel()
    return _unit(small - small.mean())


def colour_histogram(photo: Pixels) -> Embeddings:
    """Share of each of 8 x 8 x 8 colours; the root makes the inner product Bhattacharyya's: float32 (512,)."""
    small = np.asarray(Image.fromarray(photo).resize((128, 96), Image.Resampling.BOX)).reshape(-1, 3) // (256 // BINS)
    codes = (small[:, 0].astype(np.int64) * BINS + small[:, 1]) * BINS + small[:, 2]
    return _unit(np.sqrt(np.bincount(codes, minlength=BINS**3)).astype(np.float32))


FEATURES: dict[str, Callable[[Pixels], Embeddings]] = {"raw pixels": raw_pixels, "colour histogram": colour_histogram}


def trivial_scores(photos: Sequence[Photo], progress: Progress = silent) -> list[TrivialScore]:
    """Scores every baseline on labelled photos; raises ImageRejected for one that cannot be decoded."""

    def features(photo: Photo) -> list[Embeddings]:
        pixels = decode(photo.read())
        return [feature(pixels) for feature in FEATURES.values()]

    rows: list[list[Embeddings]] = []
    with decode_pool() as pool:
        for row in map_in_order(pool, features, photos):
            rows.append(row)
            progress(len(rows), len(photos))
    _, codes = np.unique([photo.label for photo in photos], return_inverse=True)
    scores = []
    for name, vectors in zip(FEATURES, zip(*rows, strict=True), strict=True):
        correct = codes[leave_one_out_nearest(np.stack(vectors))] == codes
        scores.append(TrivialScore(name, float(correct.mean()), bootstrap_over_classes(correct, codes)))
    return scores


def _unit(values: Embeddings) -> Embeddings:
    length = float(np.linalg.norm(values))
    unit: Embeddings = (values / length if length else np.eye(1, len(values))[0]).astype(np.float32)
    return unit
