"""The page at `/`: search, gallery, evaluation and status for people, from files of the package and nowhere else.

Its addresses are relative, so that it works below any prefix. It needs no key itself: what it asks the API does.
"""

import hashlib
from functools import cache
from importlib.resources import files
from typing import NamedTuple

from fastapi import APIRouter, Header, Response
from starlette.exceptions import HTTPException

from service.http.context import rules

router = APIRouter(include_in_schema=False)

POLICY = (
    "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self' blob:; connect-src 'self'; "
    "form-action 'none'; base-uri 'none'; frame-ancestors 'none'"
)
"""Nothing from elsewhere, no code in the HTML, and no frame of another page around it."""

KINDS = {
    "html": "text/html; charset=utf-8",
    "css": "text/css; charset=utf-8",
    "js": "text/javascript; charset=utf-8",
    "svg": "image/svg+xml",
}
INDEX = "index.html"


class WebFile(NamedTuple):
    """A file of the page, its tag and its media type."""

    data: bytes
    etag: str
    kind: str


@cache
def web_files() -> dict[str, WebFile]:
    """Every file of the page by its name."""
    found = {}
    for path in files("service.http").joinpath("web").iterdir():
        kind = KINDS.get(path.name.rpartition(".")[2])
        if kind is not None:
            data = path.read_bytes()
            found[path.name] = WebFile(data, f'"{hashlib.sha256(data).hexdigest()[:32]}"', kind)
    return found


@router.head("/")
@router.get("/")
@rules()
async def page(if_none_match: str = Header("")) -> Response:
    """The page itself."""
    return _answer(INDEX, if_none_match)


@router.head("/web/{name}")
@router.get("/web/{name}")
@rules()
async def web_file(name: str, if_none_match: str = Header("")) -> Response:
    """Its modules, style and icon."""
    return _answer(name, if_none_match)


def _answer(name: str, if_none_match: str) -> Response:
    file = web_files().get(name)
    if file is None:
        raise HTTPException(404)
    # Asked for each time, and answered in a few bytes: a page of one release must not load modules of another.
    headers = {
        "ETag": file.etag,
        "Cache-Control": "no-cache",
        "Content-Security-Policy": POLICY,
        "Referrer-Policy": "same-origin",
    }
    if file.etag in {one.strip().removeprefix("W/") for one in if_none_match.split(",")}:
        return Response(status_code=304, headers=headers)
    return Response(file.data, media_type=file.kind, headers=headers)
