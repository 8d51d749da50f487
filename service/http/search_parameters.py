"""The query parameters of a search, which one photo, a batch and the list of the gallery have in common."""

import math
from dataclasses import dataclass
from typing import Annotated, Literal

from fastapi import Depends, Query

from model.images.box import Box
from model.types import Rows
from service.engine import MAX_K, Engine
from service.engine import Query as EngineQuery
from service.errors import InvalidRequest
from service.http.source import GalleryId

Classes = Annotated[
    list[str] | None, Query(alias="class", max_length=MAX_K, description="Only photos of these classes.")
]
Where = Annotated[
    str | None, Query(description="Only photos whose metadata pass, such as `price < 20000 and year >= 2018`.")
]
EXPLAIN = "Why the first five photos match, as maps; each of them counts as a search."
BOX = "The part of the photo that shows the car, x,y,width,height in pixels of the upright photo."


@dataclass(frozen=True, slots=True)
class Asked:
    """What is asked about a photo."""

    k: int
    classes: list[str]
    where: str | None
    precision: float | None
    min_score: float
    by_class: bool
    box: Box | None

    def rows(self, engine: Engine) -> Rows | None:
        """The rows to search among, None for all; raises as `Engine.rows`."""
        return engine.rows(self.classes, self.where)

    def query(self, engine: Engine, source: bytes | GalleryId, among: Rows | None) -> EngineQuery:
        """What the engine is asked; decodes the photo. Raises as `Engine.query`, and InvalidRequest."""
        if not isinstance(source, GalleryId):
            return engine.query(source, self.k, among, box=self.box, min_score=self.min_score, by_class=self.by_class)
        if self.box is not None:
            raise InvalidRequest("A box is cut from a photo that is sent; a search by id takes none.")
        return engine.query_like(source.text, self.k, among, min_score=self.min_score, by_class=self.by_class)


async def _asked(
    k: Annotated[int, Query(ge=1, le=MAX_K, description="How many photos to return.")] = 5,
    class_: Classes = None,
    where: Where = None,
    precision: Annotated[
        float | None, Query(ge=0.5, le=0.99, description="How often a class that is named must be right.")
    ] = None,
    min_score: Annotated[float | None, Query(ge=-1, le=1, description="Only photos with at least this score.")] = None,
    group: Annotated[
        Literal["class"] | None, Query(description="`class`: the best photo of each class, and `k` classes.")
    ] = None,
    box: Annotated[str | None, Query(description=BOX, examples=["40,60,320,240"])] = None,
) -> Asked:
    return Asked(
        k=k,
        classes=class_ or [],
        where=where,
        precision=precision,
        min_score=-math.inf if min_score is None else min_score,
        by_class=group == "class",
        box=None if box is None else Box.parse(box),
    )


async def _explain(explain: Annotated[bool, Query(description=EXPLAIN)] = False) -> bool:
    return explain


SearchParameters = Annotated[Asked, Depends(_asked)]
"""Raises InvalidBox."""

Explain = Annotated[bool, Depends(_explain)]
"""After the parameters that a batch has too: generated clients take them by their order."""
