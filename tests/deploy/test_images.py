"""Both Dockerfiles and what may go into an image, read as they stand; `make test-image` builds and runs one."""

import json
import os
import re
import shutil
import subprocess
from dataclasses import dataclass
from fnmatch import fnmatchcase
from pathlib import Path

import pytest

from service.settings import PREFIX, Settings
from tests.unit.test_packaging import PACKAGES, PROJECT, constraints, files_of

ROOT = Path(__file__).resolve().parent.parent.parent
CPU, GPU = "docker/cpu.Dockerfile", "docker/gpu.Dockerfile"
IMAGES = [(CPU, ""), (GPU, "serve"), (GPU, "train")]
SERVERS = IMAGES[:2]
OWNED = {"/index", "/delta", "/state", "/cache", "/spool", "/models"}
DIRECTORIES = {"INDEX_DIR": "/index", "STATE_DIR": "/state", "CACHE_DIR": "/cache", "SPOOL_DIR": "/spool"}
SCRIPTS = ["docker/build-without-engine.sh", "docker/test-image.sh"]

pytestmark = pytest.mark.deploy
files = pytest.mark.parametrize("file", [CPU, GPU])
images = pytest.mark.parametrize(("file", "target"), IMAGES)
servers = pytest.mark.parametrize(("file", "target"), SERVERS)


@dataclass(frozen=True, slots=True)
class Instruction:
    """One instruction of a Dockerfile, its continued lines joined."""

    name: str
    rest: str

    @property
    def words(self) -> list[str]:
        return self.rest.split()

    @property
    def exec_form(self) -> list[str]:
        """The words of an exec form; a shell form is no JSON and raises."""
        parsed = json.loads(self.rest.rpartition("CMD ")[2])
        assert isinstance(parsed, list)
        return [str(word) for word in parsed]


def instructions(file: str) -> list[Instruction]:
    """All instructions of a Dockerfile in their order, without comments."""
    text = "\n".join(line for line in (ROOT / file).read_text().splitlines() if not line.lstrip().startswith("#"))
    logical = re.sub(r"\\\n", " ", text).splitlines()
    split = (line.strip().partition(" ") for line in logical if line.strip())
    return [Instruction(name, rest.strip()) for name, _, rest in split]


def stages(file: str) -> dict[str, list[Instruction]]:
    """Name -> instructions of each stage, FROM first; the last stage, when it has no name, is called ""."""
    found: dict[str, list[Instruction]] = {}
    for one in instructions(file):
        if one.name == "FROM":
            name = one.words[2] if len(one.words) == 3 else ""
            found[name] = []
        if found:
            found[name].append(one)
    return found


def lineage(file: str, target: str) -> list[Instruction]:
    """What makes up an image: its stage's instructions, after those of the stages that it stands on."""
    every = stages(file)
    base = every[target][0].words[0]
    return [*(lineage(file, base) if base in every else []), *every[target]]


def last(file: str, target: str, name: str) -> Instruction:
    return [one for one in lineage(file, target) if one.name == name][-1]


def environment(file: str, target: str) -> dict[str, str]:
    pairs = (word.partition("=") for one in lineage(file, target) if one.name == "ENV" for word in one.words)
    return {name: value for name, _, value in pairs}


@files
def test_every_stage_stands_on_the_base_that_can_be_chosen(file: str) -> None:
    first = instructions(file)[0]
    assert (first.name, first.rest.partition("=")[0]) == ("ARG", "PYTHON_IMAGE")
    image, tag = first.rest.partition("=")[2].split(":")
    assert image == "python"
    assert re.fullmatch(r"3\.\d+-slim-\w+", tag)
    assert tag.startswith(PROJECT["requires-python"].removeprefix(">=") + "-")  # and what the tests run on
    seen: list[str] = []
    for name, stage in stages(file).items():
        assert stage[0].words[0] in {"${PYTHON_IMAGE}", *seen}
        seen.append(name)


@files
def test_nothing_is_fetched_but_packages_and_nothing_is_called_latest(file: str) -> None:
    assert "ADD" not in {one.name for one in instructions(file)}
    text = "\n".join(one.rest for one in instructions(file))
    assert not re.search(r":latest\b|\bapt(-get)?\b|\bcurl\b|\bwget\b|\bgit\b|https?://(?!127\.0\.0\.1)", text)


@files
def test_what_pip_installs_has_the_versions_of_the_constraints_and_leaves_no_cache(file: str) -> None:
    installs = [command for one in instructions(file) for command in one.rest.split("&&") if " install " in command]
    calls = [command for command in installs if "/bin/pip " in command]
    assert len(calls) >= 3
    for call in calls:
        ours = "--no-deps" in call and "dist/*.whl" in call
        assert ours or {"-c", "constraints.txt", "--no-cache-dir", ":all:"} <= set(call.split())
    assert "--no-build-isolation" in " ".join(one.rest for one in instructions(file))  # setuptools is pinned as well
    assert "setuptools" in constraints()


