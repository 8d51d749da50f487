"""Settings: every one is documented, and a wrong one is told by its name before anything starts."""

import re
import tempfile
from pathlib import Path
from typing import Any

import pytest

from indexer.versions import IndexDirectory
from model.errors import SettingsInvalid
from service.http.app import create_app
from service.settings import PREFIX, Settings, load_settings
from tests.support.servers import run_cli

DOCUMENT = Path(__file__).resolve().parents[3] / "docs" / "settings.md"
ROW = re.compile(r"^\| `(\w+)` \| (.*?) \| (.*) \|$", re.MULTILINE)
OF_THE_MACHINE = {"search_threads", "spool_dir"}
ROWS = ROW.findall(DOCUMENT.read_text(encoding="utf-8"))


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


@pytest.mark.parametrize(
    "name",
    [
        "CARSEARCH_SERVICE_HOST",
        "CARSEARCH_SERVICE_PORT",
        "CARSEARCH_SERVICE_PORT_HTTP",
        "CARSEARCH_PORT",
        "CARSEARCH_PORT_8000_TCP",
        "CARSEARCH_PORT_8000_TCP_ADDR",
    ],
)
def test_what_kubernetes_says_of_a_service_of_our_name_is_no_setting(
    name: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv(name, "tcp://10.0.0.1:8000")
    assert load_settings().index_dir == Path("index")


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


@pytest.mark.parametrize("name", ["CARSEARCH_MAX_QUEU", "CARSEARCH_", "carsearch_portt", "CARSEARCH_PORT_8000"])
def test_a_misspelt_variable_is_refused(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv(name, "1")
    with pytest.raises(SettingsInvalid, match=name):
        load_settings()


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("CARSEARCH_MAX_QUEUE", "0"),
        ("CARSEARCH_MAX_QUEUE", "many"),
        ("CARSEARCH_SEARCH_THREADS", ""),
        ("CARSEARCH_BODY_DEADLINE_S", "-1"),
        ("CARSEARCH_REQUEST_DEADLINE_S", "nan"),
        ("CARSEARCH_RUNTIME", "abacus"),
        ("CARSEARCH_RUNTIME", "fake"),
        ("CARSEARCH_LOG_LEVEL", "loud"),
        ("CARSEARCH_DATASETS", "[]"),
        ("CARSEARCH_DATASETS", '{"val": 5}'),
        ("CARSEARCH_DATASETS", "{"),
    ],
)
def test_a_wrong_value_is_told_by_the_name_of_its_variable(
    name: str, value: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv(name, value)
    with pytest.raises(SettingsInvalid, match=name):
        load_settings()


@pytest.mark.parametrize(
    ("settings", "sentence"),
    [
        ({"MAX_QUEUE": "0"}, "error: CARSEARCH_MAX_QUEUE is wrong: Input should be greater than 0.\n"),
        ({"HOST": "1"}, "error: There is no setting CARSEARCH_HOST; docs/settings.md lists them.\n"),
    ],
)
def test_the_command_line_says_it_in_one_sentence(
    settings: dict[str, str], sentence: str, real_index: IndexDirectory
) -> None:
    printed = run_cli("serve", "--index", real_index.root, "--port", "0", **settings)
    assert (printed.returncode, printed.stderr) == (1, sentence)
