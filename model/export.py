"""torch -> OpenVINO, with the parity of the two measured on photos and written into the card."""

import dataclasses
from pathlib import Path

import numpy as np
import openvino as ov
import torch
from openvino.preprocess import PrePostProcessor

from model.card import GOLDEN_NAME, MIN_PARITY_COSINE, WEIGHTS_NAME, Card, Parity, load_card, verify_artifact
from model.data import read_items
from model.embedder import Embedder, Progress, decode_pool, map_in_order, silent
from model.errors import CarsearchError, DataInvalid, ParityFailed, RunMismatch
from model.files import FileRecord, fsync_directory, fsync_file, read_json
from model.network import EmbeddingNetwork, load_network
from model.preprocess import Pixels, prepare
from model.runtimes.openvino import OpenVINORuntime, graph_path
from model.runtimes.torch import TorchRuntime

PARITY_PHOTOS = 256


def export(directory: Path, photos: Path | None = None, progress: Progress = silent) -> Parity:
    """Writes `openvino/fp32.xml|bin` into a model artifact and its parity and golden embedding into the card.

    Parity is the cosine of torch's and the graph's embeddings of up to 256 photos, spread over `photos` (class folders
    or a manifest; by default those that training validated on). Raises ParityFailed, and leaves the artifact without
    the graph, when the lowest is under 0.9999.
    """
    card = _without_graph(load_card(directory))
    crops = _parity_crops(card, photos or _photos_of_training(directory))
    card.save(directory)  # from here until the new graph is measured, the artifact is one that has none
    verify_artifact(directory)
    path = graph_path(directory)
    try:
        _convert(load_network(directory, card), path)
        card = _with_graph(directory, card)
        parity = measure_parity(directory, card, crops, progress)
    except BaseException:
        path.unlink(missing_ok=True)
        path.with_suffix(".bin").unlink(missing_ok=True)
        raise
    _record(directory, card, parity)
    return parity


def _without_graph(card: Card) -> Card:
    return dataclasses.replace(
        card,
        files={name: record for name, record in card.files.items() if name in (WEIGHTS_NAME, GOLDEN_NAME)},
        parity=[],
        golden={name: embedding for name, embedding in card.golden.items() if name != OpenVINORuntime.name},
    )


class _Rows(torch.nn.Module):
    """What is exported: normalised images in, unit rows out; OpenVINO's own preprocessing adds the steps before."""

    def __init__(self, network: EmbeddingNetwork) -> None:
        super().__init__()
        self.network = network

    def forward(self, images: torch.Tensor) -> torch.Tensor:
        return self.network.embed(images)


def _convert(network: EmbeddingNetwork, path: Path) -> None:
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
    path.parent.mkdir(exist_ok=True)
    ov.save_model(steps.build(), path, compress_to_fp16=False)
    for file in (path, path.with_suffix(".bin")):
        fsync_file(file)
    fsync_directory(path.parent)


def measure_parity(directory: Path, card: Card, crops: Pixels, progress: Progress = silent) -> Parity:
    """Compares the graph with torch on crops uint8 (n, S, S, 3); raises ParityFailed below `MIN_PARITY_COSINE`."""
    graph, reference = OpenVINORuntime(directory, card), TorchRuntime(directory, card, device="cpu")
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
    if not parity.min_cosine >= MIN_PARITY_COSINE:
        raise ParityFailed(
            f"The graph does not reproduce the network: the lowest cosine is {parity.min_cosine:.6f} "
            f"on {parity.photos} photos, and {MIN_PARITY_COSINE} is needed."
        )
    return parity


def _with_graph(directory: Path, card: Card) -> Card:
    path = graph_path(directory)
    names = [str(file.relative_to(directory)) for file in (path, path.with_suffix(".bin"))]
    records = {name: FileRecord.of(directory / name) for name in names}
    return dataclasses.replace(card, files={**card.files, **records})


def _record(directory: Path, card: Card, parity: Parity) -> None:
    exported = dataclasses.replace(card, parity=[parity])
    embedder = Embedder(directory, exported, OpenVINORuntime(directory, exported))
    golden = embedder.embed_photo((directory / GOLDEN_NAME).read_bytes())
    dataclasses.replace(exported, golden={**exported.golden, parity.runtime: golden.tolist()}).save(directory)


def _photos_of_training(directory: Path) -> Path:
    run = directory / "training" / "run.json"
    photos = read_json(run, RunMismatch).get("photos") if run.is_file() else None
    if photos is None or not Path(photos).exists():
        raise DataInvalid("Parity is measured on photos; those of the training run are not at hand: pass --photos DIR.")
    return Path(photos)


def _parity_crops(card: Card, photos: Path) -> Pixels:
    items = read_items(photos).items
    spread = items[:: max(1, len(items) // PARITY_PHOTOS)][:PARITY_PHOTOS]

    def crop(index: int) -> Pixels | None:
        try:
            return prepare(spread[index].read(), card.input)
        except CarsearchError:
            return None

    with decode_pool() as pool:
        crops = [crop for crop in map_in_order(pool, crop, range(len(spread))) if crop is not None]
    if not crops:
        raise DataInvalid(f"None of the photos in {photos} can be read; parity needs some.")
    return np.stack(crops)
