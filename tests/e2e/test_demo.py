"""`carsearch demo` with a stand-in for what ships: it starts, finds what was promised, says what is wrong, and ends."""

import dataclasses
import json
import shutil
import signal
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import httpx
import pytest

from bench.demo_gallery import write_contents
from indexer.benchmark.evaluate import evaluate
from indexer.versions import IndexDirectory
from model.card import WEIGHTS_NAME, Score, load_card
from model.dataset import read_items
from model.embedder import Embedder
from model.errors import CarsearchError, IndexLocked, ModelInvalid, ModelNotFound, SettingsInvalid
from service.cli import main as cli
from service.demo import check as demo_check
from service.demo import command as demo
from service.demo import gallery as demo_gallery
from service.demo.check import DemoFailed
from service.demo.command import curl_line
from service.demo.gallery import CONTENTS_NAME, DemoGallery, DemoGalleryInvalid, Query
from service.http.server import listen
from tests.support.photos import KOREAN, car_photo, write_gallery
from tests.support.servers import clean_environment, free_port
from tests.unit.test_layout import ROOT

pytestmark = pytest.mark.e2e

# What `carsearch demo` is where something else ships, in a process that must not ask for torch.
PROGRAM = """
import sys
from pathlib import Path

class NoTorch:
    def find_spec(self, name, path=None, target=None):
        assert name != "torch", "the demo imports torch"

sys.meta_path.insert(0, NoTorch())
from service.cli import main as cli
from service.demo import command as demo, gallery as demo_gallery
demo.MODEL, gallery = sys.argv[1:3]
demo_gallery.shipped_directory = lambda: Path(gallery)
sys.argv[1:3] = ["demo"]
cli.main()
"""


@dataclass(frozen=True, slots=True)
class Stand:
    """What ships: a model whose card promises a score on the gallery, and the gallery."""

    model: Path
    gallery: Path

    def promise(self, **changes: object) -> None:
        """Changes the score that the model's card has."""
        card = load_card(self.model)
        scores = [dataclasses.replace(score, **changes) for score in card.scores]  # type: ignore[arg-type]
        dataclasses.replace(card, scores=scores).save(self.model)


def write_demo_gallery(root: Path) -> Path:
    """Three classes of four photos, and a query of two of them."""
    write_gallery(root / "gallery")
    (root / "queries").mkdir()
    queries = [Query("queries/1.jpg", KOREAN, "9.jpg"), Query("queries/2.jpg", "car 1", "9.jpg")]
    for kind, query in enumerate(queries):
        (root / query.file).write_bytes(car_photo(kind, 9))
    write_contents(root, queries, {})
    return root


@pytest.fixture(scope="module")
def packed(tmp_path_factory: pytest.TempPathFactory, real_model: Path, real_embedder: Embedder) -> Stand:
    """What ships, read only; the path has a space, as those of people do."""
    root = tmp_path_factory.mktemp("what ships")
    gallery = write_demo_gallery(root / "demo data")
    report = evaluate(read_items(gallery / "gallery").items, real_embedder).report
    shutil.copytree(real_model, root / "model")
    score = Score(
        set="demo",
        precision=real_embedder.runtime.precision,
        top1=report.top1,
        correct=report.correct,
        total=report.total,
        classes=report.classes,
        ci95=report.ci95,
        ci95_photos=report.ci95_photos,
        command="",
    )
    dataclasses.replace(load_card(real_model), scores=[score]).save(root / "model")
    return Stand(root / "model", gallery)


