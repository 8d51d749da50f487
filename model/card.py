"""The model card: what serving must know about a network beside its weights.

A model artifact is a directory with `card.json`, `weights.safetensors`, `golden.jpg`, and, where the model has them,
`openvino/<precision>.xml|bin`, `fp32.onnx`, `whitening.safetensors` and `car_head.f32`. The card holds the sha256 of
every other file, so that the sha256 of `card.json` pins the whole artifact.
"""

import base64
import dataclasses
import hashlib
import json
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from pathlib import Path, PurePosixPath
from typing import Any, Literal, Self

import numpy as np

from model.errors import ModelInvalid, ModelNotFound
from model.storage import FileRecord, read_json, sha256_file, write_durably

SCHEMA_VERSION = 1
CARD_NAME = "card.json"
WEIGHTS_NAME = "weights.safetensors"
WHITENING_NAME = "whitening.safetensors"
CAR_HEAD_NAME = "car_head.f32"
GOLDEN_NAME = "golden.jpg"
ONNX_NAME = "fp32.onnx"
FP32, BF16, INT8 = "fp32", "bf16", "int8"
PRECISIONS = (INT8, FP32)
"""Precisions of a graph, in order of preference: who exports int8 wants it used. bf16 needs no graph."""

MIN_PARITY_COSINE = 0.9999
"""Lowest cosine to torch, on any photo, at which a graph's embeddings may be mixed with torch's in one index."""

# Name of the pixels that model.images.decode and transform make of a photo. When the bits of decoding or resizing
# change, the name must change, and with it every embedding_id.
DECODER = "turbo-2"

MINUS_1_TO_1 = (127 / 255, 127 / 255, 127 / 255), (128 / 255, 128 / 255, 128 / 255)
"""Mean and standard deviation that the weights of EfficientNet-Lite expect."""


def canonical_json(value: object) -> bytes:
    """A JSON value in one form, whatever the order of its keys."""
    return json.dumps(value, sort_keys=True, separators=(",", ":")).encode()


def canonical_sha256(value: object) -> str:
    """Hash of a JSON value, whatever the order of its keys: 64 hex digits."""
    return hashlib.sha256(canonical_json(value)).hexdigest()


@dataclass(frozen=True, slots=True)
class InputSpec:
    """The network's input: sides in pixels, how a photo is fitted, and the normalisation of values 0 to 1.

    `fit` "centre" resizes the shorter side to `resize` and cuts the central square of `crop`, as the original project
    does. "stretch" makes the whole photo a square of `crop`, so that the ends of a long car stay in the picture;
    training then cuts its crops from squares of `resize`. With `mirror` the embedding is that of the
    photo and of its mirror image, at twice the time.
    """

    resize: int = 256
    crop: int = 224
    fit: Literal["centre", "stretch"] = "centre"
    mean: tuple[float, float, float] = (125.3 / 255, 123.0 / 255, 113.9 / 255)
    std: tuple[float, float, float] = (63.0 / 255, 62.1 / 255, 66.7 / 255)
    decoder: str = DECODER
    mirror: bool = False

    def __post_init__(self) -> None:
        if not 1 <= self.crop <= self.resize <= 4096:
            raise ModelInvalid(f"The input spec needs 1 <= crop <= resize <= 4096, not {self.crop} and {self.resize}.")
        if self.fit not in ("centre", "stretch"):
            raise ModelInvalid(f'The input spec fits photos by "centre" or "stretch", not by "{self.fit}".')

    @property
    def square(self) -> float | None:
        """The side of the central square that the network sees, as a share of a photo's shorter side.

        None where it sees the whole photo.
        """
        return None if self.fit == "stretch" else self.crop / self.resize

    @property
    def sha256(self) -> str:
        values = dataclasses.asdict(self)
        if not self.mirror:
            del values["mirror"]  # models from before there was such a field keep their ids
        return canonical_sha256(values)

    @classmethod
    def from_json(cls, value: Mapping[str, Any]) -> Self:
        mean, std = _triple(value["mean"]), _triple(value["std"])
        mirror = bool(value.get("mirror", False))
        return cls(int(value["resize"]), int(value["crop"]), value["fit"], mean, std, str(value["decoder"]), mirror)


