"""Gives a trained model the head that tells photos of cars from other pictures."""

import dataclasses
from collections.abc import Sequence
from pathlib import Path

from model.car_head import CarHead
from model.card import CAR_HEAD_NAME, DECODER, Card, CarHeadRecord, load_card, verify_files
from model.dataset import read_items, read_unlabelled
from model.export.embedding_space import change_space
from model.network.embedding_net import load_network
from model.storage import FileRecord
from model.training.whole_photos import rows_of


def fit_car_head(directory: Path, cars: Sequence[Path], others: Sequence[Path]) -> Card:
    """Fits the head to labelled photos of cars, of classes that were trained on, and to pictures without a car.

    Files that cannot be read are left out. Raises DataInvalid for fewer than 50 of either.
    """
    card = load_card(directory)
    if card.input.decoder != DECODER:
        card = change_space(directory)
    others_files = {name: record for name, record in card.files.items() if name != CAR_HEAD_NAME}
    verify_files(directory, card, others_files)
    network = load_network(directory, card)
    photos, used = rows_of(network, [item for source in cars for item in read_items(source).items], network)
    pictures, _ = rows_of(network, [item for source in others for item in read_unlabelled(source).items], network)
    head = CarHead.fit(photos, pictures)
    # A card never names a head that is being written.
    dataclasses.replace(card, files=others_files, car_head=None).save(directory)
    head.write(directory / CAR_HEAD_NAME)
    record = CarHeadRecord(len(photos), len(pictures), sorted({item.label for item in used}))
    files = {**others_files, CAR_HEAD_NAME: FileRecord.of(directory / CAR_HEAD_NAME)}
    changed = dataclasses.replace(card, files=files, car_head=record)
    changed.save(directory)
    return changed
