"""int8: calibrated on photos that were trained on, run in int8, beside the graph in fp32 and never in its place."""

import json
import os
import shutil
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import openvino as ov
import pytest
import torch

import model.export.int8
import model.export.openvino
from model.card import CalibrationSet, graph_names, load_card, verify_artifact
from model.embedder import Embedder
from model.errors import DataInvalid, ModelInvalid, ParityFailed, PrecisionMissing, SettingsInvalid
from model.export.int8 import first_if_small, pooling_and_norm
from model.export.openvino import MIN_INT8_MEAN_COSINE, export
from model.network.embedding_net import EmbeddingNetwork
from model.types import Pixels
from tests.support.photos import car_photo, write_gallery

pytestmark = pytest.mark.torch

ROOT = Path(__file__).resolve().parents[3]
FP32, INT8 = set(graph_names("fp32")), set(graph_names("int8"))


@pytest.fixture
def artifact(int8_model: Path, tmp_path: Path) -> Path:
    """A model of the test's own with graphs in both precisions."""
    return Path(shutil.copytree(int8_model, tmp_path / "model"))


def no_quantisation(graph: ov.Model, crops: Sequence[Pixels]) -> ov.Model:
    """In place of NNCF, where only what stands around it is tested."""
    assert len(crops) > 0
    return graph


