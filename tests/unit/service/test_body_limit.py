"""Limits of a body: its size by the headers and by count, its deadline, its lowest rate."""

import asyncio
import time
from collections.abc import Mapping
from typing import Any

import pytest
from starlette.types import Message, Receive

from service.errors import PayloadTooLarge, UnsupportedContentEncoding, UploadTimeout
from service.http.body_limit import IN_JSON, BodyLimit
from service.http.context import RequestContext, Upload
from service.http.limits import Limits
from tests.support.asgi import discard, read_body, receive_parts, scope_of

LIMITS = Limits(
    upload_deadline_s=15,
    upload_grace_s=5,
    upload_bytes_per_s=100,
    archive_bytes=3000,
    batch_bytes=2500,
    batch_deadline_s=30,
)
MAX_BODY_BYTES = 2000


def receive_through(receive: Receive, upload: Upload = "photo", headers: Mapping[str, str] | None = None) -> int:
    """Takes a body through the middleware; returns its length."""
    form = {"Content-Type": "multipart/form-data; boundary=x"}
    scope = scope_of("search", upload, headers={**form, **(headers or {})})
    asyncio.run(BodyLimit(read_body, MAX_BODY_BYTES, LIMITS)(scope, receive, discard))
    context: RequestContext = scope["context"]
    assert context.body_complete
    return context.received_bytes


@pytest.mark.parametrize(
    ("upload", "limit"), [("photo", MAX_BODY_BYTES), ("photos", 2500), ("archive", LIMITS.archive_bytes)]
)
def test_a_body_may_be_as_large_as_its_limit_and_no_larger(upload: Upload, limit: int) -> None:
    assert receive_through(receive_parts(bytes(limit - 1), b"x"), upload) == limit
    with pytest.raises(PayloadTooLarge, match=f"larger than {limit} bytes"):
        receive_through(receive_parts(bytes(limit - 1), b"xx"), upload)


@pytest.mark.parametrize(
    ("upload", "kind", "limit"),
    [
        ("photo", "image/jpeg", MAX_BODY_BYTES),
        ("photo", "application/json", int(MAX_BODY_BYTES * IN_JSON)),
        ("photos", "application/json", MAX_BODY_BYTES),
        ("archive", "application/json", MAX_BODY_BYTES),
        ("photo", "image/jpeg; of=json", MAX_BODY_BYTES),
        ("archive", "application/json; of=multipart/form-data", MAX_BODY_BYTES),
    ],
)
def test_json_may_hold_a_photo_in_base64_where_one_is_taken(upload: Upload, kind: str, limit: int) -> None:
    headers = {"Content-Type": kind}
    assert receive_through(receive_parts(bytes(limit)), upload, headers) == limit
    with pytest.raises(PayloadTooLarge):
        receive_through(receive_parts(bytes(limit + 1)), upload, headers)


def test_a_length_that_is_too_large_is_refused_before_the_body_is_read() -> None:
    async def unread() -> Message:
        raise AssertionError

    with pytest.raises(PayloadTooLarge):
        receive_through(unread, headers={"Content-Length": str(MAX_BODY_BYTES + 1)})


@pytest.mark.parametrize("coding", ["gzip", "br", "identity, gzip"])
def test_a_compressed_body_is_refused_before_it_is_read(coding: str) -> None:
    async def unread() -> Message:
        raise AssertionError

    with pytest.raises(UnsupportedContentEncoding, match="without Content-Encoding"):
        receive_through(unread, headers={"Content-Encoding": coding})
    assert receive_through(receive_parts(b"x"), headers={"Content-Encoding": "Identity"}) == 1


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> list[float]:
    """The time, as a test sets it; a deadline that has passed is noticed at the next message."""
    now = [1000.0]
    monkeypatch.setattr(time, "monotonic", lambda: now[0])
    return now


def dripping(clock: list[float], *parts: tuple[float, int]) -> Receive:
    """So many bytes each after so many seconds; the last ones complete the body."""
    left = list(parts)

    async def receive() -> Message:
        wait_s, count = left.pop(0)
        clock[0] += wait_s
        await asyncio.sleep(0)  # a deadline that has passed ends the wait here
        return {"type": "http.request", "body": bytes(count), "more_body": bool(left)}

    return receive


@pytest.mark.parametrize(
    ("upload", "parts"),
    [
        ("photo", [(4.9, 1)]),
        ("photo", [(4, 100), (1.9, 1)]),
        ("photo", [(4, 100), (1.9, 100), (1, 90), (1, 9)]),
        ("photo", [(1, 1900), (13.9, 1)]),
        ("photos", [(1, 2400), (22.9, 1)]),
        ("archive", [(14, 1)]),
        ("archive", [(14, 300), (3.9, 600), (5, 1)]),
    ],
    ids=[
        "within the grace",
        "at the rate",
        "at the rate, on and on",
        "until the deadline",
        "a batch has longer",
        "an archive starts slowly",
        "an archive goes on",
    ],
)
def test_an_upload_that_keeps_up_is_taken(clock: list[float], upload: Upload, parts: list[tuple[float, int]]) -> None:
    assert receive_through(dripping(clock, *parts), upload) == sum(count for _, count in parts)


@pytest.mark.parametrize(
    ("upload", "parts"),
    [
        ("photo", [(0, 1), (5.1, 1), (0, 1)]),
        ("photo", [(4, 100), (2.1, 1), (0, 1)]),
        ("photo", [(1, 1900), (14.1, 1), (0, 1)]),
        ("photos", [(1, 2400), (29.1, 1), (0, 1)]),
        ("archive", [(0, 1), (15.1, 1), (0, 1)]),
        ("archive", [(14, 300), (4.1, 1), (0, 1)]),
    ],
    ids=[
        "a stall",
        "too slow",
        "longer than may be",
        "a batch, too",
        "an archive that stalls",
        "an archive that is too slow",
    ],
)
def test_an_upload_below_the_lowest_rate_or_after_its_deadline_is_cut_off(
    clock: list[float], upload: Upload, parts: list[tuple[float, int]]
) -> None:
    with pytest.raises(UploadTimeout):
        receive_through(dripping(clock, *parts), upload)


def test_the_wait_for_a_client_to_leave_has_no_deadline(clock: list[float]) -> None:
    seen = list[str]()

    async def app(scope: Any, receive: Receive, send: Any) -> None:
        await read_body(scope, receive, send)
        clock[0] += 3600
        seen.append((await receive())["type"])

    asyncio.run(BodyLimit(app, MAX_BODY_BYTES, LIMITS)(scope_of(), receive_parts(b"x"), discard))
    assert seen == ["http.disconnect"]
