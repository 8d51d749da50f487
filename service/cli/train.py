"""The commands that make a model: train and export."""

from pathlib import Path
from typing import Annotated, Literal

import typer

from model.card import load_card
from service.cli.options import Precision
from service.cli.output import progress_bar, say


def train(context: typer.Context) -> None:
    """Train a network by classification; validates by the benchmark on classes it never sees."""
    from model.training.options import parse_options  # without torch, so that --help is quick

    options = parse_options(context.args, "carsearch train")
    from model.training.trainer import train as run

    run(options)
    say(f"The model is in {options.out}. Next: carsearch export {options.out}")


def export(
    model_dir: Annotated[Path, typer.Argument(help="Directory that `carsearch train` wrote.")],
    precision: Annotated[Precision, typer.Option(help="Precision of the graph.")] = "fp32",
    runtime: Annotated[
        Literal["openvino", "onnx"],
        typer.Option(help="What the graph is for; onnx is what Linux on ARM runs, in fp32."),
    ] = "openvino",
    calibration: Annotated[
        list[Path] | None,
        typer.Option(help="Photos to quantise int8 with, of classes that were trained on; may be repeated."),
    ] = None,
    photos: Annotated[Path | None, typer.Option(help="Photos to compare on; by default those of training.")] = None,
    whiten: Annotated[
        list[Path] | None,
        typer.Option(help="First fit a whitening on photos of classes that were trained on; may be repeated."),
    ] = None,
    cars: Annotated[
        list[Path] | None,
        typer.Option(help="Then fit the car head, on photos of classes that were trained on; repeatable."),
    ] = None,
    not_cars: Annotated[
        list[Path] | None, typer.Option(help="Pictures without a car, for the car head; repeatable.")
    ] = None,
    mirror: Annotated[
        bool | None,
        typer.Option(help="First set whether photos are embedded with their mirror image, which takes twice the time."),
    ] = None,
) -> None:
    """Export a network to OpenVINO or ONNX and measure how closely the graph gives its embeddings."""
    from model.export.openvino import export as run

    if bool(cars) != bool(not_cars):
        raise typer.BadParameter("--cars and --not-cars go together.")
    had_head = load_card(model_dir).car_head is not None
    if whiten or mirror is not None:
        from model.export.embedding_space import change_space

        change_space(model_dir, whiten or (), mirror)
    if cars and not_cars:
        from model.export.car_head import fit_car_head

        fit_car_head(model_dir, cars, not_cars)
    with progress_bar("comparing") as progress:
        parity = run(model_dir, photos, progress, precision=precision, calibration=calibration or [], runtime=runtime)
    cosines = f"lowest cosine {parity.min_cosine:.7f}, mean {parity.mean_cosine:.7f}"
    say(f"exported {precision} for {runtime}: {cosines} on {parity.photos} photos")
    if had_head and load_card(model_dir).car_head is None:
        say("The car head went with the old embeddings; fit another with --cars and --not-cars.")
