"""Evaluations in the background: one at a time, recorded in files so that any replica can answer for or cancel them."""

import asyncio
import contextlib
import logging
import os
import re
import tempfile
import threading
import time
import uuid
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Annotated, Any, Literal, TypeVar

from pydantic import AwareDatetime, BaseModel, ConfigDict, Field, ValidationError, WithJsonSchema
from starlette.concurrency import run_in_threadpool

from indexer.benchmark.evaluate import evaluate
from indexer.benchmark.report import Evaluation
from model.dataset import Photo, Skipped
from model.errors import CarsearchError, EvaluationCancelled
from service.engine import Engine
from service.errors import Overloaded, UnknownEvaluation
from service.observability.metrics import Metrics
from service.process import started_threads
from service.report.build import Subject, report_html

IDENTITY = re.compile(r"[0-9a-f]{32}")
KEPT_RECORDS = 100
KEPT_PAGES = 10
"""HTML reports: each may have several megabytes."""
RECORD_INTERVAL_S = 0.5
MAX_YIELD_S = 0.5
UNKNOWN = "There is no evaluation with this id."
LOST_S = 30
"""A running evaluation writes its record every second; one that has not for so long has lost its server."""

log = logging.getLogger("carsearch")


# The schema of a tuple has a keyword ("prefixItems") that many readers of such documents do not know.
IdPair = Annotated[
    tuple[str, str],
    WithJsonSchema({"type": "array", "items": {"type": "string"}, "minItems": 2, "maxItems": 2}),
]
"""The id of a query, and that of its nearest photo."""


class EvaluationSummary(BaseModel):
    """An evaluation that runs in the background, or ran, without its report."""

    model_config = ConfigDict(extra="ignore", frozen=True)

    id: str
    status: Literal["running", "done", "failed", "cancelled"]
    mode: Literal["leave-one-out", "gallery"]
    started: AwareDatetime
    done: int = Field(0, description="Photos embedded so far.")
    total: int = Field(0, description="Photos in the set.")


