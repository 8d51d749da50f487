"""Labels and ids that photos get from names of files and folders."""

import os
import unicodedata

import pytest
from hypothesis import given
from hypothesis import strategies as st

from model.names import MOST_COMPARED, folded_label, ids_of, near_label, normalise_label, printable, similar_labels
from tests.support.photos import KOREAN


@pytest.mark.parametrize(
    ("name", "expected"),
    [
        ("아반떼/100%.jpg", "아반떼/100%.jpg"),
        (unicodedata.normalize("NFD", "아반떼/1.jpg"), "아반떼/1.jpg"),
        ("a/b c#?.jpg", "a/b c#?.jpg"),
        ("a/line\nbreak.jpg", "a/line\ufffdbreak.jpg~17487972"),
        (b"Kia\xff/\xb1\xe2.jpg", "Kia\ufffd/\ufffd\ufffd.jpg~95cfcf6e"),
    ],
)
def test_an_id_is_the_path_as_text(name: str | bytes, expected: str) -> None:
    assert ids_of([os.fsdecode(name)]) == [expected]


def test_of_two_names_that_look_equal_the_one_in_nfc_keeps_its_id() -> None:
    composed, decomposed = f"{KOREAN}.jpg", unicodedata.normalize("NFD", f"{KOREAN}.jpg")
    assert ids_of([decomposed, composed]) == [f"{composed}~5308f6ab", composed]


@given(names=st.sets(st.binary(min_size=1, max_size=6), max_size=8))
def test_different_paths_have_different_ids_that_fit_on_a_line(names: set[bytes]) -> None:
    ids = ids_of([os.fsdecode(name) for name in sorted(names)])
    assert len(set(ids)) == len(names)
    assert all(len(identity.splitlines()) == 1 and unicodedata.is_normalized("NFC", identity) for identity in ids)


def test_blanks_around_a_label_are_trimmed_and_other_differences_are_told() -> None:
    assert normalise_label("\u00a0 Audi A4 ") == "Audi A4"
    assert folded_label("\uff21UDI\u00a0\u00a0a4") == "audi a4"
    labels = ["Audi A4", "audi  a4", "Kia", "KIA", "Ford"]
    assert similar_labels(labels) == [["Audi A4", "audi  a4"], ["KIA", "Kia"]]


def test_no_label_is_suggested_where_there_are_too_many_to_compare() -> None:
    labels = [f"car {number}" for number in range(MOST_COMPARED)]
    assert near_label("Car 7", labels) == "car 7"
    assert near_label("Car 7", [*labels, "van"]) is None


@given(name=st.binary(max_size=20))
def test_any_name_becomes_text_that_utf8_can_hold(name: bytes) -> None:
    assert printable(os.fsdecode(name)).encode("utf-8") == name.decode("utf-8", "backslashreplace").encode("utf-8")


@pytest.mark.parametrize(("name", "shown"), [("아반떼".encode(), "아반떼"), (b"Kia\xff", "Kia\\xff"), (b"", "")])
def test_bytes_that_are_no_text_are_shown_escaped(name: bytes, shown: str) -> None:
    assert printable(os.fsdecode(name)) == shown
