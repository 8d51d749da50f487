"""torch -> OpenVINO in fp32 or int8, with the parity of the two measured on photos and written into the card."""

import dataclasses
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import openvino as ov
import torch
from openvino.preprocess import PrePostProcessor

from model.card import (
    FP32,
    GOLDEN_NAME,
    INT8,
    MIN_PARITY_COSINE,
    PRECISIONS,
    WEIGHTS_NAME,
    CalibrationSet,
    Card,
    InputSpec,
    Parity,
    graph_names,
    load_card,
    verify_files,
)
from model.dataset import Item, read_items
from model.embedder import Embedder, Progress, silent
from model.errors import CarsearchError, DataInvalid, ParityFailed, RunMismatch, SettingsInvalid
from model.images.transform import prepare
from model.network.embedding_net import EmbeddingNetwork, load_network
from model.parallel import decode_pool, map_in_order
from model.runtimes.openvino import OpenVINORuntime
from model.runtimes.torch import TorchRuntime
from model.storage import FileRecord, fsync_directory, fsync_file, read_json
from model.types import Pixels

PARITY_PHOTOS = 256
CALIBRATION_PHOTOS = 300
MIN_INT8_MEAN_COSINE = 0.95
"""Lowest mean cosine between torch and an int8 graph at which it is accepted: it is the same network at all.

What int8 costs is another question, which `carsearch-bench precision` answers with labelled photos.
"""


def export(
    directory: Path,
    photos: Path | None = None,
    progress: Progress = silent,
    *,
    precision: str = FP32,
    calibration: Sequence[Path] = (),
) -> Parity:
    """Writes `openvino/<precision>.xml|bin` into a model artifact and its parity and golden embedding into the card.

    A graph of another precision stays as it is. Parity is the cosine of torch's and the graph's embeddings of up to 256
    photos, spread over `photos` (class folders or a manifest; by default those that training validated on). int8 is
    quantised with up to 300 photos of the `calibration` sets, which must be of classes that were trained on: what is
    benchmarked must not have shaped the graph.

    Raises ParityFailed, and leaves the artifact without this graph, when in fp32 the lowest is under 0.9999 or in int8
    the mean is under 0.95; DataInvalid when photos are missing, and SettingsInvalid for a precision that is none.
    """
    if precision not in PRECISIONS:
        raise SettingsInvalid(f'There is no precision "{precision}"; there are: {", ".join(PRECISIONS)}.')
    if (precision == INT8) != bool(calibration):
        raise DataInvalid(
            "int8 needs photos to calibrate with, of classes that were trained on: pass --calibration DIR."
            if precision == INT8
            else "Only int8 is calibrated; leave out --calibration."
        )
    card = _without_graph(load_card(directory), precision)
    sets, calibrating = _read_calibration(calibration, card.input)
    crops = [crop for _, crop in _spread(photos or _photos_of_training(directory), card.input, PARITY_PHOTOS)]
    card.save(directory)  # from here until the new graph is measured, the artifact is one that has none
    verify_files(directory, card, (WEIGHTS_NAME, GOLDEN_NAME))
    try:
        _write(_convert(load_network(directory, card)), directory, precision, calibrating)
        card = _with_graph(directory, card, precision)
        parity = measure_parity(directory, card, precision, np.stack(crops), progress)
    except BaseException:
        for name in graph_names(precision):
            (directory / name).unlink(missing_ok=True)
        raise
    _record(directory, dataclasses.replace(card, calibration=sets or card.calibration), parity)
    return parity


def _without_graph(card: Card, precision: str) -> Card:
    return dataclasses.replace(
        card,
        files={name: record for name, record in card.files.items() if name not in graph_names(precision)},
        parity=[parity for parity in card.parity if parity.precision != precision],
        golden={name: row for name, row in card.golden.items() if name != _golden_key(precision)},
        calibration=[] if precision == INT8 else card.calibration,
    )


def _golden_key(precision: str) -> str:
    return f"{OpenVINORuntime.name}/{precision}"


class _Rows(torch.nn.Module):
    """What is exported: normalised images in, unit rows out; OpenVINO's own preprocessing adds the steps before."""

    def __init__(self, network: EmbeddingNetwork) -> None:
        super().__init__()
        self.network = network

    def forward(self, images: torch.Tensor) -> torch.Tensor:
        return self.network.embed(images)


