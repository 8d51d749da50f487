"""Why the hits of a search match: two maps for each, of the query and of the gallery's photo."""

from typing import TYPE_CHECKING, cast

from model.explain import Explanation
from model.types import Pixels

if TYPE_CHECKING:
    from service.engine import Engine, Query

EXPLAINED = 5
"""So many hits of a search are explained, the best ones."""


class Explainer:
    """Explains the hits of one query, whose feature maps are computed once."""

    def __init__(self, engine: "Engine", query: "Query") -> None:
        """Raises ExplanationUnavailable, and for a query by an id what `explain` raises."""
        self._engine = engine
        by_id = query.like is not None  # then it has no photo of its own
        crop = self._crop_of(engine.name_of(cast(int, query.like))[0]) if by_id else cast(Pixels, query.crop)
        self._query = engine.embedder.shares(crop)

    def explain(self, identity: str) -> Explanation:
        """Why the query matches a photo of the gallery, by its id; the photo is read and decoded anew.

        Raises UnknownItem, also where the photo has changed since it was indexed, and FileUnreadable where it is gone.
        """
        embedder = self._engine.embedder
        return embedder.explain(self._query, embedder.shares(self._crop_of(identity)))

    def _crop_of(self, identity: str) -> Pixels:
        return self._engine.embedder.prepare(self._engine.original(self._engine.item(identity)))
