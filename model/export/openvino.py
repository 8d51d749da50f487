"""Export to OpenVINO in fp32 or int8, or to ONNX; the parity with torch is measured on photos and put into the card."""

import dataclasses
from collections.abc import Collection, Sequence
from pathlib import Path

import numpy as np
import openvino as ov
import torch
from openvino.preprocess import PrePostProcessor

from model.card import (
    DECODER,
    FP32,
    GOLDEN_NAME,
    INT8,
    MIN_PARITY_COSINE,
    ONNX_NAME,
    PRECISIONS,
    WEIGHTS_NAME,
    WHITENING_NAME,
    CalibrationSet,
    Card,
    InputSpec,
    Parity,
    graph_names,
    load_card,
    verify_files,
)
from model.dataset import Item, read_items, spread
from model.embedder import Embedder, Progress, silent
from model.errors import DataInvalid, ParityFailed, RunMismatch, SettingsInvalid
from model.export.embedding_space import change_space
from model.network.embedding_net import EmbeddingNetwork, load_network
from model.runtimes import load_runtime
from model.runtimes.base import Runtime
from model.runtimes.torch import TorchRuntime
from model.storage import FileRecord, fsync_directory, fsync_file, read_json
from model.training.whole_photos import readable_crops
from model.types import Pixels

OPENVINO, ONNX = "openvino", "onnx"
"""The runtimes that there are graphs for."""

PARITY_PHOTOS = 256
CALIBRATION_PHOTOS = 300
MIN_INT8_MEAN_COSINE = 0.95
"""Lowest mean cosine to torch at which an int8 graph is accepted as the same network.

`python -m bench precision` measures on labelled photos what int8 costs.
"""


def export(
    directory: Path,
    photos: Path | None = None,
    progress: Progress = silent,
    *,
    precision: str = FP32,
    calibration: Sequence[Path] = (),
    runtime: str = OPENVINO,
) -> Parity:
    """Writes `openvino/<precision>.xml|bin` into a model artifact, and its parity and golden embedding into the card.

    For the runtime "onnx" it writes `fp32.onnx` instead. Other graphs stay. Parity is the cosine between the embeddings
    of torch and of the graph, on up to 256 photos spread over `photos` (class folders or a manifest; by default the
    validation photos of training). int8 is quantised with up to 300 photos of the `calibration` sets. Those must be of
    classes that were trained on, because the photos of a benchmark must not shape the graph.

    Raises ParityFailed, and leaves the artifact without this graph, when the lowest cosine is below 0.9999 in fp32 or
    the mean below 0.95 in int8; DataInvalid when photos are missing; SettingsInvalid for an unknown precision, or for
    another than fp32 in ONNX.
    """
    if precision not in PRECISIONS:
        raise SettingsInvalid(f'There is no precision "{precision}"; there are: {", ".join(PRECISIONS)}.')
    if (precision == INT8) != bool(calibration):
        raise DataInvalid(
            "int8 needs photos to calibrate with, of classes that were trained on: pass --calibration DIR."
            if precision == INT8
            else "Only int8 is calibrated; leave out --calibration."
        )
    if runtime == ONNX and precision != FP32:
        raise SettingsInvalid(f"The runtime onnx runs models in fp32, not in {precision}; leave out --precision.")
    names = (ONNX_NAME,) if runtime == ONNX else graph_names(precision)
    card = load_card(directory)
    if card.input.decoder != DECODER:
        card = change_space(directory)
    card = _without_graph(card, runtime, precision, names)
    sets, calibrating = read_calibration(calibration, card.input)
    crops = [crop for _, crop in spread_photos(photos or _photos_of_training(directory), card.input, PARITY_PHOTOS)]
    card.save(directory)  # until the new graph is measured, the artifact has none of the kind
    verify_files(directory, card, {WEIGHTS_NAME, GOLDEN_NAME, WHITENING_NAME} & card.files.keys())
    try:
        network = load_network(directory, card)
        if runtime == ONNX:
            from model.export.onnx import write_onnx  # who exports to OpenVINO needs no package of ONNX

            write_onnx(network, directory)
        else:
            _write(convert(network), directory, precision, calibrating)
        records = {name: FileRecord.of(directory / name) for name in names}
        card = dataclasses.replace(card, files={**card.files, **records}, calibration=sets or card.calibration)
        graph = load_runtime(runtime, directory, card, precision)
        parity = measure_parity(directory, card, graph, np.stack(crops), progress)
    except BaseException:
        for name in names:
            (directory / name).unlink(missing_ok=True)
        raise
    card = dataclasses.replace(card, parity=[*card.parity, parity])
    golden = Embedder(directory, card, graph).embed_photo((directory / GOLDEN_NAME).read_bytes()).tolist()
    dataclasses.replace(card, golden={**card.golden, f"{runtime}/{precision}": golden}).save(directory)
    return parity


