"""docker-compose.yml, as a real implementation reads it: every profile, the rules for every service, every knob."""

import os
import re
import shutil
import subprocess
from itertools import groupby
from pathlib import Path
from typing import Any

import pytest
import yaml  # type: ignore[import-untyped]

from service.http.server import GRACE_S
from service.settings import PREFIX, Settings
from tests.deploy.nginx import ROOT, TEMPLATES

BASE, TLS, KEYS = "docker-compose.yml", "docker/tls.yml", "docker/keys.yml"
OVERLAYS = {TLS: "TLS_DIR", KEYS: "API_KEYS"}
PROFILES = {
    "gpu": {"init-gpu", "search-gpu"},
    "index": {"indexer"},
    "index-gpu": {"indexer-gpu"},
    "train": {"trainer"},
    "monitoring": {"prometheus", "grafana"},
}
ALWAYS = {"init", "search", "proxy"}
SERVICES = ALWAYS.union(*PROFILES.values())
OURS = {"init", "init-gpu", "search", "search-gpu", "indexer", "indexer-gpu", "trainer"}
JOBS = {"init", "init-gpu", "indexer", "indexer-gpu", "trainer"}
PUBLISHED = {"proxy": "0.0.0.0:8000:8080", "prometheus": "127.0.0.1:9090:9090", "grafana": "127.0.0.1:3000:3000"}
PLACES = {"INDEX_DIR": "/index", "STATE_DIR": "/state", "CACHE_DIR": "/cache", "SPOOL_DIR": "/spool"}
OF_COMPOSE = {"COMPOSE_PROJECT_NAME", "COMPOSE_PROFILES", "COMPOSE_FILE"}
USED = re.compile(r"(?<!\$)\$\{(\w+)(?::([-?])([^}]*))?\}")
KNOB = re.compile(r"^#([A-Z_]+)=(.*)$", re.MULTILINE)

pytestmark = pytest.mark.skipif(shutil.which("docker-compose") is None, reason="docker-compose is not installed")


def compose(*arguments: str, **variables: str) -> "subprocess.CompletedProcess[str]":
    """Runs docker-compose in the repository with nobody's variables but these; the example has none."""
    known = {name for name, _, _ in used()} | OF_COMPOSE
    environment = {
        name: value for name, value in os.environ.items() if name not in known and not name.startswith(PREFIX)
    }
    command = ["docker-compose", "--env-file", ".env.example", *arguments]
    return subprocess.run(
        command, cwd=ROOT, env={**environment, **variables}, capture_output=True, text=True, timeout=60, check=False
    )


def config(*arguments: str, **variables: str) -> dict[str, Any]:
    """The configuration as docker-compose understands it."""
    done = compose(*arguments, "config", **variables)
    assert done.returncode == 0, done.stderr
    read: dict[str, Any] = yaml.safe_load(done.stdout)
    return read


def used() -> list[tuple[str, str, str]]:
    """Every variable of the compose files: name, "-" or "?", and its default or message. Comments do not count."""
    texts = [(ROOT / name).read_text(encoding="utf-8") for name in (BASE, *OVERLAYS)]
    lines = [line for text in texts for line in text.splitlines() if not line.lstrip().startswith("#")]
    return [found for line in lines for found in USED.findall(line)]


@pytest.fixture(scope="module")
def services() -> dict[str, Any]:
    """All services, with every default."""
    found: dict[str, Any] = config()["services"]
    return found


def seconds(duration: str) -> int:
    """docker-compose's way of writing a time."""
    return sum(
        int(number) * {"h": 3600, "m": 60, "s": 1}[unit] for number, unit in re.findall(r"(\d+)([hms])", duration)
    )


@pytest.mark.parametrize("chosen", [(), *((name,) for name in PROFILES), tuple(PROFILES)])
def test_every_profile_validates(chosen: tuple[str, ...]) -> None:
    done = compose(*(word for name in chosen for word in ("--profile", name)), "config", "--quiet")
    assert (done.returncode, done.stderr) == (0, "")


def test_a_service_waits_only_for_those_that_start_with_it(services: dict[str, Any]) -> None:
    for service in services.values():  # docker-compose 1.29 validates all profiles at once, so it does not notice
        for name in service.get("depends_on", {}):
            assert services[name].get("profiles") in (None, service.get("profiles"))


def test_each_service_is_in_the_profile_that_the_documents_name(services: dict[str, Any]) -> None:
    assert set(services) == SERVICES
    by_profile = {
        name: {found for found in services if name in services[found].get("profiles", [])} for name in PROFILES
    }
    assert by_profile == PROFILES


