"""The command line on bad input: one sentence on stderr, an exit status, never a traceback."""

import csv
import json
import shutil
import signal
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

from bench.serving import free_port
from indexer.build import build_index
from indexer.manifest import INDEX_NAME
from indexer.versions import IndexDirectory
from model.embedder import DEFAULT_MODEL, Embedder
from tests.conftest import Printed, write_fake_model
from tests.support.photos import KOREAN, car_photo, write_gallery, write_seed_table
from tests.support.servers import Server, clean_environment, run_cli
from tests.unit.test_layout import ROOT

pytestmark = pytest.mark.e2e


def assert_one_sentence(printed: Printed, words: str) -> None:
    assert (printed.returncode, printed.stdout) == (1, ""), printed.stderr
    assert printed.stderr.startswith("error: ")
    assert printed.stderr.count("\n") == 1
    assert words in printed.stderr


@pytest.fixture(scope="module")
def place(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A directory with a photo, a file that is none, an empty folder, a gallery with a bad photo."""
    root = tmp_path_factory.mktemp("place")
    (root / "photo.jpg").write_bytes(car_photo())
    (root / "text.jpg").write_text("no photo")
    (root / "empty").mkdir()
    bad = write_gallery(root / "bad", classes=2, photos=2)
    (bad / "car 1" / "broken.jpg").write_bytes(car_photo()[:500])
    write_fake_model(root / "foreign")
    (root / "foreign" / "weights.safetensors").write_bytes(b"other weights")
    return root


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        pytest.param("search nowhere.jpg --index INDEX", "nowhere.jpg: The file cannot be read", id="no photo"),
        pytest.param("search empty --index INDEX", "There are no photos in empty", id="a folder without photos"),
        pytest.param("search text.jpg --index INDEX", "not a JPEG, PNG, WebP, AVIF or HEIC", id="not a photo"),
        pytest.param("search photo.jpg --index empty", "There is no index in", id="no index"),
        pytest.param("search photo.jpg --index INDEX -k 0", "from 1 to 100", id="k is 0"),
        pytest.param("search photo.jpg --index INDEX -k 101", "from 1 to 100", id="k is 101"),
        pytest.param("search photo.jpg --index INDEX --class spaceship", "no class of that name", id="unknown class"),
        pytest.param("train --data bad --out out --recipe soup", '"soup"', id="unknown recipe"),
        pytest.param("train --data empty --out out", "no photos in", id="nothing to train on"),
        pytest.param("train --data nowhere --out out", "nowhere cannot be read", id="no training data"),
        pytest.param("export empty", "There is no model in", id="nothing to export"),
        pytest.param("export MODEL", "--photos", id="no photos to compare on"),
        pytest.param("export MODEL --photos empty", "no photos in", id="an empty folder to compare on"),
        pytest.param("index bad --index out --model nowhere", '"nowhere"', id="unknown model"),
        pytest.param("index bad --index out --model empty", "has no card.json", id="a folder for a model"),
        pytest.param("index bad --index out --model foreign", "is damaged", id="damaged model"),
        pytest.param("index empty --index out --model MODEL", "no photos in", id="empty gallery"),
        pytest.param("index nowhere --index out --model MODEL", "nowhere cannot be read", id="no gallery"),
        pytest.param("versions list --index empty", "There is no index in", id="nothing to list"),
        pytest.param("versions verify --index empty", "There is no index in", id="nothing to verify"),
        pytest.param("versions rollback --index INDEX", "no version before", id="nothing to roll back to"),
        pytest.param("versions rollback x --index INDEX", "no version x", id="unknown version"),
        pytest.param("evaluate --data empty --model MODEL", "no photos in", id="nothing to evaluate"),
        pytest.param("evaluate --data bad --index empty", "There is no index in", id="no index to evaluate with"),
        pytest.param("evaluate --data bad --model MODEL --report no/such/dir", "no/such/dir: No such", id="no report"),
    ],
)  # fmt: skip
def test_a_mistake_is_told_in_one_sentence(
    arguments: str,
    words: str,
    carsearch: Callable[..., Printed],
    place: Path,
    real_index: IndexDirectory,
    real_model: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    stands_for = {"INDEX": str(real_index.root), "MODEL": str(real_model)}
    full = [stands_for.get(word, word).replace("PORT", str(free_port())) for word in arguments.split()]
    monkeypatch.chdir(place)
    assert_one_sentence(carsearch(*full), words)


@pytest.mark.parametrize(
    "arguments",
    [
        "soup",
        "search",
        "versions remove",
        "search photo.jpg -k many",
        "search photo.jpg --runtime abacus",
        "export",
        "export foreign --precision int4",
        "index",
        "index bad --keep 1",
        "index bad --storage fp8",
        "evaluate",
        "evaluate --data bad --mode gallery",
        "serve --port 70000",
    ],
)
def test_wrong_usage_has_its_own_exit_status(
    arguments: str, carsearch: Callable[..., Printed], place: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(place)
    printed = carsearch(*arguments.split())
    assert (printed.returncode, printed.stdout) == (2, "")
    assert "Usage: " in printed.stderr


def test_train_passes_its_arguments_to_the_options_of_training(carsearch: Callable[..., Printed]) -> None:
    printed = carsearch("train", "--data", "bad", "--out", "out", "--epochs", "0")
    assert (printed.returncode, printed.stdout) == (2, "")
    assert printed.stderr == "error: argument --epochs: 0 is less than 1; see carsearch train --help\n"
    told = carsearch("train", "--help")
    assert told.returncode == 0
    assert "--restart" in told.stdout


@pytest.mark.parametrize(
    "arguments", ["--help", "index --help", "search --help", "serve --help", "version", "--version"]
)
def test_help_and_version_import_no_heavy_package(arguments: str) -> None:
    full = ["carsearch", *arguments.split()]
    program = (
        f"import sys; sys.argv = {full}\nfrom carsearch.__main__ import main\n"
        "try:\n    main()\nfinally:\n    print(sorted({'faiss', 'openvino', 'torch'} & set(sys.modules)))"
    )
    printed = subprocess.run([sys.executable, "-c", program], cwd=ROOT, capture_output=True, text=True, check=True)
    assert printed.stdout.endswith("\n[]\n")


def test_without_a_name_the_default_that_ships_embeds(carsearch: Callable[..., Printed], place: Path) -> None:
    report = place / "default.json"
    printed = carsearch("evaluate", "--data", place / "bad", "--report", report)
    assert printed.returncode == 0, printed.stderr
    versions = json.loads(report.read_text(encoding="utf-8"))["versions"]
    assert (versions["model"], versions["precision"]) == (DEFAULT_MODEL, "int8")


def test_strict_publishes_nothing_and_without_it_the_bad_photo_is_listed(
    carsearch: Callable[..., Printed], place: Path, real_model: Path, tmp_path: Path
) -> None:
    indexing = ("index", place / "bad", "--index", tmp_path / "index", "--model", real_model)
    assert_one_sentence(carsearch(*indexing, "--strict"), "1 photos cannot be used, the first is car 1/broken.jpg")
    assert not (tmp_path / "index" / "CURRENT").exists()
    printed = carsearch(*indexing)
    assert printed.returncode == 0
    assert printed.stderr.startswith("skipped car 1/broken.jpg: ")
    assert "4 photos of 2 classes (" in printed.stdout
    again = carsearch("index", place / "bad", "--index", tmp_path / "index")
    assert again.stdout.startswith("unchanged: version ")


def test_a_storage_is_chosen_kept_and_told_with_what_it_costs(
    carsearch: Callable[..., Printed], tmp_path: Path, real_model: Path
) -> None:
    photos = write_gallery(tmp_path / "photos", classes=2)
    where = ("--index", tmp_path / "index")
    printed = carsearch("index", photos, *where, "--model", real_model, "--storage", "fp16")
    assert printed.returncode == 0, printed.stderr
    assert printed.stdout.endswith("stored in fp16: recall@1 against fp32 1.00000\n")
    again = carsearch("index", photos, *where).stdout
    assert again.startswith("unchanged: ")
    assert again.endswith("stored in fp16: recall@1 against fp32 1.00000\n")
    listed = carsearch("versions", "list", *where).stdout
    assert "fp16" in listed
    assert "as shipped" in listed  # six photos are too few for a fit of their own
    whole = carsearch("index", photos, *where, "--storage", "fp32").stdout
    assert "stored in" not in whole
    assert "(0 embedded, " in whole


def test_versions_are_listed_verified_and_rolled_back_to(
    carsearch: Callable[..., Printed], tmp_path: Path, real_embedder: Embedder
) -> None:
    index = IndexDirectory(tmp_path / "index")
    first = build_index(write_gallery(tmp_path / "a", classes=1), index, real_embedder).version
    second = build_index(write_gallery(tmp_path / "b", classes=2), index, real_embedder).version
    where = ("--index", index.root)
    listed = carsearch("versions", "list", *where)
    assert listed.returncode == 0
    assert [line for line in listed.stdout.splitlines() if "CURRENT" in line and second in line]
    assert first in listed.stdout
    assert carsearch("versions", "verify", *where).stdout.count("verified") == 2
    assert carsearch("versions", "rollback", *where).stdout == f"CURRENT is now {first}.\n"
    assert index.current() == first
    assert carsearch("versions", "rollback", second, *where).returncode == 0
    assert index.current() == second


def test_the_list_tells_how_the_probability_of_a_version_was_fitted(
    carsearch: Callable[..., Printed], tmp_path: Path, fake_embedder: Embedder
) -> None:
    """Each class has ten copies of one photo: every decision is right, and there is no AUROC."""
    gallery = write_gallery(tmp_path / "photos", classes=20, photos=1)
    for photo in list(gallery.rglob("*.jpg")):
        for copy in range(9):
            shutil.copy(photo, photo.with_name(f"copy {copy}.jpg"))
    build_index(gallery, IndexDirectory(tmp_path / "index"), fake_embedder)
    listed = carsearch("versions", "list", "--index", tmp_path / "index").stdout
    assert "fitted on 200 photos, error 0.0" in " ".join(listed.split())
    assert "AUROC" not in listed


def test_verify_names_the_damaged_version_and_fails(
    carsearch: Callable[..., Printed], tmp_path: Path, real_embedder: Embedder
) -> None:
    index = IndexDirectory(tmp_path / "index")
    version = build_index(write_gallery(tmp_path / "a", classes=1), index, real_embedder).version
    path = index.path_of(version) / INDEX_NAME
    path.write_bytes(path.read_bytes()[:-1] + b"?")
    printed = carsearch("versions", "verify", "--index", index.root)
    assert printed.returncode == 1
    assert version in printed.stdout
    assert printed.stderr.startswith(f"error: The index version {version} is damaged: {INDEX_NAME} ")
    assert_one_sentence(carsearch("search", tmp_path / "a" / KOREAN / "0.jpg", "--index", index.root), "is damaged")


def test_an_evaluation_leaves_its_report_and_the_predictions_in_the_original_project_s_format(
    carsearch: Callable[..., Printed], tmp_path: Path, real_model: Path
) -> None:
    data, report, predictions = write_seed_table(tmp_path / "set"), tmp_path / "report.json", tmp_path / "pairs.txt"
    printed = carsearch(
        "evaluate", "--data", data, "--model", real_model, "--report", report, "--predictions", predictions
    )
    assert "0.75000 = 3/4" in printed.stdout
    assert json.loads(report.read_text())["top1"] == 0.75
    assert sorted(predictions.read_text().splitlines()) == [
        "cat/Image3.png\tcat/Image4.png",
        "cat/Image4.png\tcat/Image3.png",
        "dog/Image1.png\tdog/Image2.png",
        "dog/Image2.png\tcat/Image3.png",
    ]


@pytest.mark.parametrize(
    ("package", "arguments", "extra"),
    [
        ("torch", "train --data bad --out out", "train"),
        ("lightning", "train --data bad --out out", "train"),
        ("faiss", "search photo.jpg --index INDEX", "cpu"),
        ("openvino", "search photo.jpg --index INDEX --runtime openvino", "cpu"),
        ("openvino", "export foreign", "cpu"),
    ],
)
def test_a_package_that_is_not_installed_is_named_with_its_extra(
    package: str, arguments: str, extra: str, place: Path, real_index: IndexDirectory
) -> None:
    full = ["carsearch", *arguments.replace("INDEX", str(real_index.root)).split()]
    program = (
        f"import sys; sys.modules[{package!r}] = None; sys.argv = {full}\nfrom carsearch.__main__ import main; main()"
    )
    environment = {**clean_environment(), "PYTHONPATH": str(ROOT)}
    printed = subprocess.run(
        [sys.executable, "-c", program], env=environment, cwd=place, capture_output=True, text=True, check=False
    )
    assert_one_sentence(printed, f'{package} is not installed; install it with: pip install "carsearch[{extra}]"')


def test_a_port_that_is_taken_is_told_in_one_sentence_and_leaves_nothing_behind(
    server: Server, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("TMPDIR", str(tmp_path))
    port = server.url.rpartition(":")[2]
    printed = run_cli("serve", "--port", port)
    assert_one_sentence(printed, f"cannot listen on 127.0.0.1 port {port}: Address already in use.")
    assert list(tmp_path.iterdir()) == []


def test_a_host_that_is_not_known_is_told_with_its_reason() -> None:
    printed = run_cli("serve", "--host", "nowhere.invalid", "--port", "0")
    assert_one_sentence(printed, "cannot listen on nowhere.invalid port 0: ")
    assert "Unknown error" not in printed.stderr


def test_a_spool_directory_that_is_not_there_is_told_before_the_first_upload(place: Path) -> None:
    printed = run_cli("serve", "--port", "0", SPOOL_DIR=str(place / "nowhere"))
    assert_one_sentence(printed, "CARSEARCH_SPOOL_DIR is wrong")


def test_a_folder_of_photos_is_answered_in_csv_with_what_cannot_be_read(
    carsearch: Callable[..., Printed], place: Path, real_index: IndexDirectory, tmp_path: Path
) -> None:
    results = tmp_path / "results.csv"
    printed = carsearch("search", place / "bad", "--index", real_index.root, "-k", "2", "--out", results)
    assert (printed.returncode, printed.stdout) == (0, "")
    assert printed.stderr.startswith(f"1 of 5 photos cannot be read; the first is {place}/bad/car 1/broken.jpg: ")
    with results.open(encoding="utf-8", newline="") as file:
        lines = list(csv.DictReader(file))
    assert len(lines) == 4 * 2 + 1
    (broken,) = (line for line in lines if line["error_code"])
    assert (broken["query"], broken["error_code"], broken["id"]) == (
        f"{place}/bad/car 1/broken.jpg",
        "image_undecodable",
        "",
    )
    (best,) = (line for line in lines if line["query"].endswith(f"{KOREAN}/0.jpg") and line["rank"] == "1")
    assert (best["id"], best["class"]) == (f"{KOREAN}/0.jpg", KOREAN)
    assert float(best["score"]) == pytest.approx(1, abs=1e-5)
    assert best["decision_outcome"] in ("class", "not_a_car", "unsure")
    assert best["decision_class"] == KOREAN
    assert best["metadata"] == ""


def test_many_photos_are_json_lines_of_the_shape_of_one_photo_s_answer(
    carsearch: Callable[..., Printed], place: Path, real_index: IndexDirectory
) -> None:
    where = ("--index", real_index.root, "--json")
    one = carsearch("search", place / "photo.jpg", *where)
    several = carsearch("search", place / "photo.jpg", place / "nowhere.jpg", *where)
    assert several.returncode == 0
    first, second = map(json.loads, several.stdout.splitlines())
    assert first.pop("query") == str(place / "photo.jpg")
    assert first.keys() == json.loads(one.stdout).keys()
    assert [hit["id"] for hit in first["results"]] == [hit["id"] for hit in json.loads(one.stdout)["results"]]
    assert (second["query"], second["error"]["code"]) == (str(place / "nowhere.jpg"), "file_unreadable")


def test_ctrl_c_ends_a_search_with_many_photos_while_its_threads_read(
    real_index: IndexDirectory, tmp_path: Path
) -> None:
    """2,000 links to a photo of 6 megapixels take longer than it takes to see the first answer."""
    (tmp_path / "photo.jpg").write_bytes(car_photo(size=(3000, 2000)))
    (tmp_path / "photos").mkdir()
    for number in range(2000):
        (tmp_path / "photos" / f"{number}.jpg").hardlink_to(tmp_path / "photo.jpg")
    command = [sys.executable, "-m", "carsearch", "search", str(tmp_path / "photos"), "--json"]
    command += ["--index", str(real_index.root)]
    with subprocess.Popen(
        command, env=clean_environment(), stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
    ) as process:
        assert process.stdout is not None
        assert json.loads(process.stdout.readline())["nearest"]
        process.send_signal(signal.SIGINT)
        told, problems = process.communicate(timeout=60)
    assert process.returncode == 130
    assert problems == ""
    assert len(told.splitlines()) < 1999