def _without_graph(card: Card, runtime: str, precision: str, names: Collection[str]) -> Card:
    return dataclasses.replace(
        card,
        files={name: record for name, record in card.files.items() if name not in names},
        parity=[parity for parity in card.parity if (parity.runtime, parity.precision) != (runtime, precision)],
        golden={name: row for name, row in card.golden.items() if name != f"{runtime}/{precision}"},
        calibration=[] if precision == INT8 else card.calibration,
    )


class _EmbeddingGraph(torch.nn.Module):
    """What is exported: normalised images in, unit rows out; OpenVINO's preprocessing does the normalisation."""

    def __init__(self, network: EmbeddingNetwork) -> None:
        super().__init__()
        self.network = network

    def forward(self, images: torch.Tensor) -> torch.Tensor:
        return self.network.embed(images)


def convert(network: EmbeddingNetwork) -> ov.Model:
    """The network as a graph of one photo: uint8 (1, S, S, 3) -> float32 (1, D), unit length."""
    side = network.spec.crop
    program = torch.export.export(_EmbeddingGraph(network).eval(), (torch.zeros(1, 3, side, side),))
    graph = ov.convert_model(program)
    graph.reshape([1, 3, side, side])  # the conversion leaves the batch open; OpenVINORuntime says why it is 1
    steps = PrePostProcessor(graph)
    steps.input().tensor().set_element_type(ov.Type.u8).set_layout(ov.Layout("NHWC"))
    steps.input().model().set_layout(ov.Layout("NCHW"))
    mean = [255 * value for value in network.spec.mean]
    scale = [255 * value for value in network.spec.std]
    steps.input().preprocess().convert_element_type(ov.Type.f32).mean(mean).scale(scale)
    return steps.build()


def _write(graph: ov.Model, directory: Path, precision: str, calibrating: Sequence[Pixels]) -> None:
    if precision == INT8:
        from model.export.int8 import quantise  # NNCF takes seconds to import

        # After its preprocessing was built in: quantised before, the graph would transpose every photo.
        graph = quantise(graph, calibrating)
    xml, weights = (directory / name for name in graph_names(precision))
    xml.parent.mkdir(exist_ok=True)
    ov.save_model(graph, xml, compress_to_fp16=False)
    for file in (xml, weights):
        fsync_file(file)
    fsync_directory(xml.parent)


def measure_parity(directory: Path, card: Card, graph: Runtime, crops: Pixels, progress: Progress = silent) -> Parity:
    """Compares a graph with torch on crops uint8 (n, S, S, 3); raises ParityFailed when they differ too much."""
    reference = TorchRuntime(directory, card, device="cpu")
    cosines: list[float] = []
    for start in range(0, len(crops), 32):
        batch = crops[start : start + 32]
        found, wanted = graph.embed(batch).astype(np.float64), reference.embed(batch).astype(np.float64)
        lengths = np.linalg.norm(found, axis=1) * np.linalg.norm(wanted, axis=1)
        cosines += ((found * wanted).sum(axis=1) / lengths).tolist()
        progress(len(cosines), len(crops))
    low, mean = min(cosines), float(np.mean(cosines))
    parity = Parity(graph.name, graph.precision, reference.precision, len(cosines), min_cosine=low, mean_cosine=mean)
    what, cosine, needed = (
        ("mean", mean, MIN_INT8_MEAN_COSINE) if graph.precision == INT8 else ("lowest", low, MIN_PARITY_COSINE)
    )
    if not cosine >= needed:  # also for NaN
        raise ParityFailed(
            f"The graph does not reproduce the network: the {what} cosine is {cosine:.6f} "
            f"on {parity.photos} photos, and {needed} is needed."
        )
    return parity


def _photos_of_training(directory: Path) -> Path:
    run = directory / "training" / "run.json"
    photos = read_json(run, RunMismatch).get("photos") if run.is_file() else None
    if photos is None or not Path(photos).exists():
        raise DataInvalid("Parity is measured on photos; those of the training run are missing: pass --photos DIR.")
    return Path(photos)


def read_calibration(sources: Sequence[Path], spec: InputSpec) -> tuple[list[CalibrationSet], list[Pixels]]:
    """The records of the calibration sets, and their crops uint8 (S, S, 3): an equal share of each set."""
    sets: list[CalibrationSet] = []
    crops: list[Pixels] = []
    for number, source in enumerate(sources):
        share = CALIBRATION_PHOTOS * (number + 1) // len(sources) - CALIBRATION_PHOTOS * number // len(sources)
        used = spread_photos(source, spec, share)
        sets.append(CalibrationSet(source.resolve().name, len(used), sorted({item.label for item, _ in used})))
        crops += [crop for _, crop in used]
    return sets, crops


def spread_photos(source: Path, spec: InputSpec, most: int) -> list[tuple[Item, Pixels]]:
    """Up to `most` photos at even steps through a set, with their crops uint8 (S, S, 3), without unreadable ones.

    Raises DataInvalid when none can be read.
    """
    used = list(readable_crops(spread(read_items(source).items, most), spec))
    if not used:
        raise DataInvalid(f"None of the photos in {source} can be read; comparing and calibrating need some.")
    return used
