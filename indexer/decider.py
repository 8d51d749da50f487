"""What a version holds to decide on the class of a photo: its class weights, and the fit of the probability."""

import json
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Self

import numpy as np

from indexer.calibration import Calibration, fit, leave_one_out, sampled_rows
from indexer.class_changes import ChangedWeights, ClassStatistics
from indexer.class_weights import ClassFit, ClassWeights
from indexer.decision import NEIGHBOURS, Decisions, decide
from indexer.manifest import CALIBRATION_NAME, CLASS_STATISTICS_NAME, CLASSES_NAME, Manifest
from indexer.stores.base import Neighbours, VectorStore
from model.errors import IndexInvalid
from model.storage import read_json
from model.types import Embeddings, Rows


@dataclass(frozen=True, slots=True)
class Decision:
    """The class of a photo; `probability` that it is right, if that class is in the gallery at all.

    `agreement` is the share of the ten nearest photos that are of this class, `car_probability` that the photo shows a
    car at all; it is None for a model that cannot tell.
    """

    label: str
    probability: float
    agreement: float
    car_probability: float | None = None


@dataclass(frozen=True, slots=True)
class Decider:
    """Decides by a gallery; `codes` int64 (N,) are the classes of its rows, -1 for none, `labels` their names.

    `class_statistics` is None for a version from before classes took in changes.
    """

    codes: Rows
    labels: Sequence[str]
    weights: ClassWeights
    calibration: Calibration
    class_statistics: ClassStatistics | None

    @classmethod
    def of(cls, store: VectorStore, embeddings: Embeddings, codes: Rows, labels: Sequence[str]) -> Self | None:
        """Fits the probability to unit rows float32 (N, D), which `store` may have rounded, and their classes.

        None where no photo has a class.
        """
        if not labels:
            return None
        classes, rows = fitted_to_labelled(embeddings.__getitem__, codes)
        decisions, right = leave_one_out(store, embeddings[rows], rows, codes, classes)
        decided = decisions.classes >= 0  # else there is no probability to be told
        probability = fit(decisions.only(decided), right[decided])
        return cls(codes, labels, classes.weights(), probability, ClassStatistics.of(classes))

    @classmethod
    def read(cls, directory: Path, manifest: Manifest, codes: Rows, labels: Sequence[str]) -> Self | None:
        """Reads what `write` wrote, of a version whose files have been verified.

        None where no photo has a class and for a version from before decisions. Raises IndexInvalid when it is not what
        the item table says.
        """
        if CLASSES_NAME not in manifest.files or not labels:
            return None
        weights = np.fromfile(directory / CLASSES_NAME, "<f4")
        if len(weights) != len(labels) * manifest.dim or not np.isfinite(weights).all():
            raise IndexInvalid(
                f"{directory / CLASSES_NAME} has not a row of numbers for each of {len(labels)} classes."
            )
        rows, class_statistics = ClassWeights(weights.reshape(len(labels), manifest.dim)), None
        if CLASS_STATISTICS_NAME in manifest.files:
            path, counts = directory / CLASS_STATISTICS_NAME, np.bincount(codes[codes >= 0], minlength=len(labels))
            try:
                class_statistics = ClassStatistics.read(path, manifest.dim, counts)
            except ValueError:
                raise IndexInvalid(f"{path} is not of {len(labels)} classes and {manifest.dim} dimensions.") from None
        return cls(codes, labels, rows, _calibration_in(directory), class_statistics)

    def write(self, directory: Path) -> None:
        """Writes `class_weights.f32`, `class_statistics.f32` and `calibration.json`, not yet durably."""
        if self.class_statistics is not None:
            self.class_statistics.write(directory / CLASS_STATISTICS_NAME)
        (directory / CLASSES_NAME).write_bytes(self.weights.rows.astype("<f4", copy=False).tobytes())
        text = json.dumps(self.calibration.to_json(), indent=1)
        (directory / CALIBRATION_NAME).write_text(text, encoding="utf-8")

    def followed_by(self, labels: Sequence[str], codes: Rows, vectors: Embeddings, steps: Sequence[int]) -> "Decider":
        """This after some photos came (step 1) or went (-1), with classes int64 (n,) and vectors float32 (n, D).

        `labels` are the names of all classes, new ones after the others; those are not decided on where there are no
        statistics of classes.
        """
        if self.class_statistics is None:
            return self
        before = self.weights
        if not isinstance(before, ChangedWeights):
            before = ChangedWeights(before.rows, self.class_statistics)
        return replace(self, labels=labels, weights=before.followed_by(codes, vectors, steps))

    def decisions(self, queries: Embeddings, near: Neighbours, codes: Rows | None = None) -> Decisions:
        """Decides on unit queries float32 (n, D) from their nearest rows of the whole gallery, at least ten of them.

        `codes` int64 (n, 10) are the classes of these, by default those that the version has.
        """
        rows = near.rows[:, :NEIGHBOURS]
        found = np.where(rows >= 0, self.codes[rows], -1) if codes is None else codes
        return decide(found, near.scores[:, :NEIGHBOURS], self.weights.scores(queries, found))

    def decide(self, queries: Embeddings, near: Neighbours, codes: Rows | None = None) -> list[Decision | None]:
        """As `decisions`, with names and probabilities; None where no neighbour has a class."""
        made = self.decisions(queries, near, codes)
        answers = zip(made.classes, self.calibration.probabilities(made), made.agreement, strict=True)
        return [
            Decision(self.labels[code], float(probability), float(share)) if code >= 0 else None
            for code, probability, share in answers
        ]


def fitted_to_labelled(embeddings: Callable[[Rows], Embeddings], codes: Rows) -> tuple[ClassFit, Rows]:
    """A fit to the rows that have a class, and those of them, int64 (n,), to try the probability on."""
    labelled = np.flatnonzero(codes >= 0)
    return ClassFit(lambda rows: embeddings(labelled[rows]), codes[labelled]), labelled[sampled_rows(codes[labelled])]


def read_calibration(directory: Path, manifest: Manifest) -> Calibration | None:
    """The fit of a version's probability; None for a version from before decisions, IndexInvalid for a broken file."""
    return _calibration_in(directory) if CALIBRATION_NAME in manifest.files else None


def _calibration_in(directory: Path) -> Calibration:
    try:
        return Calibration.from_json(read_json(directory / CALIBRATION_NAME, IndexInvalid))
    except (KeyError, TypeError, ValueError) as problem:
        raise IndexInvalid(f"{directory / CALIBRATION_NAME} lacks or misspells a field: {problem}.") from problem
