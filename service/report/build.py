"""The report of an evaluation for people: one HTML file that opens offline, of the figures and of pictures."""

from collections.abc import Callable
from datetime import datetime
from functools import cache
from importlib.resources import files
from typing import NamedTuple

from jinja2 import Environment, PackageLoader, StrictUndefined, Template
from markupsafe import Markup

from indexer.benchmark.compare import Comparison
from indexer.benchmark.report import Evaluation
from model.embedder import Embedder
from service.report import sections
from service.report.pictures import Pictures, Read

POLICY = "default-src 'none'; img-src data:; style-src 'unsafe-inline'; base-uri 'none'; form-action 'none'"
"""What a report may load and do: nothing but show the pictures and the style that are in it. It has no script."""

LONGEST_NAME = 120
"""Characters of a class or an id that are shown."""


class Subject(NamedTuple):
    """What was evaluated and when: the name of the set, for people."""

    name: str
    when: datetime


def report_html(
    evaluation: Evaluation,
    embedder: Embedder,
    subject: Subject,
    *,
    original: Read | None = None,
    comparison: Comparison | None = None,
    before_step: Callable[[], None] = lambda: None,
) -> str:
    """The report of an evaluation that kept its details; `original` reads photos of the gallery that was searched.

    `before_step` is called often while pictures are made, and may raise to stop.
    """
    details = evaluation.details
    if details is None:
        raise ValueError("the evaluation was asked for no details")
    report, answers = evaluation.report, evaluation.answers
    pictures = Pictures(details, embedder, original, before_step)
    return _template().render(
        policy=POLICY,
        subject=subject,
        report=report,
        scores=sections.beside_the_benchmark(report, embedder.card.scores),
        change=comparison and sections.change(comparison, details, pictures),
        classes=sections.classes(report),
        confusions=sections.confusions(report, answers, pictures),
        errors=sections.errors(answers, details, pictures),
        trust=sections.trust(evaluation, details),
        map=sections.embedding_map(report, details, before_step),
        health=sections.health(evaluation, details, pictures),
    )


@cache
def _template() -> Template:
    environment = Environment(
        loader=PackageLoader("service.report", ""),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    environment.filters.update(name=_name, number=_number, percent=_percent, points=_points)
    style = Markup(  # noqa: S704  # our own file
        files("service.report").joinpath("report.css").read_text(encoding="utf-8")
    )
    return environment.get_template("report.html.jinja", globals={"style": style, **sections.LIMITS})


def _name(text: str) -> str:
    return text if len(text) <= LONGEST_NAME else f"{text[: LONGEST_NAME - 1]}…"


def _number(value: int) -> str:
    return f"{value:,}"


def _percent(share: float, digits: int = 1) -> str:
    return f"{100 * share:.{digits}f}%"


def _points(difference: float) -> str:
    told = f"{100 * difference:+.1f}".replace("-", "\N{MINUS SIGN}")
    return "0.0" if told[1:] == "0.0" else told
