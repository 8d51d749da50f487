"""One sentence where somebody's own model.py, indexer.py or service.py hides a package of carsearch."""

import sys
from importlib.util import find_spec
from pathlib import Path

PACKAGES = ("model", "indexer", "service")
INSTALLED_IN = Path(__file__).resolve().parents[1]
COMMANDS = ("carsearch", "-m")
"""First word of `sys.argv` while the installed command, or `python -m carsearch`, imports this package."""


def refuse_hidden_packages() -> None:
    """Raises ImportError naming the file or folder that Python would import instead of a package of carsearch.

    The command has nobody to catch it, and prints the sentence without a traceback: exit status 1.
    """
    for name in PACKAGES:
        found = _found(name)
        if found is None or found.resolve() == INSTALLED_IN / name / "__init__.py":
            continue
        sentence = (
            f'{found} hides the package "{name}" of carsearch; rename it, or leave its folder out of PYTHONPATH '
            "and run from another folder."
        )
        if sys.argv and Path(sys.argv[0]).name in COMMANDS:
            sys.exit(f"error: {sentence}")
        raise ImportError(sentence)


def _found(name: str) -> Path | None:
    """The file that Python imports by a name, or the folder where that has no `__init__.py`; nothing is run."""
    spec = find_spec(name)
    if spec is None:
        return None
    return Path(spec.origin or next(iter(spec.submodule_search_locations or ())))
