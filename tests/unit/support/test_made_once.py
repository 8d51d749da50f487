"""Models that are made once: kept between calls, and made again when what they are made of changes."""

from pathlib import Path

import pytest

from tests.support import made_once as kept
from tests.support.made_once import made_once


def test_what_was_made_is_kept_until_its_sources_change(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    source = tmp_path / "source.py"
    source.write_text("first")
    monkeypatch.setattr(kept, "KEPT", tmp_path / "kept")
    monkeypatch.setattr(kept, "SOURCES", (str(source),))
    monkeypatch.setattr(kept, "PACKAGES", ("numpy",))

    def make(directory: Path) -> None:
        directory.mkdir()
        (directory / "weights").write_text(source.read_text())

    first = made_once("model", make)
    assert made_once("model", lambda _: pytest.fail("it is there already")) == first
    source.write_text("second")
    second = made_once("model", make)
    assert (second / "weights").read_text() == "second"
    assert not first.exists()


def test_what_could_not_be_made_is_tried_again(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(kept, "KEPT", tmp_path)
    monkeypatch.setattr(kept, "PACKAGES", ("numpy",))
    with pytest.raises(ZeroDivisionError):
        made_once("model", lambda _: 1 / 0)
    assert made_once("model", lambda directory: directory.mkdir()).is_dir()