@files
def test_dependencies_stay_when_only_code_changes(file: str) -> None:
    found = stages(file)
    copied = {word for one in found["dependencies"] if one.name == "COPY" for word in one.words}
    assert copied.isdisjoint({*PACKAGES, ".", "pyproject.toml"})
    assert {word for one in found["project"] if one.name == "COPY" for word in one.words} > set(PACKAGES)


@images
def test_pip_is_not_shipped(file: str, target: str) -> None:
    """The environment is made without it, and nothing but the environment is taken from the stage where it lies."""
    taken = [one.words for one in lineage(file, target) if one.name == "COPY"]
    assert {words[0].removeprefix("--from=") for words in taken} <= {"dependencies", "project", "training"}
    assert all(words[2] == "/opt/carsearch" for words in taken)
    made = [one.rest for one in stages(file)["tools"] if "-m venv" in one.rest]
    assert "python3 -m venv --without-pip /opt/carsearch" in made[0]
    assert not any("pip install" in one.rest for one in lineage(file, target))


@images
def test_an_image_runs_as_its_own_user_and_exec_forms(file: str, target: str) -> None:
    own = lineage(file, target)
    names = [one.name for one in own]
    assert last(file, target, "USER").rest == "10001:10001"
    assert {"RUN", "COPY"}.isdisjoint(names[len(names) - names[::-1].index("USER") :])
    assert last(file, target, "ENTRYPOINT").exec_form == ["carsearch"]
    assert last(file, target, "CMD").exec_form[0] in {"serve", "train"}
    assert last(file, target, "WORKDIR").rest == "/"
    made = " ".join(one.rest for one in own if one.name == "RUN")
    assert "--gid 10001 carsearch" in made
    assert "--uid 10001 --gid 10001" in made
    owned = re.search(r"install -d -o carsearch -g carsearch ([^&]+)", made)
    assert owned is not None
    assert set(owned[1].split()) == OWNED
    assert "VOLUME" not in names


@images
def test_the_environment_is_of_settings_that_exist_and_directories_that_the_user_owns(file: str, target: str) -> None:
    ours = {name: value for name, value in environment(file, target).items() if name.startswith(PREFIX)}
    assert {name.removeprefix(PREFIX).lower() for name in ours} <= Settings.model_fields.keys()
    assert ours == {f"{PREFIX}{name}": path for name, path in DIRECTORIES.items()} | {f"{PREFIX}LOG_FORMAT": "json"}
    assert set(DIRECTORIES.values()) <= OWNED
    others = environment(file, target)
    assert (others["HOME"], others["XDG_CACHE_HOME"], others["PYTHONUNBUFFERED"]) == ("/tmp", "/tmp", "1")  # noqa: S108
    assert others["PATH"].split(":")[0] == "/opt/carsearch/bin"
    assert all(place.startswith("/") for place in others["PATH"].split(":"))  # an empty one is the working directory


@servers
def test_a_server_says_where_it_listens_and_how_to_ask_whether_it_lives(file: str, target: str) -> None:
    port = last(file, target, "EXPOSE").rest
    assert last(file, target, "CMD").exec_form == ["serve", "--host", "0.0.0.0", "--port", port]  # noqa: S104
    check = last(file, target, "HEALTHCHECK")
    assert {"--interval", "--timeout", "--start-period", "--retries"} == set(re.findall(r"--[a-z-]+(?==)", check.rest))
    assert check.exec_form[:-1] == ["python", "-I", "-S", "-c"]
    assert f"'127.0.0.1', {port}," in check.exec_form[-1]
    assert "'/livez'" in check.exec_form[-1]


def test_a_job_has_no_health_check() -> None:
    assert last(GPU, "train", "HEALTHCHECK").rest == "NONE"


@images
def test_labels_name_what_was_built(file: str, target: str) -> None:
    label = last(file, target, "LABEL").rest
    values = dict(re.findall(r'org\.opencontainers\.image\.([a-z.]+)="([^"]*)"', label))
    assert values.keys() == {"title", "description", "licenses", "base.name", "version", "revision"}
    assert values["licenses"] == PROJECT["license"]
    assert (values["version"], values["revision"]) == ("${VERSION}", "${REVISION}")
    assert values["base.name"] == "${PYTHON_IMAGE}"
    declared = {one.rest.partition("=")[0] for one in stages(file)[target] if one.name == "ARG"}
    assert declared == {"PYTHON_IMAGE", "VERSION", "REVISION"}
    assert [one.name for one in stages(file)[target]][-1] == "LABEL"


@pytest.mark.parametrize(
    ("file", "output", "extras"),
    [
        (CPU, "requirements.txt", ["cpu", "otel"]),
        (GPU, "gpu,otel.txt", ["gpu", "otel"]),
        (GPU, "gpu,train,otel.txt", ["gpu", "train", "otel"]),
    ],
)
def test_pip_is_asked_for_what_the_project_asks_for(file: str, output: str, extras: list[str], tmp_path: Path) -> None:
    """The command of the first stage, run as it stands."""
    shutil.copy(ROOT / "pyproject.toml", tmp_path)
    stage = stages(file)["wanted"]
    arguments = dict(one.rest.split("=") for one in stage if one.name == "ARG")
    command = next(one.rest for one in stage if one.name == "RUN")
    subprocess.run(["sh", "-c", command], cwd=tmp_path, env={**os.environ, **arguments}, check=True)
    optional = PROJECT["optional-dependencies"]
    wanted = [*PROJECT["dependencies"], *(requirement for extra in extras for requirement in optional[extra])]
    assert (tmp_path / output).read_text().splitlines() == wanted


