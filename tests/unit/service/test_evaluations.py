"""Evaluations in the background: the one place, and what a full disk does to a report."""

import asyncio
import contextlib
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from types import SimpleNamespace
from typing import Any, cast

import pytest

from model.embedder import Embedder
from service.engine import Engine
from service.http.errors import Overloaded
from service.jobs import EvaluationInput, Evaluations, new_record
from service.observability.metrics import Metrics
from service.settings import load_settings
from tests.support.photos import car_photo


@dataclass(frozen=True)
class WatchedPhoto:
    """A photo that tells when it is read."""

    id: str
    label: str
    when_read: Callable[[], Any]

    def read(self) -> bytes:
        self.when_read()
        return car_photo()


def test_a_report_reaches_its_client_although_it_cannot_be_recorded(tmp_path: Path, fake_embedder: Embedder) -> None:
    evaluations = Evaluations(load_settings(state_dir=tmp_path), Metrics())

    def lose_the_records() -> None:
        with contextlib.suppress(FileNotFoundError):
            (tmp_path / "evaluations").rename(tmp_path / "lost")

    photos = [WatchedPhoto(name, name[0], lose_the_records) for name in ("a/1", "a/2", "b/1")]
    data = EvaluationInput(photos, [], contextlib.ExitStack())
    engine = cast(Engine, SimpleNamespace(embedder=fake_embedder, served=None))

    async def scenario() -> None:
        with evaluations.reserved():
            running = await evaluations.run(new_record("leave-one-out", 3), data, engine)
        record = await running
        assert (record.status, record.report and record.report["total"]) == ("done", 3)
        with evaluations.reserved():
            pass

    asyncio.run(scenario())
    evaluations.close()


def test_the_one_place_is_given_back_by_whatever_fails(tmp_path: Path) -> None:
    evaluations = Evaluations(load_settings(state_dir=tmp_path), Metrics())

    def fail_in_the_place() -> None:
        with evaluations.reserved():
            with pytest.raises(Overloaded), evaluations.reserved():
                pass
            raise ConnectionResetError

    for _ in range(2):
        with pytest.raises(ConnectionResetError):
            fail_in_the_place()
    evaluations.close()
