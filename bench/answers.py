"""What an answer is worth beyond the benchmark's top-1 (`python -m bench answers`), on classes that no network saw.

Accuracy by photos a class, the probability where half of the classes are missing, the colour of wrong neighbours, the
size of an upload, and pictures without a car.
"""

import io
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path

import numpy as np
import numpy.typing as npt
from PIL import Image
from rich.table import Table

from indexer.calibration import auroc, calibration_error, fit, leave_one_out, sampled_rows
from indexer.class_weights import ClassFit
from indexer.decision import NEIGHBOURS, decide
from indexer.stores.faiss import FaissStore
from model.car_head import CarHead
from model.dataset import Item, read_items, read_labelled, spread
from model.embedder import Embedder
from model.errors import CarsearchError, DataInvalid
from model.images.decode import decode
from model.parallel import decode_pool, map_in_order
from model.retrieval import leave_one_out_nearest
from model.types import Embeddings, Pixels, Rows
from service.engine import CAR_THRESHOLD

PHOTOS_A_CLASS = (1, 2, 3, 5, 10, 20, 40)
DRAWS = 20
RESIZED, SMALL, LARGE = 100, 512, 2048
COLOURS = ("black", "grey", "white", "red to yellow", "green", "blue to violet")


@dataclass(frozen=True, slots=True)
class ByPhotos:
    """Means over `DRAWS` galleries with so many photos of each class: nearest photo and class are right.

    `photos` is None for galleries whose classes differ: from one photo to the largest of the sizes, evenly by its
    logarithm, so that about half of the classes have fewer than five where the largest is twenty.
    """

    photos: int | None
    nearest: float
    class_: float


@dataclass(frozen=True, slots=True)
class Probability:
    """Means over `DRAWS` splits: a fit to half of the classes judges the decisions about the other half.

    `auroc` tells right decisions from wrong ones, `error` is the calibration error, `coverage` the share of decisions
    whose probability reaches the threshold for a precision of 0.95, and `precision` the share of these that is right.
    """

    auroc: float
    error: float
    coverage: float
    precision: float


@dataclass(frozen=True, slots=True)
class Answers:
    """The figures of a model on a labelled set.

    `unknown_auroc` tells photos whose class is in the gallery from those whose class is not, by the probability of the
    decision; `unknown_auroc_cosine` by the cosine to the nearest photo. `same_colour` is the share of wrong nearest
    photos that have the query's colour, `same_colour_chance` that of all photos of other classes than the query's.
    `upload_distance` is 1 - cosine between a photo sent with 2,048 and with 512 pixels, in the mean. `pass_at_95` is
    the share of pictures without a car that pass where 95% of the photos of cars do; `pass_` and `cars_pass` are the
    shares at the threshold that is served, and `grey_cars_pass` that of photos without their colour.
    """

    by_photos: list[ByPhotos]
    probability: Probability | None
    unknown_auroc: float
    unknown_auroc_cosine: float
    same_colour: float
    same_colour_chance: float
    upload_distance: float
    pass_at_95: dict[str, float]
    pass_: dict[str, float]
    cars_pass: float | None
    grey_cars_pass: float | None


def measure(data: Path, model: str | None, pictures: Sequence[Path]) -> Answers:
    """All figures; `pictures` are folders without a car, of which files that cannot be read are left out."""
    embedder = Embedder.load(model)
    items = read_labelled(data).items
    rows = embedder.embed_files([item.path for item in items])
    _, codes = np.unique([item.label for item in items], return_inverse=True)
    colour, chance = same_colour(rows, codes, colours_of(items))
    by_probability, by_cosine = unknown_classes(rows, codes)
    head = embedder.car_head
    scores = {str(source): head.probabilities(_readable(embedder, source)) for source in pictures} if head else {}
    cars = head.probabilities(rows) if head else None
    return Answers(
        by_photos=by_photos(rows, codes),
        probability=probability_of_halves(rows, codes),
        unknown_auroc=by_probability,
        unknown_auroc_cosine=by_cosine,
        same_colour=colour,
        same_colour_chance=chance,
        upload_distance=upload_distance(embedder, items),
        pass_at_95={} if cars is None else {
            name: float((found >= np.quantile(cars, 0.05)).mean()) for name, found in scores.items()
        },
        pass_={name: float((found >= CAR_THRESHOLD).mean()) for name, found in scores.items()},
        cars_pass=None if cars is None else float((cars >= CAR_THRESHOLD).mean()),
        grey_cars_pass=None if head is None else grey_cars_pass(embedder, head, items),
    )  # fmt: skip


