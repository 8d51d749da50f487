"""Changes the embedding space of a trained model: its whitening, the mirror image, today's decoder."""

import dataclasses
from collections.abc import Sequence
from pathlib import Path

from model.artifact import golden_embedding
from model.card import DECODER, GOLDEN_NAME, WEIGHTS_NAME, WHITENING_NAME, Card, load_card, verify_files
from model.dataset import read_labelled
from model.network.embedding_net import load_network, save_whitening
from model.storage import FileRecord
from model.training.whitening import whiten_on


def change_space(directory: Path, whiten: Sequence[Path] = (), mirror: bool | None = None) -> Card:
    """Fits a whitening on photos of classes that a model was trained on, and sets whether it embeds the mirror image.

    No photos, or None, keep what there is. The model has today's decoder afterwards. Graphs, car head, parity, golden
    embeddings and scores of the old space leave the card. Raises DataInvalid when there are too few classes; the
    artifact is then as it was.
    """
    card = load_card(directory)
    kept = {name: card.files[name] for name in (WEIGHTS_NAME, GOLDEN_NAME, WHITENING_NAME) if name in card.files}
    verify_files(directory, card, kept)
    if whiten:
        kept.pop(WHITENING_NAME, None)
    spec = dataclasses.replace(card.input, decoder=DECODER, mirror=card.input.mirror if mirror is None else mirror)
    changed = dataclasses.replace(
        card,
        input=spec,
        files=kept,
        golden={},
        parity=[],
        calibration=[],
        whitening=None if whiten else card.whitening,
        car_head=None,
        scores=[],
    )
    network = load_network(directory, changed)
    record = whiten_on(network, [item for source in whiten for item in read_labelled(source).items]) if whiten else None
    changed.save(directory)  # a card never names a whitening that is being written
    if record is not None:
        save_whitening(network, directory)
        kept = {**kept, WHITENING_NAME: FileRecord.of(directory / WHITENING_NAME)}
        changed = dataclasses.replace(changed, files=kept, whitening=record)
    changed = dataclasses.replace(changed, golden=golden_embedding(network))
    changed.save(directory)
    return changed
