"""The options of a training run. `TrainOptions` is the only list of them; the command line is made from it."""

import argparse
from collections.abc import Callable, Sequence
from dataclasses import MISSING, dataclass, field, fields
from pathlib import Path
from typing import Any, NoReturn


def _option(default: Any, help_: str, **argparse_keywords: Any) -> Any:
    return field(default=default, metadata={"help": help_, **argparse_keywords})


def _at_least(lowest: int) -> Callable[[str], int]:
    def number(text: str) -> int:
        if int(text) < lowest:
            raise argparse.ArgumentTypeError(f"{text} is less than {lowest}")
        return int(text)

    return number


@dataclass(frozen=True)
class TrainOptions:
    """What a user may choose; None means the recipe's own value. A field's metadata is what argparse is told about it.

    Sets of `data` that name a class alike mean one class. Without `validation`, classes of `data` are held out. Photos
    of `unlabelled` that look like one of validation are left out.
    """

    data: Sequence[Path] = field(
        metadata={"help": "class folders or a CSV manifest; may be repeated", "type": Path, "action": "append"}
    )
    out: Path = field(metadata={"help": "where the model goes; the same command resumes a run there", "type": Path})
    recipe: str = _option("baseline", "baseline (the original project's), quick, efficientnet_lite0 or resnet18")
    validation: Path | None = _option(
        None, "photos of other classes; by default some classes are held out", flag="val", type=Path
    )
    unlabelled: Sequence[Path] = _option(
        (), "photos without labels, learned from through --teacher; may be repeated", type=Path, action="append"
    )
    teacher: str = _option("", "model to learn from: the name of one that ships or a directory")
    init: str | None = _option(
        None,
        "where weights start: random, imagenet, a file of weights or a model; by default as the recipe says",
    )
    device: str = _option("auto", "auto is CUDA where there is one", choices=("auto", "cpu", "cuda"))
    epochs: int | None = _option(None, "another number of epochs than the recipe's", type=_at_least(1))
    batch_size: int | None = _option(
        None, "another batch size than the recipe's; the learning rate is scaled with it", type=_at_least(1)
    )
    crop: int | None = _option(None, "another side of the crops than the recipe's, in pixels", type=_at_least(1))
    workers: int = _option(2, "decoding processes", type=_at_least(0))
    validate_every: int = _option(1, "epochs from one validation to the next", type=_at_least(1))
    precision: str = _option(
        "auto", "auto is bf16 where the hardware has it", choices=("auto", "bf16-mixed", "32-true")
    )
    restart: bool = _option(False, "start over when --out holds another run", action="store_true")


class _Parser(argparse.ArgumentParser):
    def error(self, message: str) -> NoReturn:
        self.exit(2, f"error: {message}; see {self.prog} --help\n")


def parse_options(arguments: Sequence[str] | None, prog: str) -> TrainOptions:
    """Reads a command line, by default the process's own.

    Ends the process after --help, and with one sentence and exit status 2 on wrong usage.
    """
    description = "Train a network by classification; validates on classes it never sees."
    parser = _Parser(prog=prog, description=description, allow_abbrev=False)
    for option in fields(TrainOptions):
        keywords = {"help": "", **option.metadata}
        flag = "--" + keywords.pop("flag", option.name).replace("_", "-")
        required = option.default is MISSING
        if not required:
            keywords["default"] = list(option.default) if isinstance(option.default, tuple) else option.default
            keywords["help"] += "" if option.default in (None, "", (), False) else f" (default: {option.default})"
        parser.add_argument(flag, dest=option.name, required=required, **keywords)
    return TrainOptions(**vars(parser.parse_args(arguments)))
