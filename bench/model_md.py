"""`MODEL.md`, the card for people: adds texts and scores to the card and writes the page from it.

This changes the card and so the sha256 that names the model, but no embedding. It is done before a model ships.
"""

import dataclasses
import tomllib
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from model.card import Card, Score, load_card
from model.dataset import read_file
from model.errors import DataInvalid, FileUnreadable, ModelMismatch
from model.storage import write_durably

DESCRIPTION_NAME = "MODEL.md"
LABELS = "labels"
"""Key of `training` that the page leaves out: hundreds of names."""
SUMMARY = "summary"
"""Key of `about` whose text comes first and has no heading."""


def read_about(path: Path) -> dict[str, str]:
    """Reads texts by heading from a TOML file of `heading = "text"`, in order; raises DataInvalid."""
    try:
        about = tomllib.loads(read_file(path).decode())
    except FileUnreadable as problem:
        raise DataInvalid(f"{path}{str(problem).removeprefix('The file')}") from problem
    except ValueError as problem:
        raise DataInvalid(f"{path} is not TOML in UTF-8: {problem}.") from problem
    for heading, text in about.items():
        if not isinstance(text, str):
            raise DataInvalid(f'{path} has a "{heading}" that is not a text.')
    return about


def record_about(directory: Path, about: Mapping[str, str]) -> Card:
    """Replaces the texts of a card and writes `MODEL.md`."""
    return _save(directory, dataclasses.replace(load_card(directory), about=dict(about)))


def record_score(directory: Path, report: Mapping[str, Any], name: str, command: str) -> Card:
    """Adds the score of an evaluation report (its JSON) to the card of its model, and writes `MODEL.md`.

    `name` is the name of the labelled set, `command` the command that made the report. An earlier score on that set in
    that precision is replaced. Raises ModelMismatch when the report is of other embeddings, DataInvalid when it is not
    a report of the benchmark.
    """
    card = load_card(directory)
    try:
        precision, embedding_id = str(report["versions"]["precision"]), report["versions"]["embedding_id"]
        benchmark = report["mode"] == "leave-one-out"
        fields = {field: report[field] for field in ("top1", "correct", "total", "classes", "ci95", "ci95_photos")}
        fields |= {name: tuple(fields[name]) for name in ("ci95", "ci95_photos")}
        score = Score(**fields, set=name, precision=precision, command=command)
    except (KeyError, TypeError, ValueError) as problem:
        raise DataInvalid(f"The evaluation report lacks or misspells a field: {problem}.") from problem
    if not benchmark:
        raise DataInvalid("A model's card takes scores of the benchmark, which is leave-one-out.")
    if embedding_id != card.embedding_id(precision):
        raise ModelMismatch(f"The evaluation report is of another model than {directory}, or of another graph of it.")
    others = [one for one in card.scores if (one.set, one.precision) != (name, precision)]
    return _save(directory, dataclasses.replace(card, scores=[*others, score]))


def _save(directory: Path, card: Card) -> Card:
    card.save(directory)
    write_durably(directory / DESCRIPTION_NAME, describe(card).encode())
    return card


def describe(card: Card) -> str:
    """The card as Markdown: what it is, scores with their intervals and commands, training, precisions, texts."""
    texts = {heading: text for heading, text in card.about.items() if heading != SUMMARY}
    sections = {
        "Scores": _scores(card),
        "Training": "\n".join(
            f"- {_words(name)}: {_plain(value)}" for name, value in card.training.items() if name != LABELS
        ),
        "Graphs": _graphs(card),
        **{_words(heading).capitalize(): text.strip() for heading, text in texts.items()},
    }
    side = card.input.crop
    first = f"{card.architecture}: a photo, as {side} x {side} pixels, becomes {card.embedding_dim} values of length 1."
    parts = [f"# {card.name}", card.about.get(SUMMARY, "").strip(), first]
    parts += [f"## {heading}\n\n{text}" for heading, text in sections.items() if text]
    return "\n\n".join(part for part in parts if part) + "\n"


def _scores(card: Card) -> str:
    if not card.scores:
        return ""
    rows = [
        "Leave-one-out top-1, with its 95% bootstrap intervals:",
        "",
        "| Set | Precision | Top-1 | Correct | Over classes | Over photos |",
        "| --- | --- | --- | --- | --- | --- |",
    ]
    for score in card.scores:
        name = score.set.replace("|", "\\|")
        rows.append(
            f"| {name} | {score.precision} | {score.top1:.4f} | {score.correct} of {score.total}, "
            f"{score.classes} classes | {_interval(score.ci95)} | {_interval(score.ci95_photos)} |"
        )
    commands = list(dict.fromkeys(score.command for score in card.scores))
    return "\n".join([*rows, "", "```sh", *commands, "```"])


def _graphs(card: Card) -> str:
    lines = [
        f"- {parity.runtime} in {parity.precision}: cosine to torch {parity.mean_cosine:.4f} in the mean, "
        f"{parity.min_cosine:.4f} at the lowest, on {parity.photos} photos"
        for parity in card.parity
    ]
    lines += [
        f"- int8 was calibrated with {one.photos} photos of {len(one.labels)} classes from {one.name}"
        for one in card.calibration
    ]
    return "\n".join(lines)


def _interval(interval: tuple[float, float]) -> str:
    return f"{interval[0]:.4f} to {interval[1]:.4f}"


def _words(name: str) -> str:
    return name.replace("_", " ")


def _plain(value: object) -> str:
    """A value of provenance as words: mappings as "name value", nested ones in brackets."""
    if isinstance(value, Mapping):
        inner = (f"{_words(name)} ({_plain(one)})" if isinstance(one, Mapping) else f"{_words(name)} {_plain(one)}"
                 for name, one in value.items())  # fmt: skip
        return ", ".join(inner)
    if isinstance(value, list | tuple):
        return ", ".join(_plain(one) for one in value)
    if isinstance(value, bool):
        return "yes" if value else "no"
    if value is None or value == "":
        return "none"
    return f"{value:.6g}" if isinstance(value, float) else str(value)
