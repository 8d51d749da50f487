"""What the monitoring's files say, and a real Prometheus that runs with them on a free loopback port.

Of the configuration only what a test has not is exchanged: the network's DNS, in whose stead each server has its
address and the name under which it would have been found, and the interval.
"""

import json
import os
import re
import shutil
import subprocess
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple

import httpx
import pytest

from bench.serving import free_port
from tests.deploy.compose import ROOT
from tests.support.servers import Server, stop, wait_for
from tests.support.yaml_loader import read_yaml

MONITORING = ROOT / "docker" / "monitoring"
DASHBOARD = MONITORING / "grafana" / "dashboards" / "carsearch.json"
INTERVAL = "1s"
NAME = re.compile(r"[a-zA-Z_:][a-zA-Z0-9_:]*")
TEXT = re.compile(r'"(?:[^"\\]|\\.)*"')
EVERY_JOB = ".*"
"""What the dashboard's one variable stands for when nothing is chosen."""

needs_promtool = pytest.mark.skipif(shutil.which("promtool") is None, reason="promtool is not installed")
needs_prometheus = pytest.mark.skipif(shutil.which("prometheus") is None, reason="prometheus is not installed")


class Asked(NamedTuple):
    """An expression of a panel or an alert, and whether it may have nothing to say on a server that is well."""

    where: str
    expr: str
    may_be_empty: bool


class Sample(NamedTuple):
    """One series of an answer."""

    labels: dict[str, str]
    value: float


def read(name: str) -> Any:
    """One of the monitoring's YAML files."""
    return read_yaml(MONITORING / name)


def rules() -> list[dict[str, Any]]:
    """Every rule of alerts.yml, recorded ones and alerts."""
    return [rule for group in read("alerts.yml")["groups"] for rule in group["rules"]]


def alerts() -> list[dict[str, Any]]:
    """The alerts of alerts.yml."""
    return [rule for rule in rules() if "alert" in rule]


def dashboard() -> dict[str, Any]:
    """The dashboard as Grafana reads it."""
    told: dict[str, Any] = json.loads(DASHBOARD.read_text(encoding="utf-8"))
    return told


def panels() -> list[dict[str, Any]]:
    """The dashboard's panels that show something: all but the rows."""
    return [panel for panel in dashboard()["panels"] if panel["type"] != "row"]


def asked() -> list[Asked]:
    """Every expression. A panel that may be empty says what it shows then (`noValue`); an alert should be."""
    of_panels = [
        Asked(
            f"{panel['title']} {target['refId']}",
            target["expr"].replace("$job", EVERY_JOB),
            "noValue" in panel["fieldConfig"]["defaults"],
        )
        for panel in panels()
        for target in panel["targets"]
    ]
    return of_panels + [
        Asked(str(rule.get("alert", rule.get("record"))), rule["expr"], "alert" in rule) for rule in rules()
    ]


def metrics_in(expr: str) -> set[str]:
    """The names of metrics and recorded rules in an expression; `up` and `ALERTS` are Prometheus's own."""
    return {
        name
        for name in NAME.findall(TEXT.sub('""', expr))
        if ":" in name or name.startswith(("carsearch_", "process_"))
    }


@dataclass
class Prometheus:
    """A running Prometheus."""

    process: "subprocess.Popen[bytes]"
    client: httpx.Client

    def get(self, path: str, **query: str) -> Any:
        """What an address of the API answers; an expression that is wrong fails here, with its reason."""
        answer = self.client.get(f"/api/v1/{path}", params=query).json()
        assert answer["status"] == "success", answer
        assert not answer.get("warnings"), answer
        return answer["data"]

    def ask(self, expr: str) -> list[Sample]:
        """The series that an expression gives now."""
        data = self.get("query", query=expr)
        if data["resultType"] == "scalar":
            return [Sample({}, float(data["result"][1]))]
        return [Sample(one["metric"], float(one["value"][1])) for one in data["result"]]

    def value(self, expr: str) -> float | None:
        """The value of an expression that gives one series or none."""
        samples = self.ask(expr)
        assert len(samples) <= 1, samples
        return samples[0].value if samples else None


def local_config(targets: Iterable[str]) -> dict[str, Any]:
    """prometheus.yml for servers at these addresses."""
    config: dict[str, Any] = read("prometheus.yml")
    config["global"] |= dict.fromkeys(("scrape_interval", "scrape_timeout", "evaluation_interval"), INTERVAL)
    config["rule_files"] = [str(MONITORING / name) for name in config["rule_files"]]
    (scrape,) = config["scrape_configs"]
    (discovery,) = scrape.pop("dns_sd_configs")
    found_as = {"__meta_dns_name": discovery["names"][0]}
    scrape["static_configs"] = [{"targets": list(targets), "labels": found_as}]
    return config


@contextmanager
def running_prometheus(folder: Path, targets: Sequence[str]) -> Iterator[Prometheus]:
    """Starts Prometheus on servers at these addresses, waits until it answers, and ends it by its pid."""
    config, log_path, url = folder / "prometheus.yml", folder / "prometheus.log", f"127.0.0.1:{free_port()}"
    config.write_text(json.dumps(local_config(targets)), encoding="utf-8")  # JSON is YAML
    command = ["prometheus", f"--config.file={config}", f"--storage.tsdb.path={folder / 'data'}"]
    command += [f"--web.listen-address={url}", "--log.level=warn"]
    with log_path.open("wb") as log:
        process = subprocess.Popen(command, stdout=log, stderr=log, env={**os.environ, "GOMAXPROCS": "1"})
    try:
        with httpx.Client(base_url=f"http://{url}", timeout=30) as client:
            wait_for(Server(str(client.base_url), process, log_path, client), "/-/ready")
            yield Prometheus(process, client)
    finally:
        stop(process)
