"""docker/kubernetes: rendered by the real kubectl, held to the API's schemas, to the server and to docs/deploy.md."""

import copy
import json
import os
import shlex
import subprocess
import sys
from pathlib import Path
from typing import Any

import kubernetes_validate
import pytest
from prometheus_client import generate_latest

from service.http.server import GRACE_S
from service.observability.metrics import Metrics
from service.settings import PREFIX, Settings
from tests.deploy.compose import ROOT
from tests.deploy.test_deploy_docs import DOCUMENT
from tests.e2e.test_readme import commands
from tests.support.yaml_loader import read_documents

Objects = dict[tuple[str, str], dict[str, Any]]
"""(kind, name) -> the object; a generated ConfigMap without its hash."""

MANIFESTS = ROOT / "docker" / "kubernetes"
KUBECTL = Path(sys.executable).parent / "kubectl"
SCHEMAS = ("1.29", "1.37")
OVERLAYS = ("base", "example")
NO_CLUSTER = "http://127.0.0.1:9"

pytestmark = pytest.mark.deploy


def kubectl(*words: str | Path, stdin: str = "") -> "subprocess.CompletedProcess[str]":
    """The real kubectl, which finds no cluster."""
    environment = {**os.environ, "KUBECONFIG": os.devnull}
    return subprocess.run(
        [KUBECTL, "--server", NO_CLUSTER, *words],
        cwd=ROOT, env=environment, input=stdin, capture_output=True, text=True, check=False,
    )  # fmt: skip


def rendered(overlay: str) -> Objects:
    """What `kubectl apply -k` would send."""
    done = kubectl("kustomize", MANIFESTS / overlay)
    assert (done.returncode, done.stderr) == (0, "")
    objects = read_documents(done.stdout)
    return {(one["kind"], one["metadata"]["name"].partition("-")[0]): one for one in objects}


@pytest.fixture(scope="module", params=OVERLAYS)
def objects(request: pytest.FixtureRequest) -> Objects:
    return rendered(request.param)


@pytest.fixture(scope="module")
def example() -> Objects:
    return rendered("example")


def pods(objects: Objects) -> dict[str, dict[str, Any]]:
    """The pods of the server and of the indexer."""
    job = objects["CronJob", "indexer"]["spec"]["jobTemplate"]["spec"]
    return {"search": objects["Deployment", "search"]["spec"]["template"]["spec"], "indexer": job["template"]["spec"]}


def mounts(pod: dict[str, Any]) -> dict[str, bool]:
    """Where volumes are mounted -> whether they can only be read."""
    return {one["mountPath"]: one.get("readOnly", False) for one in pod["containers"][0]["volumeMounts"]}


def settings(objects: Objects) -> dict[str, str]:
    found: dict[str, str] = objects["ConfigMap", "settings"]["data"]
    return found


@pytest.mark.parametrize("version", SCHEMAS)
def test_every_object_is_as_the_api_describes_it(objects: Objects, version: str) -> None:
    for (kind, _), one in objects.items():
        if kind != "ServiceMonitor":  # the Prometheus operator's
            kubernetes_validate.validate(one, version, strict=True)


@pytest.mark.parametrize(("name", "value"), [("replicaz", 2), ("replicas", "two")])
def test_a_copy_with_a_mistake_is_found(objects: Objects, name: str, value: object) -> None:
    """The negative control."""
    wrong = copy.deepcopy(objects["Deployment", "search"])
    wrong["spec"][name] = value
    with pytest.raises(kubernetes_validate.ValidationError):
        kubernetes_validate.validate(wrong, SCHEMAS[-1], strict=True)


def test_the_base_runs_without_the_prometheus_operator() -> None:
    kinds = {kind for kind, _ in rendered("base")}
    assert kinds.isdisjoint({"ServiceMonitor", "HorizontalPodAutoscaler"})
    assert rendered("base")["Deployment", "search"]["spec"]["replicas"] == 2


