"""What notebooks show of an answer: hits as pictures, and the heat of a match over both photos."""

import base64
import io
from collections.abc import Iterable
from dataclasses import dataclass, field
from html import escape
from typing import TYPE_CHECKING

from model.errors import CarsearchError
from model.explain import Explanation
from model.types import Pixels
from service.heat import Match, draw_matches
from service.pictures import picture

if TYPE_CHECKING:
    from service.engine import Engine, Hit

WIDTH = 160
"""The width of the picture of a hit, in pixels."""


class Hits(list["Hit"]):
    """Hits, best first; a notebook shows them as pictures."""

    def __init__(self, hits: Iterable["Hit"], engine: "Engine") -> None:
        super().__init__(hits)
        self._engine = engine

    def __reduce__(self) -> tuple[type[list["Hit"]], tuple[list["Hit"]]]:
        """To another process go the hits alone."""
        return list, (list(self),)

    def _repr_html_(self) -> str:
        return "".join(map(self._figure, self)) or "no photo"

    def _figure(self, hit: "Hit") -> str:
        """The photo of a hit, or why there is none, above what is known of it."""
        try:
            jpeg = base64.b64encode(picture(self._engine.original(self._engine.item(hit.id)), WIDTH)).decode()
            shown = f'<img src="data:image/jpeg;base64,{jpeg}" width="{WIDTH}" alt="">'
        except CarsearchError as problem:
            shown = escape(str(problem))
        told = [f"{hit.rank}: {hit.score:.4f}", hit.label, hit.id, *(f"{k} {v}" for k, v in hit.metadata.items())]
        style = f"display: inline-block; vertical-align: top; width: {WIDTH}px; margin: 4px; overflow-wrap: anywhere"
        return f'<figure style="{style}">{shown}<figcaption>{"<br>".join(map(escape, told))}</figcaption></figure>'


@dataclass(frozen=True, slots=True)
class DrawnExplanation(Explanation):
    """An explanation that a notebook shows over both photos, RGB pixels as `heat.seen` gives them."""

    photos: tuple[Pixels, Pixels] = field(repr=False)

    def _repr_jpeg_(self) -> bytes:
        buffer = io.BytesIO()
        match = Match(self.photos[1], self, f"{self.cosine:.4f}")
        draw_matches(self.photos[0], [match]).save(buffer, "JPEG")
        return buffer.getvalue()
