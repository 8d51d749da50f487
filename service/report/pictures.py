"""Pictures of a report: small ones of photos and of what makes two of them alike, as data URIs."""

import base64
import io
from collections.abc import Callable
from typing import NamedTuple

from PIL import Image

from indexer.benchmark.report import Details
from model.embedder import Embedder
from model.errors import CarsearchError
from service.heat import overlaid, seen
from service.pictures import shrunk

SIDE = 224
"""The longer side of a picture, in pixels."""
QUALITY = 70

Read = Callable[[str], bytes]
"""The bytes of a photo by its id; raises a CarsearchError where it cannot be read."""


class Matched(NamedTuple):
    """A query beside a photo that it found: data URIs, None for a photo that is no longer there.

    The last two have heat over them where the two are alike; None for a model that cannot tell.
    """

    query: str | None
    found: str | None
    query_heat: str | None = None
    found_heat: str | None = None


class Pictures:
    """Pictures of the queries of an evaluation and of what they found, each made once."""

    def __init__(
        self,
        details: Details,
        embedder: Embedder,
        original: Read | None = None,
        before_photo: Callable[[], None] = lambda: None,
    ) -> None:
        """`original` reads photos of the gallery that was searched; leave-one-out has none but the set itself.

        `before_photo` is called before each photo is read, and may raise.
        """
        self._photos = {photo.id: photo for photo in details.photos}
        self._original = original
        self._embedder = embedder
        self._before_photo = before_photo
        self._made: dict[tuple[bool, str], str | None] = {}

    def query(self, identity: str) -> str | None:
        """A photo of the set."""
        return self._picture(identity, found=False)

    def found(self, identity: str) -> str | None:
        """A photo of what was searched."""
        return self._picture(identity, found=True)

    def matched(self, query: str, found: str) -> Matched:
        """Both photos."""
        return Matched(self.query(query), self.found(found))

    def explained(self, query: str, found: str) -> Matched:
        """Both photos, and both again with heat on one scale where they are alike."""
        plain = self.matched(query, found)
        if plain.query is None or plain.found is None:
            return plain
        self._before_photo()
        embedder, spec = self._embedder, self._embedder.card.input
        try:
            photos = self._read(query, found=False), self._read(found, found=True)
            shares = [embedder.shares(embedder.prepare(photo)) for photo in photos]
            explanation = embedder.explain(shares[0], shares[1])
        except CarsearchError:  # the model cannot say why, or a photo has changed
            return plain
        most = max(float(explanation.query.max()), float(explanation.hit.max()))
        query_heat, found_heat = (
            _data_uri(overlaid(seen(photo, spec), heat, most))
            for photo, heat in zip(photos, (explanation.query, explanation.hit), strict=True)
        )
        return Matched(plain.query, plain.found, query_heat, found_heat)

    def _picture(self, identity: str, *, found: bool) -> str | None:
        key = found and self._original is not None, identity
        if key not in self._made:
            self._before_photo()
            try:
                self._made[key] = _data_uri(shrunk(self._read(identity, found=found), SIDE, SIDE))
            except CarsearchError:  # it was there when it was embedded
                self._made[key] = None
        return self._made[key]

    def _read(self, identity: str, *, found: bool) -> bytes:
        if found and self._original is not None:
            return self._original(identity)
        return self._photos[identity].read()


def _data_uri(picture: Image.Image) -> str:
    picture.thumbnail((SIDE, SIDE))
    buffer = io.BytesIO()
    picture.save(buffer, "WEBP", quality=QUALITY)
    return f"data:image/webp;base64,{base64.b64encode(buffer.getvalue()).decode()}"
