"""An index as an earlier release left it."""

import dataclasses

from indexer.manifest import MANIFEST_NAME
from indexer.versions import IndexDirectory
from model.card import card_sha256, load_card


def of_an_earlier_release(index: IndexDirectory) -> None:
    """Makes the current version, and its model, those of a release that decoded photos in another way."""
    manifest = index.manifest(index.current())
    directory = index.model_path(manifest.model_sha256)
    card = load_card(directory)
    precision = card.precision_of(manifest.embedding_id) or "fake"
    old = dataclasses.replace(card, input=dataclasses.replace(card.input, decoder="turbo-1"))
    old.save(directory)
    sha256 = card_sha256(directory)
    directory.rename(index.model_path(sha256))
    path = index.path_of(manifest.id) / MANIFEST_NAME
    text = path.read_text(encoding="utf-8")
    for today, earlier in (
        (manifest.model_sha256, sha256),
        (manifest.embedding_id, old.embedding_id(precision)),
        (manifest.preprocessing_sha256, old.input.sha256),
        (manifest.content_sha256, "0" * 64),  # that of its model too
    ):
        text = text.replace(today, earlier)
    path.write_text(text, encoding="utf-8")
    index.verify(manifest.id)
