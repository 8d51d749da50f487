"""POST /evaluate: the command line's number over HTTP, and evaluations that are watched, cancelled, lost."""

import contextlib
import http.client
import json
import shutil
import signal
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import httpx
import pytest
from PIL import Image

from indexer.build import build_index
from indexer.versions import IndexDirectory
from model.embedder import Embedder
from tests.support.bodies import FORM, members_of, tar_of, zip_of
from tests.support.calls import assert_problem, evaluate, evaluate_named, eventually, metric, search
from tests.support.photos import KOREAN, car_photo, encoded, write_gallery, write_seed_table
from tests.support.servers import Server, run_cli, running_server

SLOW_PHOTOS = 192
CANCELLED = 'carsearch_evaluations_total{status="cancelled"}'


@pytest.fixture(scope="module")
def sets(tmp_path_factory: pytest.TempPathFactory, gallery: Path) -> dict[str, str]:
    """Settings: a small set, and one that takes some seconds because its photos are large."""
    slow = tmp_path_factory.mktemp("slow")
    (slow / "car 1").mkdir()
    large = encoded(Image.new("RGB", (2000, 2000), "red"), "PNG")
    for number in range(SLOW_PHOTOS):  # equal content would be decoded once
        (slow / "car 1" / f"{number}.png").write_bytes(large + str(number).encode())
    return {
        "DATASETS": json.dumps({"demo": str(gallery), "slow": str(slow)}),
        "STATE_DIR": str(tmp_path_factory.mktemp("state")),
    }


@pytest.fixture(scope="module")
def first(
    tmp_path_factory: pytest.TempPathFactory, real_index: IndexDirectory, sets: dict[str, str]
) -> Iterator[Server]:
    with running_server(real_index.root, tmp_path_factory.mktemp("first") / "log", wait_ready=True, **sets) as server:
        yield server


@pytest.fixture(scope="module")
def second(
    tmp_path_factory: pytest.TempPathFactory, real_index: IndexDirectory, sets: dict[str, str]
) -> Iterator[Server]:
    """Another replica: the same index and the same state."""
    with running_server(real_index.root, tmp_path_factory.mktemp("second") / "log", wait_ready=True, **sets) as server:
        yield server


def status_of(server: Server, location: str) -> str:
    status: str = server.client.get(location).json()["status"]
    return status


def begin_slow(server: Server, **query: Any) -> str:
    """Starts the slow evaluation in the background as soon as the one before is over; returns its address."""
    begun: list[httpx.Response] = []

    def accepted() -> bool:
        begun.append(evaluate_named(server, "slow", background=True, **query))
        return begun[-1].status_code == 202

    eventually(accepted, "the server takes another evaluation")
    location: str = begun[-1].headers["location"]
    return location


def cancel(server: Server, location: str) -> None:
    assert server.client.delete(location).status_code == 202
    eventually(lambda: status_of(server, location) == "cancelled", "the evaluation is cancelled")


def status_before_the_body(server: Server) -> int:
    """How the upload of an archive is answered of which not a byte has been sent."""
    address = urlsplit(server.url)
    with contextlib.closing(http.client.HTTPConnection(address.hostname or "", address.port, timeout=10)) as connection:
        connection.putrequest("POST", "/evaluate")
        for name, value in {**FORM, "Content-Length": str(1 << 28)}.items():
            connection.putheader(name, value)
        connection.endheaders()
        return connection.getresponse().status


def report_when_free(server: Server) -> dict[str, Any]:
    """The report on the small set, as soon as an evaluation that was running is over."""
    answers: list[httpx.Response] = []

    def answered() -> bool:
        answers.append(evaluate_named(server, "demo"))
        return answers[-1].status_code == 200

    eventually(answered, "the server is free for an evaluation")
    report: dict[str, Any] = answers[-1].json()
    return report


@pytest.mark.parametrize("pack", [zip_of, tar_of], ids=["zip", "tar"])
def test_the_seed_s_table_scores_three_of_four(
    pack: Callable[[dict[str, bytes]], bytes], server: Server, tmp_path: Path
) -> None:
    report = evaluate(server, pack(members_of(write_seed_table(tmp_path))), predictions=True).json()
    assert (report["top1"], report["correct"], report["total"]) == (0.75, 3, 4)
    assert sorted(report["predictions"]) == [
        ["cat/Image3.png", "cat/Image4.png"],
        ["cat/Image4.png", "cat/Image3.png"],
        ["dog/Image1.png", "dog/Image2.png"],
        ["dog/Image2.png", "cat/Image3.png"],
    ]


def test_the_command_line_and_every_kind_of_upload_give_one_report(
    server: Server, real_index: IndexDirectory, tmp_path: Path
) -> None:
    data = write_gallery(tmp_path / "set", classes=4, photos=3)
    (data / "car 1" / "broken.jpg").write_bytes(car_photo()[:700])
    (data / "labels.csv").write_text("in no class folder")
    (data / "single").mkdir()
    (data / "single" / "1.png").write_bytes(car_photo(9))
    printed = run_cli("evaluate", "--data", data, "--index", real_index.root, "--json")
    assert printed.returncode == 0, printed.stderr
    report = json.loads(printed.stdout)
    assert (report["total"], report["unanswerable"], len(report["skipped"])) == (13, ["single/1.png"], 2)
    archives = (zip_of(members_of(data)), tar_of(members_of(data)), zip_of(members_of(data, "val/")))
    for archive in archives:
        assert evaluate(server, archive).json() == report


