"""Paths as people write them into spreadsheets."""

import unicodedata
from pathlib import Path

import pytest

from model.errors import DataInvalid
from model.local_paths import local_path
from tests.support.photos import KOREAN


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    for name in ("audi/a1.jpg", "odd\\name.jpg", "C:", "~draft.jpg", unicodedata.normalize("NFD", f"{KOREAN}.jpg")):
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).write_bytes(b"")
    return tmp_path


@pytest.mark.parametrize(
    ("written", "path"),
    [
        ("audi/a1.jpg", "audi/a1.jpg"),
        ("/srv/a.jpg", "/srv/a.jpg"),
        ("audi\\a1.jpg", "audi/a1.jpg"),
        (".\\audi\\a1.jpg", "./audi/a1.jpg"),
        ("nowhere\\a1.jpg", "nowhere/a1.jpg"),
        ("odd\\name.jpg", "odd\\name.jpg"),
        ("C:", "C:"),
        ("~draft.jpg", "~draft.jpg"),
        ("~/cars/a.jpg", "/home/me/cars/a.jpg"),
        ("~\\cars\\a.jpg", "/home/me/cars/a.jpg"),
        ("~nobody/a.jpg", "~nobody/a.jpg"),
        ("file:///srv/my%20cars/100%25.jpg", "/srv/my cars/100%.jpg"),
        ("FILE://localhost/srv/a%23b?.jpg", "/srv/a#b?.jpg"),
        (f"{KOREAN}.jpg", unicodedata.normalize("NFD", f"{KOREAN}.jpg")),
        (f"{KOREAN}2.jpg", f"{KOREAN}2.jpg"),
        ("a:b.jpg", "a:b.jpg"),
    ],
)
def test_a_cell_means_a_path(folder: Path, monkeypatch: pytest.MonkeyPatch, written: str, path: str) -> None:
    monkeypatch.setenv("HOME", "/home/me")
    assert local_path(written, folder) == path


@pytest.mark.parametrize(
    ("written", "reason"),
    [
        ("C:\\cars\\a.jpg", "is a path of Windows, which this machine does not have"),
        ("d:/cars/a.jpg", "is a path of Windows"),
        ("file:///C:/cars/a.jpg", '"C:/cars/a.jpg" is a path of Windows'),
        ("\\\\server\\cars\\a.jpg", "is a path of Windows"),
        ("file://server/cars/a.jpg", "is a file of another machine"),
        ("https://example.org/a.jpg", "is an address of a network; download the photo"),
    ],
)
def test_what_cannot_lie_on_this_machine_is_refused_with_the_reason(folder: Path, written: str, reason: str) -> None:
    with pytest.raises(DataInvalid, match=reason):
        local_path(written, folder)


def test_a_home_that_nobody_has_is_told(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HOME", "~")
    with pytest.raises(DataInvalid, match=r'^"~/a\.jpg" is in a home, and this user has none; write the whole path'):
        local_path("~/a.jpg", folder)
