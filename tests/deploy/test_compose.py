"""docker-compose.yml, as the real Compose reads it: every profile, the rules for every service, every variable."""

import re
from itertools import groupby
from pathlib import Path
from typing import Any

import pytest

from service.http.body_limit import IN_JSON
from service.http.limits import Limits
from service.http.server import GRACE_S
from service.settings import PREFIX, Settings
from tests.deploy.compose import BASE, OF_COMPOSE, ROOT, TLS, config, run_compose, used
from tests.deploy.nginx import TEMPLATES
from tests.support.yaml_loader import read_documents

PROFILES = {
    "gpu": {"init-gpu", "search-gpu"},
    "index": {"indexer", "versions"},
    "index-gpu": {"indexer-gpu", "versions-gpu"},
    "index-milvus": {"indexer-milvus"},
    "milvus": {"milvus", "etcd", "minio"},
    "train": {"trainer"},
    "monitoring": {"prometheus", "grafana"},
}
ALWAYS = {"init", "search", "proxy"}
SERVICES = ALWAYS.union(*PROFILES.values())
JOBS = {"init", "init-gpu", "indexer", "indexer-gpu", "versions", "versions-gpu", "indexer-milvus", "trainer"}
OURS = {*JOBS, "search", "search-gpu"}
SERVERS = ("search", "search-gpu")
PUBLISHED = {
    "proxy": ("0.0.0.0", "8000", 8080),  # noqa: S104  # as the document says
    "prometheus": ("127.0.0.1", "9090", 9090),
    "grafana": ("127.0.0.1", "3000", 3000),
}
PLACES = {
    "INDEX_DIR": "/index",
    "DELTA_DIR": "/delta",
    "STATE_DIR": "/state",
    "CACHE_DIR": "/cache",
    "SPOOL_DIR": "/spool",
}
EVERY = ("--profile", "*")
WITH_TLS = ("-f", BASE, "-f", TLS)
CERTIFICATES = {"TLS_DIR": "/etc/carsearch-tls"}
KEYS = {"API_KEYS": "/etc/carsearch.keys", "LINK_SECRET": "/etc/carsearch.links"}
GPU = {"PROXY_TO": "search-gpu", "SEARCH_REPLICAS": "0", "COMPOSE_PROFILES": "gpu"}
KNOB = re.compile(r"^#([A-Z_]+)=(.*)$", re.MULTILINE)
BYTES = {"m": 1 << 20, "g": 1 << 30}

pytestmark = pytest.mark.deploy


@pytest.fixture(scope="module")
def services() -> dict[str, Any]:
    """All services, with every default."""
    found: dict[str, Any] = config(*EVERY)["services"]
    return found


def seconds(duration: str) -> int:
    """Compose's and nginx's way of writing a time."""
    return sum(
        int(number) * {"h": 3600, "m": 60, "s": 1}[unit] for number, unit in re.findall(r"(\d+)([hms])", duration)
    )


def size_bytes(text: str) -> int:
    """Compose's and nginx's way of writing a size."""
    return int(text[:-1]) * BYTES[text[-1]]


def test_compose_is_the_second_one() -> None:
    assert re.match(r"Docker Compose version v2\.", run_compose("version").stdout)


@pytest.mark.parametrize("files", [(), WITH_TLS], ids=["plain", "tls"])
@pytest.mark.parametrize("keys", [{}, KEYS, {"API_KEYS": ""}], ids=["open", "keys", "empty"])
@pytest.mark.parametrize("profiles", [(), *((name,) for name in PROFILES), tuple(PROFILES)], ids="+".join)
def test_compose_accepts_every_combination_without_a_warning(
    files: tuple[str, ...], keys: dict[str, str], profiles: tuple[str, ...]
) -> None:
    chosen = [word for name in profiles for word in ("--profile", name)]
    done = run_compose(*files, *chosen, "config", "--quiet", **keys, **(CERTIFICATES if files else {}))
    assert (done.returncode, done.stdout, done.stderr) == (0, "", "")


@pytest.mark.parametrize(
    ("line", "status", "told"),
    [
        ('  restart: "no"\n', 1, "already defined"),
        ("  mem_limit: ${NOT_SET}\n", 0, "variable is not set"),
        ("  helthcheck: {}\n", 1, "not allowed"),
    ],
)
def test_a_copy_with_a_mistake_is_found(tmp_path: Path, line: str, status: int, told: str) -> None:
    """The negative control: a key that is there twice, a variable without a value, a key that does not exist."""
    text, last = (ROOT / BASE).read_text(encoding="utf-8"), '  restart: "no"\n'
    assert text.count(last) == 1
    (tmp_path / BASE).write_text(text.replace(last, last + line))
    done = run_compose("-f", tmp_path / BASE, "--profile", "index", "config", "--quiet")
    assert done.returncode == status
    assert told in done.stderr


