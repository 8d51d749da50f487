"""Clients that others generate from docs/openapi.json: they compile, ask a real server, and their errors are typed.

Each language has a program in `clients/`, which searches, searches one class, searches with a filter, shows an image,
and causes one error of each kind; all print the same.
"""

import contextlib
import re
import shlex
import shutil
import socket
import socketserver
import sys
import threading
from collections.abc import Iterator
from pathlib import Path
from urllib.parse import urlsplit

import pytest

from bench.openapi import EXPORTED
from indexer.build import build_index
from indexer.versions import IndexDirectory
from model.embedder import Embedder
from tests.deploy.generators import GENERATOR, PROGRAMS, PYTHON_CLIENT, from_npm, from_pypi, needed, run
from tests.support.app import AppClient
from tests.support.photos import car_photo, write_gallery
from tests.support.servers import running_server

pytestmark = [pytest.mark.deploy, pytest.mark.slow]

DOCUMENT = EXPORTED.with_name("clients.md")
KEY = "searcher-0123456789"
SAID = """\
search car 1
filtered car 2 car 2
where car 2 1234567.89 red
image ffd8ff
400 malformed_multipart
401 unauthorized
415 unsupported_image_format
422 unknown_class
429 overloaded
503 not_ready
"""
JARS = [Path("/usr/share/java", f"{name}.jar") for name in ("httpmime", "httpclient", "httpcore", "commons-logging")]
ANNOTATIONS = Path("/usr/share/java/geronimo-annotation-1.3-spec.jar")


class Spoiler(socketserver.BaseRequestHandler):
    """Passes a connection on, and takes the boundary out of the forms that are sent."""

    target: tuple[str, int]

    def handle(self) -> None:
        with socket.create_connection(self.target) as server:
            answering = threading.Thread(target=self._pass_on, args=(server, self.request))
            answering.start()
            self._pass_on(self.request, server)
            answering.join()

    @staticmethod
    def _pass_on(source: socket.socket, sink: socket.socket) -> None:
        with contextlib.suppress(OSError):
            while data := source.recv(65536):
                sink.sendall(data.replace(b"boundary=", b"boundary_"))
            sink.shutdown(socket.SHUT_WR)


@contextlib.contextmanager
def spoiling_forms(url: str) -> Iterator[str]:
    """The address of a proxy before a server whose forms arrive broken."""
    parts = urlsplit(url)
    handler = type("SpoilerOfOne", (Spoiler,), {"target": (parts.hostname, parts.port)})
    with socketserver.ThreadingTCPServer(("127.0.0.1", 0), handler) as proxy:
        proxy.daemon_threads = True
        threading.Thread(target=proxy.serve_forever, daemon=True).start()
        yield "http://{}:{}".format(*proxy.server_address[:2])
        proxy.shutdown()


@pytest.fixture(scope="module")
def index(tmp_path_factory: pytest.TempPathFactory, fake_embedder: Embedder) -> IndexDirectory:
    """Photos with prices and colours; one price has more digits than a number of 32 bits."""
    folder: Path = tmp_path_factory.mktemp("priced")
    gallery = write_gallery(folder / "gallery", classes=3, photos=3)
    rows = "car 1/0.jpg,1500,blue", "car 2/0.jpg,1500.5,red", "car 2/1.jpg,1234567.89,red"
    (gallery / "photos.csv").write_text("\n".join(("path,price,colour", *rows)))
    directory = IndexDirectory(folder / "index")
    build_index(gallery, directory, fake_embedder, strict=True)
    return directory


@pytest.fixture(scope="module")
def arguments(tmp_path_factory: pytest.TempPathFactory, index: IndexDirectory) -> Iterator[list[str]]:
    """What every program is told: servers that answer, break forms, are full, have no index; a key, and two files."""
    folder: Path = tmp_path_factory.mktemp("clients")
    (folder / "keys").write_text(f"{KEY} dealer search\n")
    (folder / "photo.jpg").write_bytes(car_photo(1, 0))
    (folder / "text.jpg").write_text("no photo")
    keys = str(folder / "keys")
    with (
        running_server(index.root, folder / "log", KEYS_FILE=keys) as server,
        spoiling_forms(server.url) as spoiling,
        running_server(index.root, folder / "log-full", KEYS_FILE=keys, MAX_UPLOADS_BYTES="1") as busy,
        running_server(folder / "none", folder / "log-none", wait_ready=False, KEYS_FILE=keys) as empty,
    ):
        files = [str(folder / "photo.jpg"), str(folder / "text.jpg")]
        yield [server.url, spoiling, busy.url, empty.url, KEY, *files]


@pytest.fixture(autouse=True)
def _document_beside_the_client(tmp_path: Path) -> None:
    (tmp_path / "docs").symlink_to(EXPORTED.parent)


def documented(program: str, *words: str) -> list[str]:
    """The arguments of a program, by the one command of docs/clients.md that has these words."""
    commands = re.findall(r"^```sh\n(.*?)^```", DOCUMENT.read_text(encoding="utf-8"), re.MULTILINE | re.DOTALL)
    lines = [shlex.split(line) for line in commands[0].splitlines()]
    (found,) = [line[1:] for line in lines if line[0] == program and {*words} <= {*line}]
    return found


