"""Memory that uploads take: all of it before the first byte, or as they come, and none for words alone."""

import asyncio
from collections.abc import Awaitable, Callable
from typing import Any

import pytest
from service.http.drain import Drain
from service.http.guard import Guard
from service.http.shares import Shares
from service.http.turns import Turns

import service.http.body_limit
from model.errors import CarsearchError
from service.http.body_limit import RECEIVING, Intake
from service.observability.metrics import Metrics
from service.observability.tracing import Tracing
from service.settings import load_settings

LIMIT = 300


def parts(*bodies: bytes, more: bool = True) -> Callable[[], Awaitable[Any]]:
    """What the server hands on of a body, part by part; then nothing for ever, or the end."""
    left = [{"type": "http.request", "body": body, "more_body": True} for body in bodies]
    if not more:
        left[-1]["more_body"] = False

    async def receive() -> Any:
        if not left:
            await asyncio.Event().wait()
        return left.pop(0)

    return receive


def an_intake(receive: Any, uploads: Shares, held: int, turns: Turns | None = None) -> Intake:
    if held:
        uploads.take("a", held)
    return Intake({"asker": "a"}, receive, load_settings(), uploads, turns or Turns(), held, archive=False)


def test_what_was_announced_is_taken_once_and_given_back_at_the_end() -> None:
    async def run() -> list[int]:
        uploads = Shares(LIMIT)
        intake = an_intake(parts(b"x" * 60, b"x" * 40, more=False), uploads, held=100)
        taken = [uploads.taken]
        for _ in range(2):
            await intake.receive()
            taken.append(uploads.taken)
        intake.close()
        return [*taken, uploads.taken]

    assert asyncio.run(run()) == [100, 100, 100, 0]


def test_a_body_of_unknown_length_takes_memory_as_it_comes_until_there_is_none() -> None:
    async def run() -> list[int]:
        uploads = Shares(LIMIT)
        uploads.take("b", 150)
        intake = an_intake(parts(*[b"x" * 60] * 3), uploads, held=0)
        taken = []
        for _ in range(2):
            await intake.receive()
            taken.append(uploads.taken)
        with pytest.raises(CarsearchError, match=RECEIVING):
            await intake.receive()
        intake.close()
        return [*taken, uploads.taken]

    assert asyncio.run(run()) == [210, 270, 150]


def test_an_announcement_that_nothing_follows_keeps_no_memory(monkeypatch: pytest.MonkeyPatch) -> None:
    async def run() -> list[int]:
        uploads = Shares(LIMIT)
        intake = an_intake(parts(b"x" * 60, b"x" * 40), uploads, held=300)
        await intake.receive()
        taken = [uploads.taken]
        await asyncio.sleep(0.01)  # the time of the announcement is over
        taken.append(uploads.taken)
        await intake.receive()  # as it comes from now on
        taken.append(uploads.taken)
        intake.close()
        return [*taken, uploads.taken]

    monkeypatch.setattr(service.http.body_limit, "HELD_S", 0.0)
    assert asyncio.run(run()) == [300, 60, 100, 0]


def test_an_upload_that_others_keep_from_being_read_keeps_its_memory(monkeypatch: pytest.MonkeyPatch) -> None:
    class Crowded(Turns):
        async def wait(self, _since: float) -> None:
            await turn_comes.wait()

    async def run() -> list[int]:
        uploads = Shares(LIMIT)
        intake = an_intake(parts(b"x" * 60, b"x" * 40), uploads, held=300, turns=Crowded())
        await intake.receive()
        reading = asyncio.ensure_future(intake.receive())
        await asyncio.sleep(0.03)  # the time of the announcement is over
        taken = [uploads.taken]
        turn_comes.set()
        await reading
        await asyncio.sleep(0.03)  # and now it is only the client that is waited for
        taken.append(uploads.taken)
        intake.close()
        return [*taken, uploads.taken]

    monkeypatch.setattr(service.http.body_limit, "HELD_S", 0.01)
    turn_comes = asyncio.Event()
    assert asyncio.run(run()) == [300, 100, 0]


async def _never(_scope: Any, _receive: Any, _send: Any) -> None:
    raise AssertionError


@pytest.mark.parametrize(("path", "refused"), [("/search", [False, False, False, True, True]), ("/info", [False] * 5)])
def test_searches_whose_photos_would_find_no_memory_are_refused_from_their_headers(
    path: str, refused: list[bool]
) -> None:
    settings = load_settings().model_copy(update={"max_uploads_bytes": LIMIT})
    guard = Guard(_never, settings, Metrics(), Drain(), Tracing(), Shares(10))
    answers = []
    for number in range(5):
        headers = [(b"content-length", b"100")]
        scope = {"path": path, "method": "POST", "headers": headers, "client": (f"10.0.0.{number}", 1)}
        answers.append(guard._admit(scope) is not None)
    assert answers == refused
    assert guard.uploads.taken == 100 * 3 * (path == "/search")


def test_a_search_waits_for_its_turns_and_gives_back_what_it_had_when_it_has_been_answered() -> None:
    async def app(_scope: Any, receive: Any, send: Any) -> None:
        while (await receive())["more_body"]:
            seen.append(guard.uploads.taken)
        await send({"type": "http.response.start", "status": 200, "headers": []})
        await send({"type": "http.response.body", "body": b""})

    async def discard(_message: Any) -> None:
        pass

    class Counting(Turns):
        async def wait(self, since: float) -> None:
            waited.append(since)

    seen, waited = list[int](), list[float]()
    guard = Guard(app, load_settings(), Metrics(), Drain(), Tracing(), Shares(10))
    headers = [(b"content-length", b"100")]
    scope = {"type": "http", "path": "/search", "method": "POST", "headers": headers, "client": ("10.0.0.1", 1)}
    guard.turns = Counting()
    asyncio.run(guard(scope, parts(b"x" * 40, b"x" * 40, b"x" * 20, more=False), discard))
    assert (seen, guard.uploads.taken) == ([100, 100], 0)
    assert len(waited) == 2  # the first part comes with the headers
