"""Gives a trained model the head that tells photos of cars from other pictures."""

import dataclasses
from collections.abc import Sequence
from pathlib import Path

import torch
from torch import Tensor

from model.car_head import CarHead
from model.card import CAR_HEAD_NAME, DECODER, Card, CarHeadRecord, load_card, verify_files
from model.dataset import read_items, read_labelled, spread
from model.errors import DataInvalid
from model.export.embedding_space import change_space
from model.network.embedding_net import load_network
from model.storage import FileRecord
from model.training.whole_photos import rows_of

MIN_PHOTOS = 50
MOST_CARS = 1000
"""More photos of cars would weigh no more than all pictures without one."""


def fit_car_head(directory: Path, cars: Sequence[Path], others: Sequence[Path]) -> Card:
    """Fits the head to labelled photos of cars, of classes that were trained on, and to pictures without a car.

    Up to 1,000 of the photos are taken, at even steps. Each is used as it is and without its colour, so that a grey
    photo is no sign of anything. Files that cannot be read are left out. Raises DataInvalid for fewer than 50 of
    either.
    """
    card = load_card(directory)
    if card.input.decoder != DECODER:
        card = change_space(directory)
    kept = {name: record for name, record in card.files.items() if name != CAR_HEAD_NAME}
    verify_files(directory, card, kept)
    network = load_network(directory, card)

    def in_both(crops: Tensor) -> Tensor:
        rows: Tensor = network(torch.cat([crops, grey(crops)]))
        return rows

    items = [item for source in cars for item in read_labelled(source).items]
    photos, used = rows_of(network, spread(items, MOST_CARS), in_both)
    without_cars = [item for source in others for item in read_items(source, class_depth=0).items]
    pictures, _ = rows_of(network, without_cars, in_both)
    if min(len(used), len(pictures) // 2) < MIN_PHOTOS:
        raise DataInvalid(
            f"The car head needs at least {MIN_PHOTOS} photos of cars and as many other pictures; there are "
            f"{len(used)} and {len(pictures) // 2} that can be read."
        )
    head = CarHead.fit(photos, pictures)
    # A card never names a head that is being written.
    dataclasses.replace(card, files=kept, car_head=None).save(directory)
    head.write(directory / CAR_HEAD_NAME)
    record = CarHeadRecord(len(used), len(pictures) // 2, sorted({item.label for item in used}))
    files = {**kept, CAR_HEAD_NAME: FileRecord.of(directory / CAR_HEAD_NAME)}
    changed = dataclasses.replace(card, files=files, car_head=record)
    changed.save(directory)
    return changed


def grey(crops: Tensor) -> Tensor:
    """uint8 (B, S, S, 3) -> the same crops without their colour, by the luma of ITU-R BT.601."""
    luma = crops.float() @ torch.tensor([0.299, 0.587, 0.114], device=crops.device)
    return luma.round().to(torch.uint8)[..., None].expand_as(crops)
