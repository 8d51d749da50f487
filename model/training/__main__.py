"""`python -m model.training --data DIR --out MODEL_DIR`: training where only the training packages are installed."""

import sys
from collections.abc import Sequence

from model.errors import CarsearchError
from model.training.options import parse_options
from model.training.trainer import train


def main(arguments: Sequence[str] | None = None) -> int:
    """The same as `carsearch train`; returns the exit status."""
    options = parse_options(arguments, "python -m model.training")
    try:
        print(train(options))
    except CarsearchError as problem:
        print(f"error: {problem}", file=sys.stderr)
        return 1
    except OSError as problem:
        print(f"error: {problem.filename or options.out}: {problem.strerror or problem}.", file=sys.stderr)
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
