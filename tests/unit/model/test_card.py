"""The card: what names an embedding space, and one sentence for every way an artifact can be damaged."""

import dataclasses
import json
import shutil
from pathlib import Path
from typing import Any

import pytest

import model.embedder
from model.card import (
    CARD_NAME,
    GOLDEN_NAME,
    WEIGHTS_NAME,
    WHITENING_NAME,
    CalibrationSet,
    Card,
    InputSpec,
    Parity,
    Score,
    WhiteningRecord,
    canonical_sha256,
    card_sha256,
    graph_names,
    load_card,
    verify_artifact,
)
from model.embedder import DEFAULT_MODEL, Embedder, find_model
from model.errors import ModelInvalid, ModelNotFound
from model.storage import FileRecord

CARD = Card(
    name="아반떼",
    architecture="resnet18",
    embedding_dim=2,
    input=InputSpec(72, 64),
    files={WEIGHTS_NAME: FileRecord(3, "ab" * 32), GOLDEN_NAME: FileRecord(4, "cd" * 32)},
    golden={"torch/fp32": [0.0, 1.0]},
    parity=[Parity("openvino", "fp32", "fp32", 16, 0.99999, 0.999999)],
    calibration=[CalibrationSet("train", 150, ["one", "two"])],
    whitening=WhiteningRecord(0.3, 0.75, 150, ["one", "two"]),
    training={"recipe": {"lr": 0.01}},
    scores=[Score("val", "int8", 0.65, 65, 100, 28, (0.6, 0.7), (0.61, 0.69), "carsearch evaluate --data val")],
    about={"limits": "Cars only."},
)

RECORD = {"bytes": 3, "sha256": "ab" * 32}


def with_parity(low: float) -> Card:
    return dataclasses.replace(CARD, parity=[Parity("openvino", "int8", "fp32", 256, low, 0.99999)])


@pytest.fixture
def artifact(fake_model: Path, tmp_path: Path) -> Path:
    """A model directory of the test's own."""
    return Path(shutil.copytree(fake_model, tmp_path / "model"))


def rewrite(directory: Path, **changes: Any) -> None:
    """Changes fields of a card on disk; None takes a field out."""
    value = {**json.loads((directory / CARD_NAME).read_bytes()), **changes}
    kept = {name: field for name, field in value.items() if field is not None}
    (directory / CARD_NAME).write_text(json.dumps(kept))


def test_a_card_survives_being_written_and_read(tmp_path: Path) -> None:
    CARD.save(tmp_path)
    assert load_card(tmp_path) == CARD
    assert "아반떼" in (tmp_path / CARD_NAME).read_text(encoding="utf-8")
    assert [path.name for path in tmp_path.iterdir()] == [CARD_NAME]


@pytest.mark.parametrize(
    "other",
    [
        dataclasses.replace(CARD, files={**CARD.files, WEIGHTS_NAME: FileRecord(3, "ef" * 32)}),
        dataclasses.replace(CARD, input=InputSpec(73, 64)),
        dataclasses.replace(CARD, input=InputSpec(72, 63)),
        dataclasses.replace(CARD, input=InputSpec(72, 64, mean=(0.5, 0.5, 0.5))),
        dataclasses.replace(CARD, input=InputSpec(72, 64, decoder="pillow-2")),
        dataclasses.replace(CARD, input=InputSpec(72, 64, mirror=True)),
        dataclasses.replace(CARD, files={**CARD.files, WHITENING_NAME: FileRecord(3, "ef" * 32)}),
    ],
    ids=["weights", "resize", "crop", "mean", "decoder", "mirror", "whitening"],
)
def test_another_network_or_preprocessing_is_another_embedding_space(other: Card) -> None:
    assert other.embedding_id("fp32") != CARD.embedding_id("fp32")


def test_another_precision_is_another_space_and_provenance_is_not() -> None:
    assert CARD.embedding_id("int8") != CARD.embedding_id("fp32")
    renamed = dataclasses.replace(CARD, name="other", training={}, golden={}, parity=[], scores=[], about={})
    assert renamed.embedding_id("fp32") == CARD.embedding_id("fp32")
    assert len(CARD.embedding_id("fp32")) == 16