def test_a_named_set_is_evaluated_where_it_lies(server: Server, gallery: Path) -> None:
    report = evaluate_named(server, "demo").json()
    assert report == evaluate(server, zip_of(members_of(gallery))).json()
    assert (report["mode"], report["total"], report["classes"]) == ("leave-one-out", 12, 3)
    assert KOREAN in [score["class"] for score in report["per_class"]]


def test_a_set_is_evaluated_against_the_gallery_that_is_served(server: Server, real_index: IndexDirectory) -> None:
    seen = evaluate_named(server, "demo", mode="gallery").json()
    assert (seen["top1"], seen["identical_in_gallery"], seen["versions"]["index"]) == (1.0, 12, real_index.current())
    unseen = zip_of({f"car {kind}/new.jpg": car_photo(kind, 77) for kind in (1, 2, 8)})
    report = evaluate(server, unseen, mode="gallery", predictions=True).json()
    assert (report["total"], report["identical_in_gallery"]) == (3, 0)
    assert report["unanswerable"] == ["car%208/new.jpg"]
    assert {nearest.split("/")[0] for _, nearest in report["predictions"][:2]} == {"car%201", "car%202"}


def test_an_evaluation_in_the_background_ends_with_the_same_report(first: Server) -> None:
    at_once = report_when_free(first)
    begun = evaluate_named(first, "demo", background=True)
    assert (begun.status_code, begun.headers["preference-applied"]) == (202, "respond-async")
    location = begun.headers["location"]
    assert location == f"/evaluations/{begun.json()['id']}"
    eventually(lambda: status_of(first, location) == "done", "the evaluation is done")
    record = first.client.get(location).json()
    assert record["report"] == at_once
    assert (record["done"], record["total"], len(record["predictions"])) == (12, 12, 12)
    assert first.client.delete(location).json()["status"] == "done"
    assert status_of(first, location) == "done"


def test_an_evaluation_that_fails_in_the_background_says_why(first: Server) -> None:
    report_when_free(first)
    begun = evaluate(first, zip_of({"a/1.jpg": car_photo()}), background=True)
    eventually(lambda: status_of(first, begun.headers["location"]) == "failed", "the evaluation has failed")
    assert first.client.get(begun.headers["location"]).json()["problem"]["code"] == "evaluation_set_invalid"


def test_while_one_evaluation_runs_searches_are_answered_and_another_evaluation_is_not(first: Server) -> None:
    location = begin_slow(first)
    assert search(first, car_photo(0, 0))["nearest"]["score"] > 0.999
    refused = evaluate_named(first, "demo")
    assert_problem(refused, "overloaded")
    assert status_before_the_body(first) == 429
    assert int(refused.headers["retry-after"]) >= 1
    eventually(lambda: first.client.get(location).json()["done"] > 0, "some photos are done")
    record = first.client.get(location).json()
    assert (record["status"], record["total"]) == ("running", SLOW_PHOTOS)
    cancel(first, location)
    assert first.client.get(location).json()["report"] is None


def test_153_a_client_that_does_not_wait_for_its_report_stops_the_evaluation(first: Server) -> None:
    report_when_free(first)
    cancelled = metric(first, CANCELLED)
    with pytest.raises(httpx.ReadTimeout):
        httpx.post(f"{first.url}/evaluate", json={"dataset": "slow"}, timeout=1)
    eventually(lambda: metric(first, CANCELLED) == cancelled + 1, "the evaluation is cancelled")
    assert report_when_free(first)["total"] == 12


def test_any_replica_answers_for_an_evaluation_and_cancels_it(first: Server, second: Server) -> None:
    location = begin_slow(first)
    assert status_of(second, location) == "running"
    assert evaluate_named(second, "demo").status_code == 200
    cancel(second, location)
    assert status_of(first, location) == "cancelled"


@pytest.mark.parametrize(("by", "status"), [(signal.SIGKILL, "failed"), (signal.SIGTERM, "cancelled")])
def test_an_evaluation_whose_server_ends_is_not_running_for_ever(
    by: signal.Signals, status: str, second: Server, real_index: IndexDirectory, sets: dict[str, str], tmp_path: Path
) -> None:
    with running_server(real_index.root, tmp_path / "log", wait_ready=True, **sets) as third:
        location = begin_slow(third)
        assert status_of(second, location) == "running"
        third.process.send_signal(by)
        third.process.wait()
    assert status_of(second, location) == status


def test_152_an_index_swapped_meanwhile_does_not_mix_into_a_report(
    real_index: IndexDirectory, sets: dict[str, str], real_embedder: Embedder, tmp_path: Path
) -> None:
    shutil.copytree(real_index.root, tmp_path / "index")
    index = IndexDirectory(tmp_path / "index")
    old = index.current()
    new = build_index(write_gallery(tmp_path / "new", first_kind=20), index, real_embedder).version
    index.rollback(old)
    with running_server(index.root, tmp_path / "log", wait_ready=True, **sets) as server:
        location = begin_slow(server, mode="gallery")
        index.switch(new)
        eventually(lambda: bool(server.client.get("/info").json()["versions"]["index"] == new), "the new index serves")
        assert status_of(server, location) == "running"
        eventually(lambda: status_of(server, location) == "done", "the evaluation is done")
        assert server.client.get(location).json()["report"]["versions"]["index"] == old
