"""Before any parser: request id, who asks, whether there is room, size and deadline of the body, the answer's count.

Pure ASGI: nothing is buffered. What can be refused from its headers is, before its body is read.
"""

import asyncio
import random
import re
import time

from starlette.responses import Response
from starlette.types import ASGIApp, Receive, Scope, Send

from model.errors import CarsearchError
from service.http.access_log import POLLED, Answer
from service.http.auth import Access
from service.http.body_limit import RECEIVING, Intake, body_limit, too_large
from service.http.drain import Drain
from service.http.errors import FULL, Draining, Overloaded, PayloadTooLarge, problem_response
from service.http.shares import Shares
from service.http.turns import Turns
from service.observability.logging import request_id
from service.observability.metrics import WORK_ROUTES, Metrics
from service.observability.tracing import Tracing
from service.settings import Settings

ROUND_S = 0.04
"""How often the event loop looks for requests while it has no room for some: those refused together cost less, and
whoever works is interrupted 25 times a second instead of thousands of times."""

SHORT_BODY_BYTES = 1 << 20
"""Up to here a body that nobody wants costs less than the new connection that its client would need."""

REQUEST_ID = re.compile(r"[A-Za-z0-9._-]{1,64}")


class Guard:
    """Wraps the app; `searches` are the places of the work pool. See the module."""

    def __init__(
        self, app: ASGIApp, settings: Settings, metrics: Metrics, drain: Drain, tracing: Tracing, searches: Shares
    ) -> None:
        """Raises SettingsInvalid for keys or rates that cannot be used."""
        self.app = app
        self.settings = settings
        self.metrics = metrics
        self.drain = drain
        self.tracing = tracing
        self.searches = searches
        self.uploads = Shares(settings.max_uploads_bytes)
        self.turns = Turns()
        self.access = Access(settings)
        self._rests, self._round_ends = False, 0.0

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            await self.app(scope, receive, send)
            return
        refused = None if "asker" in scope else self._admit(scope)
        request_id.set(scope["request_id"])  # a request has a task of its own, and with it the variable
        answer = Answer(scope, self.metrics, self.drain, send)
        if scope["path"] in POLLED:
            await self._answer(scope, receive, answer, refused)
            return
        with self.tracing.request(scope):
            await self._answer(scope, receive, answer, refused)

    def refuse(self, scope: Scope, arrived_bytes: int = 0) -> Response | None:
        """The whole answer to a search that is refused from its headers, counted and told; None for all others.

        A protocol that asks this first saves those a task: they are thousands a second when there are too many. It says
        how much has `arrived` with the headers: a search that is all there is promised a place.
        """
        if scope["path"] != "/search" or scope["method"] != "POST":
            return None
        refused = self._admit(scope)
        if refused is None:
            if 0 < scope["declared_bytes"] <= arrived_bytes:
                self._promise(scope)
        else:
            if scope["problem_code"] == Overloaded.code:
                self._rest()
            with self.tracing.request(scope):
                answer = Answer(scope, self.metrics, self.drain)
                refused.raw_headers = answer.begin(refused.status_code, refused.raw_headers)
        return refused

    def _admit(self, scope: Scope) -> Response | None:
        """Gives a request its id, and notes who asks; the refusal when its headers are enough for one."""
        headers = dict(reversed(scope["headers"]))  # the first of each name, as all who read them later have it
        offered = headers.get(b"x-request-id", b"").decode("latin-1")
        scope["request_id"] = offered if REQUEST_ID.fullmatch(offered) else _new_id()
        kind = headers.get(b"content-type", b"").lower() if scope["path"] == "/evaluate" else b""
        archive = scope["archive"] = kind.startswith(b"multipart/")
        length = headers.get(b"content-length", b"")
        declared = scope["declared_bytes"] = int(length) if length.isdigit() else 0
        # A short body that nobody reads is thrown away by uvicorn; with a longer one the connection ends.
        # One that is announced by "Expect" may never come, and the next request would be taken for it.
        unbounded = b"transfer-encoding" in headers or b"expect" in headers
        scope["closes_unread"] = unbounded or declared > SHORT_BODY_BYTES
        try:
            client = scope["asker"] = self.access.admit(scope)
            if scope["path"] == "/search" and not self.searches.room(client):
                raise Overloaded(FULL)
            if declared > (limit := body_limit(self.settings, archive=archive)):
                raise PayloadTooLarge(too_large(limit))
            if scope["path"] == "/search":
                if not self.uploads.room(client, declared):
                    raise Overloaded(RECEIVING)
                self.uploads.take(client, declared)
                scope["held_bytes"] = declared
        except CarsearchError as problem:
            scope["problem_code"] = problem.code
            scope["refused_route"] = scope["path"] if scope["path"] in WORK_ROUTES else "none"
            return problem_response(scope["request_id"], problem.code, str(problem), problem)
        return None

    def _rest(self) -> None:
        """Lets the loop rest after this turn until the round ends, once for all that are refused in it."""
        if not self._rests:
            self._rests = True
            loop = asyncio.get_running_loop()
            loop.call_soon(loop.call_soon, self._sleep)  # after the turn that reads what newcomers ask

    def _sleep(self) -> None:
        self._rests = False
        if not self.turns.crowded:
            time.sleep(max(0.0, self._round_ends - time.monotonic()))
        self._round_ends = time.monotonic() + ROUND_S

    def _promise(self, scope: Scope) -> None:
        """Keeps a place free for a search until it takes it, which it does in the next turn.

        Else whatever the loop finds in one turn would be let in for one free place, and refused much later.
        """
        scope["promised"] = True
        self.searches.promised += 1
        loop = asyncio.get_running_loop()
        loop.call_soon(loop.call_soon, self.searches.redeem, scope)  # its task comes in between

    async def _answer(self, scope: Scope, receive: Receive, answer: Answer, refused: Response | None) -> None:
        if refused is not None:
            await refused(scope, receive, answer.send)
            return
        held = scope.get("held_bytes", 0)
        intake = Intake(scope, receive, self.settings, self.uploads, self.turns, held, archive=scope["archive"])
        try:
            await self.app(scope, intake.receive, answer.send)
        except asyncio.CancelledError:  # uvicorn's, when a server that is to stop has waited for long enough
            if "answer_status" in scope:
                raise
            scope["problem_code"] = Draining.code
            stopped = problem_response(scope["request_id"], Draining.code, "The server stopped; ask another one.")
            await stopped(scope, receive, answer.send)
        finally:
            intake.close()


def _new_id() -> str:
    # No secret; and asking the system for random bytes would hand the interpreter to another thread meanwhile.
    return f"{random.getrandbits(128):032x}"