def test_a_network_sees_a_central_square_or_the_whole_photo() -> None:
    assert InputSpec(resize=256, crop=224).square == 0.875
    assert InputSpec(resize=256, crop=224, fit="stretch").square is None


def with_graphs(**sha256: str) -> Card:
    files = {name: FileRecord(5, sha) for precision, sha in sha256.items() for name in graph_names(precision)}
    return dataclasses.replace(CARD, files={**CARD.files, **files})


def test_a_graph_in_int8_is_a_space_of_its_own_and_a_graph_in_fp32_is_torch_s() -> None:
    """Another calibration of the same weights is another graph; its embeddings must not be reused."""
    card = with_graphs(fp32="11" * 32, int8="22" * 32)
    assert card.embedding_id("fp32") == CARD.embedding_id("fp32")
    assert card.embedding_id("int8") == with_graphs(int8="22" * 32).embedding_id("int8")
    assert card.embedding_id("int8") != with_graphs(int8="33" * 32).embedding_id("int8")


def test_a_card_tells_its_graphs_the_one_that_is_run_first_in_front_and_which_gave_an_id() -> None:
    card = with_graphs(fp32="11" * 32, int8="22" * 32)
    assert (card.precisions, with_graphs(fp32="11" * 32).precisions, CARD.precisions) == (
        ["int8", "fp32"],
        ["fp32"],
        [],
    )
    assert {card.precision_of(card.embedding_id(name)) for name in ("int8", "fp32")} == {"int8", "fp32"}
    assert CARD.precision_of(card.embedding_id("int8")) is None


def test_a_hash_does_not_depend_on_the_order_of_keys() -> None:
    assert canonical_sha256({"a": 1, "b": [2]}) == canonical_sha256({"b": [2], "a": 1}) != canonical_sha256({"a": 1})


@pytest.mark.parametrize(("low", "expected"), [(0.9999, True), (0.99989, False), (float("nan"), False)])
def test_ids_are_interchangeable_when_a_measured_parity_names_the_pair(low: float, expected: bool) -> None:
    card = with_parity(low)
    fp32, int8, bf16 = (card.embedding_id(precision) for precision in ("fp32", "int8", "bf16"))
    assert card.interchangeable(fp32, int8) is card.interchangeable(int8, fp32) is expected
    assert card.interchangeable(bf16, bf16)
    assert not card.interchangeable(fp32, bf16)
    assert not card.interchangeable(int8, "0" * 16)


def test_a_measured_bf16_graph_may_search_an_index_in_fp32_and_an_unmeasured_int8_graph_may_not() -> None:
    card = dataclasses.replace(CARD, parity=[Parity("openvino", "bf16", "fp32", 256, 0.99995, 0.99999)])
    assert card.interchangeable(card.embedding_id("bf16"), card.embedding_id("fp32"))
    assert not card.interchangeable(card.embedding_id("int8"), card.embedding_id("fp32"))


@pytest.mark.parametrize("sides", [(64, 0), (63, 64), (5000, 64), (-1, -1)])
def test_an_input_spec_that_cannot_be_is_refused(sides: tuple[int, int]) -> None:
    with pytest.raises(ModelInvalid, match="1 <= crop <= resize <= 4096"):
        InputSpec(*sides)


