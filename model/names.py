"""Labels and ids of photos, made from what people called files and folders."""

import hashlib
import os
import sys
import unicodedata
from collections import Counter, defaultdict
from collections.abc import Collection, Iterable, Sequence
from difflib import get_close_matches

REPLACEMENT = "\N{REPLACEMENT CHARACTER}"
UNPRINTABLE = frozenset({"Cc", "Zl", "Zp"})
"""Unicode categories that would break a line of a list of ids: controls, and separators of lines and paragraphs."""

NEAR = 0.7
"""Share of equal characters from which one label may stand for another."""

LONGEST_COMPARED = 100
"""Characters of a label from a client that are compared with those of the gallery; it takes the square of the time."""

MOST_COMPARED = 2_000
"""Labels that one from a client is compared with; 20,000 would hold up a server for half a second."""


def printable(name: str) -> str:
    """A file or class name as text that can be stored and printed, whatever its bytes are."""
    return os.fsencode(name).decode("utf-8", "backslashreplace")


def normalise_label(name: str) -> str:
    """A class name in Unicode NFC and without blanks around it, so that two names that look equal are equal."""
    return sys.intern(unicodedata.normalize("NFC", name).strip())  # the photos of a class share it


def folded_label(label: str) -> str:
    """What labels that only differ in case, or in the kind and number of blanks, have in common.

    >>> folded_label("Audi\\u00a0 A4") == folded_label("audi a4")
    True
    """
    return " ".join(unicodedata.normalize("NFKC", label).casefold().split())


def similar_labels(labels: Iterable[str]) -> list[list[str]]:
    """Labels that have the same `folded_label`, in groups of two and more."""
    groups: dict[str, set[str]] = defaultdict(set)
    for label in labels:
        groups[folded_label(label)].add(label)
    return sorted(sorted(group) for group in groups.values() if len(group) > 1)


def near_label(label: str, labels: Collection[str]) -> str | None:
    """The label that somebody who wrote another one may have meant; None where none is near, or there are too many.

    >>> near_label("audi a 4", ["Audi A4", "BMW X5"])
    'Audi A4'
    """
    if len(labels) > MOST_COMPARED:
        return None
    by_folded = {folded_label(known): known for known in labels}
    folded = folded_label(label)[:LONGEST_COMPARED]
    near = [folded] if folded in by_folded else get_close_matches(folded, by_folded, n=1, cutoff=NEAR)
    return by_folded[near[0]] if near else None


def ids_of(relatives: Sequence[str]) -> list[str]:
    """The ids of photos by their different paths relative to the set: the path as text in Unicode NFC.

    Bytes that are not UTF-8, and control characters, are replaced. An id that is then not certain to be the only one of
    its kind ends with a hash of the path's bytes.

    >>> ids_of(["아반떼/100 %.jpg"])
    ['아반떼/100 %.jpg']
    """
    raw = [os.fsencode(relative) for relative in relatives]
    texts = [_as_text(name) for name in raw]
    shared = Counter(texts)
    ids = []
    for name, text in zip(raw, texts, strict=True):
        certain = name == text.encode() or (shared[text] == 1 and REPLACEMENT not in text)
        ids.append(text if certain else f"{text}~{hashlib.sha256(name).hexdigest()[:8]}")
    return ids


def _as_text(name: bytes) -> str:
    text = unicodedata.normalize("NFC", name.decode("utf-8", "replace"))
    return "".join(REPLACEMENT if unicodedata.category(one) in UNPRINTABLE else one for one in text)
