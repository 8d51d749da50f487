"""Settings: every one is documented, and a wrong one is told by its name before anything starts."""

import re
import tempfile
from pathlib import Path
from typing import Any

import pytest

from model.errors import SettingsInvalid
from service.cli import main as cli
from service.http.app import create_app
from service.http.limits import Limits
from service.reloader import WATCH_INTERVAL_S
from service.settings import PREFIX, REMOVED, Settings, load_settings

TEXT = (Path(__file__).resolve().parents[3] / "docs" / "settings.md").read_text(encoding="utf-8")
ROWS = re.findall(r"^\| `(\w+)` \| (.*?) \| (.*) \|$", TEXT, re.MULTILINE)
REMOVED_ROWS = dict(re.findall(r"^\| `(\w+)` \| ([^|]*) \|$", TEXT, re.MULTILINE))
OF_THE_MACHINE = {"search_threads", "spool_dir"}
MOST_SETTINGS = 28


def as_documented(default: Any) -> str:
    return "unset" if default is None else f"`{default}`"


def test_the_document_lists_exactly_the_settings_in_their_order() -> None:
    assert [name for name, _, _ in ROWS] == [f"{PREFIX}{name}".upper() for name in Settings.model_fields]


@pytest.mark.parametrize("name", Settings.model_fields)
def test_the_document_gives_the_default_and_the_meaning(name: str) -> None:
    field = Settings.model_fields[name]
    documented, meaning = {row[0]: row[1:] for row in ROWS}[f"{PREFIX}{name}".upper()]
    assert meaning == field.description
    if name in OF_THE_MACHINE:
        assert "`" not in documented
    else:
        assert documented == as_documented(field.default)


def test_there_are_few_settings() -> None:
    assert len(Settings.model_fields) <= MOST_SETTINGS


def test_the_document_says_what_holds_in_the_place_of_a_removed_setting() -> None:
    limits = Limits()
    held = {
        "HEAD_DEADLINE_S": f"{limits.head_deadline_s} s ",
        "BODY_DEADLINE_S": f"{limits.upload_deadline_s} s ",
        "WRITE_DEADLINE_S": f"{limits.write_deadline_s} s ",
        "MIN_UPLOAD_BYTES_PER_S": f"{limits.upload_bytes_per_s >> 10} KiB a second",
        "MAX_ARCHIVE_BYTES": f"{limits.archive_bytes >> 20} MiB ",
        "MAX_ARCHIVE_ENTRIES": f"{limits.archive.entries:,} files",
        "MAX_ARCHIVE_TOTAL_BYTES": f"{limits.archive.unpacked_bytes >> 30} GiB ",
        "MAX_PHOTO_BYTES": f"{limits.archive.photo_bytes >> 20} MiB ",
        "MAX_SYNC_PHOTOS": f"{limits.sync_photos} photos",
        "WATCH_INTERVAL_S": f"every {WATCH_INTERVAL_S} s",
        "RATE_LIMIT": "nginx",
    }
    assert REMOVED_ROWS.keys() == REMOVED == {PREFIX + name for name in held}
    for name, words in held.items():
        assert words in REMOVED_ROWS[PREFIX + name]


