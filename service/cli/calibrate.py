"""The command that shows how far the probabilities of an index can be trusted."""

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer
from rich.console import Group
from rich.table import Table

from model.errors import IndexInvalid
from service.cli.options import IndexOption, RuntimeOption
from service.cli.output import out, say

if TYPE_CHECKING:
    from indexer.calibration import Calibration, Reliability


def calibrate(
    index_dir: IndexOption = Path("index"),
    precision: Annotated[float, typer.Option(min=0.5, max=0.99, help="How often a class must be right.")] = 0.95,
    runtime: RuntimeOption = "auto",
    json_: Annotated[bool, typer.Option("--json", help="Print the figures as JSON.")] = False,
) -> None:
    """Leave each photo of an index out once (at most 5,000), and show how often the probabilities of classes hold."""
    from indexer.calibration import leave_one_out, reliability
    from indexer.decider import fitted_to_labelled
    from service.directory import open_directory
    from service.engine import open_index

    engine = open_index(open_directory(index_dir), runtime=runtime)
    decider = engine.decider
    if decider is None:
        raise IndexInvalid(
            f"{index_dir} has no photos with a class to try the probabilities on; build it with classes: "
            f"carsearch index GALLERY --index {index_dir}"
        )
    classes, rows = fitted_to_labelled(engine.store.vectors, decider.codes)
    threshold = decider.calibration.threshold(precision)
    embeddings = engine.store.vectors(rows)
    decisions, right = leave_one_out(engine.store, embeddings, rows, decider.codes, classes)
    decided = decisions.classes >= 0
    photos = int(decided.sum())
    told = {"wanted": precision, "threshold": threshold, "photos": photos, "fitted": decider.calibration.to_json()}
    if photos:
        found = reliability(decider.calibration.probabilities(decisions.only(decided)), right[decided])
        told |= found.to_json()
    if json_:
        out.print_json(data=told)
        return
    if photos:
        out.print(_tables(found, photos))
        if not decider.calibration.photos:
            say("These photos are too few to fit on; searches use the fit that ships.")
    else:
        say("No class of this index has ten photos, too few to try the probabilities on.")
    say(_sentence(decider.calibration, precision, threshold))


def _tables(found: "Reliability", photos: int) -> Group:
    diagram = Table("probability", "photos", "right", title=f"reliability on {photos} photos")
    for one in found.bins:
        diagram.add_row(
            f"{one.low:.1f} .. {one.high:.1f}", str(one.photos), "" if one.right is None else f"{one.right:.3f}"
        )
    curve = Table(
        "precision",
        "threshold",
        "photos decided",
        title="precision against coverage, with the best threshold for these photos",
    )
    for point in found.curve:
        curve.add_row(f"{point.precision:.2f}", f"{point.threshold:.3f}", f"{point.coverage:.3f}")
    return Group(diagram, curve)


def _sentence(calibration: "Calibration", precision: float, threshold: float) -> str:
    fit = f"fitted on {calibration.photos} photos" if calibration.photos else "the fit that ships"
    return f"For a precision of {precision:.2f} a class is named from a probability of {threshold:.3f} on ({fit})."
