"""Evaluations in the background: the one place, records that replicas share, cancelling, and what full disks do."""

import asyncio
import contextlib
import logging
import os
import tempfile
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from pathlib import Path
from types import SimpleNamespace
from typing import cast

import pytest

from model.embedder import Embedder
from model.runtimes.fake import FakeRuntime
from service.engine import Engine
from service.errors import Overloaded, UnknownEvaluation
from service.jobs import (
    KEPT_PAGES,
    KEPT_RECORDS,
    LOST_S,
    Ended,
    EvaluationInput,
    EvaluationRecord,
    Evaluations,
    new_record,
)
from service.observability.metrics import Metrics
from tests.support.photos import car_photo

NAMES = ("a/1", "a/2", "b/1")


@dataclass(frozen=True)
class WatchedPhoto:
    """A photo that tells when it is read."""

    id: str
    label: str
    when_read: Callable[[], object] = lambda: None
    data: bytes = car_photo()

    def read(self) -> bytes:
        self.when_read()
        return self.data


def photos(when_read: Callable[[], object] = lambda: None, names: Sequence[str] = NAMES) -> list[WatchedPhoto]:
    return [WatchedPhoto(name, name[0], when_read) for name in names]


@pytest.fixture
def engine(fake_embedder: Embedder) -> Engine:
    """As much of an engine as an evaluation needs."""
    return cast(Engine, SimpleNamespace(embedder=fake_embedder, served=None))


@pytest.fixture
def evaluations(tmp_path: Path) -> Iterator[Evaluations]:
    made = Evaluations(tmp_path, Metrics())
    yield made
    made.close()


def evaluated(
    evaluations: Evaluations,
    engine: Engine,
    watched: Sequence[WatchedPhoto],
    record: EvaluationRecord | None = None,
    close: Callable[[], object] = lambda: None,
    *,
    html: bool = False,
) -> Ended:
    """Runs an evaluation to its end."""

    async def scenario() -> Ended:
        stack = contextlib.ExitStack()
        stack.callback(close)
        with evaluations.reserved():
            started = record or new_record("leave-one-out", len(watched))
            running = await evaluations.run(started, EvaluationInput(watched, [], stack, html=html), engine)
        return await running

    return asyncio.run(scenario())


def test_an_evaluation_is_recorded_while_it_runs_and_when_it_is_done(evaluations: Evaluations, engine: Engine) -> None:
    record, seen, closed = new_record("leave-one-out", 3), list[EvaluationRecord](), list[bool]()
    watched = photos(lambda: seen.append(evaluations.read(record.id)))
    ended = evaluated(evaluations, engine, watched, record, lambda: closed.append(True))
    assert {one.status for one in seen} == {"running"}
    assert ended.error is None
    assert evaluations.read(record.id).model_dump_json() == ended.record.model_dump_json()
    assert (ended.record.status, ended.record.done, len(ended.record.predictions or ())) == ("done", 3, 3)
    assert closed == [True]


def test_a_report_reaches_its_client_although_it_cannot_be_recorded(
    evaluations: Evaluations, engine: Engine, tmp_path: Path
) -> None:
    def lose_the_records() -> None:
        with contextlib.suppress(FileNotFoundError):
            (tmp_path / "evaluations").rename(tmp_path / "lost")

    ended = evaluated(evaluations, engine, photos(lose_the_records))
    assert (ended.record.status, ended.record.report and ended.record.report["total"]) == ("done", 3)
    (tmp_path / "lost").rename(tmp_path / "evaluations")
    assert evaluated(evaluations, engine, photos()).record.status == "done"  # the place is free again


def test_an_evaluation_that_cannot_be_recorded_at_its_start_is_not_begun(
    evaluations: Evaluations, engine: Engine, tmp_path: Path
) -> None:
    closed, read = list[bool](), list[bool]()
    (tmp_path / "evaluations").rename(tmp_path / "lost")
    with pytest.raises(FileNotFoundError):
        evaluated(evaluations, engine, photos(lambda: read.append(True)), close=lambda: closed.append(True))
    assert (closed, read) == ([True], [])
    (tmp_path / "lost").rename(tmp_path / "evaluations")
    assert evaluated(evaluations, engine, photos()).record.status == "done"