def test_no_file_has_a_key_twice() -> None:
    paths = [ROOT / BASE, *ROOT.glob("docker/**/*.yml")]
    assert len(paths) >= 6
    assert all(read_documents(path) for path in paths)


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
    assert int(service["mem_limit"]) > 0
    assert service["pids_limit"] > 0
    assert service["logging"]["driver"] == "json-file"
    assert set(service["logging"]["options"]) == {"max-size", "max-file"}
    assert service["restart"] == ("no" if name in JOBS else "unless-stopped")
    assert not {"privileged", "cap_add", "devices", "pid", "ipc", "userns_mode"} & set(service)
    assert (service["healthcheck"] == {"disable": True}) is (name in JOBS)
    if name in OURS:
        assert (service["init"], service["user"]) == (True, "10001:10001")


def test_only_the_proxy_can_be_reached_from_outside(services: dict[str, Any]) -> None:
    published = {
        name: (port["host_ip"], port["published"], port["target"])
        for name, service in services.items()
        for port in service.get("ports", [])
    }
    assert published == PUBLISHED
    assert config()["networks"]["back"]["internal"] is True
    for name in SERVERS:
        assert list(services[name]["networks"]) == ["back"]
    assert {name for name in services if services[name].get("network_mode") == "none"} == JOBS - {"indexer-milvus"}
    assert {name for name in services if "milvus" in services[name].get("networks", {})} == PROFILES["milvus"]
    assert list(services["indexer-milvus"]["networks"]) == ["back"]
    assert {name for name in services if "front" in services[name].get("networks", {})} == {"proxy"}


def test_photos_are_mounted_read_only_and_only_jobs_write_an_index(services: dict[str, Any]) -> None:
    mounts = {
        name: {volume["target"]: volume.get("read_only", False) for volume in service.get("volumes", [])}
        for name, service in services.items()
    }
    for of_service in mounts.values():
        for target in ("/gallery", "/datasets", "/train", "/val", "/etc/nginx/templates"):
            assert of_service.get(target, True)
    assert {name for name in mounts if mounts[name].get("/index") is False} == JOBS - {"trainer"}
    assert {name for name in mounts if mounts[name].get("/models") is False} == {"trainer"}


def test_files_that_are_mounted_exist_and_are_read_only(services: dict[str, Any]) -> None:
    bound = [
        volume for service in services.values() for volume in service.get("volumes", []) if volume["type"] == "bind"
    ]
    assert bound
    assert all(Path(volume["source"]).is_relative_to(ROOT / "docker") and volume["read_only"] for volume in bound)
    assert [volume["source"] for volume in bound if not Path(volume["source"]).exists()] == []
    built = {service["build"]["dockerfile"] for service in services.values() if "build" in service}
    assert [name for name in built if not (ROOT / name).is_file()] == []


def test_a_server_has_time_to_drain_and_to_answer(services: dict[str, Any]) -> None:
    for name in (*SERVERS, "proxy"):
        grace = seconds(services[name]["stop_grace_period"])
        drain = float(services["search"]["environment"][f"{PREFIX}DRAIN_S"])
        assert grace > drain + GRACE_S
    shutdown = re.search(r"worker_shutdown_timeout (\w+);", (TEMPLATES / "nginx.conf.template").read_text())
    assert shutdown is not None
    assert seconds(shutdown[1]) < seconds(services["proxy"]["stop_grace_period"])


def test_health_is_that_a_search_would_be_answered(services: dict[str, Any]) -> None:
    for name in (*SERVERS, "proxy"):
        assert "/readyz" in " ".join(services[name]["healthcheck"]["test"])
    for name, job in zip(SERVERS, ("init", "init-gpu"), strict=True):
        assert services[name]["depends_on"] == {job: {"condition": "service_completed_successfully", "required": True}}


def of_batches() -> dict[str, str]:
    """What nginx is told of batches, by name."""
    template = (TEMPLATES / "routes.conf.template").read_text()
    block = template.partition("location = /search/batch {")[2].partition("}\n")[0]
    return dict(
        re.findall(r"^ *(limit_conn batches|client_max_body_size|proxy_read_timeout) (\w+);", block, re.MULTILINE)
    )


def test_the_proxy_waits_for_the_server_and_takes_what_that_takes(services: dict[str, Any]) -> None:
    values = services["proxy"]["environment"]
    defaults = {name: field.default for name, field in Settings.model_fields.items()}
    assert seconds(values["PROXY_SEARCH_TIMEOUT"]) > defaults["request_deadline_s"]
    in_base64 = defaults["max_body_bytes"] * IN_JSON
    assert 0 < size_bytes(values["PROXY_MAX_BODY"]) - in_base64 < 2 << 20
    batches = of_batches()
    assert size_bytes(batches["client_max_body_size"]) == Limits().batch_bytes
    assert seconds(batches["proxy_read_timeout"]) > Limits().batch_deadline_s


def test_one_address_cannot_fill_the_room_for_uploads(services: dict[str, Any]) -> None:
    values, [tmpfs] = services["proxy"]["environment"], services["proxy"]["tmpfs"]
    room = size_bytes(tmpfs.rpartition("size=")[2])
    batches = of_batches()
    in_batches = int(batches["limit_conn batches"]) * size_bytes(batches["client_max_body_size"])
    assert int(values["PROXY_CONNECTIONS"]) * size_bytes(values["PROXY_MAX_BODY"]) + in_batches < room
    assert room < int(services["proxy"]["mem_limit"])


