"""Cross-origin requests: which pages of other origins a browser lets read our answers."""

import re
from collections.abc import Sequence

from starlette.middleware.cors import CORSMiddleware
from starlette.types import ASGIApp, Receive, Scope, Send

from service.http.proxies import own_path

ROUTES = (
    (re.compile(r"/search(/.*)?"), ["POST"]),
    (re.compile(r"/(gallery(/.*)?|info|openapi\.json)"), ["GET", "HEAD"]),
)
"""Paths, and the methods that pages may use there. None of them changes anything on the server."""


class Cors:
    """Middleware around the others, so that preflights need no key and pages can read refusals; see `ROUTES`."""

    def __init__(self, app: ASGIApp, origins: Sequence[str]) -> None:
        self._app = app
        self._allowing = [
            CORSMiddleware(
                app,
                allow_origins=origins,
                allow_methods=methods,
                allow_headers=["Authorization", "Content-Type", "X-Api-Key", "X-Request-Id"],
                expose_headers=["Retry-After", "X-Request-Id"],
            )
            for _, methods in ROUTES
        ]

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        app = self._app
        if scope["type"] == "http":
            for allowing, (pattern, methods) in zip(self._allowing, ROUTES, strict=True):
                if scope["method"] in (*methods, "OPTIONS") and pattern.fullmatch(own_path(scope)):
                    app = allowing
        await app(scope, receive, send)