def test_the_one_place_is_given_back_by_whatever_fails(evaluations: Evaluations) -> None:
    def fail_in_the_place() -> None:
        with evaluations.reserved():
            with pytest.raises(Overloaded), evaluations.reserved():
                pass
            raise ConnectionResetError

    for _ in range(2):
        with pytest.raises(ConnectionResetError):
            fail_in_the_place()


def test_an_evaluation_that_fails_says_why(
    evaluations: Evaluations, engine: Engine, caplog: pytest.LogCaptureFixture
) -> None:
    alone = evaluated(evaluations, engine, photos(names=["a/1"]))
    assert (alone.record.status, (alone.record.problem or {})["code"]) == ("failed", "evaluation_set_invalid")
    assert not caplog.records

    def bug() -> None:
        raise ZeroDivisionError("secret detail")

    failed = evaluated(evaluations, engine, photos(bug))
    assert failed.record.problem == {"code": "internal", "detail": "The server failed."}
    assert isinstance(failed.error, ZeroDivisionError)
    assert "ZeroDivisionError: secret detail" in caplog.text


def test_any_replica_cancels_an_evaluation_within_one_batch(
    evaluations: Evaluations, engine: Engine, tmp_path: Path
) -> None:
    record, read = new_record("leave-one-out", 8 * FakeRuntime.batch), list[bool]()
    replica = Evaluations(tmp_path, Metrics())

    def cancel_at_the_first() -> None:
        read.append(True)
        if len(read) == 1:
            assert replica.cancel(record.id).status == "running"

    names = [f"{number}" for number in range(8 * FakeRuntime.batch)]
    ended = evaluated(evaluations, engine, photos(cancel_at_the_first, names), record)
    assert (ended.record.status, ended.error) == ("cancelled", None)
    assert len(read) < len(names)
    assert replica.read(record.id).status == "cancelled"
    assert replica.cancel(record.id).status == "cancelled"
    replica.close()


