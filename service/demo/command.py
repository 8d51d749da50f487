"""The demo: indexes, evaluates and serves the gallery that ships, with a model that ships, and says what to try.

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
from importlib.util import find_spec
from pathlib import Path
from types import FrameType

import httpx
import uvicorn

from indexer.benchmark.evaluate import evaluate
from indexer.benchmark.report import Report
from indexer.build import build_index, published_embeddings
from indexer.versions import CURRENT_NAME, IndexDirectory
from model.embedder import Embedder
from model.errors import SettingsInvalid
from service.cli.output import progress_bar, say
from service.demo import check as promises
from service.demo.check import DemoFailed
from service.demo.gallery import DemoGallery
from service.http.server import listen, make_server
from service.observability.logging import start_log
from service.settings import load_settings

MODEL = "resnet18"
PORT = 8000
VERSIONS_KEPT = 2
READY_S = 60
POLL_S = 0.05
CALL_S = 30
SIGTERM_STATUS = 128 + signal.SIGTERM
LIMITS = (
    "Leave-one-out in a small gallery of rendered cars: it shows that everything works here and says nothing of real "
    "cars; the benchmark is in docs/benchmark.md."
)


def run(
    *, host: str = "127.0.0.1", port: int | None = None, directory: Path | None = None, check: bool = False
) -> None:
    """Runs the demo until Ctrl-C or SIGTERM; with `check` only until its results are compared with the promised ones.

    `directory` is where the index goes, by default the user's cache. Raises DemoFailed, SettingsInvalid when the port
    is taken, DemoGalleryInvalid or ModelInvalid for what ships.
    """
    if port is None:
        port = 0 if check else PORT
    with _exit_on_sigterm(), listen(host, port) as listener:  # first: a port that is taken costs no waiting
        gallery, embedder = DemoGallery.load(), _load_model()
        index = IndexDirectory(_index_path(directory, gallery))
        version = _build(gallery, index, embedder)
        report = _evaluate(gallery, index, version, embedder)
        settings = load_settings(
            index_dir=index.root,
            gallery_dir=gallery.photos,
            model=str(embedder.directory),
            runtime=embedder.runtime.name,
            datasets={"demo": gallery.photos},
            log_level="warning",
        )
        start_log(settings)
        url = _url(host, listener.getsockname()[1])
        with (
            _running(make_server(settings), listener) as ended,
            httpx.Client(base_url=url, timeout=CALL_S, trust_env=False) as client,
        ):
            _wait_until_ready(client, ended)
            if check:
                promises.check(client, gallery, report, embedder)
                return
            _say_what_to_try(url, gallery)
            ended.wait()
            raise DemoFailed("The server ended by itself; the lines above say why.")


def seed(directory: Path) -> None:
    """Publishes the demo's index in a directory that has none, so that a deployment starts without configuration.

    An index that is there is left alone, whatever it is: it is the operator's.
    """
    if (directory / CURRENT_NAME).exists():
        say(f"{directory} has an index; it is left as it is.")
    else:
        _build(DemoGallery.load(), IndexDirectory(directory), _load_model())


@contextmanager
def _exit_on_sigterm() -> Iterator[None]:
    """SIGTERM unwinds like Ctrl-C, so that accepted requests are answered."""

    def end(_number: int, _frame: FrameType | None) -> None:
        sys.exit(SIGTERM_STATUS)

    before = signal.signal(signal.SIGTERM, end)
    try:
        yield
    finally:
        signal.signal(signal.SIGTERM, before)


def _load_model() -> Embedder:
    # Not "auto": that imports torch where it is installed. Only the installation for GPUs has no OpenVINO.
    embedder = Embedder.load(MODEL, "openvino" if find_spec("openvino") is not None else "auto")
    say(
        f"model     {embedder.card.name}, {embedder.runtime.precision}, {embedder.dim} values a photo; its "
        f"{len(embedder.card.files)} files are those of its card, and the golden photo gives the recorded embedding"
    )
    return embedder


def _index_path(chosen: Path | None, gallery: DemoGallery) -> Path:
    """One directory for each place that carsearch is installed in: two versions do not replace each other's index."""
    place = hashlib.sha256(os.fsencode(gallery.photos.resolve())).hexdigest()[:12]
    return (chosen or _cache_directory()) / place


def _cache_directory() -> Path:
    cache = Path(os.environ.get("XDG_CACHE_HOME", ""))
    if not cache.is_absolute():  # the XDG specification says that such a value is ignored
        try:
            cache = Path.home() / ".cache"
        except RuntimeError as problem:
            raise SettingsInvalid("You have no home directory for the demo's index; name one with --dir.") from problem
    return cache / "carsearch" / "demo"


def _build(gallery: DemoGallery, index: IndexDirectory, embedder: Embedder) -> str:
    """Builds the index, or finds it current; returns its version."""
    try:
        with progress_bar("indexing") as progress:
            built = build_index(gallery.photos, index, embedder, keep=VERSIONS_KEPT, progress=progress)
    except OSError as problem:  # of the index: photos that cannot be read are listed instead
        where = problem.filename or index.root
        raise SettingsInvalid(f"{where} cannot be written ({problem.strerror}); name another directory.") from problem
    state = f"{built.embedded} embedded" if built.changed else "built before"
    say(f"gallery   {built.photos} rendered photos of {built.classes} classes, {state}; the index is in {index.root}")
    return built.version


def _evaluate(gallery: DemoGallery, index: IndexDirectory, version: str, embedder: Embedder) -> Report:
    """Leave-one-out over the gallery, with the embeddings that the index has."""
    known = published_embeddings(index, index.manifest(version), embedder.embedding_id)
    report = evaluate(gallery.photos, embedder, known=known).report
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
    """Runs a server in another thread and stops it at the end of the block; this thread keeps the signals.

    Gives an event that is set when the server has ended. It is waited for instead of the thread: before Python 3.13 a
    join that a signal interrupts takes the thread for ended, and the socket would be closed under the server.
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
    while time.monotonic() < deadline and not ended.wait(POLL_S):
        try:
            if client.get("/readyz").is_success:
                return
        except httpx.HTTPError as problem:
            raise DemoFailed(f"The demo's server does not answer: {problem}.") from problem
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
