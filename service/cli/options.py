"""Options that several commands share."""

from pathlib import Path
from typing import Annotated, Literal

import typer

from indexer.stores.precision import StorageChoice

GalleryArgument = Annotated[
    str | None,
    typer.Argument(
        help="A folder of photos, one folder a class if there are any, perhaps a photos.csv; a CSV; tar or Parquet "
        "shards; or the URL of a folder or of shards in a storage."
    ),
]
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
DeltaOption = Annotated[
    Path | None,
    typer.Option(
        "--delta", help="The servers' CARSEARCH_DELTA_DIR: what was put and deleted, which the index takes in."
    ),
]
FoldOption = Annotated[
    bool,
    typer.Option("--fold", help="Take in what was put and deleted, and embed nothing; needs --delta."),
]
EngineOption = Annotated[
    Literal["local", "ray"],
    typer.Option("--engine", help="What embeds: this process, or the Ray cluster that RAY_ADDRESS names."),
]
AllowRemovalsOption = Annotated[
    bool, typer.Option("--allow-removals", help="Publish even if over a tenth of the gallery's photos is gone.")
]
TrustMtimeOption = Annotated[
    bool,
    typer.Option("--trust-mtime", help="Read no photo again whose file has the size, time and inode of the last run."),
]
StorageOption = Annotated[
    StorageChoice | None,
    typer.Option(
        "--storage",
        help="How vectors are stored; by default as in the current version. A new index takes auto: inverted lists of "
        "one-bit codes above 200,000 photos, fp16 from 1,000, each where it finds what fp32 finds; else fp32.",
    ),
]
JsonOption = Annotated[bool, typer.Option("--json", help="Print JSON.")]
Precision = Literal["fp32", "int8", "bf16"]
IndexOption = Annotated[Path, typer.Option("--index", help="Index directory.")]
ModelOption = Annotated[str | None, typer.Option("--model", help="Name of a shipped model, or a model directory.")]
RuntimeOption = Annotated[
    Literal["auto", "openvino", "onnx", "torch"],
    typer.Option(
        "--runtime", help="What runs the network; auto is torch where CUDA is, else OpenVINO, on ARM ONNX Runtime."
    ),
]
PrecisionOption = Annotated[
    Precision | None,
    typer.Option(help="By default int8 where the model has it and OpenVINO runs it, else fp32; bf16 needs torch."),
]

# These became commands of `carsearch versions`; they work for one release more.
ListOption = Annotated[bool, typer.Option("--list", hidden=True)]
VerifyOption = Annotated[bool, typer.Option("--verify", hidden=True)]
RollbackOption = Annotated[bool, typer.Option("--rollback", hidden=True)]
ToOption = Annotated[str | None, typer.Option("--to", hidden=True)]