def grey_cars_pass(embedder: Embedder, head: CarHead, items: Sequence[Item]) -> float:
    """The share of photos of cars that pass without their colour."""
    passed = []
    for item in items:
        grey = Image.fromarray(embedder.prepare(item.read())).convert("L").convert("RGB")
        passed.append(head.probabilities(embedder.embed_crops(np.asarray(grey)[None]))[0] >= CAR_THRESHOLD)
    return float(np.mean(passed))


def by_photos(rows: Embeddings, codes: Rows) -> list[ByPhotos]:
    """Unit rows float32 (n, D), classes int64 (n,): galleries of so many photos of each class, from PHOTOS_A_CLASS.

    The queries are the same for all sizes: the photos of each class that are in none of the galleries of a draw. Sizes
    that leave a class without one are left out.
    """
    sizes = [size for size in PHOTOS_A_CLASS if size < np.bincount(codes).min()]
    if not sizes:
        return []
    right = np.zeros((len(sizes) + 1, 2))
    for draw in range(DRAWS):
        order = np.random.default_rng(draw).permutation(len(rows))
        rank = np.empty(len(rows), np.int64)  # of a photo among those of its class, in a random order
        for code in np.unique(codes):
            mine = order[codes[order] == code]
            rank[mine] = np.arange(len(mine))
        asked = rank >= sizes[-1]
        uneven = np.exp(np.random.default_rng(draw).uniform(0, np.log(sizes[-1] + 1), codes.max() + 1)).astype(np.int64)
        for place, wanted in enumerate([*sizes, uneven[codes]]):
            inside = rank < wanted
            near = FaissStore.create(rows[inside]).search(rows[asked], NEIGHBOURS)
            found = np.where(near.rows >= 0, codes[inside][near.rows], -1)
            weights = ClassFit(rows[inside].__getitem__, codes[inside]).weights()
            made = decide(found, near.scores, weights.scores(rows[asked], found))
            right[place] += (found[:, 0] == codes[asked]).mean(), (made.classes == codes[asked]).mean()
    return [ByPhotos(size, *map(float, shares)) for size, shares in zip([*sizes, None], right / DRAWS, strict=True)]


