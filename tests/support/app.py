"""The application in this process: requests without sockets, over the fake runtime.

The app runs on an event loop in a thread of its own, so tests are plain functions. The lifespan runs: `running_app`
returns when `/readyz` answers 200, and shuts the app down at its end.
"""

import asyncio
import threading
import time
from collections.abc import AsyncIterator, Coroutine, Iterator, Mapping, MutableMapping
from concurrent.futures import Future
from contextlib import asynccontextmanager, contextmanager
from pathlib import Path
from typing import Any, TypeVar

import httpx
from fastapi import FastAPI
from starlette.types import ASGIApp

from service.http.app import create_app
from service.http.limits import Limits
from service.http.state import State
from service.settings import Settings
from tests.support.without import take_the_guard_away

START_S = 30
STOP_S = 30
TIMEOUT_S = 60
Result = TypeVar("Result")
Message = MutableMapping[str, Any]


class AppClient:
    """Sends requests to an app; a bug in it is answered with 500, as a server answers it."""

    def __init__(self, app: FastAPI, loop: asyncio.AbstractEventLoop, address: str = "127.0.0.1") -> None:
        self.app = app
        self.loop = loop
        self._address = (address, 50_000)
        transport = httpx.ASGITransport(app, raise_app_exceptions=False, client=self._address)
        self._client = httpx.AsyncClient(transport=transport, base_url="http://testserver")

    @property
    def client(self) -> "AppClient":
        """Itself, so that `tests.support.calls` asks an application as it asks a server."""
        return self

    @property
    def state(self) -> State:
        """The parts of the running application."""
        state: State = self.app.state.parts
        return state

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

    def seen_as(self, address: str) -> "AppClient":
        """The same application, asked from another address."""
        return AppClient(self.app, self.loop, address)

    def exchange(self, method: str, path: str, headers: Mapping[str, str] | None = None) -> "Exchange":
        """Begins a request whose body and end the test decides on."""
        request = self._client.build_request(method, path, headers=dict(headers or {}))
        return Exchange(self.app, self.loop, request, self._address)

    def gone(self, method: str, path: str, content: bytes, headers: dict[str, str] | None = None) -> list[Message]:
        """What the app sends to a client that sends a whole request and closes its connection at once."""
        exchange = self.exchange(method, path, {**(headers or {}), "Content-Length": str(len(content))})
        exchange.send(content)
        exchange.leave()
        exchange.answer()
        return exchange.sent


class Exchange:
    """A request, message by message as a server gives them to an application."""

    def __init__(
        self, app: ASGIApp, loop: asyncio.AbstractEventLoop, request: httpx.Request, address: tuple[str, int]
    ) -> None:
        self.sent: list[Message] = []
        """What the application has answered so far."""
        self.read_bytes = 0
        """How much of the body the application has taken."""
        self._loop, self._left = loop, False
        self._arriving: asyncio.Queue[Message] = asyncio.Queue()
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
            "client": address,
        }
        self._running = asyncio.run_coroutine_threadsafe(self._run(app, scope), loop)

    async def _run(self, app: ASGIApp, scope: Message) -> None:
        self._task = asyncio.ensure_future(app(scope, self._receive, self._send))
        await self._task

    async def _receive(self) -> Message:
        if self._left and self._arriving.empty():
            return {"type": "http.disconnect"}
        message = await self._arriving.get()
        self.read_bytes += len(message.get("body", b""))
        return message

    async def _send(self, message: Message) -> None:
        self.sent.append(message)

    def send(self, body: bytes, *, more: bool = False) -> None:
        """A part of the body; the last one unless there are `more`."""
        message = {"type": "http.request", "body": body, "more_body": more}
        self._loop.call_soon_threadsafe(self._arriving.put_nowait, message)

    def leave(self) -> None:
        """The client closes its connection, after what it has sent."""
        self._loop.call_soon_threadsafe(self._leave)

    def _leave(self) -> None:
        self._left = True
        self._arriving.put_nowait({"type": "http.disconnect"})

    def cut_off(self) -> None:
        """The server cancels the request, as uvicorn does when it has waited long enough for its end."""
        self._loop.call_soon_threadsafe(self._task.cancel)

    def answer(self) -> httpx.Response:
        """Waits for the application; gives what it has sent."""
        self._running.result(TIMEOUT_S)
        start, *parts = self.sent
        content = b"".join(part.get("body", b"") for part in parts)
        return httpx.Response(start["status"], headers=start["headers"], content=content)


def fake_settings(index: Path, **changes: Any) -> Settings:
    """Settings for an index of the fake runtime, whatever the environment says."""
    return Settings.model_construct(**{"index_dir": index, "runtime": "fake", **changes})


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
