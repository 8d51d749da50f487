"""Options that several commands share."""

from pathlib import Path
from typing import Annotated, Literal

import typer

Precision = Literal["fp32", "int8", "bf16"]
IndexOption = Annotated[Path, typer.Option("--index", help="Index directory.")]
ModelOption = Annotated[str | None, typer.Option("--model", help="Name of a shipped model, or a model directory.")]
RuntimeOption = Annotated[
    Literal["auto", "openvino", "torch"],
    typer.Option("--runtime", help="What runs the network; auto is torch where CUDA is, else OpenVINO."),
]
PrecisionOption = Annotated[
    Precision | None,
    typer.Option(help="By default int8 where the model has it and OpenVINO runs it, else fp32; bf16 needs torch."),
]
