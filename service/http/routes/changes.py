"""Changes to the gallery while it is served: a photo put under an id, one deleted, many put at once."""

import asyncio
import json
import unicodedata
from collections.abc import Sequence
from dataclasses import replace
from functools import partial
from typing import Annotated, Any

from fastapi import APIRouter, Query, Request, Response
from fastapi.responses import JSONResponse
from starlette.convertors import PathConvertor, register_url_convertor

from indexer.delta import NewPhoto
from model.errors import CarsearchError, DuplicateId
from model.names import normalise_label
from model.spreadsheet import Sheet, read_sheet
from service.changes import (
    checked_id,
    checked_label,
    checked_metadata,
    delete,
    metadata_in,
    put,
    refuse_too_many,
    typed,
)
from service.engine import Engine
from service.errors import (
    DeadlineExceeded,
    Forbidden,
    InvalidRequest,
    MissingFile,
    PayloadTooLarge,
    UnsupportedContentType,
)
from service.http.context import rules
from service.http.errors import problems, response_to
from service.http.parameters import StrictRoute
from service.http.schemas import GalleryPhoto, PutManyResponse
from service.http.source import BINARY, PHOTO, PHOTO_TYPES, JsonBody, receive_source
from service.http.state import State, engine_of
from service.http.upload import Photo, multipart_body, receive_photos
from service.settings import PREFIX

TABLE = "photos.csv"


class IdConvertor(PathConvertor):
    """A part of an address that may hold slashes and ends of lines, and is not empty."""

    regex = r"[\s\S]+"


register_url_convertor("id", IdConvertor())
router = APIRouter(tags=["gallery"], route_class=StrictRoute)


def _ready(request: Request) -> tuple[State, Engine]:
    """What is served; raises Forbidden where nothing can be written, and NotReady."""
    state: State = request.app.state.parts
    if state.reloader.delta is None:
        raise Forbidden(f"This server takes no changes; {PREFIX}DELTA_DIR names a folder for them.")
    return state, engine_of(request)


@router.put(
    "/gallery/{identity:id}",
    response_model=GalleryPhoto,
    openapi_extra={
        "requestBody": {
            "required": True,
            "content": multipart_body("file", PHOTO_TYPES, PHOTO)
            | {"image/*": BINARY, "application/octet-stream": BINARY},
        }
    },
    responses=problems(400, 403, 408, 413, 415, 422, 429, 503, 507),
)
@rules(key_scope="admin", upload="photo", writes=True)
async def put_photo(
    request: Request,
    identity: str,
    class_: Annotated[str | None, Query(alias="class", description="Its class; none by default.")] = None,
    metadata: Annotated[
        str | None, Query(description='Its metadata, as JSON: `{"price": 18900}`.', examples=['{"price": 18900}'])
    ] = None,
) -> Response:
    """Puts a photo under an id, in the place of any before; it is found by the next search.

    The photo comes as the file of a form, or as the body itself. It is kept, and durable before the answer.
    """
    state, engine = _ready(request)
    identity, label, cells = checked_id(identity), checked_label(class_), metadata_in(metadata)
    source = await receive_source(request)
    if isinstance(source, JsonBody):
        raise UnsupportedContentType('Send the photo in a form, as its file "file", or as the body.')

    def work() -> list[dict[str, Any]]:
        return _put(request, engine, [_new_photo(engine, identity, label, cells, source)])

    return JSONResponse((await state.workers.run(work, request))[0])


@router.delete("/gallery/{identity:id}", status_code=204, responses=problems(403, 404, 429, 503, 507))
@rules(key_scope="admin", writes=True)
async def delete_photo(request: Request, identity: str) -> None:
    """Deletes a photo: no later search finds it. Its file, if it was put, is removed when changes are folded in."""
    state, _ = _ready(request)
    await state.workers.run(lambda: delete(state.reloader, identity), request)