@pytest.fixture
def stand(packed: Stand, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Stand:
    """A copy of what ships, to be changed, for demos in this process."""
    copy = Stand(tmp_path / "ships" / "model", tmp_path / "ships" / "demo data")
    shutil.copytree(packed.model, copy.model)
    shutil.copytree(packed.gallery, copy.gallery)
    monkeypatch.setattr(demo, "MODEL", str(copy.model))
    monkeypatch.setattr(demo_gallery, "shipped_directory", lambda: copy.gallery)
    return copy


def index_of(cache: Path) -> IndexDirectory:
    """The one index in a directory of demos."""
    (root,) = cache.iterdir()
    return IndexDirectory(root)


def start(stand: Stand, cache: Path, *arguments: str) -> "subprocess.Popen[str]":
    """A demo in a process of its own; settings of other servers must not lead it astray."""
    environment = clean_environment(MODEL="another", INDEX_DIR="/nowhere", GALLERY_DIR="/nowhere", RUNTIME="torch")
    command = [sys.executable, "-c", PROGRAM, str(stand.model), str(stand.gallery), *arguments]
    return subprocess.Popen(
        command,
        env={**environment, "XDG_CACHE_HOME": str(cache), "PYTHONPATH": str(ROOT)},
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        # Whoever runs the tests in a shell's background has Ctrl-C ignored, and children inherit that.
        preexec_fn=lambda: signal.signal(signal.SIGINT, signal.SIG_DFL),
    )


def test_a_first_run_passes_and_a_later_one_embeds_nothing_of_the_gallery_again(
    packed: Stand, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    process = start(packed, tmp_path, "--check")
    printed, problems = process.communicate(timeout=120)
    assert process.returncode == 0, problems
    assert "12 rendered photos of 3 classes, 12 embedded" in printed
    assert "95% interval" in printed
    assert printed.endswith("check     passed\n")
    index = index_of(tmp_path / "carsearch" / "demo")
    versions = index.versions()
    monkeypatch.setattr(demo, "MODEL", str(packed.model))
    monkeypatch.setattr(demo_gallery, "shipped_directory", lambda: packed.gallery)
    monkeypatch.setattr(Embedder, "submit", None)  # what embeds the photos of a set
    demo.run(directory=tmp_path / "carsearch" / "demo", check=True)
    assert index.versions() == versions
    index.verify(index.current())


@pytest.mark.parametrize(("number", "status"), [(signal.SIGINT, 130), (signal.SIGTERM, 143)])
def test_a_demo_says_a_command_that_works_and_ends_quietly(
    packed: Stand, tmp_path: Path, number: signal.Signals, status: int
) -> None:
    port = free_port()
    process = start(packed, tmp_path, "--port", str(port))
    try:
        assert process.stdout is not None
        lines: list[str] = []
        while not lines or not lines[-1].endswith("/docs\n"):
            lines.append(process.stdout.readline())
            assert lines[-1], process.communicate()
        (line,) = (line.strip() for line in lines if line.startswith("  curl "))
        if shutil.which("curl"):
            asked = subprocess.run(["bash", "-c", f"{line} -sS"], capture_output=True, text=True, check=True)
            assert json.loads(asked.stdout)["nearest"]["class"] == KOREAN
        assert httpx.get(lines[-1].split()[-1], trust_env=False).status_code == 200
        process.send_signal(number)
        printed, problems = process.communicate(timeout=40)
    finally:
        process.kill()
        process.wait()
    assert (process.returncode, printed, problems) == (status, "", "")
    listen("127.0.0.1", port).close()  # nobody listens any more


def test_a_changed_model_or_gallery_is_indexed_anew(stand: Stand, tmp_path: Path) -> None:
    demo.run(directory=tmp_path / "cache", check=True)
    stand.promise(command="carsearch evaluate")  # another card is another model
    demo.run(directory=tmp_path / "cache", check=True)
    index = index_of(tmp_path / "cache")
    _, second = index.versions()
    (stand.gallery / "gallery" / "car 2" / "0.jpg").unlink()
    write_contents(stand.gallery, [], {})
    with pytest.raises(DemoFailed, match="the gallery has 11 photos where the card's score is of 12"):
        demo.run(directory=tmp_path / "cache", check=True)
    assert index.versions() == [second, index.current()]
    assert index.manifest(index.current()).count == 11


def test_a_check_that_fails_is_one_sentence_and_status_1(
    stand: Stand, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    stand.promise(top1=0.5)
    monkeypatch.setattr(sys, "argv", ["carsearch", "demo", "--check", "--dir", str(tmp_path)])
    with pytest.raises(SystemExit) as ended:
        cli.main()
    assert ended.value.code == 1
    problem = capsys.readouterr().err
    assert problem.startswith("error: The demo is not what was promised: top-1 is 1.0000 where the card promises 0.5")
    assert problem.count("\n") == 1


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"set": "val"}, 'the card of tiny has no score for the set "demo".'),
        ({"top1": 0.5}, "top-1 is 1.0000 where the card promises 0.5000, give or take 0.02."),
        ({"top1": 0.979}, "top-1 is 1.0000 where the card promises 0.9790, give or take 0.02."),
        ({"top1": 0.981}, None),
        ({"total": 13}, "the gallery has 12 photos where the card's score is of 13."),
    ],
)
def test_a_score_fails_the_check_when_it_is_not_the_promised_one(
    changes: dict[str, object], words: str | None, stand: Stand, real_embedder: Embedder
) -> None:
    stand.promise(**changes)
    assert failed_check(stand, real_embedder, {}) == words


def test_every_query_has_to_find_its_class(stand: Stand, real_embedder: Embedder) -> None:
    found = failed_check(stand, real_embedder, {"queries/1.jpg": "car 2"})
    assert found == f"queries/1.jpg is of {KOREAN} and the search found car 2."
    found = failed_check(stand, real_embedder, {"queries/1.jpg": "", "queries/2.jpg": "car 2"})
    assert found is not None
    assert found.startswith("the search with queries/1.jpg was answered with status 503; queries/2.jpg is of car 1 and")


def failed_check(stand: Stand, embedder: Embedder, answers: dict[str, str]) -> str | None:
    """What a check says of right searches but for `answers`: query -> the class found, none for no answer."""
    gallery = DemoGallery.load(stand.gallery)
    found = {query.file: query.label for query in gallery.queries} | answers

    def answer(request: httpx.Request) -> httpx.Response:
        (label,) = (label for file, label in found.items() if file.encode() in request.read())
        return httpx.Response(200 if label else 503, json={"nearest": {"class": label, "score": 0.9}})

    report = evaluate(read_items(gallery.photos).items, embedder).report
    with httpx.Client(base_url="http://demo", transport=httpx.MockTransport(answer)) as client:
        try:
            demo_check.check(client, gallery, report, Embedder(stand.model, load_card(stand.model), embedder.runtime))
        except DemoFailed as problem:
            return str(problem).removeprefix("The demo is not what was promised: ")
    return None


