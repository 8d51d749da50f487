"""HTTP, the command line and the library give the same answers."""

import json
from collections.abc import Callable
from dataclasses import astuple
from pathlib import Path
from typing import Any

from indexer.versions import IndexDirectory
from service.engine import Engine
from tests.conftest import Printed
from tests.support.bodies import members_of, tar_of, zip_of
from tests.support.calls import evaluate, search
from tests.support.photos import KOREAN, car_photo, write_gallery
from tests.support.servers import Server


def hits_of(answer: dict[str, Any]) -> list[tuple[Any, ...]]:
    return [(hit["rank"], hit["id"], hit["class"], hit["score"], hit["metadata"]) for hit in answer["results"]]


def test_http_command_line_and_library_find_the_same_with_the_same_scores(
    server: Server, real_index: IndexDirectory, tmp_path: Path, carsearch: Callable[..., Printed]
) -> None:
    photo = tmp_path / "photo.jpg"
    photo.write_bytes(car_photo(1, 50))
    over_http = search(server, photo.read_bytes(), k=12)
    asked = ("search", photo, "-k", "12")
    printed = carsearch(*asked, "--json", "--index", real_index.root)
    assert printed.returncode == 0, printed.stderr
    answer = json.loads(printed.stdout)
    assert hits_of(answer) == hits_of(over_http)
    assert answer["nearest"] == answer["results"][0]
    assert answer["versions"] == over_http["versions"]
    engine = Engine.load(real_index)
    hits = engine.search(photo.read_bytes(), 12)
    assert [astuple(hit) for hit in hits] == hits_of(over_http)
    decision = engine.decide(photo)
    assert decision is not None
    assert answer["decision"] == over_http["decision"]
    assert answer["decision"] == {
        "outcome": answer["decision"]["outcome"],
        "class": decision.label,
        "probability": round(decision.probability, 4),
        "agreement": round(decision.agreement, 4),
        "car_probability": round(decision.car_probability or 0, 4),
    }
    for shown in ((), ("--json",), ("--out", "-"), ("--class", KOREAN, "--json")):
        here, there = (
            carsearch(*asked, *shown, *where) for where in (("--index", real_index.root), ("--url", server.url))
        )
        assert (here.returncode, here.stdout, here.stderr) == (there.returncode, there.stdout, there.stderr)


def test_the_command_line_indexes_a_spreadsheet_and_filters_by_its_columns(
    gallery: Path, tmp_path: Path, shipped_model: Path, carsearch: Callable[..., Printed]
) -> None:
    photo = tmp_path / "photo.jpg"
    photo.write_bytes(car_photo(1, 50))
    rows = "".join(f"{gallery}/car {kind}/{shot}.jpg;car {kind};{100 * shot}\n" for kind in (1, 2) for shot in range(4))
    (tmp_path / "cars.csv").write_text(f"sep=;\nFile;Label;Price\n{rows}")
    built = carsearch("index", tmp_path / "cars.csv", "--index", tmp_path / "index", "--model", shipped_model)
    assert "\nmetadata: price (number)\n" in built.stdout, built.stderr
    asked = ("search", photo, "--index", tmp_path / "index", "-k", "8", "--where", "price >= 200 and price < 300")
    printed = carsearch(*asked)
    assert (printed.returncode, printed.stdout.count("price 200")) == (0, 2), printed.stderr
    hits = json.loads(carsearch(*asked, "--json").stdout)["results"]
    assert [(hit["class"], hit["metadata"]) for hit in hits] == [("car 1", {"price": 200}), ("car 2", {"price": 200})]
    refused = carsearch(*asked[:-1], "prize < 5")
    assert (refused.returncode, "did you mean price?" in refused.stderr) == (1, True)


def test_the_command_line_prints_a_table_for_people(
    real_index: IndexDirectory, tmp_path: Path, carsearch: Callable[..., Printed]
) -> None:
    photo = tmp_path / "photo.jpg"
    photo.write_bytes(car_photo(0, 0))
    printed = carsearch("search", photo, "--index", real_index.root, "-k", "1", "--class", KOREAN)
    assert printed.returncode == 0, printed.stderr
    assert KOREAN in printed.stdout
    assert f"{KOREAN}/0.jpg" in printed.stdout


def test_the_command_line_and_every_kind_of_upload_give_one_report(
    server: Server, real_index: IndexDirectory, tmp_path: Path, carsearch: Callable[..., Printed]
) -> None:
    data = write_gallery(tmp_path / "set", classes=4, photos=3)
    (data / "car 1" / "broken.jpg").write_bytes(car_photo()[:700])
    (data / "labels.csv").write_text("in no class folder")
    (data / "single").mkdir()
    (data / "single" / "1.png").write_bytes(car_photo(9))
    printed = carsearch("evaluate", "--data", data, "--index", real_index.root, "--json")
    assert printed.returncode == 0, printed.stderr
    report = json.loads(printed.stdout)
    assert (report["total"], report["unanswerable"], len(report["skipped"])) == (13, ["single/1.png"], 1)
    archives = (zip_of(members_of(data)), tar_of(members_of(data)), zip_of(members_of(data, "val/")))
    for archive in archives:
        assert evaluate(server, archive).json() == report
