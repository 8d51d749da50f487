"""Embedding a stream of photos: equal content once, the next batch prepared ahead, and every error in its place."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
import pytest

from indexer.embed import EmbeddedBatch, embed_photos
from model.embedder import Embedder
from model.errors import BackendUnavailable, FileUnreadable
from model.runtimes.base import Pending
from model.types import Pixels
from tests.support.photos import car_photo


@dataclass(frozen=True)
class Made:
    """A photo in memory."""

    id: str
    data: bytes
    label: str = "car"

    def read(self) -> bytes:
        if self.data == b"gone":
            raise FileUnreadable("The file cannot be read.")
        return self.data


class Device:
    """The fake runtime as a device that works on several batches; `steps` is what happened, in order."""

    name = "fake"
    precision = "fake"

    def __init__(self, embedder: Embedder, batch: int = 4, in_flight: int = 2, fails: int | None = None) -> None:
        self._runtime = embedder.runtime
        self.dim, self.batch, self.in_flight = embedder.dim, batch, in_flight
        self.steps: list[str] = []
        self.sizes: list[int] = []
        self._fails = fails

    def embed(self, crops: Pixels) -> npt.NDArray[np.float32]:
        return self._runtime.embed(crops)

    def submit(self, crops: Pixels, *, lone: bool = False) -> Pending:
        del lone
        number = len(self.sizes)
        self.sizes.append(len(crops))
        self.steps.append(f"start {number}")

        def result() -> npt.NDArray[np.float32]:
            self.steps.append(f"wait {number}")
            if number == self._fails:
                raise RuntimeError("CUDA error")
            return self._runtime.embed(crops)

        return Pending(result)


def embedder_with(runtime: Device, embedder: Embedder) -> Embedder:
    return Embedder(embedder.directory, embedder.card, runtime)


def photos_of(contents: Sequence[int]) -> list[Made]:
    return [Made(f"{place}.jpg", car_photo(content)) for place, content in enumerate(contents)]


def rows_of(found: Sequence[EmbeddedBatch]) -> npt.NDArray[np.float32]:
    return np.stack([one.embedding for batch in found for one in batch.embedded])


def test_the_next_batch_is_submitted_before_the_one_before_it_is_waited_for(fake_embedder: Embedder) -> None:
    runtime = Device(fake_embedder)
    photos = photos_of(range(10))
    found = list(embed_photos(photos, embedder_with(runtime, fake_embedder)))
    assert runtime.steps == ["start 0", "start 1", "wait 0", "start 2", "wait 1", "wait 2"]
    assert runtime.sizes == [4, 4, 2]
    assert [one.photo.id for batch in found for one in batch.embedded] == [photo.id for photo in photos]
    wanted = np.stack([fake_embedder.embed_photo(photo.data) for photo in photos])
    assert np.array_equal(rows_of(found), wanted)


def test_a_runtime_that_computes_at_once_has_one_batch_in_flight(fake_embedder: Embedder) -> None:
    runtime = Device(fake_embedder, in_flight=1)
    list(embed_photos(photos_of(range(5)), embedder_with(runtime, fake_embedder)))
    assert runtime.steps == ["start 0", "wait 0", "start 1", "wait 1"]


@pytest.mark.parametrize("in_flight", [1, 2, 3])
def test_equal_content_is_embedded_once_however_far_apart(fake_embedder: Embedder, in_flight: int) -> None:
    runtime = Device(fake_embedder, batch=3, in_flight=in_flight)
    photos = photos_of([0, 1, 0, 2, 3, 1, 4, 4, 0, 5, 1, 1, 0, 2])
    found = list(embed_photos(photos, embedder_with(runtime, fake_embedder)))
    assert sum(runtime.sizes) == sum(len(batch.fresh) for batch in found) == 6
    assert np.array_equal(rows_of(found), np.stack([fake_embedder.embed_photo(photo.data) for photo in photos]))


def test_content_that_was_submitted_is_not_decoded_again(
    fake_embedder: Embedder, monkeypatch: pytest.MonkeyPatch
) -> None:
    decoded: list[bytes] = []

    def counting(data: bytes) -> Pixels:
        decoded.append(data)
        return fake_embedder.prepare(data)

    photos = photos_of([*range(9), 0, 1, 2])  # the first three are submitted before the tenth is read
    embedder = embedder_with(Device(fake_embedder, batch=3), fake_embedder)
    monkeypatch.setattr(embedder, "prepare", counting)
    list(embed_photos(photos, embedder))
    assert sorted(decoded) == sorted({photo.data for photo in photos})


def test_what_is_known_is_neither_decoded_nor_embedded(fake_embedder: Embedder) -> None:
    photos = photos_of([0, 1, 2])
    vectors = {one.sha256: one.embedding for batch in embed_photos(photos, fake_embedder) for one in batch.embedded}
    runtime = Device(fake_embedder)
    found = list(embed_photos(photos, embedder_with(runtime, fake_embedder), vectors.get))
    assert runtime.sizes == []
    assert np.array_equal(rows_of(found), np.stack(list(vectors.values())))


def test_equal_photos_that_cannot_be_used_are_told_each_by_its_name(fake_embedder: Embedder) -> None:
    photos = [Made("a", b"no photo"), Made("b", b"gone"), *photos_of(range(6)), Made("c", b"no photo")]
    found = list(embed_photos(photos, embedder_with(Device(fake_embedder), fake_embedder)))
    skipped = [(one.name, one.code) for batch in found for one in batch.skipped]
    assert skipped == [
        ("a", "unsupported_image_format"),
        ("b", "file_unreadable"),
        ("c", "unsupported_image_format"),
    ]
    assert [batch.photos for batch in found] == [4, 4, 1]


def test_an_error_of_the_device_is_raised_where_its_batch_is_waited_for(fake_embedder: Embedder) -> None:
    runtime = Device(fake_embedder, fails=1)
    stream = embed_photos(photos_of(range(20)), embedder_with(runtime, fake_embedder))
    assert next(stream).photos == 4
    with pytest.raises(BackendUnavailable, match="failed") as failed:
        next(stream)
    assert "CUDA error" in str(failed.value.__cause__)


def test_an_error_of_ours_while_decoding_is_raised_and_not_waited_for(
    fake_embedder: Embedder, monkeypatch: pytest.MonkeyPatch
) -> None:
    def broken(_data: bytes) -> Pixels:
        raise ZeroDivisionError

    embedder = embedder_with(Device(fake_embedder), fake_embedder)
    monkeypatch.setattr(embedder, "prepare", broken)
    with pytest.raises(ZeroDivisionError):
        list(embed_photos(photos_of([0, 0, 1]), embedder))
