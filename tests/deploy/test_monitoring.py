"""The monitoring: its files fit each other and the server, and a real Prometheus can ask a real server all of it."""

import math
import re
import shutil
import subprocess
from collections.abc import Iterator
from dataclasses import dataclass
from itertools import combinations
from pathlib import Path
from typing import Any

import pytest
from fastapi.routing import APIRoute
from prometheus_client.parser import text_string_to_metric_families

from bench.serving import free_port
from indexer.versions import CURRENT_NAME, IndexDirectory
from service.http.routes import evaluate, gallery, ops, search
from tests.deploy.compose import ROOT
from tests.deploy.prometheus import (
    MONITORING,
    Asked,
    Prometheus,
    Sample,
    alerts,
    asked,
    dashboard,
    metrics_in,
    needs_prometheus,
    needs_promtool,
    panels,
    read,
    rules,
    running_prometheus,
)
from tests.support import calls
from tests.support.bad_requests import ADDRESSES, QUERIES, SECRET, UPLOADS
from tests.support.bodies import BOUNDARY
from tests.support.codes import STATUS_OF
from tests.support.photos import car_photo
from tests.support.servers import Server, running_server
from tests.support.yaml_loader import read_yaml

pytestmark = pytest.mark.deploy
SEARCHES = 7
MOST_SERIES = 500
"""What a replica may cost Prometheus when every address has been asked for in every wrong way."""

SERIES = re.compile(r"(\w+)\{(.*)\}|(\w+)")
ANSWERED = 'sum(carsearch_answers_total{job="search", route="/search", code="ok"})'
NOT_READY = "CarsearchReplicaNotReady"
OF_PROMETHEUS = {"job", "instance"}


def services() -> dict[str, Any]:
    told: dict[str, Any] = read_yaml(ROOT / "docker-compose.yml")["services"]
    return told


@pytest.fixture(scope="module")
def exposed(server: Server) -> dict[str, set[str]]:
    """The metrics that a server tells of, each with its labels."""
    server.client.get("/readyz")  # an answer that is counted, whichever test comes first
    families = text_string_to_metric_families(server.client.get("/metrics").text)
    return {sample.name: set(sample.labels) for family in families for sample in family.samples}


# --- The files -----------------------------------------------------------------------------------------------------


