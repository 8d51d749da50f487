"""Admission: a search is refused from its headers when there is no work place, or no memory for its photo.

Two things are bounded. Memory for uploads is taken before the body is read, as much as is announced, and more as it
comes; twice as much for JSON, which is held beside the photo that it is decoded to. A work place is taken once the
body is complete (`service.http.workers`): places held while a body arrives would let a few dozen slow uploads shut
everybody out.
"""

from collections import Counter

from starlette.types import ASGIApp, Message, Receive, Scope, Send

from service.errors import Overloaded
from service.http.context import RequestContext, media_type

ALPHA = 8
QUEUE_FULL = "The server has more searches than it can answer; try again in a moment."
NO_MEMORY = "The server is receiving as much as it can hold; try again in a moment."


class FairShare:
    """A bounded resource that clients share: whoever holds much leaves room for the others. For one thread.

    A client may hold no more than `ALPHA` times what is still free (Choudhury and Hahne, "Dynamic queue length
    thresholds for shared-memory packet switches", 1998). Alone it gets ALPHA / (ALPHA + 1) of everything; several
    greedy clients get equal parts, and something is always free for the next one.
    """

    def __init__(self, limit: int) -> None:
        self.limit = limit
        self.taken = 0
        self._of: Counter[str] = Counter()

    def has_room(self, client: str, amount: int = 1) -> bool:
        """Whether a client may take so much more."""
        free = self.limit - self.taken
        return amount <= free and self._of.get(client, 0) < ALPHA * free

    def take(self, client: str, amount: int = 1) -> None:
        self.taken += amount
        self._of[client] += amount

    def give_back(self, client: str, amount: int = 1) -> None:
        self.taken -= amount
        self._of[client] -= amount
        if not self._of[client]:
            del self._of[client]  # a client that has left is forgotten


class Admission:
    """Middleware that guards the routes which take a photo; raises Overloaded."""

    def __init__(self, app: ASGIApp, places: FairShare, memory: FairShare) -> None:
        """`places` are those of the workers, `memory` is in bytes."""
        self._app, self._places, self._memory = app, places, memory

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        context: RequestContext | None = scope.get("context")
        if context is None or context.route.rules.upload not in ("photo", "photos"):
            await self._app(scope, receive, send)
            return
        if not self._places.has_room(context.client):
            raise Overloaded(QUEUE_FULL)
        held, copies = 0, 2 if media_type(scope) == "application/json" else 1

        def hold(more: int) -> None:
            nonlocal held
            if more > 0:
                if not self._memory.has_room(context.client, more):
                    raise Overloaded(NO_MEMORY)
                self._memory.take(context.client, more)
                held += more

        async def receive_and_hold() -> Message:
            message = await receive()
            hold(copies * context.received_bytes - held)  # of what was not announced
            return message

        try:
            hold(copies * declared_bytes(scope))
            await self._app(scope, receive_and_hold, send)
        finally:
            self._memory.give_back(context.client, held)


def declared_bytes(scope: Scope) -> int:
    """The length that a request's headers announce; 0 where they announce none."""
    length = next((value for name, value in scope["headers"] if name == b"content-length"), b"")
    return int(length) if length.isdigit() else 0
