"""The query of a search for one photo and for a batch; the list of the gallery has two of its parameters."""

import math
from typing import Annotated, Literal, Self

from fastapi import Query, Request
from fastapi.exceptions import RequestValidationError
from pydantic import BaseModel, ConfigDict, Field, PlainValidator, ValidationError, WithJsonSchema

from model.images.box import Box
from model.types import Rows
from service.engine import MAX_K, Engine
from service.engine import Query as EngineQuery
from service.errors import InvalidRequest
from service.http.source import GalleryId

CLASSES = "Only photos of these classes."
WHERE = "Only photos whose metadata pass, such as `price < 20000 and year >= 2018`."
Classes = Annotated[list[str] | None, Query(alias="class", max_length=MAX_K, description=CLASSES)]
Where = Annotated[str | None, Query(description=WHERE)]
EXPLAIN = "Why the first five photos match, as maps; each of them counts as a search."
BOX = "The part of the photo that shows the car, x,y,width,height in pixels of the upright photo."


class SearchQuery(BaseModel):
    """What is asked about a photo.

    The route reads these parameters itself: FastAPI's own reading took a third of the event loop's time for a search.
    """

    model_config = ConfigDict(frozen=True)

    k: int = Field(5, ge=1, le=MAX_K, description="How many photos to return.")
    classes: list[str] | None = Field(None, alias="class", max_length=MAX_K, description=CLASSES)
    where: str | None = Field(None, description=WHERE)
    precision: float | None = Field(None, ge=0.5, le=0.99, description="How often a class that is named must be right.")
    min_score: float | None = Field(None, ge=-1, le=1, description="Only photos with at least this score.")
    group: Literal["class"] | None = Field(None, description="`class`: the best photo of each class, and `k` classes.")
    box: Annotated[Box, PlainValidator(Box.parse), WithJsonSchema({"type": "string"})] | None = Field(
        None, description=BOX, examples=["40,60,320,240"]
    )

    @classmethod
    def of(cls, request: Request) -> Self:
        """The query of a request; raises RequestValidationError and InvalidBox."""
        given = request.query_params
        values = {name: given.getlist(name) if name == "class" else given[name] for name in given}
        try:
            return cls.model_validate(values)
        except ValidationError as problem:
            raise RequestValidationError([{**one, "loc": ("query", *one["loc"])} for one in problem.errors()]) from None

    def rows(self, engine: Engine) -> Rows | None:
        """The rows to search among, None for all; raises as `Engine.rows`."""
        return engine.rows(self.classes or (), self.where)

    def query(self, engine: Engine, source: bytes | GalleryId, among: Rows | None) -> EngineQuery:
        """What the engine is asked; decodes the photo. Raises as `Engine.query`, and InvalidRequest."""
        least, by_class = -math.inf if self.min_score is None else self.min_score, self.group == "class"
        if not isinstance(source, GalleryId):
            return engine.query(source, self.k, among, box=self.box, min_score=least, by_class=by_class)
        if self.box is not None:
            raise InvalidRequest("A box is cut from a photo that is sent; a search by id takes none.")
        return engine.query_like(source.text, self.k, among, min_score=least, by_class=by_class)


class ExplainedQuery(SearchQuery):
    """A search for one photo can also ask why.

    That field stands last because generated clients pass parameters by their place.
    """

    explain: bool = Field(False, description=EXPLAIN)
