"""Compares what the demo finds with what was promised: the top-1 of the model's card, the class of each query."""

import httpx

from indexer.benchmark.report import Report
from model.embedder import Embedder
from model.errors import CarsearchError
from service.cli.output import say
from service.demo.gallery import DemoGallery, Query

SCORE_SET = "demo"
"""The set of the card's score that is compared."""

TOLERANCE = 0.02
"""int8 rounds differently on other processors, which changes a few nearest neighbours."""


class DemoFailed(CarsearchError):
    """The demo does not start, or does not find what was promised."""

    code = "demo_failed"


def check(client: httpx.Client, gallery: DemoGallery, report: Report, embedder: Embedder) -> None:
    """Compares the evaluation and the server's answers with what was promised; raises DemoFailed."""
    found = [_wrong_top1(report, embedder), *(_wrong_search(client, gallery, query) for query in gallery.queries)]
    wrong = [one for one in found if one is not None]
    if wrong:
        raise DemoFailed(f"The demo is not what was promised: {'; '.join(wrong)}.")
    say("check     passed")


def _wrong_top1(report: Report, embedder: Embedder) -> str | None:
    """How the score differs from the card's, as a part of a sentence; None where it does not."""
    scores = [score for score in embedder.card.scores if score.set == SCORE_SET]
    if not scores:
        return f'the card of {embedder.card.name} has no score for the set "{SCORE_SET}"'
    promised = next((score for score in scores if score.precision == embedder.runtime.precision), scores[0])
    say(f"check     top-1 {report.top1:.4f} of {report.total}, promised {promised.top1:.4f} of {promised.total}")
    if report.total != promised.total:
        return f"the gallery has {report.total} photos where the card's score is of {promised.total}"
    if abs(report.top1 - promised.top1) > TOLERANCE:
        return f"top-1 is {report.top1:.4f} where the card promises {promised.top1:.4f}, give or take {TOLERANCE}"
    return None


def _wrong_search(client: httpx.Client, gallery: DemoGallery, query: Query) -> str | None:
    """What is wrong with the answer to a query over HTTP, as a part of a sentence; None where its class is found."""
    photo = (gallery.directory / query.file).read_bytes()
    try:
        response = client.post("/search", files={"file": (query.file, photo)})
    except httpx.HTTPError as problem:
        return f"the search with {query.file} failed: {problem}"
    if not response.is_success:
        return f"the search with {query.file} was answered with status {response.status_code}"
    nearest = response.json()["nearest"]
    say(f"check     {query.file} is of {query.label}, found {nearest['class']}, score {nearest['score']:.4f}")
    if nearest["class"] != query.label:
        return f"{query.file} is of {query.label} and the search found {nearest['class']}"
    return None
