"""The gallery's own photos and classes."""

import functools
import logging
from collections.abc import Callable, Sequence
from typing import Annotated, Any

import numpy as np
from fastapi import APIRouter, Header, Query, Request, Response
from fastapi.responses import JSONResponse

from model.errors import FileUnreadable, UnknownItem, UnsupportedImageFormat
from service.engine import Engine
from service.http.context import rules
from service.http.errors import is_exhausted, problems
from service.http.parameters import StrictRoute
from service.http.schemas import GalleryPage
from service.http.search_parameters import Classes, Where
from service.http.state import State, engine_of
from service.pictures import LONGEST_SIDE, picture

router = APIRouter(tags=["gallery"], route_class=StrictRoute)

WIDTHS = (160, 320, 640, LONGEST_SIDE)
"""Widths of pictures in pixels; what is asked for is rounded up to one, so that a photo has few pictures."""
MAX_ROW = 2**63 - 1

log = logging.getLogger("carsearch")


@router.get("/gallery", response_model=GalleryPage, responses=problems(422, 429, 503))
@rules(key_scope="search")
async def list_gallery(
    request: Request,
    class_: Classes = None,
    where: Where = None,
    after: Annotated[int, Query(ge=-1, le=MAX_ROW, description="The `next` of the page before.")] = -1,
    limit: Annotated[int, Query(ge=1, le=200, description="How many photos at most.")] = 50,
) -> Response:
    """The photos of the gallery with their metadata, page by page.

    Pages belong to one index version: begin again when the gallery has been indexed anew.
    """
    state: State = request.app.state.parts
    engine = engine_of(request)

    def link(identity: str) -> str:
        return state.links.link(identity, request.scope["root_path"])

    page = await state.workers.run(lambda: _page(engine, class_ or (), where, after, limit, link), request)
    return JSONResponse(page)


def _page(
    engine: Engine, labels: Sequence[str], where: str | None, after: int, limit: int, link: Callable[[str], str]
) -> dict[str, Any]:
    """A `GalleryPage`; `link` gives the path of a photo's image by its id."""
    rows, numbers = engine.listed(labels, where)
    begin = int(np.searchsorted(numbers, after, "right"))
    return {
        "photos": told(engine, rows[begin : begin + limit].tolist(), link),
        "next": int(numbers[begin + limit - 1]) if begin + limit < len(rows) else None,
        "total": len(rows),
    }


def told(engine: Engine, rows: Sequence[int], link: Callable[[str], str]) -> list[dict[str, Any]]:
    """A `GalleryPhoto` of each row; `link` gives the path of a photo's image by its id."""
    names = [engine.name_of(row) for row in rows]
    metadata = engine.metadata_of([identity for identity, _ in names])
    return [
        {"id": identity, "class": label or None, "image": link(identity), "metadata": metadata.get(identity, {})}
        for identity, label in names
    ]


@router.get("/gallery/classes", responses=problems(429, 503))
@rules(key_scope="search")
async def list_classes(request: Request) -> dict[str, int]:
    """The classes of the gallery with their numbers of photos, in alphabetical order."""
    state: State = request.app.state.parts
    engine = engine_of(request)
    return await state.workers.run(engine.classes, request)


@router.head("/gallery/{identity:path}/image", include_in_schema=False)
@router.get(
    "/gallery/{identity:path}/image",
    response_class=Response,
    responses={
        200: {"content": {"image/jpeg": {"schema": {"type": "string", "format": "binary"}}}},
        304: {"description": "It is the one that the client has."},
        **problems(404, 429, 503),
    },
)
@rules(key_scope="search", linked=True)
async def get_gallery_image(
    request: Request,
    identity: str,
    width: Annotated[
        int | None, Query(ge=32, le=LONGEST_SIDE, description="The widest picture wanted, in pixels, about.")
    ] = None,
    expires: Annotated[int | None, Query(description="Of a signed link: its end, in seconds since 1970.")] = None,
    sig: Annotated[str | None, Query(description="Of a signed link; it stands for an API key.")] = None,
    if_none_match: Annotated[str, Header(description="The ETag of an earlier answer.")] = "",
) -> Response:
    """A photo of the gallery, decoded and encoded anew: what is sent is always a picture and nothing else.

    It has at most 1024 pixels a side. `width` asks for a smaller one: 160, 320 or 640 pixels wide, or the whole 1024.
    """
    del expires, sig  # `Auth` has read them
    state: State = request.app.state.parts
    engine = engine_of(request)
    known = {one.strip().removeprefix("W/") for one in if_none_match.split(",")}
    within = None if width is None else next(step for step in WIDTHS if step >= width)
    etag, data = await state.workers.run(lambda: _encoded(engine, identity, known, within), request)
    shared = "private" if state.links.signed else "public"
    headers = {"ETag": etag, "Cache-Control": f"{shared}, no-cache"}  # asked for each time: the index may be swapped
    if data is None:
        return Response(status_code=304, headers=headers)
    return Response(data, media_type="image/jpeg", headers=headers)


def _encoded(engine: Engine, identity: str, known: set[str], width: int | None) -> tuple[str, bytes | None]:
    """The tag of a photo and its picture, None when the client knows the tag."""
    item = engine.item(identity)
    etag = f'"{item.sha256[:32]}"' if width is None else f'"{item.sha256[:32]}-{width}"'
    try:
        original = engine.original(item)
    except FileUnreadable as problem:
        if problem.__cause__ is not None and is_exhausted(problem.__cause__):
            raise problem.__cause__ from None  # the photo may well be there
        raise UnknownItem("The photo is no longer where it was when the gallery was indexed.") from problem
    if etag in known:
        return etag, None
    try:
        return etag, picture(original, width or LONGEST_SIDE)
    except UnsupportedImageFormat as problem:  # a HEIC, and a server without the extra
        _tell_once(str(problem))
        raise UnknownItem("The photo is of a kind that this server cannot show.") from problem


@functools.cache
def _tell_once(reason: str) -> None:
    log.warning("photos of the gallery cannot be shown: %s", reason)