@router.post(
    "/gallery",
    response_model=PutManyResponse,
    openapi_extra={
        "requestBody": {"required": True, "content": multipart_body("file", PHOTO_TYPES, PHOTO, several=True)}
    },
    responses=problems(400, 403, 408, 413, 415, 422, 429, 503, 507),
)
@rules(key_scope="admin", upload="photos", writes=True)
async def put_photos(request: Request) -> Response:
    """Puts up to 64 photos of one form, all that can be used at once; each has its own answer or problem.

    The parts are all named `file`. A photo's id is its file name, unless a part with the file name `photos.csv` says
    otherwise: a row a photo with `path` (the file name), and `id`, `class` and columns of metadata as there are.
    """
    state, engine = _ready(request)
    received = await receive_photos(request, state.limits.batch_photos + 1, state.settings.max_body_bytes)
    photos = [photo for photo in received if photo.name != TABLE]
    if not 0 < len(photos) <= state.limits.batch_photos:
        raise MissingFile(f"The form needs 1 to {state.limits.batch_photos} photos.")
    asked = _asked(photos, [photo for photo in received if photo.name == TABLE])
    refuse_too_many(engine, len(photos))
    try:
        async with asyncio.timeout(state.limits.batch_deadline_s):
            new, answers = await _embedded(request, engine, photos, asked)
            told = await state.workers.run(lambda: _put(request, engine, new), request) if new else []
    except TimeoutError as problem:
        raise DeadlineExceeded("The photos took too long; send fewer at once.") from problem
    photo = iter(told)
    return JSONResponse({"photos": [one if "problem" in one else {**one, "photo": next(photo)} for one in answers]})


async def _embedded(
    request: Request, engine: Engine, photos: Sequence[Photo], asked: Sequence[tuple[str, str, dict[str, str]]]
) -> tuple[list[NewPhoto], list[dict[str, Any]]]:
    """The photos that can be put, and an answer for each, in which a problem stands where there is one."""
    state: State = request.app.state.parts
    new: list[NewPhoto] = []
    answers: list[dict[str, Any]] = []
    for photo, (identity, label, cells) in zip(photos, asked, strict=True):
        answer: dict[str, Any] = {"name": photo.name}
        try:
            if photo.size_bytes > state.settings.max_body_bytes:
                raise PayloadTooLarge(f"The photo is larger than {state.settings.max_body_bytes} bytes.")
            made = partial(_new_photo, engine, checked_id(identity), checked_label(label), cells, bytes(photo.data))
            new.append(await state.workers.run(made, request))
        except CarsearchError as error:
            answer["problem"] = json.loads(bytes(response_to(error, replace(request.scope["context"])).body))
        answers.append(answer)
    return new, answers


def _asked(photos: Sequence[Photo], tables: Sequence[Photo]) -> list[tuple[str, str, dict[str, str]]]:
    """The id, class and cells of each photo, by its file name; raises DuplicateId, ManifestInvalid, InvalidRequest."""
    sheet = read_sheet(bytes(tables[0].data), TABLE, len(photos)) if tables else Sheet("path", None, [])
    rows = {row.cells[sheet.path_column]: row for row in sheet.rows}
    names = [photo.name or "" for photo in photos]
    if len(tables) > 1:
        raise InvalidRequest(f"The form has more than one {TABLE}.")
    if len(rows) < len(sheet.rows):
        raise InvalidRequest(f"The {TABLE} has two rows for one path.")
    if not rows.keys() <= set(names):
        raise InvalidRequest(f"The {TABLE} has a row for a photo that is not in the form.")
    asked = []
    for name in names:
        row = rows.get(name)
        cells = {} if row is None else row.cells
        identity = unicodedata.normalize("NFC", cells.get("id") or name)
        label = normalise_label(cells.get(sheet.class_column or "", ""))
        asked.append((identity, label, {} if row is None else sheet.others(row, "id")))
    if len({identity for identity, _, _ in asked}) < len(asked):
        raise DuplicateId("Two photos of the form have the same id.")
    return asked


def _new_photo(engine: Engine, identity: str, label: str, cells: dict[str, str], photo: bytes) -> NewPhoto:
    """Embeds a photo; raises ImageRejected and what the engine raises."""
    metadata = checked_metadata(engine, cells)
    return NewPhoto(identity, label, photo, engine.embedder.embed_photo(photo), metadata)


def _put(request: Request, engine: Engine, photos: Sequence[NewPhoto]) -> list[dict[str, Any]]:
    """Makes photos durable and shows them; a `GalleryPhoto` of each."""
    state: State = request.app.state.parts
    shown = put(state.reloader, engine, photos)
    return [
        {
            "id": photo.id,
            "class": photo.label or None,
            "image": state.links.link(photo.id, request.scope["root_path"]),
            "metadata": typed(shown, photo.metadata),
        }
        for photo in photos
    ]