def _convert(network: EmbeddingNetwork) -> ov.Model:
    side = network.spec.crop
    program = torch.export.export(_Rows(network).eval(), (torch.zeros(1, 3, side, side),))
    graph = ov.convert_model(program)
    graph.reshape([1, 3, side, side])  # the conversion leaves it open; OpenVINORuntime says why it is one photo
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

        # The graph has its preprocessing by now: quantised before, it would keep a transposition of every photo.
        graph = quantise(graph, calibrating)
    xml, weights = (directory / name for name in graph_names(precision))
    xml.parent.mkdir(exist_ok=True)
    ov.save_model(graph, xml, compress_to_fp16=False)
    for file in (xml, weights):
        fsync_file(file)
    fsync_directory(xml.parent)


def measure_parity(directory: Path, card: Card, precision: str, crops: Pixels, progress: Progress = silent) -> Parity:
    """Compares a graph with torch on crops uint8 (n, S, S, 3); raises ParityFailed when they are too far apart."""
    graph, reference = OpenVINORuntime(directory, card, precision), TorchRuntime(directory, card, device="cpu")
    cosines: list[float] = []
    for start in range(0, len(crops), 32):
        batch = crops[start : start + 32]
        found, wanted = graph.embed(batch).astype(np.float64), reference.embed(batch).astype(np.float64)
        lengths = np.linalg.norm(found, axis=1) * np.linalg.norm(wanted, axis=1)
        cosines += ((found * wanted).sum(axis=1) / lengths).tolist()
        progress(len(cosines), len(crops))
    parity = Parity(
        runtime=graph.name,
        precision=graph.precision,
        reference=reference.precision,
        photos=len(cosines),
        min_cosine=min(cosines),
        mean_cosine=float(np.mean(cosines)),
    )
    if precision == INT8:
        what, cosine, needed = "mean", parity.mean_cosine, MIN_INT8_MEAN_COSINE
    else:
        what, cosine, needed = "lowest", parity.min_cosine, MIN_PARITY_COSINE
    if not cosine >= needed:
        raise ParityFailed(
            f"The graph does not reproduce the network: the {what} cosine is {cosine:.6f} "
            f"on {parity.photos} photos, and {needed} is needed."
        )
    return parity


def _with_graph(directory: Path, card: Card, precision: str) -> Card:
    records = {name: FileRecord.of(directory / name) for name in graph_names(precision)}
    return dataclasses.replace(card, files={**card.files, **records})


def _record(directory: Path, card: Card, parity: Parity) -> None:
    exported = dataclasses.replace(card, parity=[*card.parity, parity])
    embedder = Embedder(directory, exported, OpenVINORuntime(directory, exported, parity.precision))
    golden = embedder.embed_photo((directory / GOLDEN_NAME).read_bytes()).tolist()
    dataclasses.replace(exported, golden={**exported.golden, _golden_key(parity.precision): golden}).save(directory)


def _photos_of_training(directory: Path) -> Path:
    run = directory / "training" / "run.json"
    photos = read_json(run, RunMismatch).get("photos") if run.is_file() else None
    if photos is None or not Path(photos).exists():
        raise DataInvalid("Parity is measured on photos; those of the training run are not at hand: pass --photos DIR.")
    return Path(photos)


def _read_calibration(sources: Sequence[Path], spec: InputSpec) -> tuple[list[CalibrationSet], list[Pixels]]:
    """What is recorded of the calibration sets, and their crops uint8 (S, S, 3): an equal share of each set."""
    sets: list[CalibrationSet] = []
    crops: list[Pixels] = []
    for number, source in enumerate(sources):
        share = CALIBRATION_PHOTOS * (number + 1) // len(sources) - CALIBRATION_PHOTOS * number // len(sources)
        used = _spread(source, spec, share)
        sets.append(CalibrationSet(source.resolve().name, len(used), sorted({item.label for item, _ in used})))
        crops += [crop for _, crop in used]
    return sets, crops


def _spread(source: Path, spec: InputSpec, most: int) -> list[tuple[Item, Pixels]]:
    """Up to `most` photos at even steps through a set, with their crops uint8 (S, S, 3); unreadable ones are left out.

    Raises DataInvalid when none can be read.
    """
    items = read_items(source).items
    count = min(most, len(items))
    chosen = [items[place * len(items) // count] for place in range(count)]

    def crop(item: Item) -> Pixels | None:
        try:
            return prepare(item.read(), spec)
        except CarsearchError:
            return None

    with decode_pool() as pool:
        crops = map_in_order(pool, crop, chosen)
        used = [(item, crop) for item, crop in zip(chosen, crops, strict=True) if crop is not None]
    if not used:
        raise DataInvalid(f"None of the photos in {source} can be read; comparing and calibrating need some.")
    return used
