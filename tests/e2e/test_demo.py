"""`carsearch demo` with a stand-in for what ships: it starts, finds what was promised, says what is wrong, and ends."""

import dataclasses
import json
import re
import shutil
import signal
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path

import httpx
import pytest

from bench.demo_gallery import write_contents
from bench.serving import free_port
from indexer.benchmark.evaluate import evaluate
from indexer.versions import IndexDirectory
from model.card import Score, load_card
from model.dataset import read_items
from model.embedder import Embedder
from model.errors import SettingsInvalid
from service import __version__
from service.cli import main as cli
from service.demo import command as demo
from service.demo import gallery as demo_gallery
from service.demo.command import DemoFailed
from service.demo.gallery import Query
from service.http.server import listen
from tests.support.calls import eventually
from tests.support.photos import KOREAN, car_photo, write_gallery
from tests.support.servers import clean_environment
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
from service import __version__
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


def test_a_first_run_passes_and_a_later_one_embeds_nothing_of_the_gallery_again(packed: Stand, tmp_path: Path) -> None:
    printed, problems = (process := start(packed, tmp_path, "--check")).communicate(timeout=120)
    assert process.returncode == 0, problems
    assert "12 rendered photos of 3 classes, 12 embedded" in printed
    assert "95% interval" in printed
    assert re.search(r"          .*, probability 0\.\d\d, \d+% of the ten nearest photos\n", printed)
    assert printed.endswith("check     passed\n")
    printed, problems = (process := start(packed, tmp_path, "--check")).communicate(timeout=120)
    assert (process.returncode, "12 rendered photos of 3 classes, built before" in printed) == (0, True), problems
    assert [path.name for path in (tmp_path / "carsearch" / "demo").iterdir()] == [__version__]


@pytest.mark.parametrize(("number", "status"), [(signal.SIGINT, 130), (signal.SIGTERM, -signal.SIGTERM)])
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
        wait_until_ready(f"http://127.0.0.1:{port}")
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


def wait_until_ready(url: str) -> None:
    eventually(lambda: httpx.get(f"{url}/readyz", trust_env=False).status_code == 200, "the demo is ready")


def test_a_changed_model_or_gallery_is_indexed_anew(stand: Stand, tmp_path: Path) -> None:
    demo.check(tmp_path)
    stand.promise(command="carsearch evaluate")  # another card is another model
    demo.check(tmp_path)
    index = IndexDirectory(tmp_path)
    _, second = index.versions()
    (stand.gallery / "gallery" / "car 2" / "0.jpg").unlink()
    with pytest.raises(DemoFailed, match="The top-1 is not what the card promises"):
        demo.check(tmp_path)
    assert index.versions() == [second, index.current()]
    assert index.manifest(index.current()).count == 11


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"set": "val"}, 'The card of tiny has no score for the set "demo".'),
        ({"top1": 0.979}, "The top-1 is not what the card promises, give or take 0.02."),
        ({"top1": 0.981}, None),
        ({"total": 13}, "The top-1 is not what the card promises, give or take 0.02."),
    ],
)
def test_a_score_that_is_not_the_promised_one_is_one_sentence_and_status_1(
    changes: dict[str, object],
    words: str | None,
    stand: Stand,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    stand.promise(**changes)
    monkeypatch.setattr(sys, "argv", ["carsearch", "demo", "--check", "--dir", str(tmp_path)])
    with pytest.raises(SystemExit) as ended:
        cli.main()
    assert (ended.value.code, capsys.readouterr().err) == ((1, f"error: {words}\n") if words else (0, ""))


def test_every_query_has_to_find_its_class(stand: Stand, tmp_path: Path) -> None:
    write_contents(stand.gallery, [Query("queries/2.jpg", KOREAN, "9.jpg")], {})
    with pytest.raises(DemoFailed, match=f"queries/2.jpg is of {KOREAN} and the search found car 1"):
        demo.check(tmp_path)


def test_a_port_that_is_taken_is_told_before_anything_is_built(stand: Stand, tmp_path: Path) -> None:
    del stand
    with listen("127.0.0.1", 0) as listener:
        port = listener.getsockname()[1]
        with pytest.raises(SettingsInvalid, match=f"port {port}: Address already in use"):
            demo.run("127.0.0.1", port, tmp_path / "cache")
    assert not (tmp_path / "cache").exists()
