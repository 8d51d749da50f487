"""POST /evaluate: reports over HTTP, and evaluations that are watched, cancelled, lost."""

import os
import shutil
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import httpx
import pytest

from indexer.build import build_index
from indexer.versions import IndexDirectory
from model.embedder import Embedder
from model.runtimes.fake import FakeRuntime
from service.jobs import LOST_S
from tests.api.conftest import Gate
from tests.support.app import AppClient, running_app
from tests.support.bodies import FORM, form, members_of, tar_of, zip_of
from tests.support.calls import assert_problem, evaluate, evaluate_named, eventually, metric, search
from tests.support.photos import KOREAN, car_photo, write_gallery, write_seed_table

CANCELLED = 'carsearch_evaluations_total{status="cancelled"}'


@pytest.fixture(scope="module")
def settings(tmp_path_factory: pytest.TempPathFactory, gallery: Path) -> dict[str, Any]:
    """A small set, one whose first batch is held up by the gate, and a directory for records."""
    slow: Path = tmp_path_factory.mktemp("slow")
    (slow / "car 1").mkdir()
    for number in range(2 * FakeRuntime.batch):  # equal content would be decoded once
        (slow / "car 1" / f"{number:03}.png").write_bytes(Gate.photo + str(number).encode())
    return {"datasets": {"demo": gallery, "slow": slow}, "state_dir": tmp_path_factory.mktemp("state")}


@pytest.fixture(scope="module")
def first(fake_index: IndexDirectory, settings: dict[str, Any]) -> Iterator[AppClient]:
    with running_app(fake_index.root, **settings) as client:
        yield client


@pytest.fixture(scope="module")
def second(fake_index: IndexDirectory, settings: dict[str, Any]) -> Iterator[AppClient]:
    """Another replica: the same index and the same state."""
    with running_app(fake_index.root, **settings) as client:
        yield client


def status_of(client: AppClient, location: str) -> str:
    status: str = client.get(location).json()["status"]
    return status


def when_free(ask: Callable[[], httpx.Response]) -> httpx.Response:
    """The answer of a server that has finished the evaluation before, which it does soon after it has recorded it."""
    answers: list[httpx.Response] = []

    def answered() -> bool:
        answers.append(ask())
        return answers[-1].status_code != 429

    eventually(answered, "the server takes another evaluation")
    return answers[-1]


def begin_slow(client: AppClient, gate: Gate, **query: Any) -> str:
    """Starts the slow evaluation in the background; returns its address when it is held up."""
    begun = when_free(lambda: evaluate_named(client, "slow", background=True, **query))
    assert begun.status_code == 202, begun.text
    gate.wait_until_entered()
    location: str = begun.headers["location"]
    return location


def cancel(client: AppClient, location: str, gate: Gate) -> None:
    assert client.delete(location).status_code == 202
    gate.open()
    eventually(lambda: status_of(client, location) == "cancelled", "the evaluation is cancelled")


@pytest.mark.parametrize("pack", [zip_of, tar_of], ids=["zip", "tar"])
def test_the_original_project_s_table_scores_three_of_four(
    pack: Callable[[dict[str, bytes]], bytes], api_client: AppClient, tmp_path: Path
) -> None:
    report = evaluate(api_client, pack(members_of(write_seed_table(tmp_path))), predictions=True).json()
    assert (report["top1"], report["correct"], report["total"]) == (0.75, 3, 4)
    assert sorted(report["predictions"]) == [
        ["cat/Image3.png", "cat/Image4.png"],
        ["cat/Image4.png", "cat/Image3.png"],
        ["dog/Image1.png", "dog/Image2.png"],
        ["dog/Image2.png", "cat/Image3.png"],
    ]


def test_a_named_set_is_evaluated_where_it_lies(api_client: AppClient, gallery: Path) -> None:
    report = evaluate_named(api_client, "demo").json()
    assert report == evaluate(api_client, zip_of(members_of(gallery))).json()
    assert (report["mode"], report["total"], report["classes"]) == ("leave-one-out", 12, 3)
    assert KOREAN in [score["class"] for score in report["per_class"]]