@pytest.mark.parametrize("name", sorted(SERVICES))
def test_every_service_is_held_short(services: dict[str, Any], name: str) -> None:
    service = services[name]
    assert service["cap_drop"] == ["ALL"]
    assert service["security_opt"] == ["no-new-privileges:true"]
    assert service["read_only"] is True
    assert [entry.split(":")[0] for entry in service["tmpfs"]] == ["/tmp"]  # noqa: S108  # the container's
    assert "size=" in service["tmpfs"][0]
    assert service["mem_limit"]
    assert int(service["pids_limit"]) > 0
    assert service["logging"]["driver"] == "json-file"
    assert set(service["logging"]["options"]) == {"max-size", "max-file"}
    assert service["restart"] == ("no" if name in JOBS else "unless-stopped")
    assert not {"privileged", "cap_add", "devices", "pid", "ipc", "userns_mode"} & set(service)
    assert (service["healthcheck"]["test"] == ["NONE"]) is (name in JOBS)
    if name in OURS:
        assert (service["init"], service["user"]) == (True, "10001:10001")


def test_only_the_proxy_can_be_reached_from_outside(services: dict[str, Any]) -> None:
    published = {name: service["ports"] for name, service in services.items() if "ports" in service}
    assert published == {name: [f"{port}/tcp"] for name, port in PUBLISHED.items()}
    assert config()["networks"]["back"] == {"internal": True}
    for name in ("search", "search-gpu"):
        assert list(services[name]["networks"]) == ["back"]
    assert {name for name in services if services[name].get("network_mode") == "none"} == JOBS
    assert {name for name in services if "front" in services[name].get("networks", {})} == {"proxy"}


def test_photos_are_mounted_read_only_and_only_jobs_write_an_index(services: dict[str, Any]) -> None:
    mounts = {name: dict(place(volume) for volume in services[name].get("volumes", [])) for name in services}
    for of_service in mounts.values():
        for target in ("/gallery", "/datasets", "/train", "/val", "/etc/nginx/templates"):
            assert of_service.get(target, "ro") == "ro"
    assert {name for name in mounts if mounts[name].get("/index") == "rw"} == JOBS - {"trainer"}
    assert {name for name in mounts if mounts[name].get("/models") == "rw"} == {"trainer"}
    bound = [volume for service in services.values() for volume in service.get("volumes", []) if volume.startswith("/")]
    assert bound
    assert all(volume.startswith(f"{ROOT}/docker/") and volume.endswith(":ro") for volume in bound)


def place(volume: str) -> tuple[str, str]:
    """Where in the container, and how."""
    _, target, mode = volume.split(":")
    return target, mode


def test_files_that_are_mounted_exist(services: dict[str, Any]) -> None:
    bound = [volume for service in services.values() for volume in service.get("volumes", []) if volume.startswith("/")]
    assert [volume for volume in bound if not Path(volume.split(":")[0]).exists()] == []
    built = {service["build"]["dockerfile"] for service in services.values() if "build" in service}
    assert [name for name in built if not (ROOT / name).is_file()] == []


def test_a_server_has_time_to_drain_and_to_answer(services: dict[str, Any]) -> None:
    for name in ("search", "search-gpu", "proxy"):
        grace = seconds(services[name]["stop_grace_period"])
        drain = float(services["search"]["environment"][f"{PREFIX}DRAIN_S"])
        assert grace > drain + GRACE_S
    shutdown = re.search(r"worker_shutdown_timeout (\w+);", (TEMPLATES / "nginx.conf.template").read_text())
    assert shutdown is not None
    assert seconds(shutdown[1]) < seconds(services["proxy"]["stop_grace_period"])


def test_health_is_that_a_search_would_be_answered(services: dict[str, Any]) -> None:
    for name in ("search", "search-gpu", "proxy"):
        assert "/readyz" in " ".join(services[name]["healthcheck"]["test"])
    assert services["search"]["depends_on"] == {"init": {"condition": "service_completed_successfully"}}
    assert services["search-gpu"]["depends_on"] == {"init-gpu": {"condition": "service_completed_successfully"}}


def test_the_proxy_waits_a_little_longer_than_the_server(services: dict[str, Any]) -> None:
    values, defaults = (
        services["proxy"]["environment"],
        {name: field.default for name, field in Settings.model_fields.items()},
    )
    assert seconds(values["PROXY_SEARCH_TIMEOUT"]) > defaults["request_deadline_s"]
    for name, of_server in (("PROXY_MAX_BODY", "max_body_bytes"), ("PROXY_MAX_ARCHIVE", "max_archive_bytes")):
        assert int(values[name].removesuffix("m")) << 20 == defaults[of_server] + (1 << 20)


@pytest.mark.parametrize("name", ["search", "search-gpu"])
def test_every_setting_can_be_made_and_none_is_made_up(services: dict[str, Any], name: str) -> None:
    environment = {key: value for key, value in services[name]["environment"].items() if key.startswith(PREFIX)}
    assert set(environment) == {f"{PREFIX}{field.upper()}" for field in Settings.model_fields}
    given = {key: value for key, value in environment.items() if value is not None}
    places = {f"{PREFIX}{field}": path for field, path in PLACES.items()}
    private = "10.0.0.0/8,172.16.0.0/12,192.168.0.0/16"  # the proxy's network, from which nobody else reaches a server
    chosen = {"DRAIN_S": "5", "LOG_FORMAT": "json", "TRUSTED_PROXIES": private}
    assert given == {**places, **{f"{PREFIX}{field}": value for field, value in chosen.items()}}


