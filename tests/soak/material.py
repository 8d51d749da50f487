"""What the long runs serve: a small real network over made-up cars, and what must be found there."""

import json
import tempfile
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cache
from pathlib import Path

from indexer.versions import IndexDirectory
from model.embedder import Embedder
from service.engine import Engine
from tests.conftest import write_real_model
from tests.soak.wire import upload
from tests.support.made_once import made_once
from tests.support.photos import car_photo

K = 5
TOLERANCE = 1e-5
"""Between scores of one photo: embedded in a batch its sums are in another order."""


@cache
def small_model() -> Path:
    """A real EfficientNet-Lite0 with random weights and crops of 64 pixels; read only.

    Every load and every publication hashes all of a model, and this is the smaller of the two.
    """
    with tempfile.TemporaryDirectory() as parity:
        return made_once(
            "efficientnet_lite0",
            lambda directory: write_real_model(directory, Path(parity) / "parity", "efficientnet_lite0"),
        )


@cache
def small_embedder() -> Embedder:
    """`small_model`, loaded once a process."""
    return Embedder.load(small_model(), "openvino")


def car_photos(kinds: Sequence[int]) -> list[bytes]:
    """One photo of each kind of car."""
    return [car_photo(kind, 0) for kind in kinds]


@dataclass(frozen=True)
class Known:
    """What each version of an index must answer: version -> request -> id -> score."""

    answers: Mapping[str, Mapping[bytes, Mapping[str, float]]]

    @classmethod
    def of(cls, index: IndexDirectory, versions: Sequence[str], photos: Sequence[bytes]) -> "Known":
        """Searches each version for each photo in this process."""
        answers = {}
        for version in versions:
            engine = Engine.load(index, version)
            answers[version] = {
                search_for(photo): {hit.id: hit.score for hit in engine.search(photo, K)} for photo in photos
            }
        return cls(answers)

    @property
    def requests(self) -> list[bytes]:
        return list(next(iter(self.answers.values())))

    def problem(self, request: bytes, body: bytes) -> str:
        """What is wrong with an answer; empty when it is exactly what the version that it names gives."""
        answer = json.loads(body)
        version = answer["versions"]["index"]
        if version not in self.answers:
            return f"names the version {version}"
        expected = self.answers[version][request]
        found = {hit["id"]: hit["score"] for hit in answer["results"]}
        if found.keys() != expected.keys():
            return f"says {version} and finds {', '.join(sorted(found.keys() - expected.keys()))}"
        if any(abs(score - expected[identity]) > TOLERANCE for identity, score in found.items()):
            return f"says {version} and has other scores"
        return ""


def search_for(photo: bytes) -> bytes:
    """The request of a search."""
    return upload(f"/search?k={K}", photo)