@pytest.mark.parametrize("name", SERVERS)
def test_every_setting_can_be_made_and_none_is_made_up(services: dict[str, Any], name: str) -> None:
    environment = {key: value for key, value in services[name]["environment"].items() if key.startswith(PREFIX)}
    assert set(environment) == {f"{PREFIX}{field.upper()}" for field in Settings.model_fields}
    given = {key: value for key, value in environment.items() if value}
    private = "10.0.0.0/8,172.16.0.0/12,192.168.0.0/16"  # the proxy's network, from which nobody else reaches a server
    chosen = {"DRAIN_S": "5", "LOG_FORMAT": "json", "TRUSTED_PROXIES": private}
    assert given == {f"{PREFIX}{field}": value for field, value in {**PLACES, **chosen}.items()}


def test_a_setting_in_env_reaches_the_server(tmp_path: Path) -> None:
    (tmp_path / "env").write_text("""CARSEARCH_DATASETS='{"val": "/datasets/val"}'\nCARSEARCH_MAX_QUEUE=7\n""")
    environment = config("--env-file", tmp_path / "env")["services"]["search"]["environment"]
    assert environment["CARSEARCH_DATASETS"] == '{"val": "/datasets/val"}'
    assert environment["CARSEARCH_MAX_QUEUE"] == "7"


def test_the_files_with_secrets_reach_the_servers_and_nobody_else() -> None:
    found = config(*EVERY, **KEYS)
    assert {name: secret["file"] for name, secret in found["secrets"].items()} == {
        "api-keys": KEYS["API_KEYS"],
        "link-secret": KEYS["LINK_SECRET"],
    }
    assert {name for name, service in found["services"].items() if "secrets" in service} == set(SERVERS)
    for name in SERVERS:
        targets = {secret["source"]: secret["target"] for secret in found["services"][name]["secrets"]}
        environment = found["services"][name]["environment"]
        assert targets == {
            "api-keys": environment[f"{PREFIX}KEYS_FILE"],
            "link-secret": environment[f"{PREFIX}LINK_SECRET_FILE"],
        }


def test_without_a_file_no_server_looks_for_keys(services: dict[str, Any]) -> None:
    for setting in ("KEYS_FILE", "LINK_SECRET_FILE"):
        assert {services[name]["environment"][f"{PREFIX}{setting}"] for name in SERVERS} == {""}
    assert {secret["file"] for secret in config()["secrets"].values()} == {"/dev/null"}  # so the container starts


def test_the_example_lists_every_knob_with_its_default() -> None:
    text = (ROOT / ".env.example").read_text(encoding="utf-8")
    knobs = dict(KNOB.findall(text))
    assert len(knobs) == len(KNOB.findall(text))
    defaults = {name: default for name, kind, default in used() if kind == "-" and name not in KEYS}
    assert all(default == defaults[name] for name, kind, default in used() if kind == "-" and name in defaults)
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


def test_tls_needs_its_folder_and_says_so() -> None:
    done = run_compose(*WITH_TLS, "config")
    assert done.returncode != 0
    assert "TLS_DIR" in done.stderr


def test_tls_adds_a_port_and_the_certificates() -> None:
    plain, proxy = (found["services"]["proxy"] for found in (config(), config(*WITH_TLS, **CERTIFICATES)))
    assert (plain["environment"]["PROXY_MODE"], proxy["environment"]["PROXY_MODE"]) == ("plain", "tls")
    assert [port["published"] for port in proxy["ports"]] == ["8000", "8443"]
    added = [volume for volume in proxy["volumes"] if volume not in plain["volumes"]]
    assert [(volume["source"], volume["read_only"]) for volume in added] == [(CERTIFICATES["TLS_DIR"], True)]


def test_a_gpu_is_three_variables() -> None:
    found = config(**GPU)["services"]
    assert found["search"]["deploy"]["replicas"] == 0
    assert "search-gpu:8000 resolve" in found["proxy"]["environment"]["UPSTREAM_SERVERS"]
    on_gpu = [service for service in config(*EVERY)["services"].values() if "gpu.Dockerfile" in str(service)]
    assert len(on_gpu) == 5
    for service in on_gpu:
        [device] = service["deploy"]["resources"]["reservations"]["devices"]
        assert device["driver"] == "nvidia"


def test_every_value_that_a_template_asks_for_is_given() -> None:
    texts = [template.read_text(encoding="utf-8") for template in TEMPLATES.glob("*.template")]
    asked = {name for text in texts for name in re.findall(r"\$\{([A-Z_]+)\}", text)}
    given = config(*WITH_TLS, **CERTIFICATES)["services"]["proxy"]["environment"]
    assert asked <= set(given)
    assert set(given) - asked == {"NGINX_ENVSUBST_OUTPUT_DIR", "NGINX_ENVSUBST_FILTER"}