@pytest.mark.parametrize(
    ("changes", "sentence"),
    [
        ({"architecture": None}, "lacks or misspells a field: 'architecture'"),
        ({"input": None}, "lacks or misspells a field: 'input'"),
        ({"input": {"resize": 72, "mean": [0, 0, 0], "std": [1, 1, 1]}}, "lacks or misspells a field: 'crop'"),
        ({"input": {**dataclasses.asdict(CARD.input), "mean": [1, 2]}}, "lacks or misspells a field"),
        ({"whitening": {"shrink": 0.3}}, "lacks or misspells a field"),
        ({"embedding_dim": "many"}, "lacks or misspells a field"),
        ({"embedding_dim": float("inf")}, "lacks or misspells a field"),
        ({"files": []}, "lacks or misspells a field"),
        ({"files": {}}, "names no weights.safetensors"),
        ({"files": {WEIGHTS_NAME: {"size": 3}}}, "lacks or misspells a field"),
        ({"parity": [{"runtime": "openvino"}]}, "lacks or misspells a field"),
        ({"golden": {"fake/fake": ["x"]}}, "lacks or misspells a field"),
        ({"golden": {"fake/fake": "AACAPwAAAAA="}}, "does not have 64 values"),
        ({"calibration": [{"name": "train"}]}, "lacks or misspells a field"),
        ({"scores": [{"set": "val", "ci95": [0.6]}]}, "lacks or misspells a field"),
        ({"scores": [{**dataclasses.asdict(CARD.scores[0]), "ci95": [0.6]}]}, "lacks or misspells a field"),
        ({"about": ["limits"]}, "lacks or misspells a field"),
        *(
            ({"files": {WEIGHTS_NAME: RECORD, name: RECORD}}, "names a file that cannot be one of the model's")
            for name in ("/etc/passwd", "../other/card.json", "openvino/../../x", "a\\b", "a\0b", "./a", ".", "")
        ),
        ({"schema_version": 2}, "has schema 2; this version reads 1"),
        ({"schema_version": None}, "has schema None"),
    ],
)
def test_a_damaged_card_is_one_sentence(artifact: Path, changes: dict[str, Any], sentence: str) -> None:
    rewrite(artifact, **changes)
    with pytest.raises(ModelInvalid, match=sentence) as caught:
        Embedder.load(artifact, "fake")
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("content", [b"", b"{", b"\xff\xfe", b"[1]", b"null", b"[" * 100_000])
def test_a_card_that_is_no_json_object_is_one_sentence(artifact: Path, content: bytes) -> None:
    (artifact / CARD_NAME).write_bytes(content)
    with pytest.raises(ModelInvalid, match=r"card\.json (is not valid JSON|does not hold a JSON object)\.$"):
        load_card(artifact)


@pytest.mark.parametrize("name", [WEIGHTS_NAME, GOLDEN_NAME])
def test_a_damaged_file_is_named_with_what_is_wrong(artifact: Path, name: str) -> None:
    path = artifact / name
    content = path.read_bytes()
    for damaged, problem in (
        (bytes([content[0] ^ 1]) + content[1:], "recorded sha256"),
        (content[:-1], "bytes instead"),
    ):
        path.write_bytes(damaged)
        with pytest.raises(ModelInvalid, match=f"is damaged: {name} .*{problem}"):
            verify_artifact(artifact)
    path.unlink()
    with pytest.raises(ModelInvalid, match=f"is damaged: {name} cannot be read"):
        verify_artifact(artifact)
    path.write_bytes(content)
    assert verify_artifact(artifact) == load_card(artifact)


def test_the_hash_of_the_card_pins_the_artifact(artifact: Path) -> None:
    before = card_sha256(artifact)
    rewrite(artifact, name="another")
    assert card_sha256(artifact) != before


def test_a_directory_without_a_card_holds_no_model(tmp_path: Path) -> None:
    with pytest.raises(ModelNotFound, match=r"it has no card\.json"):
        load_card(tmp_path)


@pytest.mark.parametrize(
    ("name", "sentence"), [(None, f'no model directory "{DEFAULT_MODEL}"'), ("no such", 'no model directory "no such"')]
)
def test_a_model_that_is_not_there_is_not_found(
    name: str | None, sentence: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(model.embedder, "PRETRAINED", tmp_path)
    with pytest.raises(ModelNotFound, match=sentence):
        find_model(name)


def test_a_model_that_ships_is_found_by_its_name_and_the_default_without_one(
    fake_model: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(model.embedder, "PRETRAINED", tmp_path)
    for name in (DEFAULT_MODEL, "another"):
        shutil.copytree(fake_model, tmp_path / name)
    assert find_model(None) == find_model(DEFAULT_MODEL) == tmp_path / DEFAULT_MODEL
    assert find_model("another") == tmp_path / "another"
    assert Embedder.load(None, "fake").directory == tmp_path / DEFAULT_MODEL
    with pytest.raises(ModelNotFound, match=f"those that ship are: another, {DEFAULT_MODEL}"):
        find_model("no such")