def flip_a_byte(path: Path) -> None:
    content = bytearray(path.read_bytes())
    content[len(content) // 2] ^= 0xFF
    path.write_bytes(content)


def assert_only_fp32(directory: Path) -> None:
    card = verify_artifact(directory)
    assert (card.precisions, card.calibration) == (["fp32"], [])
    assert set(card.golden) == {"torch/fp32", "openvino/fp32"}
    assert Embedder.load(directory, "openvino").runtime.precision == "fp32"
    with pytest.raises(PrecisionMissing, match=r"no OpenVINO graph in int8, only in fp32; .* --precision int8$"):
        Embedder.load(directory, "openvino", "int8")


def test_the_card_records_both_graphs_and_what_int8_was_calibrated_with(int8_model: Path, real_model: Path) -> None:
    card, before = verify_artifact(int8_model), load_card(real_model)
    assert set(card.files) == set(before.files) | INT8
    assert {name: card.files[name] for name in FP32} == {name: before.files[name] for name in FP32}
    assert card.parity[:-1] == before.parity
    parity = card.parity[-1]
    assert (parity.runtime, parity.precision, parity.reference, parity.photos) == ("openvino", "int8", "fp32", 16)
    assert parity.mean_cosine >= MIN_INT8_MEAN_COSINE
    assert set(card.golden) == {"torch/fp32", "openvino/fp32", "openvino/int8"}
    rendered, real = card.calibration
    assert rendered == CalibrationSet("rendered", 12, ["car 20", "car 21", "car 22"])
    assert real == CalibrationSet("real", 4, ["car 30", "car 31"])


def test_nothing_of_the_machine_it_was_exported_on_is_in_the_artifact(int8_model: Path) -> None:
    xml, _ = graph_names("int8")
    for text in ((int8_model / "card.json").read_text(), (int8_model / xml).read_text()):
        assert str(int8_model.parent) not in text
        assert str(Path.home()) not in text


def test_int8_weights_are_a_fourth_of_the_size(int8_model: Path) -> None:
    files = load_card(int8_model).files
    assert files["openvino/int8.bin"].bytes < 0.27 * files["openvino/fp32.bin"].bytes


def test_the_network_runs_in_int8_and_what_follows_it_in_float(int8_model: Path) -> None:
    core = ov.Core()
    graph = core.read_model(int8_model / "openvino" / "int8.xml")
    kinds = {node.get_friendly_name(): node.get_type_name() for node in graph.get_ordered_ops()}
    tail = pooling_and_norm(graph)
    assert {"ReduceMean", "ReduceSum", "Divide"} <= {kinds[name] for name in tail}
    assert "FakeQuantize" in kinds.values()
    assert not any(kinds[name] == "FakeQuantize" for name in tail)
    compiled = core.compile_model(graph, "CPU", {"INFERENCE_PRECISION_HINT": "f32"})
    by_type: dict[str, list[str]] = {}
    for node in compiled.get_runtime_model().get_ordered_ops():
        told = node.get_rt_info()
        by_type.setdefault(told["layerType"].astype(str), []).append(told["primitiveType"].astype(str))
    assert len(by_type["Convolution"]) == 20
    assert all(primitive.endswith(("_I8", "_U8")) for primitive in by_type["Convolution"])
    assert "Transpose" not in by_type


@pytest.mark.parametrize(("side", "kept"), [(3, 1), (7, 0)])
def test_a_small_first_convolution_stays_in_float(side: int, kept: int) -> None:
    layers = (torch.nn.Conv2d(3, 4, side), torch.nn.ReLU(), torch.nn.Conv2d(4, 4, 3), torch.nn.AdaptiveAvgPool2d(1))
    graph = ov.convert_model(torch.export.export(torch.nn.Sequential(*layers).eval(), (torch.zeros(1, 3, 16, 16),)))
    first = next(node for node in graph.get_ordered_ops() if node.get_type_name() == "Convolution")
    assert first_if_small(graph) == [first.get_friendly_name()][:kept]
    kinds = {node.get_friendly_name(): node.get_type_name() for node in graph.get_ordered_ops()}
    assert {kinds[name] for name in pooling_and_norm(graph)} == {"ReduceMean"}


def test_int8_needs_photos_to_calibrate_with_and_fp32_takes_none(artifact: Path, gallery: Path, tmp_path: Path) -> None:
    before = load_card(artifact)
    (tmp_path / "empty" / "class").mkdir(parents=True)
    (tmp_path / "empty" / "class" / "1.jpg").write_bytes(b"no photo")
    with pytest.raises(DataInvalid, match="of classes that were trained on: pass --calibration DIR"):
        export(artifact, gallery, precision="int8")
    with pytest.raises(DataInvalid, match="leave out --calibration"):
        export(artifact, gallery, calibration=[gallery])
    with pytest.raises(DataInvalid, match=r"None of the photos in .*empty can be read"):
        export(artifact, gallery, precision="int8", calibration=[gallery, tmp_path / "empty"])
    with pytest.raises(SettingsInvalid, match='no precision "int4"; there are: int8, fp32'):
        export(artifact, gallery, precision="int4")
    assert verify_artifact(artifact) == before


def test_calibration_takes_an_equal_share_of_each_set_spread_over_it(
    int8_model: Path, gallery: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(model.export.openvino, "CALIBRATION_PHOTOS", 7)
    other = write_gallery(tmp_path / "other", classes=5, photos=2, first_kind=40)
    sets, crops = model.export.openvino.read_calibration([gallery, other], load_card(int8_model).input)
    assert [(one.name, one.photos, len(one.labels)) for one in sets] == [(gallery.name, 3, 3), ("other", 4, 4)]
    assert len(crops) == 7


def test_exporting_fp32_again_leaves_int8_as_it_is(artifact: Path, int8_model: Path, gallery: Path) -> None:
    export(artifact, gallery)
    card, before = verify_artifact(artifact), load_card(int8_model)
    assert {name: card.files[name] for name in INT8} == {name: before.files[name] for name in INT8}
    assert (card.golden, card.calibration) == (before.golden, before.calibration)
    assert [parity.precision for parity in card.parity] == ["int8", "fp32"]
    assert Embedder.load(artifact, "openvino").runtime.precision == "int8"


def test_a_graph_that_is_another_network_is_refused_and_the_one_in_fp32_stays(
    artifact: Path, gallery: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    convert = model.export.openvino.convert

    def convert_another(network: EmbeddingNetwork) -> ov.Model:
        torch.manual_seed(99)
        return convert(EmbeddingNetwork(network.architecture, network.spec))

    monkeypatch.setattr(model.export.openvino, "convert", convert_another)
    monkeypatch.setattr(model.export.int8, "quantise", no_quantisation)
    with pytest.raises(ParityFailed, match=r"the mean cosine is -?0\.\d+ on 12 photos, and 0\.95 is needed"):
        export(artifact, gallery, precision="int8", calibration=[gallery])
    assert_only_fp32(artifact)
    assert {str(path.relative_to(artifact)) for path in (artifact / "openvino").iterdir()} == FP32


def test_an_export_that_was_killed_leaves_the_graph_in_fp32(
    artifact: Path, gallery: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Both graphs lie there, but the new one was never measured: as after kill -9, when nothing is tidied up."""

    def observe(directory: Path, *_: object) -> None:
        assert {str(path.relative_to(directory)) for path in (directory / "openvino").iterdir()} == FP32 | INT8
        assert_only_fp32(directory)
        raise KeyboardInterrupt

    monkeypatch.setattr(model.export.openvino, "measure_parity", observe)
    monkeypatch.setattr(model.export.int8, "quantise", no_quantisation)
    with pytest.raises(KeyboardInterrupt):
        export(artifact, gallery, precision="int8", calibration=[gallery])
    assert_only_fp32(artifact)


def test_with_both_graphs_damaged_exporting_each_again_heals_the_model(
    artifact: Path, gallery: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(model.export.int8, "quantise", no_quantisation)
    for name in ("openvino/fp32.bin", "openvino/int8.bin"):
        flip_a_byte(artifact / name)
    export(artifact, gallery, precision="int8", calibration=[gallery])
    with pytest.raises(ModelInvalid, match=r"is damaged: openvino/fp32\.bin"):
        Embedder.load(artifact, "openvino")
    export(artifact, gallery)
    assert Embedder.load(artifact, "openvino").card.precisions == ["int8", "fp32"]


ELSEWHERE = """
import sys
from pathlib import Path
import numpy as np
from model.embedder import Embedder

embedder = Embedder.load(sys.argv[1], "openvino", "int8")
np.save(sys.argv[2], np.stack([embedder.embed_photo(path.read_bytes()) for path in map(Path, sys.argv[3:])]))
"""


def test_a_cpu_without_instructions_for_int8_gives_the_same_embeddings(
    int8_model: Path, int8_embedder: Embedder, tmp_path: Path
) -> None:
    """An index may be built on one machine and searched on another: oneDNN is told to leave VNNI and AVX-512 alone."""
    photos = [tmp_path / f"{kind}.jpg" for kind in range(4)]
    for kind, path in enumerate(photos):
        path.write_bytes(car_photo(kind))
    environment = {**os.environ, "ONEDNN_MAX_CPU_ISA": "AVX2"}
    command = [sys.executable, "-c", ELSEWHERE, str(int8_model), str(tmp_path / "rows.npy"), *map(str, photos)]
    subprocess.run(command, env=environment, cwd=ROOT, check=True)
    cosines = (np.load(tmp_path / "rows.npy") * int8_embedder.embed_files(photos)).sum(axis=1)
    assert cosines.min() > 0.9995


REPORTING = """
import json, sys
asked = []
def watch(event, arguments):
    if event in ("socket.connect", "socket.getaddrinfo", "urllib.Request"):
        asked.append(f"{event} {arguments}")
sys.addaudithook(watch)
import model.export.openvino, model.export.int8, nncf.telemetry, openvino as ov, torch
ov.convert_model(torch.nn.Linear(2, 2), example_input=torch.zeros(1, 2))
nncf.telemetry.telemetry.send_event("ov", "import", "test")
print(json.dumps([asked, sorted(name for name in sys.modules if name.startswith("openvino_telemetry."))]))
"""


def test_nobody_is_told_that_a_model_was_converted_or_quantised(tmp_path: Path) -> None:
    """OpenVINO and NNCF report what they are used for, unless the package that sends it is missing."""
    environment = {**os.environ, "HOME": str(tmp_path)}
    for name in ("CI", "NNCF_CI", "NNCF_DEV", "TF_BUILD", "JENKINS_URL"):  # with these they would report nothing anyway
        environment.pop(name, None)
    command = [sys.executable, "-W", "ignore", "-c", REPORTING]
    done = subprocess.run(command, env=environment, cwd=ROOT, check=True, capture_output=True, text=True)
    assert json.loads(done.stdout.splitlines()[-1]) == [[], []]
    assert not (tmp_path / "intel").exists()  # where the sender keeps the number it gives to this user
