"""The mutator: the same seed gives the same file, parts join to the whole, and much of what is made still decodes."""

import io
from collections import Counter

import pytest
from PIL import Image, UnidentifiedImageError

from model.errors import ImageRejected
from model.images.decode import decode
from tests.support import mutants

SEEDS = range(600)


@pytest.mark.parametrize("name", [*mutants.photos(), *mutants.archives()])
def test_the_parts_of_a_file_join_to_the_file(name: str) -> None:
    data = (mutants.photos() | mutants.archives())[name]
    parts = mutants.parts_of(data)
    assert b"".join(parts) == data
    assert len(parts) >= 2


def test_a_seed_gives_the_same_file_again_and_others_give_others() -> None:
    made = [mutants.photo(seed) for seed in SEEDS]
    assert made[:50] == [mutants.photo(seed) for seed in range(50)]
    assert len({mutant.data for mutant in made}) > 0.95 * len(made)
    assert mutants.archive(7) == mutants.archive(7)
    assert all(mutant.data for mutant in made)


@pytest.mark.filterwarnings("ignore")
def test_mutants_get_past_the_first_check_and_some_past_all_of_them() -> None:
    outcomes: Counter[str] = Counter()
    for seed in SEEDS:
        try:
            decode(mutants.photo(seed).data)
            outcomes["decoded"] += 1
        except ImageRejected as problem:
            outcomes[problem.code] += 1
    assert outcomes.keys() >= {
        "decoded", "image_undecodable", "image_too_many_pixels", "image_degenerate", "unsupported_image_format"
    }  # fmt: skip
    assert outcomes["unsupported_image_format"] < 0.2 * len(SEEDS)
    assert outcomes["decoded"] > 0.1 * len(SEEDS)


def test_checksums_are_mended() -> None:
    whole = mutants.photos()["PNG"]
    broken = bytearray(whole)
    broken[16:24] = (20).to_bytes(4, "big") * 2  # other sides
    mended = mutants.with_checksums(bytes(broken))
    with Image.open(io.BytesIO(mended)) as image:
        assert image.size == (20, 20)
    with pytest.raises(UnidentifiedImageError):
        Image.open(io.BytesIO(bytes(broken)))