def generate(language: str, folder: Path) -> None:
    """Runs openapi-generator in a folder."""
    program = (sys.executable, "-c", "from openapi_generator_cli import cli; cli()")
    run(*program, *documented("openapi-generator-cli", language), cwd=folder, PYTHONPATH=str(from_pypi(GENERATOR)))


@pytest.mark.parametrize("keyed", [True, False], ids=["with keys", "without keys"])
def test_linters_find_no_error_in_the_document(keyed: bool, api_client: AppClient, tmp_path: Path) -> None:
    programs = from_npm() / "node_modules" / ".bin"
    document = tmp_path / "openapi.json"
    document.write_text(EXPORTED.read_text(encoding="utf-8") if keyed else api_client.get("/openapi.json").text)
    (tmp_path / "rules.yaml").write_text('extends: ["spectral:oas"]\n')
    run(programs / "spectral", "lint", document, "--ruleset", tmp_path / "rules.yaml")
    run(programs / "redocly", "lint", document, cwd=tmp_path, REDOCLY_TELEMETRY="off", CI="1")


def test_openapi_python_client(arguments: list[str], tmp_path: Path) -> None:
    tool = str(from_pypi(PYTHON_CLIENT))
    program = (sys.executable, "-m", "openapi_python_client", *documented("openapi-python-client"))
    run(*program, cwd=tmp_path, PYTHONPATH=tool)
    _typed_and_run("ask_openapi_python_client.py", tmp_path, arguments, tool)


def test_openapi_generator_python(arguments: list[str], tmp_path: Path) -> None:
    generate("python", tmp_path)
    _typed_and_run("ask_openapi_generator.py", tmp_path / "python", arguments, "")


def _typed_and_run(program: str, client: Path, arguments: list[str], packages: str) -> None:
    path = PROGRAMS / program
    types = ("--strict", "--follow-imports=silent", "--config-file=", "--cache-dir", client / "types")
    run(sys.executable, "-m", "mypy", *types, path, cwd=client, MYPYPATH=str(client))
    assert run(sys.executable, path, *arguments, PYTHONPATH=f"{client}:{packages}") == SAID


def test_openapi_typescript(arguments: list[str], tmp_path: Path) -> None:
    program = from_npm() / "node_modules" / ".bin" / "openapi-typescript"
    run(program, *documented("openapi-typescript"), cwd=tmp_path)
    assert _compiled_and_run("ask_openapi_fetch.ts", tmp_path, arguments, "--noUncheckedIndexedAccess") == SAID


def test_openapi_generator_typescript(arguments: list[str], tmp_path: Path) -> None:
    generate("typescript-fetch", tmp_path)
    assert _compiled_and_run("ask_typescript_fetch.ts", tmp_path, arguments) == SAID


def _compiled_and_run(program: str, folder: Path, arguments: list[str], *options: str) -> str:
    modules = from_npm()
    for name in (program, "tsconfig.json", "package.json"):
        shutil.copy(PROGRAMS / name, folder)
    (folder / "node_modules").symlink_to(modules / "node_modules")
    run(modules / "node_modules" / ".bin" / "tsc", *options, cwd=folder)
    return run("node", folder / "out" / program.replace(".ts", ".js"), *arguments)


def test_openapi_generator_java(arguments: list[str], tmp_path: Path) -> None:
    needed("javac", "java")
    missing = [jar.name for jar in (*JARS, ANNOTATIONS) if not jar.exists()]
    if missing:
        pytest.skip(f"{', '.join(missing)} are not installed")
    (own,) = from_pypi(GENERATOR).rglob("openapi-generator.jar")  # Jackson is in it
    generate("java", tmp_path)
    classes = ":".join(map(str, [own, *JARS, ANNOTATIONS, tmp_path / "classes"]))
    sources = sorted((tmp_path / "java" / "src" / "main").rglob("*.java"))
    run(
        "javac",
        "-nowarn",
        "-encoding",
        "UTF-8",
        "-d",
        tmp_path / "classes",
        "-cp",
        classes,
        *sources,
        PROGRAMS / "Ask.java",
    )
    assert run("java", "-cp", classes, "Ask", *arguments) == SAID


def test_openapi_generator_go(arguments: list[str], tmp_path: Path) -> None:
    needed("go")
    generate("go", tmp_path)
    shutil.rmtree(tmp_path / "client" / "test", ignore_errors=True)  # which needs packages that are not here
    (tmp_path / "go.mod").write_text("module carsearch.test\n\ngo 1.19\n")
    shutil.copy(PROGRAMS / "ask.go", tmp_path)
    run("go", "vet", "./...", cwd=tmp_path, GOFLAGS="-mod=mod")
    run("go", "build", "-o", tmp_path / "ask", ".", cwd=tmp_path, GOFLAGS="-mod=mod")
    assert run(tmp_path / "ask", *arguments) == SAID
