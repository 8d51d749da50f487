"""One ASGI request without a server, for tests of a middleware alone."""

import asyncio
from collections.abc import Mapping
from typing import Any

from starlette.types import Message, Receive, Scope

from service.http.context import KeyScope, RequestContext, RouteInfo, Rules, Upload


def scope_of(
    key_scope: KeyScope | None = None,
    upload: Upload | None = None,
    client: str = "10.0.0.1",
    headers: Mapping[str, str] | None = None,
) -> Scope:
    """The scope of a request as the access log hands it on, for a route with these rules."""
    context = RequestContext("an-id", RouteInfo("/route", Rules(key_scope, upload)), "POST", client)
    raw = [(name.lower().encode(), value.encode("latin-1")) for name, value in (headers or {}).items()]
    return {"type": "http", "method": "POST", "path": "/", "headers": raw, "client": (client, 1), "context": context}


def receive_parts(*parts: bytes, complete: bool = True) -> Receive:
    """Gives a body part by part; then nothing for ever, unless it was complete: then a disconnect."""
    more = [True] * (len(parts) - 1) + [not complete]
    left: list[Message] = [
        {"type": "http.request", "body": part, "more_body": has_more}
        for part, has_more in zip(parts, more, strict=True)
    ]

    async def receive() -> Message:
        if left:
            return left.pop(0)
        if not complete:
            await asyncio.Event().wait()
        return {"type": "http.disconnect"}

    return receive


async def read_body(_scope: Scope, receive: Receive, _send: Any) -> None:
    """An application that takes the whole body."""
    while (await receive()).get("more_body"):
        pass


async def discard(_message: Message) -> None:
    """A client that is not listening."""