@needs_promtool
@pytest.mark.parametrize(
    "check", ["check config prometheus.yml", "check rules alerts.yml", "test rules alerts_test.yml"]
)
def test_promtool_accepts(check: str) -> None:
    done = subprocess.run(["promtool", *check.split()], cwd=MONITORING, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout + done.stderr
    assert "SUCCESS" in done.stdout


@pytest.mark.parametrize("alert", alerts(), ids=lambda alert: str(alert["alert"]))
def test_an_alert_says_what_to_do_and_is_shown_to_fire_and_not_to(alert: dict[str, Any]) -> None:
    assert alert["labels"].keys() == {"severity"}
    assert alert["labels"]["severity"] in {"critical", "warning"}
    assert alert["annotations"].keys() == {"summary", "description"}
    cases = [case for test in read("alerts_test.yml")["tests"] for case in test.get("alert_rule_test", [])]
    fires = {bool(case.get("exp_alerts")) for case in cases if case["alertname"] == alert["alert"]}
    assert fires == {True, False}


def test_the_series_that_alerts_are_tested_with_are_like_the_servers(exposed: dict[str, set[str]]) -> None:
    for series in {series["series"] for test in read("alerts_test.yml")["tests"] for series in test["input_series"]}:
        name, labels = re.fullmatch(r"(\w+)\{(.*)\}", series).groups()  # type: ignore[union-attr]  # or the test fails
        found = set(re.findall(r"(\w+)=", labels)) - OF_PROMETHEUS
        assert found == (set() if name == "up" else exposed[name]), series


@pytest.mark.parametrize("question", asked(), ids=lambda question: str(question.where))
def test_only_metrics_that_the_server_has_are_asked_for(question: Asked, exposed: dict[str, set[str]]) -> None:
    recorded = {rule["record"] for rule in rules() if "record" in rule}
    assert metrics_in(question.expr) <= exposed.keys() | recorded


def test_every_recorded_rule_is_used() -> None:
    used = set().union(*(metrics_in(question.expr) for question in asked()))
    assert {rule["record"] for rule in rules() if "record" in rule} <= used


def test_the_dashboards_panels_have_their_own_place_and_number() -> None:
    board = dashboard()["panels"]
    assert len({panel["id"] for panel in board}) == len(board)
    places = [panel["gridPos"] for panel in board]
    for place in places:
        assert min(place.values()) >= 0
        assert place["x"] + place["w"] <= 24
    for one, other in combinations(places, 2):
        beside = one["x"] + one["w"] <= other["x"] or other["x"] + other["w"] <= one["x"]
        assert beside or one["y"] + one["h"] <= other["y"] or other["y"] + other["h"] <= one["y"], (one, other)


def test_the_dashboards_rows_are_the_operators_questions() -> None:
    rows = [panel["title"] for panel in dashboard()["panels"] if panel["type"] == "row"]
    assert rows == ["Is it up?", "How fast?", "How full?", "What is it serving?", "What is it refusing?"]


@pytest.mark.parametrize("panel", panels(), ids=lambda panel: str(panel["title"]))
def test_a_panel_says_what_it_shows_and_asks_the_provisioned_source(panel: dict[str, Any]) -> None:
    (source,) = read("grafana/provisioning/datasources/prometheus.yml")["datasources"]
    assert panel["title"]
    assert re.fullmatch(r"[A-Z][^.]*(\.yml[^.]*)?\.", panel["description"]), "one sentence"
    assert panel["fieldConfig"]["defaults"]["unit"]
    targets = panel["targets"]
    assert len({target["refId"] for target in targets}) == len(targets) > 0
    for asking in (panel, *targets):
        assert asking["datasource"] == {"type": source["type"], "uid": source["uid"]}


def test_the_dashboards_variable_is_the_job_from_the_provisioned_source() -> None:
    (source,) = read("grafana/provisioning/datasources/prometheus.yml")["datasources"]
    (variable,) = dashboard()["templating"]["list"]
    assert (variable["name"], variable["datasource"]["uid"]) == ("job", source["uid"])
    exprs = [target["expr"] for panel in panels() for target in panel["targets"]]
    assert set(re.findall(r"\$\{?[a-z_]\w*", " ".join(exprs))) == {"$job"}


def test_the_files_name_what_compose_has() -> None:
    compose = services()
    (scrape,) = read("prometheus.yml")["scrape_configs"]
    (discovery,) = scrape["dns_sd_configs"]
    assert set(discovery["names"]) <= compose.keys()
    (source,) = read("grafana/provisioning/datasources/prometheus.yml")["datasources"]
    assert source["url"] == "http://prometheus:9090"
    mounted = dict(volume.split(":")[:2] for name in ("prometheus", "grafana") for volume in compose[name]["volumes"])
    (provider,) = read("grafana/provisioning/dashboards/carsearch.yml")["providers"]
    assert mounted["./docker/monitoring/grafana/dashboards"] == provider["options"]["path"]
    assert mounted["./docker/monitoring/grafana/provisioning"] == "/etc/grafana/provisioning"
    places = {Path(mounted[f"./docker/monitoring/{name}.yml"]) for name in ("prometheus", "alerts")}
    assert {place.parent for place in places} == {Path("/etc/prometheus")}


# --- A real Prometheus ---------------------------------------------------------------------------------------------


@dataclass
class Watched:
    """A server that a Prometheus scrapes, and the address of a replica that is not there."""

    server: Server
    index: IndexDirectory
    prometheus: Prometheus
    address: str
    gone: str

    def caught_up(self) -> None:
        """Waits until Prometheus has scraped what the server has answered until now."""
        told = calls.metric(self.server, 'carsearch_answers_total{code="ok",route="/metrics",status="200"}')
        expr = f'carsearch_answers_total{{instance="{self.address}", route="/metrics", code="ok"}}'
        calls.eventually(lambda: (self.prometheus.value(expr) or 0) > told, "Prometheus has scraped once more")


@pytest.fixture(scope="module")
def watched(tmp_path_factory: pytest.TempPathFactory, real_index: IndexDirectory, gallery: Path) -> Iterator[Watched]:
    """A server that has been searched, asked nonsense and evaluated while Prometheus looked on."""
    folder = tmp_path_factory.mktemp("watched")
    index = IndexDirectory(Path(shutil.copytree(real_index.root, folder / "index")))
    with running_server(index.root, folder / "server.log", DATASETS=f'{{"demo": "{gallery}"}}') as server:
        address, gone = server.url.removeprefix("http://"), f"127.0.0.1:{free_port()}"
        with running_prometheus(folder, [address, gone]) as prometheus:
            calls.eventually(lambda: prometheus.value(ANSWERED) == 0, "the server is scraped before it is asked")
            for shot in range(SEARCHES):
                calls.search(server, car_photo(1, shot))
            assert server.client.post("/search", params={"k": 0}, files={"file": car_photo()}).status_code == 422
            assert calls.evaluate_named(server, "demo").status_code == 200
            watching = Watched(server, index, prometheus, address, gone)
            watching.caught_up()
            calls.eventually(lambda: prometheus.value(ANSWERED) == SEARCHES, "what was sent is what was counted")
            yield watching


@needs_prometheus
@pytest.mark.parametrize("question", asked(), ids=lambda question: str(question.where))
def test_prometheus_can_answer(question: Asked, watched: Watched) -> None:
    prometheus = watched.prometheus
    if question.may_be_empty:
        prometheus.ask(question.expr)
    else:

        def has_data() -> bool:
            return any(not math.isnan(sample.value) for sample in prometheus.ask(question.expr))

        calls.eventually(has_data, f"{question.where} has data")


@needs_prometheus
@pytest.mark.parametrize(
    ("expr", "value"),
    [
        ('carsearch_gallery_photos{job="search"}', 12),
        ('carsearch_gallery_classes{job="search"}', 3),
        ('carsearch_queue_limit{job="search"}', 64),
        ('carsearch_queue_waiting{job="search"}', 0),
        ('carsearch_search_stage_seconds_count{job="search", stage="total"}', SEARCHES),
        ('carsearch_search_stage_seconds_count{job="search", stage="forward"}', SEARCHES),
        ('carsearch_request_seconds_count{job="search", route="/search"}', SEARCHES + 1),
        ('carsearch_answers_total{job="search", route="/search", code="invalid_k"}', 1),
        ('carsearch_batch_photos_sum{job="search", work="search"}', SEARCHES),
        ('carsearch_batch_photos_sum{job="search", work="evaluate"}', 12),
        ('carsearch_evaluations_total{job="search", status="done"}', 1),
        ('carsearch_index_swaps_total{job="search"}', 1),
        ('carsearch_index_info{job="search", runtime="openvino", precision="int8"}', 1),
    ],
)  # fmt: skip
def test_what_prometheus_has_is_what_was_done(expr: str, value: float, watched: Watched) -> None:
    # Asked until it is so: a scrape that took too long on a busy machine leaves a gap.
    calls.eventually(lambda: watched.prometheus.value(expr) == value, f"{expr} is {value}")


@needs_prometheus
def test_the_rules_run_and_only_the_replica_that_is_gone_is_told(watched: Watched) -> None:
    def ran() -> list[dict[str, Any]]:
        groups = watched.prometheus.get("rules")["groups"]
        return [rule for group in groups for rule in group["rules"]]

    calls.eventually(lambda: {rule["health"] for rule in ran()} == {"ok"}, "every rule has run without an error")
    # How fast a search is on a busy machine is not shown here.
    expr = 'ALERTS{alertname!="CarsearchSlow"}'
    expected = [(NOT_READY, watched.gone, "pending")]

    def told() -> list[tuple[str, str, str]]:
        found = (sample.labels for sample in watched.prometheus.ask(expr))
        return [(labels["alertname"], labels.get("instance", ""), labels["alertstate"]) for labels in found]

    calls.eventually(lambda: told() == expected, f"{expected} is told")


@needs_prometheus
def test_a_refused_index_version_is_told_until_it_is_taken_back(watched: Watched) -> None:
    prometheus, index = watched.prometheus, watched.index
    (alert,) = (alert for alert in alerts() if alert["alert"] == "CarsearchIndexRefused")
    good = index.current()
    (index.root / CURRENT_NAME).write_text("20990101T000000.000000Z-missing\n")
    try:
        calls.eventually(lambda: prometheus.value('carsearch_index_refused{job="search"}') == 1, "it is refused")
        told = [Sample({"job": "search"}, 1)]
        calls.eventually(lambda: prometheus.ask(alert["expr"]) == told, "the alert's expression gives it")
        pending = f'ALERTS{{alertname="{alert["alert"]}", alertstate="pending"}}'
        calls.eventually(lambda: prometheus.value(pending) == 1, "the alert begins")
        calls.eventually(lambda: prometheus.value('carsearch_ready{job="search"}') == 1, "the old version is served")
    finally:
        index.switch(good)
    calls.eventually(lambda: prometheus.value('carsearch_index_refused{job="search"}') == 0, "it is refused no more")
    assert prometheus.ask(alert["expr"]) == []
    calls.eventually(lambda: (prometheus.value('carsearch_index_refusals_total{job="search"}') or 0) >= 1, "it counts")


def series_of(prometheus: Prometheus) -> set[frozenset[tuple[str, str]]]:
    """Every series that the server has told of, by its labels; a scrape that a busy machine missed changes nothing."""
    expr = 'last_over_time({job="search", __name__=~"(carsearch|process)_.*"}[5m])'
    return {frozenset(sample.labels.items()) for sample in prometheus.ask(expr)}


@needs_prometheus
def test_nothing_that_clients_send_becomes_a_label(watched: Watched) -> None:
    server, prometheus = watched.server, watched.prometheus

    def series_after_nonsense(turn: int) -> set[frozenset[tuple[str, str]]]:
        for bad in (*UPLOADS, *QUERIES, *ADDRESSES):
            server.client.request(bad.method, bad.path, **bad.arguments)
        for number in range(100):
            made_up = f"{SECRET}-{turn}-{number}"
            server.client.get(f"/{made_up}/{made_up}", params={made_up: made_up}, headers={"X-Request-Id": made_up})
            server.client.get(f"/gallery/{made_up}/image")
        watched.caught_up()
        return series_of(prometheus)

    before = series_of(prometheus)
    after = series_after_nonsense(1)
    assert series_after_nonsense(2) == after
    parts = (route for part in (search, evaluate, gallery, ops) for route in part.router.routes)
    routes = {route.path for route in parts if isinstance(route, APIRoute)} | {"none"}
    for labels in map(dict, after - before):
        assert labels["__name__"].startswith(("carsearch_answers_", "carsearch_request_seconds_"))
        assert labels["route"] in routes
        if "code" in labels:
            assert STATUS_OF[labels["code"]] == int(labels["status"])
    assert len(after) < MOST_SERIES
    values = " ".join(value for labels in after for _, value in labels)
    assert not [word for word in (SECRET, BOUNDARY, "spaceship", "passwd", "REPORT") if word in values]
