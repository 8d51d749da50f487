"""Photos to be put and deleted while a gallery is served: what is refused, and how many changes a version may have."""

import json
import unicodedata
from collections.abc import Collection, Mapping, Sequence

from indexer.delta import NewPhoto
from indexer.metadata import Value, value_as
from model.errors import UnknownItem
from model.names import UNPRINTABLE, normalise_label
from model.spreadsheet import MAX_CELL, MAX_COLUMNS, column_name
from service.engine import Engine
from service.errors import GalleryFull, InvalidRequest
from service.reloader import Reloader, most_changes

LONGEST_NAME = 500
"""Characters of an id or a class."""

KINDS = {"number": "numbers", "date": "dates in the form YYYY-MM-DD"}
NO_TEXT = UNPRINTABLE | {"Cs"}
"""Unicode categories that are no part of a name: controls, ends of lines, and halves of characters."""


def refuse_too_many(engine: Engine, more: int) -> None:
    """Raises GalleryFull where so many more changes are too many."""
    most = most_changes(len(engine.store))
    if engine.changes + more > most:
        raise GalleryFull(
            f"{engine.changes} changes stand beside the index, and {most} are the most; fold them in: "
            "carsearch index --fold --delta FOLDER."
        )


def checked_id(identity: str) -> str:
    """An id in Unicode NFC; raises InvalidRequest for one that is no plain text, or no path inside the gallery."""
    text = _checked_name(identity, "An id")
    if any(segment in ("", ".", "..") for segment in text.split("/")):
        raise InvalidRequest('An id is a path without empty parts, "." and "..", such as "Audi/A4/1.jpg".')
    return text


def checked_label(label: str | None) -> str:
    """The name of a class, empty for none; raises InvalidRequest."""
    return _checked_name(normalise_label(label), "A class") if label and label.strip() else ""


def _checked_name(name: str, what: str) -> str:
    text = unicodedata.normalize("NFC", name)
    if not 0 < len(text) <= LONGEST_NAME or any(unicodedata.category(one) in NO_TEXT for one in text):
        raise InvalidRequest(f"{what} has 1 to {LONGEST_NAME} characters, without controls and ends of lines.")
    return text


def metadata_in(text: str | None) -> dict[str, str]:
    """Column -> cell as text, of a JSON object; raises InvalidRequest."""
    try:
        given = json.loads(text or "{}", parse_constant=lambda _: None)
    except (ValueError, RecursionError):
        given = None
    if not isinstance(given, dict) or any(
        isinstance(value, bool) or not isinstance(value, str | int | float) for value in given.values()
    ):
        raise InvalidRequest('Metadata are a JSON object of texts and numbers, such as {"price": 18900}.')
    return {column_name(name): value if isinstance(value, str) else json.dumps(value) for name, value in given.items()}


def checked_metadata(engine: Engine, cells: Mapping[str, str]) -> dict[str, str]:
    """The cells that are not empty; raises InvalidRequest for those that the gallery's columns cannot hold."""
    kinds = {column.name: column.kind for column in engine.columns}
    checked = {name: cell.strip() for name, cell in cells.items() if cell.strip()}
    for name, cell in checked.items():
        if (
            not name
            or len(name) + len(cell) > MAX_CELL
            or any(unicodedata.category(one) == "Cs" for one in name + cell)
        ):
            raise InvalidRequest(f"A column of the metadata has a name, and cells of at most {MAX_CELL} characters.")
        if name in kinds and value_as(cell, kinds[name]) is None:
            raise InvalidRequest(f"The column {name} of the gallery holds {KINDS[kinds[name]]}.")
    _refuse_columns(kinds.keys() | checked.keys())
    return checked


def _refuse_columns(names: Collection[str]) -> None:
    if len(names) > MAX_COLUMNS:
        raise InvalidRequest(f"A gallery has at most {MAX_COLUMNS} columns of metadata.")


def typed(engine: Engine, cells: Mapping[str, str]) -> dict[str, Value]:
    """Metadata as searches tell it; a cell that is not of its column's kind is left out."""
    values = {column.name: value_as(cells.get(column.name, ""), column.kind) for column in engine.columns}
    return {name: value for name, value in values.items() if value is not None}


def put(reloader: Reloader, engine: Engine, photos: Sequence[NewPhoto]) -> Engine:
    """Makes photos durable that an engine has embedded, and returns the one that shows them.

    Raises GalleryFull, InvalidRequest for too many columns of metadata, and DeltaUnusable.
    """
    now = reloader.loaded or engine
    refuse_too_many(now, len(photos))
    _refuse_columns({column.name for column in now.columns}.union(*(photo.metadata for photo in photos)))
    assert reloader.delta is not None  # noqa: S101  # the routes have looked
    reloader.delta.put(photos, engine.embedder.embedding_id)
    return reloader.refresh() or engine


def delete(reloader: Reloader, identity: str) -> None:
    """Deletes a photo; raises UnknownItem, GalleryFull and DeltaUnusable."""
    engine = reloader.refresh()  # what another server has put is known then
    if engine is None or reloader.delta is None:
        raise UnknownItem("The gallery has no photo with this id.")
    refuse_too_many(engine, 1)
    reloader.delta.delete(engine.item(identity).id)
    reloader.refresh()
