"""The demo: the model and the gallery that ship, verified, indexed, evaluated, served, and what to try.

All of it runs in one process, so that nothing can outlive it, and without torch.
"""

import hashlib
import os
import shlex
import signal
import socket
import sys
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from importlib.util import find_spec
from pathlib import Path
from types import FrameType

import httpx
import uvicorn

from indexer.benchmark.evaluate import evaluate
from indexer.benchmark.report import Report
from indexer.build import BuildResult, build_index, published_embeddings
from indexer.versions import CURRENT_NAME, IndexDirectory
from model.dataset import read_items
from model.embedder import Embedder
from model.errors import IndexLocked, ModelNotFound, SettingsInvalid
from service.cli.output import complain, progress_bar, say
from service.demo.check import DemoFailed, check
from service.demo.gallery import DemoGallery
from service.http.server import listen, make_server
from service.observability.logging import start_log
from service.settings import load_settings

MODEL = "resnet18"
PORT = 8000
VERSIONS_KEPT = 2
LOCK_WAIT_S = 120
READY_S = 60
POLL_S = 0.05
CALL_S = 30
SIGTERM_STATUS = 128 + signal.SIGTERM
LIMITS = (
    "Leave-one-out in a small gallery of rendered cars: it shows that all is well here and says nothing of real cars; "
    "the benchmark is in docs/benchmark.md."
)


@dataclass(frozen=True, slots=True)
class DemoOptions:
    """What the command line chose; `directory` holds the index, by default in the user's cache."""

    host: str = "127.0.0.1"
    port: int | None = None
    directory: Path | None = None
    check: bool = False


def run(options: DemoOptions) -> None:
    """Runs the demo until Ctrl-C or SIGTERM; with `check` until it is known whether it does what was promised.

    Raises DemoFailed, SettingsInvalid when the port is taken, DemoGalleryInvalid or ModelInvalid for what ships.
    """
    port = options.port if options.port is not None else 0 if options.check else PORT
    with _ended_by_sigterm(), _listen(options.host, port) as listener:  # first: a port that is taken costs no waiting
        gallery = DemoGallery.load()
        embedder = _load_model()
        index = IndexDirectory(_index_directory(options.directory, gallery))
        built = _build(gallery, index, embedder)
        report = _evaluate(gallery, index, built.version, embedder)
        settings = load_settings(
            index_dir=index.root,
            gallery_dir=gallery.photos,
            model=str(embedder.directory),
            runtime=embedder.runtime.name,
            datasets={"demo": gallery.photos},
            log_level="warning",
        )
        start_log(settings)
        server = make_server(settings)
        url = _url(options.host, listener.getsockname()[1])
        with (
            _running(server, listener) as ended,
            httpx.Client(base_url=url, timeout=CALL_S, trust_env=False) as client,
        ):
            _wait_until_ready(client, ended)
            if options.check:
                check(client, gallery, report, embedder)
                return
            _say_what_to_try(url, gallery)
            ended.wait()
            raise DemoFailed("The server ended by itself; the lines above say why.")


def seed(directory: Path) -> None:
    """Publishes the demo's index in a directory that has none, for a first start that needs no configuration.

    An index that is there is left alone, whatever it is: it is the operator's.
    """
    if (directory / CURRENT_NAME).exists():
        say(f"{directory} has an index; it is left as it is.")
        return
    with _ended_by_sigterm():
        _build(DemoGallery.load(), IndexDirectory(directory), _load_model())


@contextmanager
def _ended_by_sigterm() -> Iterator[None]:
    """SIGTERM unwinds like Ctrl-C, so that requests in flight are answered and no half-written file stays."""

    def end(_number: int, _frame: FrameType | None) -> None:
        sys.exit(SIGTERM_STATUS)

    before = signal.signal(signal.SIGTERM, end)
    try:
        yield
    finally:
        signal.signal(signal.SIGTERM, before)


def _listen(host: str, port: int) -> socket.socket:
    try:
        return listen(host, port)
    except SettingsInvalid as problem:
        wrong = str(problem).removesuffix(".")
        raise SettingsInvalid(f"{wrong}; name another with --port (0 takes a free one) or --host.") from problem


def _load_model() -> Embedder:
    # Not "auto": that imports torch where it is installed. Only the installation for GPUs has no OpenVINO.
    runtime = "openvino" if find_spec("openvino") is not None else "auto"
    try:
        embedder = Embedder.load(MODEL, runtime)
    except ModelNotFound as problem:
        raise ModelNotFound(f"The demo's model is missing: {problem} Install carsearch again.") from problem
    say(
        f"model     {embedder.card.name}, {embedder.runtime.precision}, {embedder.dim} values a photo; its "
        f"{len(embedder.card.files)} files are those of its card, and the golden photo gives the recorded embedding"
    )
    return embedder