def graph_names(precision: str) -> tuple[str, str]:
    """The two files of an OpenVINO graph, relative to the artifact."""
    return f"openvino/{precision}.xml", f"openvino/{precision}.bin"


def _floats(encoded: Any) -> list[float]:
    values: list[float] = np.frombuffer(base64.b64decode(encoded, validate=True), "<f4").tolist()
    return values


def _stays_inside(name: str) -> bool:
    """Whether a name is a plain relative path; files are copied by these names, which may be forged."""
    path = PurePosixPath(name)
    odd = path.is_absolute() or ".." in path.parts or not path.parts or "\\" in name or "\0" in name
    return not odd and str(path) == name


def _triple(values: Any) -> tuple[float, float, float]:
    red, green, blue = (float(value) for value in values)
    return red, green, blue


@dataclass(frozen=True, slots=True)
class Parity:
    """Cosines between embeddings of a graph (`runtime`, `precision`) and of torch (`reference`), on the same crops."""

    runtime: str
    precision: str
    reference: str
    photos: int
    min_cosine: float
    mean_cosine: float


@dataclass(frozen=True, slots=True)
class CalibrationSet:
    """Photos that a graph was quantised with: their folder's name, number and classes."""

    name: str
    photos: int
    labels: list[str]


@dataclass(frozen=True, slots=True)
class WhiteningRecord:
    """What a whitening was fitted with, as in model.whitening, and the photos and classes that it was fitted on."""

    shrink: float
    exponent: float
    photos: int
    labels: list[str]


@dataclass(frozen=True, slots=True)
class CarHeadRecord:
    """What a car head was fitted on: photos of cars, by their classes, and other pictures."""

    cars: int
    others: int
    labels: list[str]


@dataclass(frozen=True, slots=True)
class Score:
    """Leave-one-out top-1 on a labelled set, as `carsearch evaluate` reports it, and the command to repeat it."""

    set: str
    precision: str
    top1: float
    correct: int
    total: int
    classes: int
    ci95: tuple[float, float]
    ci95_photos: tuple[float, float]
    command: str

    def __post_init__(self) -> None:  # raises TypeError or ValueError where a card is forged
        (low, high), (lowest, highest) = self.ci95, self.ci95_photos
        _ = [float(value) for value in (self.top1, low, high, lowest, highest)]


