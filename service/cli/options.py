"""Options that several commands share."""

from pathlib import Path
from typing import Annotated, Literal

import typer

ClassDepthOption = Annotated[
    int | None,
    typer.Option("--class-depth", min=0, help="Which folder names the class: 1 is the one at the top, 0 is none."),
]
ExcludeOption = Annotated[
    list[str] | None,
    typer.Option("--exclude", help="Leave out files and folders by name or path, as in '*_small*'; repeatable."),
]
CopiesOption = Annotated[
    Path | None, typer.Option("--copies", help="Write the photos that are copies of each other to this CSV file.")
]
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
