"""An index knows the precision it was built in: what searches it runs the model in that one, or says what to do."""

import dataclasses
import shutil
from collections.abc import Callable
from pathlib import Path

import pytest

from indexer.build import build_index
from indexer.versions import IndexDirectory
from model.card import graph_names, load_card
from model.embedder import Embedder
from model.errors import ModelMismatch
from service.engine import Engine
from tests.conftest import Printed
from tests.e2e.test_cli import assert_one_sentence
from tests.support.photos import car_photo
from tests.support.servers import running_server

pytestmark = pytest.mark.torch


@pytest.fixture(scope="module")
def indexes(
    tmp_path_factory: pytest.TempPathFactory, int8_model: Path, int8_embedder: Embedder, gallery: Path
) -> dict[str, IndexDirectory]:
    """One gallery indexed with one model in each precision; read only."""
    found = {name: IndexDirectory(tmp_path_factory.mktemp(name)) for name in ("int8", "fp32")}
    build_index(gallery, found["int8"], int8_embedder)
    build_index(gallery, found["fp32"], Embedder.load(int8_model, "openvino", "fp32"))
    return found


@pytest.fixture
def int8_only(int8_model: Path, tmp_path: Path) -> Path:
    """A model as it ships: without a graph in fp32."""
    directory = Path(shutil.copytree(int8_model, tmp_path / "int8-only"))
    card = load_card(directory)
    for name in graph_names("fp32"):
        (directory / name).unlink()
    files = {name: record for name, record in card.files.items() if name not in graph_names("fp32")}
    dataclasses.replace(card, files=files).save(directory)
    return directory


@pytest.mark.parametrize("precision", ["int8", "fp32"])
def test_an_index_is_searched_in_the_precision_it_was_built_in(
    indexes: dict[str, IndexDirectory], precision: str
) -> None:
    engine = Engine.load(indexes[precision])
    assert engine.embedder.runtime.precision == precision
    found = engine.search(car_photo(1, 2), 1)[0]
    assert (found.id, round(found.score, 5)) == ("car 1/2.jpg", 1)


def test_an_engine_lends_its_model_to_a_version_of_the_same_precision_only(
    indexes: dict[str, IndexDirectory],
) -> None:
    first = Engine.load(indexes["int8"])
    assert Engine.load(indexes["int8"], previous=first).embedder is first.embedder
    assert Engine.load(indexes["fp32"], previous=first).embedder.runtime.precision == "fp32"


def test_torch_searches_an_index_in_fp32_and_refuses_one_in_int8(indexes: dict[str, IndexDirectory]) -> None:
    assert Engine.load(indexes["fp32"], runtime="torch").search(car_photo(1, 2), 1)[0].id == "car 1/2.jpg"
    words = (
        "was embedded in int8, and the runtime torch runs its model in fp32; use the runtime openvino, or build the "
        f"index again: carsearch index GALLERY --index {indexes['int8'].root} --runtime torch"
    )
    with pytest.raises(ModelMismatch) as caught:
        Engine.load(indexes["int8"], runtime="torch")
    assert str(caught.value).endswith(words)


def test_a_model_with_int8_alone_refuses_an_index_in_fp32(int8_only: Path, gallery: Path, tmp_path: Path) -> None:
    index = IndexDirectory(tmp_path / "index")
    build_index(gallery, index, Embedder.load(int8_only, "torch"))
    assert Engine.load(index, runtime="torch").embedder.runtime.precision == "fp32"
    with pytest.raises(ModelMismatch, match=r"in fp32, .* openvino .* in int8; use the runtime torch, or "):
        Engine.load(index, runtime="openvino")