def test_pods_are_held_as_short_as_in_compose(objects: Objects) -> None:
    assert objects["Namespace", "carsearch"]["metadata"]["labels"]["pod-security.kubernetes.io/enforce"] == "restricted"
    for pod in pods(objects).values():
        assert pod["automountServiceAccountToken"] is False
        assert pod["securityContext"]["runAsNonRoot"] is True
        assert {pod["securityContext"][name] for name in ("runAsUser", "runAsGroup", "fsGroup")} == {10001}
        assert pod["securityContext"]["seccompProfile"] == {"type": "RuntimeDefault"}
        (container,) = pod["containers"]
        assert container["securityContext"] == {
            "allowPrivilegeEscalation": False,
            "readOnlyRootFilesystem": True,
            "capabilities": {"drop": ["ALL"]},
        }
        assert container["resources"]["limits"].keys() == {"cpu", "memory"}


def test_only_the_indexer_writes_the_index_and_nobody_the_photos(objects: Objects) -> None:
    found = {name: mounts(pod) for name, pod in pods(objects).items()}
    assert found["search"] == {
        **dict.fromkeys(("/index", "/gallery", "/keys"), True),
        **dict.fromkeys(("/state", "/cache", "/spool", "/tmp"), False),  # noqa: S108  # the container's
    }
    assert found["indexer"] == {"/index": False, "/gallery": True, "/tmp": False}  # noqa: S108
    claims = {name for kind, name in objects if kind == "PersistentVolumeClaim"}
    for pod in pods(objects).values():
        asked = {one["persistentVolumeClaim"]["claimName"] for one in pod["volumes"] if "persistentVolumeClaim" in one}
        assert asked <= claims
        assert {one["name"] for one in pod["volumes"]} == {one["name"] for one in pod["containers"][0]["volumeMounts"]}
    for name in claims:
        assert objects["PersistentVolumeClaim", name]["spec"]["accessModes"] == ["ReadWriteMany"]


def test_everything_that_selects_servers_selects_them(example: Objects) -> None:
    labels = example["Deployment", "search"]["spec"]["template"]["metadata"]["labels"]
    (spread,) = pods(example)["search"]["topologySpreadConstraints"]
    selectors = [
        example["Deployment", "search"]["spec"]["selector"]["matchLabels"],
        example["Service", "search"]["spec"]["selector"],
        example["PodDisruptionBudget", "search"]["spec"]["selector"]["matchLabels"],
        spread["labelSelector"]["matchLabels"],
    ]
    assert all(selector and selector.items() <= labels.items() for selector in selectors)
    job = example["CronJob", "indexer"]["spec"]["jobTemplate"]["spec"]["template"]["metadata"]["labels"]
    assert not any(selector.items() <= job.items() for selector in selectors)


def test_probes_and_prometheus_ask_the_server_s_port(example: Objects) -> None:
    (container,) = pods(example)["search"]["containers"]
    (port,) = container["ports"]
    assert (port["name"], port["containerPort"]) == ("http", 8000)
    asked = {name: container[f"{name}Probe"]["httpGet"] for name in ("startup", "liveness", "readiness")}
    assert {name: one["path"] for name, one in asked.items()} == {
        "startup": "/livez",
        "liveness": "/livez",
        "readiness": "/readyz",
    }
    assert {one["port"] for one in asked.values()} == {"http"}
    service = example["Service", "search"]
    (endpoint,) = example["ServiceMonitor", "search"]["spec"]["endpoints"]
    assert endpoint["port"] in {one["name"] for one in service["spec"]["ports"]}
    wanted = example["ServiceMonitor", "search"]["spec"]["selector"]["matchLabels"]
    assert wanted.items() <= service["metadata"]["labels"].items()


