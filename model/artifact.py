"""Creates a model artifact from a trained network: weights, card, and the golden photo with its embedding."""

import io
from pathlib import Path
from typing import Any

import numpy as np
import torch
from PIL import Image, ImageDraw

from model.card import FP32, GOLDEN_NAME, WEIGHTS_NAME, WHITENING_NAME, Card, WhiteningRecord
from model.images.transform import prepare
from model.network.embedding_net import EmbeddingNetwork, save_weights, save_whitening
from model.storage import FileRecord, write_durably


def create_artifact(
    network: EmbeddingNetwork,
    directory: Path,
    name: str,
    training: dict[str, Any],
    whitening: WhiteningRecord | None = None,
) -> Card:
    """Writes the files of a trained network's artifact; the card last, because it names the others.

    `whitening` tells how the network's whitening was fitted; without it none is written.
    """
    directory.mkdir(parents=True, exist_ok=True)
    save_weights(network, directory)
    if whitening is not None:
        save_whitening(network, directory)
    write_durably(directory / GOLDEN_NAME, golden_photo())
    written = [WEIGHTS_NAME, GOLDEN_NAME, *([WHITENING_NAME] if whitening else [])]
    card = Card(
        name=name,
        architecture=network.architecture,
        embedding_dim=network.dim,
        input=network.spec,
        files={file: FileRecord.of(directory / file) for file in written},
        golden=golden_embedding(network),
        whitening=whitening,
        training=training,
    )
    card.save(directory)
    return card


def golden_embedding(network: EmbeddingNetwork) -> dict[str, list[float]]:
    """What torch in fp32 makes of the golden photo, as a card keeps it."""
    crop = torch.from_numpy(prepare(golden_photo(), network.spec))
    with torch.inference_mode():
        golden: list[float] = network.eval()(crop[None])[0].tolist()
    return {f"torch/{FP32}": golden}


def golden_photo() -> bytes:
    """A synthetic photo, the same on every machine: a lit road, a body, windows and wheels; JPEG, 512 x 384."""
    rows, columns = np.mgrid[0:384, 0:512]
    light = np.where(rows < 150, 210 - rows // 3, 70 + rows // 6) + columns // 16
    canvas = np.stack([light, light - 4, light - 10 * (rows >= 150)], axis=-1)
    image = Image.fromarray(canvas.clip(0, 255).astype(np.uint8))
    draw = ImageDraw.Draw(image)
    body = [(90, 250), (110, 190), (190, 180), (235, 130), (345, 132), (400, 185), (436, 205), (436, 255)]
    draw.polygon(body, (150, 32, 38))
    draw.polygon([(205, 180), (240, 142), (290, 142), (290, 182)], (36, 44, 56))
    draw.polygon([(302, 142), (338, 144), (378, 184), (302, 183)], (40, 48, 60))
    for left in (140, 340):
        draw.ellipse((left, 220, left + 64, 284), (24, 24, 26))
        draw.ellipse((left + 18, 238, left + 46, 266), (178, 180, 184))
    draw.rectangle((98, 205, 120, 220), (250, 240, 205))
    draw.line([(30, 340), (480, 318)], (232, 232, 226), width=6)
    buffer = io.BytesIO()
    image.save(buffer, "JPEG", quality=92)
    return buffer.getvalue()