@dataclass(frozen=True, slots=True)
class Card:
    """The card of one model artifact.

    `golden` maps "runtime/precision" to the embedding (list of D floats) of `golden.jpg`, a synthetic photo; in the
    file it is base64 of float32, to keep the card readable. `calibration` (of the int8 graph), `training` (recipe,
    data, versions), `scores` and `about` (texts by heading) are for people and do not change what is served.
    """

    name: str
    architecture: str
    embedding_dim: int
    input: InputSpec
    files: dict[str, FileRecord]
    golden: dict[str, list[float]] = field(default_factory=dict)
    parity: list[Parity] = field(default_factory=list)
    calibration: list[CalibrationSet] = field(default_factory=list)
    whitening: WhiteningRecord | None = None
    car_head: CarHeadRecord | None = None
    training: dict[str, Any] = field(default_factory=dict)
    scores: list[Score] = field(default_factory=list)
    about: dict[str, str] = field(default_factory=dict)

    @property
    def weights_sha256(self) -> str:
        return self.files[WEIGHTS_NAME].sha256

    @property
    def precisions(self) -> list[str]:
        """The precisions of its OpenVINO graphs, in order of preference."""
        return [precision for precision in PRECISIONS if graph_names(precision)[0] in self.files]

    def embedding_id(self, precision: str) -> str:
        """Id of the embedding space of a precision: 16 hex digits.

        Embeddings may be compared when their ids are equal, or when `interchangeable` says so. In fp32 all runtimes
        share a space. Each quantised graph has one of its own, because it depends on the calibration.
        """
        parts = {"weights": self.weights_sha256, "input": self.input.sha256, "precision": precision}
        if WHITENING_NAME in self.files:
            parts["whitening"] = self.files[WHITENING_NAME].sha256
        if precision != FP32:
            parts |= {name: self.files[name].sha256 for name in graph_names(precision) if name in self.files}
        return canonical_sha256(parts)[:16]

    def precision_of(self, embedding_id: str) -> str | None:
        """The precision of this model that gives embeddings of this id, or None."""
        return next((name for name in (*PRECISIONS, BF16) if self.embedding_id(name) == embedding_id), None)

    def interchangeable(self, first: str, second: str) -> bool:
        """Whether embeddings of two ids may be mixed: the ids are equal, or a measured parity covers the pair."""
        if first == second:
            return True
        pairs = (
            {self.embedding_id(parity.reference), self.embedding_id(parity.precision)}
            for parity in self.parity
            if parity.min_cosine >= MIN_PARITY_COSINE
        )
        return any(pair == {first, second} for pair in pairs)

    def to_json(self) -> dict[str, Any]:
        golden = {
            name: base64.b64encode(np.asarray(values, "<f4").tobytes()).decode() for name, values in self.golden.items()
        }
        return {"schema_version": SCHEMA_VERSION, **dataclasses.asdict(self), "golden": golden}

    @classmethod
    def from_json(cls, value: Mapping[str, Any]) -> Self:
        if value.get("schema_version") != SCHEMA_VERSION:
            raise ModelInvalid(
                f"The model card has schema {value.get('schema_version')!r}; this version reads {SCHEMA_VERSION}."
            )
        try:
            card = cls(
                name=str(value["name"]),
                architecture=str(value["architecture"]),
                embedding_dim=int(value["embedding_dim"]),
                input=InputSpec.from_json(value["input"]),
                files={name: FileRecord(**record) for name, record in value["files"].items()},
                golden={name: _floats(encoded) for name, encoded in value["golden"].items()},
                parity=[Parity(**parity) for parity in value["parity"]],
                calibration=[CalibrationSet(**one) for one in value.get("calibration", ())],
                whitening=WhiteningRecord(**value["whitening"]) if value.get("whitening") else None,
                car_head=CarHeadRecord(**value["car_head"]) if value.get("car_head") else None,
                training=dict(value["training"]),
                scores=[
                    Score(**{**one, "ci95": tuple(one["ci95"]), "ci95_photos": tuple(one["ci95_photos"])})
                    for one in value.get("scores", ())
                ],
                about={str(heading): str(text) for heading, text in value.get("about", {}).items()},
            )
        except (KeyError, TypeError, ValueError, AttributeError, OverflowError) as problem:
            raise ModelInvalid(f"The model card lacks or misspells a field: {problem}.") from problem
        if WEIGHTS_NAME not in card.files:
            raise ModelInvalid(f"The model card names no {WEIGHTS_NAME}.")
        for name in card.files:
            if not _stays_inside(name):
                raise ModelInvalid(f"The model card names a file that cannot be one of the model's: {name!r}.")
        if any(len(embedding) != card.embedding_dim for embedding in card.golden.values()):
            raise ModelInvalid(f"A golden embedding of the model card does not have {card.embedding_dim} values.")
        return card

    def save(self, directory: Path) -> None:
        """Writes `card.json` durably; readers see the old card or the new one."""
        text = json.dumps(self.to_json(), indent=1, ensure_ascii=False)
        write_durably(directory / CARD_NAME, text.encode())


def load_card(directory: Path) -> Card:
    """Reads the card of a model artifact.

    Raises ModelNotFound when the directory holds no card, ModelInvalid when the card cannot be used.
    """
    if not (directory / CARD_NAME).is_file():
        raise ModelNotFound(f"There is no model in {directory}: it has no {CARD_NAME}.")
    return Card.from_json(read_json(directory / CARD_NAME, ModelInvalid))


def card_sha256(directory: Path) -> str:
    """The sha256 of the card, which pins the whole model artifact."""
    return sha256_file(directory / CARD_NAME)


def verify_artifact(directory: Path) -> Card:
    """Reads the card and checks every file it names by hash; raises ModelInvalid naming the first bad one."""
    card = load_card(directory)
    verify_files(directory, card, card.files)
    return card


def verify_files(directory: Path, card: Card, names: Iterable[str]) -> None:
    """Checks some of the files that a card names by hash; raises ModelInvalid naming the first bad one."""
    for name in names:
        problem = card.files[name].problem(directory / name)
        if problem:
            raise ModelInvalid(f"The model in {directory} is damaged: {name} {problem}.")