def _index_directory(chosen: Path | None, gallery: DemoGallery) -> Path:
    """One directory for each place that carsearch is installed in: two versions do not replace each other's index."""
    place = hashlib.sha256(os.fsencode(gallery.photos.resolve())).hexdigest()[:12]
    return (chosen or _cache_directory()) / place


def _cache_directory() -> Path:
    cache = Path(os.environ.get("XDG_CACHE_HOME", ""))
    if not cache.is_absolute():  # the specification: anything else is to be ignored
        try:
            cache = Path.home() / ".cache"
        except RuntimeError as problem:
            raise SettingsInvalid("You have no home directory for the demo's index; name one with --dir.") from problem
    return cache / "carsearch" / "demo"


def _build(gallery: DemoGallery, index: IndexDirectory, embedder: Embedder) -> BuildResult:
    """Builds the index, or finds it current; waits for another demo that is building it."""
    deadline = time.monotonic() + LOCK_WAIT_S
    waiting = False
    while True:
        try:
            with progress_bar("indexing") as progress:
                built = build_index(gallery.photos, index, embedder, keep=VERSIONS_KEPT, progress=progress)
            break
        except IndexLocked:
            if time.monotonic() > deadline:
                raise
            if not waiting:
                complain("Another demo is building this index; waiting for it.", "yellow")
            waiting = True
            time.sleep(POLL_S)
        except OSError as problem:  # of the index: photos that cannot be read are listed instead
            where = problem.filename or index.root
            raise SettingsInvalid(
                f"{where} cannot be written ({problem.strerror}); name another directory."
            ) from problem
    state = f"{built.embedded} embedded" if built.changed else "built before"
    say(f"gallery   {built.photos} rendered photos of {built.classes} classes, {state}; the index is in {index.root}")
    return built


def _evaluate(gallery: DemoGallery, index: IndexDirectory, version: str, embedder: Embedder) -> Report:
    """Leave-one-out over the gallery with the embeddings that the index has."""
    found = read_items(gallery.photos)
    known = published_embeddings(index, index.manifest(version), embedder.embedding_id)
    report = evaluate(found.items, embedder, skipped=found.skipped, known=known).report
    interval = f"95% interval over classes {report.ci95[0]:.3f} .. {report.ci95[1]:.3f}"
    say(f"top-1     {report.top1:.4f} = {report.correct}/{report.total}, {interval}")
    say(f"          {LIMITS}")
    return report


def _url(host: str, port: int) -> str:
    """The address to call from this machine; a server on every address is called on the loopback."""
    reached = {"0.0.0.0": "127.0.0.1", "::": "::1"}.get(host, host)  # noqa: S104  # looked up, not bound
    return f"http://[{reached}]:{port}" if ":" in reached else f"http://{reached}:{port}"


@contextmanager
def _running(server: uvicorn.Server, listener: socket.socket) -> Iterator[threading.Event]:
    """Runs a server beside this thread, which keeps the signals, and ends it however the block is left.

    Gives an event that is set when the server has ended. It is waited for instead of the thread: a join that a signal
    interrupts takes the thread for ended (CPython before 3.13), and the socket would be closed under the server.
    """
    ended = threading.Event()

    def serve() -> None:
        try:
            server.run(sockets=[listener])
        finally:
            ended.set()

    thread = threading.Thread(target=serve, name="server", daemon=True)
    thread.start()
    try:
        yield ended
    finally:
        server.should_exit = True
        ended.wait()
        thread.join()


def _wait_until_ready(client: httpx.Client, ended: threading.Event) -> None:
    deadline = time.monotonic() + READY_S
    while time.monotonic() < deadline and not ended.is_set():
        try:
            response = client.get("/info")
        except httpx.HTTPError as problem:
            raise DemoFailed(f"The demo's server does not answer: {problem}.") from problem
        if not response.is_success:
            raise DemoFailed(f"The demo's server answers /info with status {response.status_code}.")
        state = response.json()
        if state["ready"]:
            return
        if state["refused_version"] is not None:
            raise DemoFailed("The demo's server refused the index; the line above says why.")
        time.sleep(POLL_S)
    raise DemoFailed("The demo's server did not get ready; the lines above say why.")


def _say_what_to_try(url: str, gallery: DemoGallery) -> None:
    query = gallery.queries[0]
    say(f"server    {url}  (Ctrl-C ends it)")
    say("")
    say(f"Search with a photo that is not in the gallery; its class is {query.label}:")
    say(f"  {curl_line(url, gallery.directory.resolve() / query.file)}")
    say(f"Every address, to try out in a browser: {url}/docs")


def curl_line(url: str, photo: Path) -> str:
    """A command to copy into a shell; the path may hold anything."""
    path = str(photo)
    if any(character in path for character in ';,"\\'):  # curl itself reads these, unless the name is quoted for it
        path = '"' + path.replace("\\", "\\\\").replace('"', '\\"') + '"'
    return f"curl -F {shlex.quote(f'file=@{path}')} {shlex.quote(f'{url}/search?k=3')}"
