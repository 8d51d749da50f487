"""POST /gallery/duplicates: pairs of photos of the gallery that show the same."""

import asyncio
from functools import partial
from typing import Annotated, Any

from fastapi import APIRouter, Query, Request, Response
from fastapi.responses import JSONResponse

from service.duplicates import Found, Place, find_duplicates
from service.engine import Engine
from service.http.context import rules
from service.http.errors import problems
from service.http.parameters import StrictRoute
from service.http.routes.gallery import told
from service.http.schemas import DuplicatesPage
from service.http.state import State, engine_of

router = APIRouter(tags=["gallery"], route_class=StrictRoute)


@router.post("/gallery/duplicates", response_model=DuplicatesPage, responses=problems(403, 422, 429, 503))
@rules(key_scope="admin")
async def list_duplicates(
    request: Request,
    min_score: Annotated[
        float | None,
        Query(ge=-1, le=1, description="Photos with at least this score are near copies; found by a sample if unset."),
    ] = None,
    after: Annotated[
        str, Query(pattern=r"^(copies|near):(-1|[0-9]{1,18})$", description="The `next` of the page before.")
    ] = str(Place()),
    limit: Annotated[int, Query(ge=10, le=200, description="How many pairs at most.")] = 50,
) -> Response:
    """Lists copies of files in the gallery, and photos that look almost the same; nothing is changed.

    It is long work: an answer comes after about five seconds with what was found by then, and `next` says how to go on.
    """
    state: State = request.app.state.parts
    engine = engine_of(request)
    loop = asyncio.get_running_loop()
    ends = loop.time() + state.limits.duplicates_s
    steps = find_duplicates(engine, Place.read(after), min_score, limit)
    # Each step takes a work place and a thread, as a search does. The first that looks for near copies is waited for.
    found = await state.workers.run(partial(next, steps), request)
    while found.next is not None and not found.full and (found.min_score is None or loop.time() < ends):
        found = await state.workers.run(partial(next, steps), request)
    return JSONResponse(await state.workers.run(lambda: _page(engine, found, request), request))


def _page(engine: Engine, found: Found, request: Request) -> dict[str, Any]:
    """A `DuplicatesPage`."""
    links = request.app.state.parts.links
    rows = [row for pair in found.pairs for row in (pair.first, pair.later)]
    photos = told(engine, rows, lambda identity: links.link(identity, request.scope["root_path"]))
    return {
        "duplicates": [
            {"photos": photos[2 * place : 2 * place + 2], "score": pair.score, "same_file": pair.same_file}
            for place, pair in enumerate(found.pairs)
        ],
        "next": None if found.next is None else str(found.next),
        "min_score": found.min_score,
        "compared": found.compared,
        "total": found.total,
    }