def test_indexing_again_keeps_the_precision_and_choosing_another_embeds_anew(
    indexes: dict[str, IndexDirectory],
    gallery: Path,
    tmp_path: Path,
    carsearch: Callable[..., Printed],
) -> None:
    index = Path(shutil.copytree(indexes["fp32"].root, tmp_path / "index"))

    def build(*options: str) -> str:
        printed = carsearch("index", gallery, "--index", index, *options)
        assert printed.returncode == 0, printed.stderr
        return printed.stdout

    assert build().startswith("unchanged: ")
    assert "(12 embedded, 0 reused" in build("--precision", "int8")
    assert build().startswith("unchanged: ")
    assert build("--runtime", "openvino").startswith("unchanged: ")
    assert "(12 embedded, 0 reused" in build("--runtime", "torch")
    assert Engine.load(IndexDirectory(index)).embedder.runtime.precision == "fp32"


def test_evaluating_tells_which_precision_it_was(
    int8_model: Path, gallery: Path, indexes: dict[str, IndexDirectory], carsearch: Callable[..., Printed]
) -> None:
    evaluating = ("evaluate", "--data", gallery, "--json")
    for options, precision in (
        (("--model", int8_model), "int8"),
        (("--model", int8_model, "--precision", "fp32"), "fp32"),
        (("--index", indexes["fp32"].root), "fp32"),
    ):
        printed = carsearch(*evaluating, *options)
        assert f'"precision": "{precision}"' in printed.stdout
    assert carsearch(*evaluating, "--index", indexes["fp32"].root, "--precision", "int8").returncode == 2
    assert_one_sentence(
        carsearch(*evaluating, "--model", int8_model, "--precision", "int8", "--runtime", "torch"), "fp32"
    )


def test_a_server_tells_the_precision_it_runs_in(indexes: dict[str, IndexDirectory], tmp_path: Path) -> None:
    with running_server(indexes["int8"].root, tmp_path / "log") as server:
        told = server.client.get("/info").json()
    assert (told["runtime"], told["precision"]) == ("openvino", "int8")


def test_bf16_is_chosen_by_name_kept_by_the_index_and_served_by_torch_alone(
    real_model: Path, gallery: Path, tmp_path: Path, carsearch: Callable[..., Printed]
) -> None:
    index = tmp_path / "index"
    built = carsearch(
        "index", gallery, "--index", index, "--model", real_model, "--runtime", "torch", "--precision", "bf16"
    )
    assert built.returncode == 0, built.stderr
    assert Engine.load(IndexDirectory(index), runtime="torch").embedder.runtime.precision == "bf16"
    assert carsearch("index", gallery, "--index", index, "--runtime", "torch").stdout.startswith("unchanged: ")
    with pytest.raises(ModelMismatch, match=r"in bf16, .* openvino .* in fp32; use the runtime torch, or "):
        Engine.load(IndexDirectory(index), runtime="openvino")
    refused = carsearch(
        "evaluate", "--data", gallery, "--model", real_model, "--runtime", "openvino", "--precision", "bf16"
    )
    assert_one_sentence(refused, "The runtime openvino runs no model in bf16; use the runtime torch.")


def test_an_index_whose_photos_were_decoded_by_nvjpeg_is_refused_and_built_again(
    real_model: Path, gallery: Path, tmp_path: Path, carsearch: Callable[..., Printed]
) -> None:
    """Earlier checkouts had such a decoder, with a name of its own in the embedding id."""
    card = load_card(real_model)
    other = dataclasses.replace(card, input=dataclasses.replace(card.input, decoder="nvjpeg-1"))
    embedder = Embedder.load(real_model, "torch")
    embedder.embedding_id = other.embedding_id("fp32")
    index = IndexDirectory(tmp_path / "index")
    build_index(gallery, index, embedder)
    wanted = (
        f"was embedded in {other.embedding_id('fp32')}, and the runtime torch runs its model in fp32; build the index "
        f"again: carsearch index GALLERY --index {index.root} --runtime torch"
    )
    search = ("search", gallery / "car 1" / "0.jpg", "--index", index.root, "--runtime", "torch")
    assert_one_sentence(carsearch(*search), wanted)
    again = carsearch("index", gallery, "--index", index.root, "--runtime", "torch")
    assert "(12 embedded, 0 reused" in again.stdout
    assert Engine.load(index).embedder.embedding_id == card.embedding_id("fp32")