def probability_of_halves(rows: Embeddings, codes: Rows) -> Probability | None:
    """Unit rows float32 (n, D), classes int64 (n,): what the probability is worth for classes it was not fitted to.

    Splits whose other half is all right or all wrong are left out; None where no split is left.
    """
    figures = []
    for draw in range(DRAWS):
        half = (np.random.default_rng(draw).permutation(codes.max() + 1) < (codes.max() + 1) // 2)[codes]
        decided = []
        for part in (half, ~half):
            own = np.unique(codes[part], return_inverse=True)[1]
            every = np.arange(len(own))
            store, classes = FaissStore.create(rows[part]), ClassFit(rows[part].__getitem__, own)
            decided.append(leave_one_out(store, rows[part], every, own, classes))
        fitted, (decisions, right) = fit(*decided[0]), decided[1]
        probabilities = fitted.probabilities(decisions)
        told = probabilities >= fitted.threshold(0.95)
        precision = right[told].mean() if told.any() else 1.0
        if (area := auroc(probabilities, right)) is not None:
            figures.append([area, calibration_error(probabilities, right), told.mean(), precision])
    return Probability(*map(float, np.mean(figures, axis=0))) if figures else None


def unknown_classes(rows: Embeddings, codes: Rows) -> tuple[float, float]:
    """AUROC of photos of the gallery's classes against those of others, by probability and by cosine.

    Means over `DRAWS` galleries of half of the classes. Photos of the gallery are left out of it one at a time.
    """
    if codes.max() == 0:
        raise DataInvalid("A set needs at least two classes, so that half of them can be missing.")
    by_probability, by_cosine = list[float](), list[float]()
    for draw in range(DRAWS):
        half = np.random.default_rng(draw).permutation(codes.max() + 1) < (codes.max() + 1) // 2
        inside = half[codes]
        gallery = rows[inside]
        own = np.unique(codes[inside], return_inverse=True)[1]
        store, classes = FaissStore.create(gallery), ClassFit(gallery.__getitem__, own)
        every = np.arange(len(gallery))
        sampled = sampled_rows(own)
        fitted = fit(*leave_one_out(store, gallery[sampled], sampled, own, classes))
        known, _ = leave_one_out(store, gallery, every, own, classes)
        near = store.search(rows[~inside], NEIGHBOURS)
        found = np.where(near.rows >= 0, own[near.rows], -1)
        unknown = decide(found, near.scores, classes.weights().scores(rows[~inside], found))
        is_known = np.arange(len(rows)) < len(gallery)
        probabilities = [fitted.probabilities(known), fitted.probabilities(unknown)]
        cosines = [store.search(gallery, 1, exclude_rows=every).scores[:, 0], near.scores[:, 0]]
        for found_by, scores in ((by_probability, probabilities), (by_cosine, cosines)):
            found_by.append(auroc(np.concatenate(scores).astype(np.float64), is_known) or 0.0)
    return float(np.mean(by_probability)), float(np.mean(by_cosine))


def colour_of(photo: Pixels) -> int:
    """The colour of a photo's middle, half as wide and high as the photo: a place in COLOURS.

    By the median hue, saturation and value of its pixels (0 to 255): black below a value of 64; with a saturation
    below 60 grey, and white from a value of 150 on; otherwise by hue: red to yellow, green, blue to violet.
    """
    height, width = photo.shape[:2]
    middle = Image.fromarray(photo[height // 4 : height - height // 4, width // 4 : width - width // 4])
    hsv = np.asarray(middle.convert("HSV")).reshape(-1, 3)
    saturation, value = np.median(hsv[:, 1]), np.median(hsv[:, 2])
    if value < 64:
        return 0
    if saturation < 60:
        return 1 if value < 150 else 2
    hues = np.bincount(hsv[:, 0], minlength=256)  # red is at both ends, so that there is no median
    bins = [hues[:50].sum() + hues[230:].sum(), hues[50:120].sum(), hues[120:230].sum()]
    return 3 + int(np.argmax(bins))


def colours_of(items: Sequence[Item]) -> Rows:
    """The colour of every photo: int64 (n,)."""
    with decode_pool() as pool:
        return np.array(list(map_in_order(pool, lambda item: colour_of(decode(item.read())), items)))


def same_colour(rows: Embeddings, codes: Rows, colours: Rows) -> tuple[float, float]:
    """The share of wrong nearest photos that have the query's colour, and of all photos of classes other than its.

    Both are 0 where no nearest photo is wrong.
    """
    nearest = leave_one_out_nearest(rows)
    wrong = np.flatnonzero(codes[nearest] != codes)
    if not len(wrong):
        return 0.0, 0.0
    others = codes[wrong, None] != codes
    alike = colours[wrong, None] == colours
    return float((colours[nearest] == colours)[wrong].mean()), float(alike[others].mean())


def upload_distance(embedder: Embedder, items: Sequence[Item]) -> float:
    """1 - cosine between photos of 2,048 and of 512 pixels, which are enlarged from the same ones, in the mean."""
    distances = []
    for item in spread(items, RESIZED):
        with Image.open(io.BytesIO(item.read())) as photo:
            large, small = (embedder.embed_photo(_sent_as(photo, side)) for side in (LARGE, SMALL))
        distances.append(1 - float(large @ small))
    return float(np.mean(distances))


def _sent_as(photo: Image.Image, side: int) -> bytes:
    share = side / max(photo.size)
    size = (round(photo.width * share), round(photo.height * share))
    buffer = io.BytesIO()
    photo.convert("RGB").resize(size, Image.Resampling.LANCZOS).save(buffer, "JPEG", quality=90)
    return buffer.getvalue()


def _readable(embedder: Embedder, source: Path) -> Embeddings:
    found: list[npt.NDArray[np.float32]] = []
    for item in read_items(source, class_depth=0).items:
        try:
            found.append(embedder.embed_photo(item.read()))
        except CarsearchError:
            continue
    if not found:
        raise DataInvalid(f"None of the pictures in {source} can be read.")
    return np.stack(found)


def tables_of(answers: Answers) -> list[Table]:
    """The figures for people."""
    photos = Table("photos a class", "nearest photo", "class", title="right answers, by photos of each class")
    for one in answers.by_photos:
        photos.add_row(str(one.photos or "uneven"), f"{one.nearest:.3f}", f"{one.class_:.3f}")
    rest = Table("figure", "value")
    for name, value in asdict(answers.probability).items() if answers.probability else ():
        rest.add_row(f"probability, of other classes than it was fitted to: {name}", f"{value:.3f}")
    rest.add_row("AUROC of known against unknown classes, by probability", f"{answers.unknown_auroc:.3f}")
    rest.add_row("the same, by the cosine of the nearest photo", f"{answers.unknown_auroc_cosine:.3f}")
    rest.add_row("wrong nearest photos of the query's colour", f"{answers.same_colour:.3f}")
    rest.add_row("photos of other classes of its colour", f"{answers.same_colour_chance:.3f}")
    rest.add_row("1 - cosine between 2,048 and 512 pixels", f"{answers.upload_distance:.4f}")
    if answers.cars_pass is not None:
        rest.add_row("photos of cars that pass as cars", f"{answers.cars_pass:.3f}")
        rest.add_row("the same without their colour", f"{answers.grey_cars_pass:.3f}")
    for name, share in answers.pass_.items():
        rest.add_row(f"pictures of {name} that pass as cars", f"{share:.3f}")
        rest.add_row("the same where 95% of cars pass", f"{answers.pass_at_95[name]:.3f}")
    return [photos, rest]