def test_servers_are_scaled_by_a_metric_that_they_have(example: Objects) -> None:
    scaled = example["HorizontalPodAutoscaler", "search"]["spec"]
    (metric,) = scaled["metrics"]
    assert f"\n{metric['pods']['metric']['name']} " in generate_latest(Metrics().registry).decode()
    target = scaled["scaleTargetRef"]
    assert "replicas" not in example[target["kind"], target["name"]]["spec"]  # each `apply` would set them


def test_a_server_has_time_to_drain_and_to_answer(objects: Objects) -> None:
    grace_s = pods(objects)["search"]["terminationGracePeriodSeconds"]
    assert grace_s > float(settings(objects)[f"{PREFIX}DRAIN_S"]) + GRACE_S


def test_settings_exist_and_reach_the_server(objects: Objects) -> None:
    values = {name.removeprefix(PREFIX).lower(): value for name, value in settings(objects).items()}
    assert values.keys() <= Settings.model_fields.keys()
    Settings(**values)  # type: ignore[arg-type]  # as text, as the environment has them
    (source,) = pods(objects)["search"]["containers"][0]["envFrom"]
    assert source["configMapRef"]["name"] == objects["ConfigMap", "settings"]["metadata"]["name"]


def lines_of_kubectl() -> list[str]:
    return [line for line in commands(DOCUMENT) if line.startswith("kubectl")]


def test_the_keys_that_the_document_makes_lie_where_the_example_looks(example: Objects, tmp_path: Path) -> None:
    (line,) = (line for line in lines_of_kubectl() if "create secret" in line)
    for name in ("carsearch.keys", "carsearch.links"):
        (tmp_path / name).write_text(name)
    words = shlex.split(line.replace("/srv/", f"{tmp_path}/"))
    made = json.loads(kubectl(*words[1:], "--dry-run=client", "-o", "json").stdout)
    volume = next(one for one in pods(example)["search"]["volumes"] if one["name"] == "keys")
    assert made["metadata"]["name"] == volume["secret"]["secretName"]
    looked_for = {settings(example)[f"{PREFIX}{name}"] for name in ("KEYS_FILE", "LINK_SECRET_FILE")}
    assert {f"/keys/{name}" for name in made["data"]} == looked_for


def test_the_way_back_is_the_indexer_s_job_with_another_command(example: Objects) -> None:
    (line,) = (line for line in lines_of_kubectl() if "--local" in line)
    job = {"apiVersion": "batch/v1", "kind": "Job", "metadata": {"name": "rollback"}}
    job |= {"spec": copy.deepcopy(example["CronJob", "indexer"]["spec"]["jobTemplate"]["spec"])}
    words = ["-" if word == "rollback.yml" else word for word in shlex.split(line.partition(" | ")[0])]
    done = kubectl(*words[1:], stdin=json.dumps(job))
    (patched,) = read_documents(done.stdout)
    (container,) = patched["spec"]["template"]["spec"]["containers"]
    assert container.pop("args") == ["versions", "rollback", "--index", "/index"]
    assert container.items() <= pods(example)["indexer"]["containers"][0].items()


def test_the_commands_of_the_document_lack_nothing_but_a_cluster(example: Objects, tmp_path: Path) -> None:
    for name in ("carsearch.keys", "carsearch.links"):
        (tmp_path / name).write_text(name)
    asked = [line for line in lines_of_kubectl() if "--local" not in line]
    assert len(asked) == 8
    for line in asked:
        words = shlex.split(line.replace("/srv/", f"{tmp_path}/").partition(" > ")[0])
        done = kubectl(*words[1:])
        assert "connection refused" in done.stderr, (line, done.stderr)
        for word in words:
            kind, _, name = word.removeprefix("--from=").partition("/")
            if kind in ("cronjob", "deployment") and name:
                assert name in {found for of, found in example if of.lower() == kind}
    wrong = kubectl("-n", "carsearch", "rollout", "staus", "deployment/search")
    assert "connection refused" not in wrong.stderr  # the negative control
