"""The application in this process: requests without sockets, over the fake runtime.

The app runs on an event loop in a thread of its own, so tests are plain functions. The lifespan runs: `running_app`
returns when `/readyz` answers 200, and shuts the app down at its end.
"""

import asyncio
import threading
import time
from collections.abc import AsyncIterator, Coroutine, Iterator, MutableMapping
from concurrent.futures import Future
from contextlib import asynccontextmanager, contextmanager
from pathlib import Path
from typing import Any, TypeVar

import httpx
from starlette.types import ASGIApp

from service.http.app import create_app
from service.http.limits import Limits
from service.settings import Settings
from tests.support.without import take_the_guard_away

START_S = 30
STOP_S = 30
TIMEOUT_S = 60
CLIENT = ("127.0.0.1", 50_000)
Result = TypeVar("Result")
Message = MutableMapping[str, Any]


class AppClient:
    """Sends requests to an app; a bug in it is answered with 500, as a server answers it."""

    def __init__(self, app: ASGIApp, loop: asyncio.AbstractEventLoop) -> None:
        self.app = app
        self.loop = loop
        transport = httpx.ASGITransport(app, raise_app_exceptions=False, client=CLIENT)
        self._client = httpx.AsyncClient(transport=transport, base_url="http://testserver")

    def run(self, work: Coroutine[Any, Any, Result]) -> Result:
        """Runs a coroutine on the app's event loop."""
        return asyncio.run_coroutine_threadsafe(work, self.loop).result(TIMEOUT_S)

    def begin(self, method: str, path: str, **options: Any) -> "Future[httpx.Response]":
        """Sends a request and does not wait for its answer; options are those of httpx."""
        return asyncio.run_coroutine_threadsafe(self._client.request(method, path, **options), self.loop)

    def request(self, method: str, path: str, **options: Any) -> httpx.Response:
        """The answer to a request; options are those of httpx."""
        return self.begin(method, path, **options).result(TIMEOUT_S)

    def get(self, path: str, **options: Any) -> httpx.Response:
        return self.request("GET", path, **options)

    def post(self, path: str, **options: Any) -> httpx.Response:
        return self.request("POST", path, **options)

    def delete(self, path: str, **options: Any) -> httpx.Response:
        return self.request("DELETE", path, **options)

    def gone(self, method: str, path: str, content: bytes, headers: dict[str, str] | None = None) -> list[Message]:
        """What the app sends to a client that sends a whole request and closes its connection at once."""
        request = self._client.build_request(method, path, content=content, headers=headers)
        return self.run(self._gone(request, content))

    async def _gone(self, request: httpx.Request, content: bytes) -> list[Message]:
        sent: list[Message] = []
        arriving = iter([{"type": "http.request", "body": content, "more_body": False}])

        async def receive() -> Message:
            return next(arriving, {"type": "http.disconnect"})

        async def send(message: Message) -> None:
            sent.append(message)

        scope = {
            "type": "http",
            "asgi": {"version": "3.0"},
            "http_version": "1.1",
            "method": request.method,
            "scheme": "http",
            "path": request.url.path,
            "raw_path": request.url.raw_path.partition(b"?")[0],
            "query_string": request.url.query,
            "root_path": "",
            "headers": [(name.lower(), value) for name, value in request.headers.raw],
            "server": ("testserver", 80),
            "client": CLIENT,
        }
        await self.app(scope, receive, send)
        return sent


def fake_settings(index: Path, **changes: Any) -> Settings:
    """Settings for an index of the fake runtime, whatever the environment says."""
    return Settings.model_construct(index_dir=index, runtime="fake", **changes)


@contextmanager
def running_app(
    index: Path, *, wait_ready: bool = True, limits: Limits | None = None, **settings: Any
) -> Iterator[AppClient]:
    """The app over an index of the fake runtime; `settings` are those that differ from their defaults."""
    take_the_guard_away()  # where this is a negative control
    app = create_app(fake_settings(index, **settings), limits=limits)
    with _loop_in_a_thread() as loop:
        client = AppClient(app, loop)
        lifespan = _lifespan(app)
        client.run(lifespan.__aenter__())
        try:
            if wait_ready:
                _wait_until_ready(client)
            yield client
        finally:
            client.run(lifespan.__aexit__(None, None, None))


@contextmanager
def _loop_in_a_thread() -> Iterator[asyncio.AbstractEventLoop]:
    loop = asyncio.new_event_loop()
    thread = threading.Thread(target=loop.run_forever, name="app")
    thread.start()
    try:
        yield loop
    finally:
        loop.call_soon_threadsafe(loop.stop)
        thread.join(STOP_S)
        loop.run_until_complete(loop.shutdown_default_executor())
        loop.close()


@asynccontextmanager
async def _lifespan(app: ASGIApp) -> AsyncIterator[None]:
    """Starts an app and shuts it down, as a server does by the lifespan protocol of ASGI."""
    asked: asyncio.Queue[Message] = asyncio.Queue()
    told: asyncio.Queue[Message] = asyncio.Queue()

    async def run() -> None:
        try:
            await app({"type": "lifespan", "asgi": {"version": "3.0"}, "state": {}}, asked.get, told.put)
        finally:
            await told.put({"type": "ended"})

    async def step(name: str) -> None:
        await asked.put({"type": f"lifespan.{name}"})
        answer = await told.get()
        if answer["type"] == "ended":
            await running  # raises what ended it
        assert answer["type"] == f"lifespan.{name}.complete", answer

    running = asyncio.create_task(run())
    await step("startup")
    yield
    await step("shutdown")
    await running


def _wait_until_ready(client: AppClient) -> None:
    deadline = time.monotonic() + START_S
    while (answer := client.get("/readyz")).status_code != 200:
        assert time.monotonic() < deadline, answer.text
        time.sleep(0.01)