def test_a_set_is_evaluated_against_the_gallery_that_is_served(
    api_client: AppClient, fake_index: IndexDirectory
) -> None:
    seen = evaluate_named(api_client, "demo", mode="gallery").json()
    assert (seen["top1"], seen["identical_in_gallery"], seen["versions"]["index"]) == (1.0, 12, fake_index.current())
    unseen = zip_of({f"car {kind}/new.jpg": car_photo(kind, 77) for kind in (1, 2, 8)})
    report = evaluate(api_client, unseen, mode="gallery", predictions=True).json()
    assert (report["total"], report["identical_in_gallery"]) == (3, 0)
    assert report["unanswerable"] == ["car 8/new.jpg"]
    assert {nearest.split("/")[0] for _, nearest in report["predictions"][:2]} == {"car 1", "car 2"}


def test_an_uploaded_archive_leaves_nothing_on_the_disk(
    fake_index: IndexDirectory, gallery: Path, tmp_path: Path
) -> None:
    spool = tmp_path / "spool"
    spool.mkdir()
    with running_app(fake_index.root, spool_dir=spool) as client:
        for archive, status in ((zip_of(members_of(gallery)), 200), (b"rubbish", 415)):
            assert evaluate(client, archive).status_code == status
            assert list(spool.iterdir()) == []


def test_an_evaluation_in_the_background_ends_with_the_same_report(first: AppClient) -> None:
    at_once = when_free(lambda: evaluate_named(first, "demo")).json()
    begun = evaluate_named(first, "demo", background=True)
    assert (begun.status_code, begun.headers["preference-applied"]) == (202, "respond-async")
    location = begun.headers["location"]
    assert location == f"/evaluations/{begun.json()['id']}"
    eventually(lambda: status_of(first, location) == "done", "the evaluation is done")
    record = first.get(location).json()
    assert record["report"] == at_once
    assert (record["done"], record["total"], len(record["predictions"])) == (12, 12, 12)
    assert first.delete(location).json()["status"] == "done"
    assert status_of(first, location) == "done"


def test_an_evaluation_that_fails_in_the_background_says_why(first: AppClient) -> None:
    begun = when_free(lambda: evaluate(first, zip_of({"a/1.jpg": car_photo()}), background=True))
    eventually(lambda: status_of(first, begun.headers["location"]) == "failed", "the evaluation has failed")
    assert first.get(begun.headers["location"]).json()["problem"]["code"] == "evaluation_set_invalid"


def test_while_one_evaluation_runs_searches_are_answered_and_another_evaluation_is_not(
    first: AppClient, gate: Gate
) -> None:
    location = begin_slow(first, gate)
    assert search(first, car_photo(0, 0))["nearest"]["score"] > 0.999
    refused = evaluate_named(first, "demo")
    assert_problem(refused, "overloaded")
    assert int(refused.headers["retry-after"]) == 1
    upload = first.exchange("POST", "/evaluate", {**FORM, "Content-Length": str(1 << 28)})
    assert (upload.answer().status_code, upload.read_bytes) == (429, 0)  # before the body
    record = first.get(location).json()
    assert (record["status"], record["total"]) == ("running", 2 * FakeRuntime.batch)
    assert metric(first, "carsearch_evaluation_running") == 1
    cancel(first, location, gate)
    assert first.get(location).json()["report"] is None
    assert when_free(lambda: evaluate_named(first, "demo")).status_code == 200


def test_153_a_client_that_does_not_wait_for_its_report_stops_the_evaluation(
    first: AppClient, settings: dict[str, Any], gate: Gate
) -> None:
    def marks() -> set[Path]:
        return set((settings["state_dir"] / "evaluations").glob("*.cancel"))

    when_free(lambda: evaluate_named(first, "demo"))
    cancelled, before = metric(first, CANCELLED), marks()
    asking = first.exchange("POST", "/evaluate", {"Content-Type": "application/json"})
    asking.send(b'{"dataset": "slow"}')
    gate.wait_until_entered()
    asking.leave()
    eventually(lambda: marks() > before, "it is to be cancelled")
    gate.open()
    assert asking.answer().status_code == 400
    assert metric(first, CANCELLED) == cancelled + 1
    assert evaluate_named(first, "demo").json()["total"] == 12


