"""The demo: indexes, evaluates and serves the gallery that ships, with a model that ships, and says what to try.

All of it runs in one process, so that nothing can outlive it, and without torch.
"""

import os
import shlex
from importlib.util import find_spec
from pathlib import Path

from indexer.benchmark.evaluate import evaluate
from indexer.benchmark.report import Report
from indexer.build import build_index, published_embeddings
from indexer.decider import Decision
from indexer.items import ItemTable
from indexer.load import is_of_todays_decoder
from indexer.manifest import ITEMS_NAME
from indexer.versions import CURRENT_NAME, IndexDirectory
from model.dataset import read_items
from model.embedder import Embedder
from model.errors import CarsearchError
from service import __version__
from service.cli.output import progress_bar, say
from service.demo.gallery import DemoGallery
from service.engine import open_index
from service.http.server import listen, serve
from service.settings import FAISS, load_settings

MODEL = "resnet18"
VERSIONS_KEPT = 2
SCORE_SET = "demo"
"""The set of the card's score that `check` compares."""

TOLERANCE = 0.02
"""int8 rounds differently on other processors, which changes a few nearest neighbours."""


class DemoFailed(CarsearchError, code="demo_failed"):
    """The demo does not find what was promised."""


def run(host: str, port: int, directory: Path | None = None) -> None:
    """Runs the demo until Ctrl-C or SIGTERM.

    `directory` is where the index goes, by default the user's cache. Raises SettingsInvalid when the port is taken.
    """
    with listen(host, port) as listener:  # first: a port that is taken costs no waiting
        gallery, embedder, index = DemoGallery.load(), _load_model(), IndexDirectory(directory or _cache_directory())
        _evaluate(gallery, index, _build(gallery, index, embedder), embedder)
        settings = load_settings(
            index_dir=index.root,
            store=FAISS,
            gallery_dir=gallery.photos,
            model=str(embedder.directory),
            runtime=embedder.runtime.name,
            datasets={"demo": gallery.photos},
            log_level="warning",
        )
        url = f"http://{f'[{host}]' if ':' in host else host}:{listener.getsockname()[1]}"
        query = gallery.queries[0]
        decision = open_index(index.root, runtime=embedder.runtime.name).decide(gallery.directory / query.file)
        say(f"decision  a photo that is not in the gallery, of {query.label}: {_told(decision)}")
        say(f"page      {url}/  (Ctrl-C ends the server)\n")
        say(f"Open it in a browser, or search with a photo that is not in the gallery; its class is {query.label}:")
        photo = shlex.quote(f"file=@{gallery.directory.resolve() / query.file}")
        say(f"  curl -F {photo} '{url}/search?k=3'")
        say(f"Every address of the API, to try out: {url}/docs")
        serve(settings, listener)


def check(directory: Path | None = None) -> None:
    """Compares the evaluation with the model's card, and the answer to each query with its class; raises DemoFailed."""
    gallery, embedder, index = DemoGallery.load(), _load_model(), IndexDirectory(directory or _cache_directory())
    report = _evaluate(gallery, index, _build(gallery, index, embedder), embedder)
    scores = [score for score in embedder.card.scores if score.set == SCORE_SET]
    promised = next((score for score in scores if score.precision == embedder.runtime.precision), None)
    if promised is None:
        raise DemoFailed(f'The card of {embedder.card.name} has no score for the set "{SCORE_SET}".')
    say(f"check     top-1 {report.top1:.4f} of {report.total}, promised {promised.top1:.4f} of {promised.total}")
    if report.total != promised.total or abs(report.top1 - promised.top1) > TOLERANCE:
        raise DemoFailed(f"The top-1 is not what the card promises, give or take {TOLERANCE}.")
    engine = open_index(index.root, runtime=embedder.runtime.name)
    for query in gallery.queries:
        found = engine.answer(engine.query(gallery.directory / query.file, 1)).found
        nearest = found.hits[0]
        say(f"check     {query.file} is of {query.label}, found {nearest.label}, score {nearest.score:.4f}")
        say(f"          {_told(found.decision)}")
        if nearest.label != query.label:
            raise DemoFailed(f"{query.file} is of {query.label} and the search found {nearest.label}.")
    say("check     passed")


def seed(directory: Path) -> None:
    """Publishes the demo's index in a directory that has none, so that a deployment starts without configuration.

    An index that is there is left alone: it is the operator's. Only the demo's own is built anew, where an earlier
    release left one that this release cannot serve.
    """
    index = IndexDirectory(directory)
    if (directory / CURRENT_NAME).exists() and not _is_old_demo(index):
        say(f"{directory} has an index; it is left as it is.")
    else:
        _build(DemoGallery.load(), index, _load_model())


def _is_old_demo(index: IndexDirectory) -> bool:
    """True for an index of the demo's photos that was built with another decoder than today's.

    An index that cannot be read is the operator's, and gives False.
    """
    try:
        manifest = index.manifest(index.current())
        if is_of_todays_decoder(index.model_path(manifest.model_sha256)):
            return False
        items = ItemTable(index.path_of(manifest.id) / ITEMS_NAME)
        found = {os.fsdecode(item.path) for item in items.all()}
        items.close()
    except CarsearchError:
        return False
    photos = DemoGallery.load().photos
    return found == {str(item.path.relative_to(photos)) for item in read_items(photos).items}


def _load_model() -> Embedder:
    # Not "auto": that imports torch where it is installed. Installations for GPUs and on ARM have no OpenVINO.
    embedder = Embedder.load(MODEL, "openvino" if find_spec("openvino") is not None else "auto")
    say(
        f"model     {embedder.card.name}, {embedder.runtime.precision}, {embedder.dim} values a photo; its "
        f"{len(embedder.card.files)} files are those of its card, and the golden photo gives the recorded embedding"
    )
    return embedder


def _cache_directory() -> Path:
    """A directory for each release: two do not replace each other's index."""
    return Path(os.environ.get("XDG_CACHE_HOME") or "~/.cache").expanduser() / "carsearch" / "demo" / __version__


def _build(gallery: DemoGallery, index: IndexDirectory, embedder: Embedder) -> str:
    """Builds the index, or finds it current; returns its version."""
    with progress_bar("indexing") as progress:
        built = build_index(gallery.photos, index, embedder, keep=VERSIONS_KEPT, progress=progress)
    state = f"{built.embedded} embedded" if built.changed else "built before"
    say(f"gallery   {built.photos} rendered photos of {built.classes} classes, {state}; the index is in {index.root}")
    return built.version


def _told(decision: Decision | None) -> str:
    assert decision is not None  # noqa: S101  # the index was just built
    return (
        f"{decision.label}, probability {decision.probability:.2f}, {decision.agreement:.0%} of the ten nearest photos"
    )


def _evaluate(gallery: DemoGallery, index: IndexDirectory, version: str, embedder: Embedder) -> Report:
    """Leave-one-out over the gallery, with the embeddings that the index has."""
    known = published_embeddings(index, index.manifest(version), embedder.embedding_id)
    report = evaluate(gallery.photos, embedder, known=known).report
    interval = f"95% interval over classes {report.ci95[0]:.3f} .. {report.ci95[1]:.3f}"
    say(f"top-1     {report.top1:.4f} = {report.correct}/{report.total}, {interval}; the class {report.class_top1:.4f}")
    say("          Leave-one-out in a small gallery of rendered cars: it shows that everything works here, and says")
    say("          nothing of real cars; the benchmark is in docs/benchmark.md.")
    return report