def test_a_setting_in_env_reaches_the_server(tmp_path: Path) -> None:
    (tmp_path / "env").write_text("""CARSEARCH_DATASETS='{"val": "/datasets/val"}'\nCARSEARCH_MAX_QUEUE=7\n""")
    done = subprocess.run(
        ["docker-compose", "--env-file", tmp_path / "env", "config"],
        cwd=ROOT,
        capture_output=True,
        text=True,
        check=True,
    )
    environment = yaml.safe_load(done.stdout)["services"]["search"]["environment"]
    assert environment["CARSEARCH_DATASETS"] == '{"val": "/datasets/val"}'
    assert environment["CARSEARCH_MAX_QUEUE"] == "7"


def test_the_example_lists_every_knob_with_its_default() -> None:
    text = (ROOT / ".env.example").read_text(encoding="utf-8")
    knobs = dict(KNOB.findall(text))
    assert len(knobs) == len(KNOB.findall(text))
    defaults = {name: default for name, kind, default in used() if kind == "-"}
    assert all(default == defaults[name] for name, kind, default in used() if kind == "-")
    passed = {name for name, value in config()["services"]["search"]["environment"].items() if value is None}
    assert set(knobs) == {name for name, _, _ in used()} | passed | OF_COMPOSE
    assert {name: knobs[name] for name in defaults} == defaults
    of_server = {f"{PREFIX}{name.upper()}": field.default for name, field in Settings.model_fields.items()}
    for name in passed & {name for name in knobs if knobs[name] and name.startswith(PREFIX)}:
        assert knobs[name].strip("'") == str(of_server[name])
    assert not [line for line in text.splitlines() if line and not line.startswith("#")]  # copied, it changes nothing


def test_the_example_explains_every_knob() -> None:
    text = (ROOT / ".env.example").read_text(encoding="utf-8")
    runs = [
        list(lines) for is_knob, lines in groupby(text.splitlines(), lambda line: bool(KNOB.match(line))) if not is_knob
    ]
    assert all(lines[-1].startswith("# ") for lines in runs[:-1])  # a line of words before each knob or row of knobs


@pytest.mark.parametrize("overlay", OVERLAYS)
def test_an_overlay_needs_its_variable_and_says_which(overlay: str) -> None:
    done = compose("-f", BASE, "-f", overlay, "config")
    assert done.returncode != 0
    assert OVERLAYS[overlay] in done.stderr


@pytest.mark.parametrize("overlays", [(TLS,), (KEYS,), (TLS, KEYS)])
def test_overlays_validate_with_their_variables(overlays: tuple[str, ...]) -> None:
    variables = {OVERLAYS[name]: f"/etc/{OVERLAYS[name].lower()}" for name in overlays}
    files = [word for name in (BASE, *overlays) for word in ("-f", name)]
    proxy = config(*files, **variables)["services"]["proxy"]
    for name, value in variables.items():
        assert any(volume.startswith(f"{value}:") and volume.endswith(":ro") for volume in proxy["volumes"]), name
    tls = TLS in overlays
    assert proxy["environment"]["PROXY_MODE"] == ("tls" if tls else "plain")
    assert len(proxy["ports"]) == 1 + tls
    assert proxy["environment"]["API_KEYS_FILE"].endswith("/keys.map" if KEYS in overlays else "/no-keys.map")


def test_a_gpu_is_three_variables() -> None:
    found = config("--profile", "gpu", PROXY_TO="search-gpu", SEARCH_REPLICAS="0", COMPOSE_PROFILES="gpu")["services"]
    assert found["search"]["deploy"]["replicas"] == 0
    assert "search-gpu:8000 resolve" in found["proxy"]["environment"]["UPSTREAM_SERVERS"]
    for name in ("init-gpu", "search-gpu", "indexer-gpu", "trainer"):
        [device] = (
            found[name]["deploy"]["resources"]["reservations"]["devices"] if name in found else [{"driver": "nvidia"}]
        )
        assert device["driver"] == "nvidia"


def test_every_value_that_a_template_asks_for_is_given() -> None:
    texts = [template.read_text(encoding="utf-8") for template in TEMPLATES.glob("*.template")]
    asked = {name for text in texts for name in re.findall(r"\$\{([A-Z_]+)\}", text)}
    given = config("-f", BASE, "-f", TLS, TLS_DIR="/etc/tls")["services"]["proxy"]["environment"]
    assert asked <= set(given)
    assert set(given) - asked == {"NGINX_ENVSUBST_OUTPUT_DIR", "NGINX_ENVSUBST_FILTER"}