def test_any_replica_answers_for_an_evaluation_and_cancels_it(first: AppClient, second: AppClient, gate: Gate) -> None:
    location = begin_slow(first, gate)
    assert status_of(second, location) == "running"
    assert when_free(lambda: evaluate_named(second, "demo")).status_code == 200
    cancel(second, location, gate)
    assert status_of(first, location) == "cancelled"


def test_evaluations_are_listed_newest_first_by_any_replica(first: AppClient, second: AppClient) -> None:
    def evaluated() -> dict[str, Any]:
        begun = when_free(lambda: evaluate_named(first, "demo", background=True))
        eventually(lambda: status_of(first, begun.headers["location"]) == "done", "the evaluation is done")
        record: dict[str, Any] = begun.json()
        return record

    begun = [evaluated(), evaluated()]
    listed = second.get("/evaluations").json()["evaluations"]
    newest = {"id": begun[1]["id"], "status": "done", "mode": "leave-one-out", "done": 12, "total": 12}
    assert listed[0] == {**newest, "started": begun[1]["started"]}
    assert listed[1]["id"] == begun[0]["id"]
    assert [one["started"] for one in listed] == sorted((one["started"] for one in listed), reverse=True)


def test_an_evaluation_whose_server_was_killed_is_not_running_for_ever(
    first: AppClient, settings: dict[str, Any], gate: Gate
) -> None:
    location = begin_slow(first, gate)
    record: Path = settings["state_dir"] / f"{location[1:]}.json"
    orphan = record.with_name(f"{'0' * 32}.json")
    orphan.write_text(record.read_text().replace(record.stem, orphan.stem))
    assert status_of(first, f"/evaluations/{orphan.stem}") == "running"
    os.utime(orphan, (time.time() - 2 * LOST_S,) * 2)
    assert status_of(first, f"/evaluations/{orphan.stem}") == "failed"
    cancel(first, location, gate)


def test_152_an_index_swapped_meanwhile_does_not_mix_into_a_report(
    fake_index: IndexDirectory, settings: dict[str, Any], fake_embedder: Embedder, tmp_path: Path, gate: Gate
) -> None:
    shutil.copytree(fake_index.root, tmp_path / "index")
    index = IndexDirectory(tmp_path / "index")
    old = index.current()
    with running_app(index.root, **settings) as client:
        location = begin_slow(client, gate, mode="gallery")
        photos = write_gallery(tmp_path / "new", first_kind=20)
        new = build_index(photos, index, fake_embedder).version
        eventually(lambda: bool(client.get("/info").json()["versions"]["index"] == new), "the new index serves")
        assert status_of(client, location) == "running"
        gate.open()
        eventually(lambda: status_of(client, location) == "done", "the evaluation is done")
        assert client.get(location).json()["report"]["versions"]["index"] == old


def test_the_depth_of_the_classes_and_a_manifest_are_honoured(api_client: AppClient) -> None:
    photos = {
        f"{split}/car {kind}/{split}.jpg": car_photo(kind, len(split)) for split in ("train", "val") for kind in (1, 2)
    }
    refused = api_client.post("/evaluate", files={"archive": zip_of(photos)})
    assert (refused.status_code, refused.json()["code"]) == (422, "evaluation_set_invalid")
    assert refused.json()["detail"].endswith(
        "like classes: train, val. Say at which depth the classes are (class depth 2, for example)."
    )
    assert evaluate(api_client, zip_of(photos), class_depth=2).json()["classes"] == 2
    table = "path,class\n" + "".join(f"{name},{name.split('/')[1]}\n" for name in photos)
    report = evaluate(api_client, zip_of({"set.csv": table.encode(), **photos})).json()
    assert (report["classes"], report["total"]) == (2, 4)


def test_an_evaluation_that_was_cancelled_while_its_archive_was_read_does_not_begin(first: AppClient) -> None:
    def known() -> list[str]:
        return [one["id"] for one in first.get("/evaluations").json()["evaluations"]]

    photos = {f"car {kind}/{shot}.jpg": car_photo(kind, shot) for kind in (1, 2) for shot in range(2)}
    body, before = form(zip_of(photos), "archive"), known()
    sent = first.gone("POST", "/evaluate", body, {**FORM, "Prefer": "respond-async"})
    assert sent[0]["status"] == 400
    assert known() == before
    assert when_free(lambda: evaluate(first, zip_of(photos))).json()["total"] == 4