def test_one_cuda_is_pinned_and_cuvs_is_the_one_that_faiss_was_built_with() -> None:
    pinned = constraints()
    assert not any(re.search(r"cu12\b", name) for name in pinned)
    assert "faiss-gpu" not in pinned
    assert pinned["faiss-gpu-cuvs"].startswith("1.15.")
    assert {pinned[name] for name in ("libcuvs-cu13", "libraft-cu13", "librmm-cu13")} == {"26.6.0"}
    counted = " ".join(one.rest for one in stages(GPU)["dependencies"])
    assert "raise SystemExit(len(loaded) != 1)" in counted  # the build itself counts


def let_through(path: str) -> bool:
    """Whether .dockerignore lets a file in: what the last pattern says that matches it or a folder above it."""
    parts = path.split("/")
    above = ["/".join(parts[:end]) for end in range(1, len(parts) + 1)]
    inside = True
    for line in (ROOT / ".dockerignore").read_text().splitlines():
        if not line or line.startswith("#"):
            continue
        pattern = line.removeprefix("!")
        if pattern.startswith("**/"):
            hit = any(fnmatchcase(part, pattern.removeprefix("**/")) for part in parts)
        else:
            hit = any(fnmatchcase(folder, pattern) for folder in above if folder.count("/") == pattern.count("/"))
        if hit:
            inside = line.startswith("!")
    return inside


@pytest.mark.parametrize("package", PACKAGES)
def test_every_file_of_the_packages_goes_into_the_build(package: str) -> None:
    """Modules, the models that ship, the demo's photos with their names in other scripts."""
    paths = [str(path.relative_to(ROOT)) for path in files_of(ROOT / package)]
    assert [path for path in paths if not let_through(path)] == []
    assert paths


def test_what_builds_the_project_goes_into_the_build() -> None:
    tools = {"pyproject.toml", "constraints.txt", PROJECT["readme"], *PROJECT["license-files"]}
    assert all(let_through(name) and (ROOT / name).is_file() for name in tools)


@pytest.mark.parametrize(
    "path",
    [
        *(
            ".git/config",
            ".venv/bin/python",
            ".env",
            ".ci/run",
            "Makefile",
            "docker-compose.yml",
            "docker/cpu.Dockerfile",
        ),
        *(
            "bench/__main__.py",
            "tests/conftest.py",
            "docs/deploy.md",
            "build/lib/model/card.py",
            "carsearch.egg-info/PKG-INFO",
        ),
        *("index/CURRENT", "models/mine/weights.safetensors", "photos/mine.jpg", "a-new-file.txt"),
        *("model/__pycache__/card.cpython-311.pyc", "service/routes/__pycache__/a.pyc", "model/stray.pyc"),
    ],
)
def test_anything_else_stays_out(path: str) -> None:
    assert not let_through(path)


@files
def test_what_is_copied_is_what_is_let_through(file: str) -> None:
    copies = (one.words for one in instructions(file) if one.name == "COPY" and not one.rest.startswith("--from="))
    sources = {word for words in copies for word in words[:-1]}
    allowed = {line[1:] for line in (ROOT / ".dockerignore").read_text().splitlines() if line.startswith("!")}
    assert sources == allowed
    assert all((ROOT / source).exists() for source in sources)


def test_both_dockerfiles_say_the_same_where_they_do_the_same() -> None:
    """Stages of the same name but the one of what differs; a correction of one is a correction of both."""
    cpu, gpu = stages(CPU), stages(GPU)
    assert {name for name in cpu.keys() & gpu.keys() if cpu[name] == gpu[name]} >= {"tools", "project"}
    made = {next(one.rest for one in lineage(*image) if one.name == "RUN") for image in IMAGES}
    assert len(made) == 1
    assert last(*SERVERS[0], "HEALTHCHECK").exec_form == last(*SERVERS[1], "HEALTHCHECK").exec_form


@pytest.mark.parametrize("script", SCRIPTS)
def test_scripts_parse(script: str) -> None:
    assert os.access(ROOT / script, os.X_OK)
    subprocess.run(["bash", "-n", ROOT / script], check=True)


@pytest.mark.skipif(shutil.which("shellcheck") is None, reason="shellcheck is not installed")
@pytest.mark.parametrize("script", SCRIPTS)
def test_scripts_have_none_of_the_usual_mistakes(script: str) -> None:
    done = subprocess.run(["shellcheck", ROOT / script], capture_output=True, text=True, check=False)
    assert done.stdout == ""


def test_the_builder_says_how_it_is_used() -> None:
    done = subprocess.run([ROOT / SCRIPTS[0]], capture_output=True, text=True, check=False)
    assert done.returncode == 2
    assert "--run NAME" in done.stderr
