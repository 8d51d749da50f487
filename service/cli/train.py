"""The commands that make a model: train and export."""

import os
import shutil
from enum import StrEnum
from pathlib import Path
from typing import Annotated

import typer

from model.errors import RunMismatch
from service.cli.output import list_skipped, progress_bar, say


class Device(StrEnum):
    auto = "auto"
    cpu = "cpu"
    cuda = "cuda"


class Precision(StrEnum):
    fp32 = "fp32"
    int8 = "int8"
    bf16 = "bf16"


def train(
    data: Annotated[list[Path], typer.Option(help="Class folders or a CSV manifest; may be repeated.")],
    out_dir: Annotated[Path, typer.Option("--out", help="Where the model goes; the same command resumes a run there.")],
    recipe: Annotated[
        str, typer.Option(help="baseline (the seed's), quick, efficientnet_lite0 or resnet18.")
    ] = "baseline",
    val: Annotated[Path | None, typer.Option(help="Photos of other classes; by default some are held out.")] = None,
    unlabelled: Annotated[
        list[Path] | None, typer.Option(help="Photos without labels, learned from through --teacher; may be repeated.")
    ] = None,
    teacher: Annotated[str, typer.Option(help="Model to learn from: the name of one that ships or a directory.")] = "",
    init: Annotated[
        str | None,
        typer.Option(help="Where weights start: random, imagenet or a model; else as the recipe says."),
    ] = None,
    device: Annotated[Device, typer.Option(help="auto is CUDA where there is one.")] = Device.auto,
    devices: Annotated[int, typer.Option(min=1, help="Processes, one a GPU.")] = 1,
    epochs: Annotated[int | None, typer.Option(min=1, help="Another number of epochs than the recipe's.")] = None,
    batch_size: Annotated[
        int | None, typer.Option(min=1, help="Another batch than the recipe's; the learning rate is scaled with it.")
    ] = None,
    crop: Annotated[
        int | None, typer.Option(min=1, help="Another side of the crops than the recipe's, in pixels.")
    ] = None,
    workers: Annotated[int, typer.Option(min=0, help="Decoding processes for each device.")] = 2,
    cache: Annotated[bool, typer.Option(help="Keep decoded photos in memory, in every worker.")] = False,
    validate_every: Annotated[int, typer.Option(min=1, help="Epochs from one validation to the next.")] = 1,
    restart: Annotated[bool, typer.Option(help="Start over when --out holds another run.")] = False,
) -> None:
    """Train a network by classification; validates by the benchmark on classes it never sees."""
    from model.training.options import TrainOptions
    from model.training.trainer import TRAINING_FOLDER
    from model.training.trainer import train as run

    options = TrainOptions(
        data=data, out=out_dir, recipe=recipe, validation=val, unlabelled=unlabelled or [], teacher=teacher,
        init=init, device=device.value, devices=devices, epochs=epochs, batch_size=batch_size, crop=crop,
        workers=workers, cache=cache, validate_every=validate_every, on_skipped=list_skipped,
    )  # fmt: skip
    try:
        run(options)
    except RunMismatch:
        if not restart:
            raise
        shutil.rmtree(out_dir / TRAINING_FOLDER)
        run(options)
    if os.environ.get("LOCAL_RANK", "0") == "0":  # of the processes of one run, one speaks
        say(f"The model is in {out_dir}. Next: carsearch export {out_dir}")


def export(
    model_dir: Annotated[Path, typer.Argument(help="Directory that `carsearch train` wrote.")],
    precision: Annotated[Precision, typer.Option(help="Precision of the graph.")] = Precision.fp32,
    calibration: Annotated[
        list[Path] | None,
        typer.Option(help="Photos to quantise int8 with, of classes that were trained on; may be repeated."),
    ] = None,
    photos: Annotated[Path | None, typer.Option(help="Photos to compare on; by default those of training.")] = None,
) -> None:
    """Export a network to OpenVINO and measure how closely the graph gives its embeddings."""
    from model.export.openvino import export as run

    with progress_bar("comparing") as progress:
        parity = run(model_dir, photos, progress, precision=precision.value, calibration=calibration or [])
    cosines = f"lowest cosine {parity.min_cosine:.7f}, mean {parity.mean_cosine:.7f}"
    say(f"exported {precision.value}: {cosines} on {parity.photos} photos")