@pytest.mark.parametrize("name", sorted(REMOVED))
def test_a_removed_setting_warns_and_does_nothing(
    name: str, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    expected = load_settings()
    monkeypatch.setenv(name, "1")
    assert load_settings() == expected
    (told,) = [record.getMessage() for record in caplog.records]
    assert told == f"{name} is not a setting any more and does nothing; docs/settings.md lists what there is."


def test_an_empty_variable_is_unset(monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture) -> None:
    expected = load_settings()
    for name in (*Settings.model_fields, "typo"):
        monkeypatch.setenv(f"{PREFIX}{name}".upper(), "")
    for name in REMOVED:
        monkeypatch.setenv(name, "")
    assert load_settings() == expected
    assert not caplog.records


def test_a_variable_sets_its_field(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("CARSEARCH_MAX_QUEUE", "7")
    monkeypatch.setenv("CARSEARCH_DATASETS", '{"val": "photos"}')
    settings = load_settings()
    assert (settings.max_queue, settings.datasets) == (7, {"val": Path("photos")})
    assert settings.spool_dir == Path(tempfile.gettempdir())


def test_what_the_command_line_chose_wins_and_what_it_left_open_does_not(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("CARSEARCH_INDEX_DIR", "environment")
    assert load_settings(index_dir=Path("chosen")).index_dir == Path("chosen")
    assert load_settings(index_dir=None).index_dir == Path("environment")


@pytest.mark.parametrize("level", ["INFO", "Warning", "debug"])
def test_a_log_level_may_be_written_in_capitals(level: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("CARSEARCH_LOG_LEVEL", level)
    assert load_settings().log_level == level.lower()


@pytest.mark.parametrize("service", ["", "API_", "API_GPU_"], ids=["carsearch", "carsearch-api", "carsearch-api-gpu"])
@pytest.mark.parametrize(
    "name",
    [
        "SERVICE_HOST",
        "SERVICE_PORT",
        "SERVICE_PORT_HTTP",
        "PORT",
        "PORT_8000_TCP",
        "PORT_8000_TCP_ADDR",
        "PORT_8000_TCP_PORT",
        "PORT_8000_TCP_PROTO",
    ],
)
def test_what_kubernetes_says_of_a_service_whose_name_begins_with_ours_is_no_setting(
    service: str, name: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    expected = load_settings()
    monkeypatch.setenv(f"{PREFIX}{service}{name}", "tcp://10.0.0.1:8000")
    assert load_settings() == expected


def test_the_key_of_a_client_in_the_environment_is_no_setting(monkeypatch: pytest.MonkeyPatch) -> None:
    expected = load_settings()
    monkeypatch.setenv("CARSEARCH_KEY", "a-key-of-a-client")
    assert load_settings() == expected


@pytest.mark.parametrize("name", ["state_dir", "cache_dir", "spool_dir"])
@pytest.mark.parametrize("below", ["", "below"])
def test_a_directory_that_cannot_be_written_to_is_told_before_serving(name: str, below: str, tmp_path: Path) -> None:
    (tmp_path / "file").write_text("no directory")
    settings = load_settings(**{name: tmp_path / "file" / below})
    with pytest.raises(SettingsInvalid, match=rf"^CARSEARCH_{name.upper()} is wrong: .* \(.*\)\.$"):
        create_app(settings)


def test_directories_that_are_not_there_yet_are_made(tmp_path: Path) -> None:
    create_app(load_settings(state_dir=tmp_path / "a" / "state", cache_dir=tmp_path / "b" / "cache"))
    assert (tmp_path / "a" / "state").is_dir()
    assert (tmp_path / "b" / "cache").is_dir()


def test_a_gallery_directory_that_is_not_there_is_told_before_serving(tmp_path: Path) -> None:
    for path in (tmp_path / "none", tmp_path / "file"):
        (tmp_path / "file").touch()
        with pytest.raises(SettingsInvalid, match=rf"^CARSEARCH_GALLERY_DIR is wrong: {path} is no directory\.$"):
            create_app(load_settings(gallery_dir=path))


def test_a_dataset_that_is_not_there_is_told_before_serving(tmp_path: Path) -> None:
    settings = load_settings(datasets={"here": tmp_path, "val": tmp_path / "none"})
    words = rf"^CARSEARCH_DATASETS is wrong: there is nothing at {tmp_path}/none, the path of val\.$"
    with pytest.raises(SettingsInvalid, match=words):
        create_app(settings)


@pytest.mark.parametrize("name", ["CARSEARCH_MAX_QUEU", "CARSEARCH_", "carsearch_portt", "CARSEARCH_PORT_8000"])
def test_a_misspelt_variable_is_refused(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv(name, "1")
    with pytest.raises(SettingsInvalid, match=name.upper()):
        load_settings()


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("CARSEARCH_MAX_QUEUE", "0"),
        ("CARSEARCH_MAX_QUEUE", "many"),
        ("CARSEARCH_DRAIN_S", "-1"),
        ("CARSEARCH_REQUEST_DEADLINE_S", "nan"),
        ("CARSEARCH_RUNTIME", "abacus"),
        ("CARSEARCH_LOG_LEVEL", "loud"),
        ("CARSEARCH_TRUSTED_PROXIES", "10.0.0.0/8, proxy"),
        *(("CARSEARCH_ROOT_PATH", path) for path in ("cars", "//cars", "/a/../b", "/a b", "https://a.example/cars")),
        *(("CARSEARCH_CORS_ORIGINS", origins) for origins in ("shop.example", "https://a.example/", "*, null", ",")),
        ("CARSEARCH_KEEP_ALIVE_S", "0"),
        ("CARSEARCH_DATASETS", "[]"),
        ("CARSEARCH_DATASETS", '{"val": 5}'),
        ("CARSEARCH_DATASETS", "{"),
        ("CARSEARCH_ROOT_PATH", "/search"),
        ("CARSEARCH_ROOT_PATH", "/gallery/x"),
    ],
)
def test_a_wrong_value_is_told_by_the_name_of_its_variable(
    name: str, value: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv(name, value)
    with pytest.raises(SettingsInvalid, match=name):
        load_settings()


def test_a_slash_at_the_end_of_the_prefix_means_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    for value, expected in (("/cars/", "/cars"), ("/", None)):
        monkeypatch.setenv("CARSEARCH_ROOT_PATH", value)
        assert load_settings().root_path == expected


@pytest.mark.parametrize(
    ("settings", "sentence"),
    [
        ({"MAX_QUEUE": "0"}, "error: CARSEARCH_MAX_QUEUE is wrong: Input should be greater than 0.\n"),
        ({"HOST": "1"}, "error: There is no setting CARSEARCH_HOST; docs/settings.md lists them.\n"),
    ],
)
def test_the_command_line_says_it_in_one_sentence(
    settings: dict[str, str],
    sentence: str,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
    tmp_path: Path,
) -> None:
    for name, value in settings.items():
        monkeypatch.setenv(PREFIX + name, value)
    monkeypatch.setattr("sys.argv", ["carsearch", "serve", "--index", str(tmp_path), "--port", "0"])
    with pytest.raises(SystemExit) as ended:
        cli.main()
    assert (ended.value.code, " ".join(capsys.readouterr().err.split())) == (1, sentence.strip())