class EvaluationRecord(EvaluationSummary):
    """An evaluation that runs in the background, or ran; it is kept as JSON and answered as it is."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    report: dict[str, Any] | None = None
    predictions: list[IdPair] | None = None
    problem: dict[str, Any] | None = None
    html: bool = Field(False, description="Whether its report is here as HTML, too: GET with Accept: text/html.")


Summary = TypeVar("Summary", bound=EvaluationSummary)


@dataclass(frozen=True, slots=True)
class Ended:
    """An evaluation that has ended: its last record, its report as HTML, and the error that ended it, if one did."""

    record: EvaluationRecord
    html: str | None = None
    error: Exception | None = None


@dataclass(frozen=True, slots=True)
class EvaluationInput:
    """A labelled set with everything that must be closed when the evaluation ends.

    `html` asks for a report for people, which calls the set by `name`.
    """

    photos: Sequence[Photo]
    skipped: list[Skipped]
    close: contextlib.ExitStack
    name: str = ""
    html: bool = False


class Evaluations:
    """Starts, records and answers for evaluations; `searching` says whether there are searches to yield to.

    Without a state directory, which replicas share, the records are in a temporary one of this process.
    """

    def __init__(self, state_dir: Path | None, metrics: Metrics, searching: Callable[[], bool] = lambda: False) -> None:
        self._searching = searching
        self._temporary = tempfile.TemporaryDirectory(prefix="carsearch-") if state_dir is None else None
        self._directory = Path(self._temporary.name if self._temporary else state_dir or "") / "evaluations"
        self._directory.mkdir(parents=True, exist_ok=True)
        self._clean()
        self._thread = started_threads("evaluate", 1)
        self._metrics = metrics
        self._stopping = False
        self._place = threading.Lock()

    @contextmanager
    def reserved(self) -> Iterator[None]:
        """Keeps the one place free for a request from before its body is read until `run` has begun its evaluation.

        Raises Overloaded while the place is taken. Whatever fails inside gives it back.
        """
        if not self._place.acquire(blocking=False):
            raise Overloaded("The server is busy with another evaluation; try again later.")
        try:
            yield
        except BaseException:
            self._place.release()
            raise

    async def run(self, record: EvaluationRecord, data: EvaluationInput, engine: Engine) -> "asyncio.Future[Ended]":
        """Begins an evaluation on one engine, whatever is swapped meanwhile; the future tells how it ended.

        It is called inside `reserved`; the place is free again when the future is done. A failure closes `data`.
        """
        try:
            await run_in_threadpool(self._write, record)
        except BaseException:
            data.close.close()
            raise
        running = asyncio.get_running_loop().run_in_executor(self._thread, self._work, record, data, engine)
        running.add_done_callback(lambda _: self._place.release())
        return running

    def _work(self, record: EvaluationRecord, data: EvaluationInput, engine: Engine) -> Ended:
        update: dict[str, object]
        html: str | None = None
        error: Exception | None = None
        with data.close:
            try:
                done, html = self._evaluate(record, data, engine)
                report, predictions = done.report.to_json(), done.predictions
                update = {"status": "done", "report": report, "predictions": predictions, "done": len(data.photos)}
            except EvaluationCancelled:
                update = {"status": "cancelled"}
            except Exception as problem:  # a worker's last resort: the client must get an answer
                error, code, detail = problem, "internal", "The server failed."
                if isinstance(problem, CarsearchError):
                    code, detail = problem.code, str(problem)
                else:
                    log.exception("evaluation %s failed", record.id)
                update = {"status": "failed", "problem": {"code": code, "detail": detail}}
            finished = record.model_copy(update=update)
            self._try_write(finished, html)
        self._metrics.evaluations.labels(finished.status).inc()
        return Ended(finished, html, error)

    def _evaluate(
        self, record: EvaluationRecord, data: EvaluationInput, engine: Engine
    ) -> tuple[Evaluation, str | None]:
        """An evaluation and, while the photos are still there, its report as HTML where that is asked for."""
        told, before = 0.0, 0

        def progress(done: int, total: int) -> None:
            nonlocal told, before
            self._metrics.evaluation_done.set(done)
            if done > before:  # scoring tells too, when all are embedded
                self._metrics.batch_photos.labels("evaluate").observe(done - before)
            before = done
            if self._stopping or self._marker(record.id).exists():
                raise EvaluationCancelled("The evaluation was cancelled.")
            self._let_searches_pass()
            if time.monotonic() - told >= RECORD_INTERVAL_S:
                told = time.monotonic()
                self._try_write(record.model_copy(update={"done": done, "total": total}))

        against, total = record.mode == "gallery", len(data.photos)
        with self._metrics.evaluating(total):
            found = evaluate(
                data.photos,
                engine.embedder,
                gallery=engine.served if against else None,
                skipped=data.skipped,
                progress=progress,
                details=data.html,
            )
            if not data.html:
                return found, None
            page = report_html(
                found,
                engine.embedder,
                Subject(data.name, record.started),
                original=(lambda identity: engine.original(engine.items.by_id(identity))) if against else None,
                before_step=lambda: progress(total, total),
            )
            return found, page

    def _let_searches_pass(self) -> None:
        """Between two batches an evaluation waits until nobody searches, but it is not stopped by a busy server."""
        patience = time.monotonic() + MAX_YIELD_S
        while self._searching() and not self._stopping and time.monotonic() < patience:
            time.sleep(0.001)

    def read(self, identity: str) -> EvaluationRecord:
        """The record of an evaluation of any replica; raises UnknownEvaluation."""
        if not IDENTITY.fullmatch(identity):
            raise UnknownEvaluation(UNKNOWN)
        record = _read(self._record(identity), EvaluationRecord)
        if record.status == "failed" and record.problem is None:
            detail = "The server that ran the evaluation ended; start it again."
            return record.model_copy(update={"problem": {"code": "internal", "detail": detail}})
        return record.model_copy(update={"html": self._page(identity).exists()})

    def read_html(self, identity: str) -> bytes | None:
        """The report of an evaluation of any replica as HTML, None where there is none; raises UnknownEvaluation."""
        if not self.read(identity).html:
            return None
        with contextlib.suppress(FileNotFoundError):  # removed since
            return self._page(identity).read_bytes()
        return None

    def summaries(self) -> list[EvaluationSummary]:
        """The evaluations of all replicas whose records are kept, newest first."""
        found = []
        for path in self._directory.glob("*.json"):
            with contextlib.suppress(UnknownEvaluation):  # another replica has just removed it
                found.append(_read(path, EvaluationSummary))
        return sorted(found, key=lambda summary: (summary.started, summary.id), reverse=True)

    def cancel(self, identity: str) -> EvaluationRecord:
        """Asks an evaluation to stop, whichever replica runs it; one that has ended stays as it is."""
        record = self.read(identity)
        if record.status == "running":
            self._marker(identity).touch()
        return record

    def close(self) -> None:
        """Stops what runs within one batch."""
        self._stopping = True
        self._thread.shutdown()
        if self._temporary:
            self._temporary.cleanup()

    def _record(self, identity: str) -> Path:
        return self._directory / f"{identity}.json"

    def _page(self, identity: str) -> Path:
        return self._directory / f"{identity}.html"

    def _marker(self, identity: str) -> Path:
        return self._directory / f"{identity}.cancel"

    def _write(self, record: EvaluationRecord, html: str | None = None) -> None:
        if html is not None:  # before the record, so that whoever sees it done finds its page
            _replace(self._page(record.id), html)
        _replace(self._record(record.id), record.model_dump_json(exclude={"html"}))
        if record.status != "running":
            self._clean()

    def _try_write(self, record: EvaluationRecord, html: str | None = None) -> None:
        try:
            self._write(record, html)
        except OSError:  # whoever waits for the report gets it, on a full disk too
            log.exception("the record of evaluation %s cannot be written", record.id)

    def _clean(self) -> None:
        """Removes all but the newest records and pages, and what killed processes left: half a record, a lone mark."""
        with contextlib.suppress(OSError):  # another replica is doing the same
            records, pages = (
                sorted(self._directory.glob(kind), key=lambda path: path.stat().st_mtime)
                for kind in ("*.json", "*.html")
            )
            for path in pages[:-KEPT_PAGES]:
                path.unlink(missing_ok=True)
            known, forgotten = {path.stem for path in records}, {path.stem for path in records[:-KEPT_RECORDS]}
            for path in self._directory.iterdir():
                left = path.stem not in known and time.time() - path.stat().st_mtime > LOST_S
                if path.stem in forgotten or left:
                    path.unlink(missing_ok=True)


def _replace(path: Path, text: str) -> None:
    temporary = path.with_suffix(f".{os.getpid()}.tmp")
    temporary.write_text(text, encoding="utf-8")
    temporary.replace(path)


def _read(path: Path, kind: type[Summary]) -> Summary:
    """A record; `failed` where its server has not written it for so long that it must have ended."""
    try:
        record, written = kind.model_validate_json(path.read_bytes()), path.stat().st_mtime
    except (FileNotFoundError, ValidationError) as problem:  # not valid: of another release
        raise UnknownEvaluation(UNKNOWN) from problem
    lost = record.status == "running" and time.time() - written > LOST_S
    return record.model_copy(update={"status": "failed"}) if lost else record


def new_record(mode: str, total: int) -> EvaluationRecord:
    """The record of an evaluation that is about to begin."""
    begun = {"id": uuid.uuid4().hex, "status": "running", "mode": mode, "started": datetime.now(UTC), "total": total}
    return EvaluationRecord.model_validate(begun)