def test_closing_stops_what_runs(engine: Engine, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    evaluations = Evaluations(tmp_path, Metrics())
    closing, shutdown = threading.Event(), ThreadPoolExecutor.shutdown
    names = [f"{number}" for number in range(8 * FakeRuntime.batch)]

    def tell_and_shut_down(pool: ThreadPoolExecutor, *arguments: bool, **options: bool) -> None:
        closing.set()
        shutdown(pool, *arguments, **options)

    async def scenario() -> Ended:
        with evaluations.reserved():
            data = EvaluationInput(photos(lambda: closing.wait(60), names), [], contextlib.ExitStack())
            running = await evaluations.run(new_record("leave-one-out", len(names)), data, engine)
        await asyncio.to_thread(evaluations.close)
        return await running

    with monkeypatch.context() as patch:
        patch.setattr(ThreadPoolExecutor, "shutdown", tell_and_shut_down)
        assert asyncio.run(scenario()).record.status == "cancelled"


def test_an_evaluation_lets_searches_pass(engine: Engine, tmp_path: Path) -> None:
    asked = list[bool]()

    def searching() -> bool:
        asked.append(True)
        return len(asked) % 5 != 0

    evaluations = Evaluations(tmp_path, Metrics(), searching)
    assert evaluated(evaluations, engine, photos()).record.status == "done"
    assert len(asked) >= 5
    evaluations.close()


@pytest.mark.parametrize(("age_s", "status"), [(0, "running"), (LOST_S / 2, "running"), (2 * LOST_S, "failed")])
def test_a_record_that_nobody_writes_any_more_is_of_a_server_that_ended(
    evaluations: Evaluations, tmp_path: Path, age_s: float, status: str
) -> None:
    record = new_record("gallery", 5)
    path = tmp_path / "evaluations" / f"{record.id}.json"
    path.write_text(record.model_dump_json())
    os.utime(path, (time.time() - age_s,) * 2)
    found = evaluations.read(record.id)
    assert found.status == status
    if status == "failed":
        assert "ended; start it again" in (found.problem or {})["detail"]


def test_the_list_has_every_replica_s_evaluations_newest_first(evaluations: Evaluations, tmp_path: Path) -> None:
    folder, start = tmp_path / "evaluations", datetime(2026, 1, 1, tzinfo=UTC)
    for number, status in enumerate(("done", "running", "cancelled")):
        record = new_record("gallery", 5).model_copy(
            update={"id": f"{number:032x}", "status": status, "started": start + timedelta(hours=number)}
        )
        (folder / f"{record.id}.json").write_text(record.model_dump_json())
    os.utime(folder / f"{1:032x}.json", (time.time() - 2 * LOST_S,) * 2)
    (folder / f"{9:032x}.json").write_text('{"of": "another release"}')
    listed = evaluations.summaries()
    assert [(int(one.id), one.status) for one in listed] == [(2, "cancelled"), (1, "failed"), (0, "done")]
    assert not hasattr(listed[0], "report")


@pytest.mark.parametrize("identity", ["0" * 32, "", "../evaluations", "0" * 31 + "/", "x" * 32, "A" * 32])
def test_an_id_of_no_evaluation_is_unknown(evaluations: Evaluations, identity: str) -> None:
    for ask in (evaluations.read, evaluations.cancel):
        with pytest.raises(UnknownEvaluation):
            ask(identity)


def test_only_the_newest_records_are_kept(evaluations: Evaluations, engine: Engine, tmp_path: Path) -> None:
    folder = tmp_path / "evaluations"
    for number in range(KEPT_RECORDS + 3):
        for suffix in (".json", ".cancel"):
            path = folder / f"{number:032x}{suffix}"
            path.write_text("{}")
            os.utime(path, (1000 + number,) * 2)
    ended = evaluated(evaluations, engine, photos())
    left = sorted(path.stem for path in folder.glob("*.json"))
    assert left == sorted([*(f"{number:032x}" for number in range(4, KEPT_RECORDS + 3)), ended.record.id])
    assert {path.stem for path in folder.glob("*.cancel")} < set(left)


def test_a_page_is_made_while_the_photos_are_there_and_kept_beside_the_record(
    evaluations: Evaluations, engine: Engine, tmp_path: Path
) -> None:
    closed, late = list[bool](), list[bool]()
    watched = photos(lambda: late.append(bool(closed)))
    ended = evaluated(evaluations, engine, watched, close=lambda: closed.append(True), html=True)
    assert ended.html is not None
    assert len(late) > len(NAMES)  # the photos are read again, for their pictures
    assert not any(late)
    assert evaluations.read(ended.record.id).html
    assert evaluations.read_html(ended.record.id) == ended.html.encode()
    assert "html" not in (tmp_path / "evaluations" / f"{ended.record.id}.json").read_text()
    assert evaluations.read_html(evaluated(evaluations, engine, photos()).record.id) is None


def test_only_the_newest_pages_are_kept_and_none_without_its_record(
    evaluations: Evaluations, engine: Engine, tmp_path: Path
) -> None:
    folder = tmp_path / "evaluations"
    for number in range(KEPT_PAGES + 3):
        for suffix in (".json", ".html") if number != KEPT_PAGES else (".html",):
            path = folder / f"{number:032x}{suffix}"
            path.write_text("{}")
            os.utime(path, (1000 + number,) * 2)
    ended = evaluated(evaluations, engine, photos(), html=True)
    left = {path.stem for path in folder.glob("*.html")}
    assert left == {ended.record.id, *(f"{number:032x}" for number in range(4, KEPT_PAGES + 3) if number != KEPT_PAGES)}
    assert len(list(folder.glob("*.json"))) == KEPT_PAGES + 3


def test_an_evaluation_is_cancelled_while_its_page_is_made(evaluations: Evaluations, engine: Engine) -> None:
    record, read = new_record("leave-one-out", len(NAMES)), list[bool]()

    def cancel_at_the_first_picture() -> None:
        read.append(True)
        if len(read) == len(NAMES) + 1:
            evaluations.cancel(record.id)

    ended = evaluated(evaluations, engine, photos(cancel_at_the_first_picture), record, html=True)
    assert (ended.record.status, ended.html) == ("cancelled", None)
    assert len(read) == len(NAMES) + 1


def test_without_a_state_directory_records_are_gone_with_the_process(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, engine: Engine, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path))
    evaluations = Evaluations(None, Metrics())
    with caplog.at_level(logging.ERROR):
        assert evaluated(evaluations, engine, photos()).record.status == "done"
    assert len(list(tmp_path.rglob("*.json"))) == 1
    evaluations.close()
    assert list(tmp_path.iterdir()) == []
    assert not caplog.records
