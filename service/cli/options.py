"""Options that several commands share."""

from enum import StrEnum
from pathlib import Path
from typing import Annotated

import typer

from service.cli.train import Precision


class Runtime(StrEnum):
    auto = "auto"
    openvino = "openvino"
    torch = "torch"


class Decoder(StrEnum):
    cpu = "cpu"
    nvjpeg = "nvjpeg"


ModelOption = Annotated[str | None, typer.Option("--model", help="Name of a shipped model, or a model directory.")]
RuntimeOption = Annotated[
    Runtime, typer.Option(help="What runs the network; auto is torch where CUDA is, else OpenVINO.")
]
PrecisionOption = Annotated[
    Precision | None,
    typer.Option(help="By default int8 where the model has it and OpenVINO runs it, else fp32; bf16 needs torch."),
]
DecoderOption = Annotated[
    Decoder | None, typer.Option(help="What decodes photos: the CPU, by default, or nvJPEG on a GPU.")
]
IndexOption = Annotated[Path, typer.Option("--index", help="Index directory.")]
