"""The deletion test of match maps, and the sums of these maps against the scores (`python -m bench explain`).

Each pair is a photo and its nearest other photo of a set. A tenth of the photo is painted over with the grey that the
network sees as zero: the tenth that the map calls most important, a tenth chosen in the same way by a map of random
numbers, and the central tenth. A map that means something lowers the score the most.
"""

from collections.abc import Callable, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import numpy.typing as npt
from PIL import Image
from rich.table import Table

from indexer.stores.faiss import FaissStore
from indexer.stores.precision import Storage
from model.card import FP32
from model.dataset import read_file, read_labelled, spread
from model.embedder import Embedder, Progress
from model.errors import DataInvalid
from model.explain import Heat
from model.retrieval import Interval, bootstrap_over_classes
from model.types import Embeddings, Pixels, Rows
from service.cli.output import progress_bar

HIDDEN = 0.1
"""The share of a photo that is hidden."""

Mask = npt.NDArray[np.bool_]
Values = npt.NDArray[np.float64]


@dataclass(frozen=True, slots=True)
class Hiding:
    """How much hiding a tenth lowers the score: the mean over pairs with its 95% interval.

    `less` is by how much less than hiding the tenth that the map calls most important, pair by pair.
    """

    tenth: str
    drop: float
    ci95: Interval
    less: float
    less_ci95: Interval


@dataclass(frozen=True, slots=True)
class Difference:
    """How far the sum of a map is from the score of one way of serving, over all pairs."""

    served: str
    mean: float
    greatest: float


@dataclass(frozen=True, slots=True)
class Measured:
    """The deletion test of one model on `pairs` pairs, and what the maps add up to."""

    model: str
    pairs: int
    score: float
    hiding: list[Hiding]
    differences: list[Difference]


def measure(
    model: str | None,
    data: Path,
    pairs: int,
    fp32: bool = False,
    bar: Callable[[str], AbstractContextManager[Progress]] = progress_bar,
) -> Measured:
    """Runs the deletion test on a labelled set; `fp32` compares the maps with torch in fp32 too."""
    embedder = Embedder.load(model, "openvino")
    paths = [item.path for item in read_labelled(data).items]
    if len(paths) < 2:
        raise DataInvalid("A pair needs two photos; name a set that has them.")
    with bar("embedding") as progress:
        embeddings = embedder.embed_files(paths, lambda done: progress(done, len(paths)))
    queries = np.array(spread(range(len(paths)), pairs))
    near = FaissStore.create(embeddings).search(embeddings[queries], 1, exclude_rows=queries)
    hits, scores = near.rows[:, 0], near.scores[:, 0].astype(np.float64)

    random = np.random.default_rng(0)
    drops: list[list[float]] = []
    sums = []
    with bar("hiding") as progress:
        for place, (query, hit) in enumerate(zip(queries, hits, strict=True)):
            crop, other = (embedder.prepare(read_file(paths[row])) for row in (query, hit))
            found = embedder.explain(embedder.shares(crop), embedder.shares(other))
            masks = tenths(found.query, len(crop), random)
            hidden = embedder.embed_crops(np.stack([hide(crop, mask, embedder) for mask in masks.values()]))
            drops.append((scores[place] - hidden.astype(np.float64) @ embeddings[hit]).tolist())
            sums.append(found.cosine)
            progress(place + 1, len(queries))
    differences = _differences(np.array(sums), queries, hits, embeddings)
    if fp32:
        torch = Embedder.load(model, "torch", FP32)
        both = [torch.embed_files([paths[row] for row in rows]).astype(np.float64) for rows in (queries, hits)]
        differences.append(_difference("fp32 by torch", np.array(sums), (both[0] * both[1]).sum(axis=1)))
    hiding = [_hiding(name, one, np.array(drops)[:, 0]) for name, one in zip(masks, np.array(drops).T, strict=True)]
    return Measured(embedder.card.name, len(queries), float(scores.mean()), hiding, differences)


def tenths(heat: Heat, side: int, random: np.random.Generator) -> dict[str, Mask]:
    """The tenths of a crop of `side` pixels that are hidden, by name: bool (side, side)."""
    width = round(side * HIDDEN**0.5)
    start = (side - width) // 2
    central = np.zeros((side, side), bool)
    central[start : start + width, start : start + width] = True
    return {
        "the map's": greatest(heat, side),
        "random": greatest(random.random(heat.shape).astype(np.float32), side),
        "central": central,
    }


def greatest(heat: Heat, side: int) -> Mask:
    """Where a map (h, w), enlarged to a crop, has its greatest tenth: bool (side, side)."""
    enlarged = np.asarray(Image.fromarray(heat).resize((side, side), Image.Resampling.BILINEAR)).reshape(-1)
    mask = np.zeros(side * side, bool)
    mask[np.argsort(-enlarged, kind="stable")[: round(HIDDEN * side * side)]] = True
    return mask.reshape(side, side)


def hide(crop: Pixels, mask: Mask, embedder: Embedder) -> Pixels:
    """A crop uint8 (S, S, 3) with a part painted over with the mean colour of the model's photos."""
    hidden = crop.copy()
    hidden[mask] = np.round(255 * np.array(embedder.card.input.mean)).astype(np.uint8)
    return hidden


def _hiding(name: str, drops: Values, by_map: Values) -> Hiding:
    less = by_map - drops
    return Hiding(name, float(drops.mean()), _interval(drops), float(less.mean()), _interval(less))


def _interval(values: Values) -> Interval:
    """Over pairs: each is a class of its own."""
    return bootstrap_over_classes(values, np.arange(len(values)))


def _differences(sums: Values, queries: Rows, hits: Rows, embeddings: Embeddings) -> list[Difference]:
    """The differences between the maps' sums and the scores, by what scores are of; other storages have fp32's."""
    found = []
    for storage in (Storage.fp32, Storage.fp16):
        rows = FaissStore.create(embeddings, storage).vectors(hits).astype(np.float64)
        scores = (embeddings[queries].astype(np.float64) * rows).sum(axis=1)
        found.append(_difference(f"vectors in {storage}", sums, scores))
    return found


def _difference(served: str, sums: Values, scores: Values) -> Difference:
    apart = np.abs(sums - scores)
    return Difference(served, float(apart.mean()), float(apart.max()))


def tables_of(measured: Measured) -> Sequence[Table]:
    """The drops of the score, and what the maps add up to."""
    title = f"{measured.model}: {measured.pairs} pairs, mean score {measured.score:.3f}"
    hiding = Table("hidden tenth", "score drops by", "95%", "less than the map's by", "95%", title=title)
    for one in measured.hiding:
        first = one is measured.hiding[0]
        less = ("", "") if first else (f"{one.less:.3f}", _told(one.less_ci95))
        hiding.add_row(one.tenth, f"{one.drop:.3f}", _told(one.ci95), *less)
    apart = Table("score with", "mean difference to the maps' sum", "greatest")
    for each in measured.differences:
        apart.add_row(each.served, f"{each.mean:.1e}", f"{each.greatest:.1e}")
    return hiding, apart


def _told(interval: Interval) -> str:
    return f"{interval.low:.3f} to {interval.high:.3f}"
