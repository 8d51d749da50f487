"""The performance measurement, in small: every figure is there and plausible. No test asserts a time."""

import json
import subprocess
from pathlib import Path
from types import SimpleNamespace

import httpx
import pytest
from typer.testing import CliRunner

from bench.__main__ import app
from bench.bars import at_least, at_most
from bench.limit import Parts, Workload, core_ms, cores, per_second
from bench.performance import demo_photos
from bench.photos import write_distinct
from bench.serving import running_process
from bench.throughput import median_parts, module_command
from indexer.build import build_index
from indexer.versions import IndexDirectory
from model.dataset import read_items
from model.embedder import Embedder
from model.errors import CarsearchError
from model.images.decode import decode
from model.storage import sha256_file
from service.engine import Engine
from tests.support.photos import car_photo
from tests.unit.test_layout import ROOT


def parts(scale: float = 1.0) -> Parts:
    return Parts(read_ms=1 * scale, prepare_ms=2 * scale, forward_ms=3 * scale, search_ms=4 * scale, http_ms=5 * scale)


def test_the_limit_is_what_the_cores_allow_for_the_sum() -> None:
    assert parts().search_over_http_ms == 2 + 3 + 4 + 5
    assert parts().without_http_ms == 2 + 3 + 4
    assert parts().indexing_ms == 1 + 2 + 3
    assert per_second(4.0) == cores() * 250
    assert median_parts([parts(1), parts(5), parts(2)]) == parts(2)


def test_core_time_is_the_cpu_time_of_all_threads_for_each_value(monkeypatch: pytest.MonkeyPatch) -> None:
    cpu_s = iter([1.0, 1.5])
    clocks = SimpleNamespace(perf_counter=lambda: 0.0, process_time=lambda: next(cpu_s))
    monkeypatch.setattr("bench.limit.time", clocks)
    done: list[int] = []
    assert core_ms(done.append, [7, 8], seconds=0, threads=2) == 250
    assert sorted(done) == [7, 7, 8]  # the first of them is not counted


def test_the_limit_is_below_every_single_part(fake_index: IndexDirectory, gallery: Path) -> None:
    work = Workload(Engine.load(fake_index, runtime="fake"), sorted(gallery.rglob("*.jpg")))
    for measured in (work.at_capacity(0.05, http_ms=0.1), work.alone(0.05, http_ms=0.1)):
        single = (measured.read_ms, measured.prepare_ms, measured.forward_ms, measured.search_ms, measured.http_ms)
        assert all(part > 0 for part in single)
        assert per_second(measured.search_over_http_ms) < min(per_second(part) for part in single[1:])
    assert work.in_one_loop_ms(0.05) > 0


@pytest.mark.slow
@pytest.mark.torch
def test_the_naive_peer_finds_what_the_service_finds(real_model: Path, gallery: Path, tmp_path: Path) -> None:
    real_index = IndexDirectory(tmp_path / "index")
    build_index(gallery, real_index, Embedder.load(real_model, "openvino"))  # in fp32, as the peer is
    engine = Engine.load(real_index)
    version = real_index.path_of(engine.manifest.id)
    model = real_index.model_path(engine.manifest.model_sha256)
    command = module_command(["bench.peer", "--model", str(model), "--version", str(version)])
    with running_process(command, "/openapi.json", tmp_path / "log") as peer:
        for kind in range(3):
            photo = car_photo(kind, 9)
            answer = httpx.post(f"http://127.0.0.1:{peer.port}/search", files={"file": photo}, timeout=60).json()
            expected = engine.search(photo, 5)
            found = answer["results"]
            assert len(found) == len(expected) == 5
            assert (found[0]["id"], found[0]["class"]) == (expected[0].id, expected[0].label)
            assert found[0]["score"] == pytest.approx(expected[0].score, abs=1e-3)


def test_distinct_photos_differ_in_their_bytes_and_not_in_their_pixels(tmp_path: Path) -> None:
    sources = demo_photos()[:2]
    items = read_items(write_distinct(sources, 5, tmp_path)).items
    assert len({sha256_file(item.path) for item in items}) == 5
    pixels = {decode(item.read()).tobytes() for item in items}
    assert pixels == {decode(source.read_bytes()).tobytes() for source in sources}


def test_a_bar_is_kept_from_its_side_and_never_by_what_is_no_number() -> None:
    assert [at_least("a", value, 2, "", "").verdict for value in (1.99, 2.0, float("nan"))] == ["MISS", "PASS", "MISS"]
    assert [at_most("a", value, 2, "", "").verdict for value in (2.01, 2.0, float("nan"))] == ["MISS", "PASS", "MISS"]
    assert at_most("errors", 0, 0, "", "").kept
    assert (at_least("a", 1, 0.85, "", "").promise, at_most("a", 1, 3, " s", "").promise) == (">= 0.85", "<= 3 s")


def test_a_quick_run_writes_nothing_into_the_documents() -> None:
    result = CliRunner().invoke(app, ["performance", "--quick"])
    assert isinstance(result.exception, CarsearchError)
    assert "--out" in str(result.exception)


@pytest.mark.slow
@pytest.mark.torch
def test_a_quick_run_answers_every_bar_and_writes_all_of_it(tmp_path: Path) -> None:
    result = CliRunner().invoke(app, ["performance", "--quick", "--out", str(tmp_path)], env={"COLUMNS": "200"})
    assert result.exit_code == 0, result.output
    told = json.loads((tmp_path / "performance.json").read_text(), parse_constant=pytest.fail)
    assert len(told["bars"]) == 11
    assert {bar["verdict"] for bar in told["bars"]} <= {"PASS", "MISS"}
    figures = told["throughput"]["figures"]
    asked = {(one["server"], one["clients"]) for one in figures}
    assert {(server, clients) for server in ("service", "peer") for clients in (1, 8, 32)} < asked
    assert sum(one["offered_per_s"] is not None for one in figures) == 1
    assert all(one["errors"] == 0 for one in figures if one["server"] == "service")
    assert all(one["rate_per_s"] > 0 and one["p50_ms"] <= one["p95_ms"] for one in figures if one["server"] != "peer")
    assert told["throughput"]["limit_per_s"] > 0
    assert told["throughput"]["in_one_loop_ms"] > 0
    assert told["memory"]["requests"] >= 50
    assert told["memory"]["rest_bytes"] > 50_000_000
    assert told["memory"]["swap_peak_bytes"] >= told["memory"]["index_bytes"] > 500 * 512 * 4
    assert min(told["start"].values()) > 0
    assert (tmp_path / "performance.svg").read_text().lstrip().startswith("<?xml")
    document = (tmp_path / "performance.md").read_text()
    for said in ("](performance.svg)", "throughput at 32 clients / limit", "| peer | 32 clients |"):
        assert said in document
    for said in ("promises", "over HTTP", "one photo's parts", "peak of a swap"):
        assert said in result.output


def test_make_bench_is_a_command_that_there_is() -> None:
    done = subprocess.run(
        ["make", "--no-print-directory", "-n", "bench"], cwd=ROOT, capture_output=True, text=True, check=True
    )
    _, *module, command = done.stdout.splitlines()[-1].split()
    assert module == ["-m", "bench"]
    assert CliRunner().invoke(app, [command, "--help"]).exit_code == 0