def test_what_ships_is_verified_before_anything_is_built(stand: Stand, tmp_path: Path) -> None:
    def refused(kind: type[CarsearchError], words: str) -> None:
        with pytest.raises(kind, match=words):
            demo.run(directory=tmp_path / "cache", check=True)
        assert not (tmp_path / "cache").exists()

    with damaged(stand.model / WEIGHTS_NAME):
        refused(ModelInvalid, f"The model in .* is damaged: {WEIGHTS_NAME} does not have the recorded sha256")
    with damaged(stand.gallery / "gallery" / "car 1" / "0.jpg"):
        refused(DemoGalleryInvalid, "damaged: gallery/car 1/0.jpg does not have the recorded sha256; install")
    with damaged(stand.gallery / CONTENTS_NAME, b"{}"):
        refused(DemoGalleryInvalid, "lacks or misspells a field: 'files'; install")
    (stand.gallery / "queries" / "2.jpg").unlink()
    refused(DemoGalleryInvalid, r"damaged: queries/2\.jpg cannot be read")
    (stand.gallery / CONTENTS_NAME).unlink()
    refused(DemoGalleryInvalid, "There is no demo gallery in .*; install carsearch again")


@contextmanager
def damaged(path: Path, content: bytes | None = None) -> Iterator[None]:
    """Other bytes in a file, by default of the same number, for a while."""
    original = path.read_bytes()
    path.write_bytes(original[:-1] + bytes([original[-1] ^ 1]) if content is None else content)
    yield
    path.write_bytes(original)


def test_a_model_that_was_not_installed_is_told(stand: Stand, monkeypatch: pytest.MonkeyPatch) -> None:
    del stand
    monkeypatch.setattr(demo, "MODEL", "no such model")
    with pytest.raises(ModelNotFound, match='There is no model directory "no such model"'):
        demo.run(check=True)


def test_a_port_that_is_taken_is_told_before_anything_is_built(stand: Stand, tmp_path: Path) -> None:
    del stand
    with listen("127.0.0.1", 0) as listener:
        port = listener.getsockname()[1]
        with pytest.raises(SettingsInvalid, match=f"port {port}: Address already in use"):
            demo.run(port=port, directory=tmp_path / "cache")
    assert not (tmp_path / "cache").exists()


def test_a_directory_that_cannot_be_written_to_is_told(stand: Stand, tmp_path: Path) -> None:
    del stand
    (tmp_path / "file").write_text("no directory")
    with pytest.raises(
        SettingsInvalid, match=r"/file/\w+ cannot be written \(Not a directory\); name another directory\."
    ):
        demo.run(directory=tmp_path / "file", check=True)


def test_an_index_that_another_process_writes_is_told(stand: Stand, tmp_path: Path) -> None:
    del stand
    demo.run(directory=tmp_path / "cache", check=True)
    with (
        index_of(tmp_path / "cache").lock(),
        pytest.raises(IndexLocked, match=r"Another process is writing to .*; wait"),
    ):
        demo.run(directory=tmp_path / "cache", check=True)


@pytest.mark.parametrize("ignored", ["", "relative"])
def test_the_index_goes_into_the_home_s_cache_where_no_other_is_named(
    ignored: str, stand: Stand, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    del stand
    monkeypatch.setenv("HOME", str(tmp_path))
    monkeypatch.setenv("XDG_CACHE_HOME", ignored)
    demo.run(check=True)
    assert index_of(tmp_path / ".cache" / "carsearch" / "demo").versions()


@pytest.mark.parametrize("name", ["plain.jpg", "a space.jpg", 'it\'s; a, "b" \\ $c `d`.jpg'])
@pytest.mark.skipif(shutil.which("curl") is None, reason="curl is not installed")
def test_the_command_to_copy_sends_the_photo_whatever_its_path(name: str, tmp_path: Path) -> None:
    (tmp_path / name).write_bytes(b"the photo's bytes")
    with listen("127.0.0.1", 0) as listener:
        line = curl_line(f"http://127.0.0.1:{listener.getsockname()[1]}", tmp_path / name)
        asking = subprocess.Popen(["bash", "-c", f"{line} -sS --max-time 20"], stdout=subprocess.PIPE)
        connection, _ = listener.accept()
        with connection:
            received = b""
            while b"the photo's bytes" not in received:
                part = connection.recv(65536)
                assert part
                received += part
            connection.sendall(b"HTTP/1.1 204 No Content\r\nConnection: close\r\n\r\n")
        asking.communicate(timeout=20)
    assert asking.returncode == 0
    assert received.startswith(b"POST /search?k=3 ")
