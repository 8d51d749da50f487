"""Links to images: what is signed, until when they hold, and the secret that signs them."""

import time
from collections.abc import Mapping
from pathlib import Path
from urllib.parse import unquote

import pytest
from hypothesis import given
from hypothesis import strategies as st

from model.errors import SettingsInvalid
from service.http.links import HOUR_S, ImageLinks, read_secret

SECRET = b"0123456789abcdef"
LINKS = ImageLinks(SECRET)
NOON = 1_800_000_000 // HOUR_S * HOUR_S


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> list[float]:
    now = [float(NOON)]
    monkeypatch.setattr(time, "time", lambda: now[0])
    return now


def holds(link: str, links: ImageLinks = LINKS, changed: Mapping[str, str] | None = None) -> bool:
    """Whether a server takes a link, with some of its parameters changed."""
    path, _, query = link.partition("?")
    given = {**dict(one.split("=") for one in query.split("&") if one), **(changed or {})}
    return links.holds(unquote(path), "&".join(f"{name}={value}" for name, value in given.items()).encode())


def test_without_a_secret_a_link_is_a_path_and_none_is_known() -> None:
    links = ImageLinks(None)
    assert links.link("a b/100%.jpg", "/cars") == "/cars/gallery/a%20b/100%25.jpg/image"
    assert links.link("../x") == "/gallery/..%2Fx/image"
    assert not holds(LINKS.link("a.jpg"), links)


def test_a_link_holds_for_one_to_two_hours_and_is_the_same_for_one(clock: list[float]) -> None:
    first = LINKS.link("a.jpg")
    clock[0] = NOON + 1
    later = LINKS.link("a.jpg")
    assert f"expires={NOON + HOUR_S}&" in first
    assert f"expires={NOON + 2 * HOUR_S}&" in later
    clock[0] = NOON + HOUR_S
    assert LINKS.link("a.jpg") == later
    assert (holds(first), holds(later)) == (False, True)
    clock[0] = NOON + 2 * HOUR_S
    assert not holds(later)


def test_replicas_with_the_same_secret_know_each_other_s_links() -> None:
    link = LINKS.link("a.jpg")
    assert holds(link, ImageLinks(SECRET))
    assert not holds(link, ImageLinks(b"another secret of another server"))


@given(identity=st.text(min_size=1), other=st.text(min_size=1))
def test_a_link_opens_its_own_photo_and_no_other(identity: str, other: str) -> None:
    link = LINKS.link(identity)
    assert holds(link)
    query = link.partition("?")[2].encode()
    assert LINKS.holds(f"/gallery/{other}/image", query) == (other == identity)


@pytest.mark.parametrize(
    "changed",
    [
        {"expires": "9999999999"},
        {"expires": "9999999999%0a1"},
        {"expires": ""},
        {"expires": "-1"},
        {"sig": ""},
        {"sig": "0" * 64},
        {"sig": "%C3%A9"},
    ],
    ids=str,
)
def test_a_link_that_was_changed_does_not_hold(changed: dict[str, str]) -> None:
    assert not holds(LINKS.link("a.jpg"), changed=changed)


def test_a_link_opens_its_photo_in_any_width() -> None:
    assert holds(LINKS.link("a.jpg"), changed={"width": "320"})


def test_numbers_of_a_link_cannot_be_moved_into_its_id() -> None:
    link = LINKS.link("1\n2")
    expires = link.partition("expires=")[2].partition("&")[0]
    signature = link.partition("sig=")[2]
    query = f"expires={expires}%0A1&sig={signature}".encode()
    assert not LINKS.holds("/gallery/2/image", query)


def test_the_secret_is_read_from_a_file_or_made_with_a_warning(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    (tmp_path / "secret").write_bytes(SECRET + b"\n")
    assert read_secret(tmp_path / "secret") == SECRET
    assert not caplog.records
    assert read_secret(None) != read_secret(None)
    assert "CARSEARCH_LINK_SECRET_FILE" in caplog.records[0].getMessage()


def test_a_secret_that_cannot_be_used_is_told(tmp_path: Path) -> None:
    (tmp_path / "short").write_bytes(b"too short\n")
    for name, reason in (("short", "fewer than 16 bytes"), ("none", "cannot be read")):
        with pytest.raises(SettingsInvalid, match=rf"^CARSEARCH_LINK_SECRET_FILE is wrong: .*{reason}"):
            read_secret(tmp_path / name)
