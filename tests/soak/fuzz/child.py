"""One target in a process of its own, which libFuzzer ends.

    python -m tests.soak.fuzz.child TARGET [FILE] [-option=value]

With files and no folders it runs those once, which is how a finding is looked at again.
"""

import random
import sys
import warnings

import atheris

# Only Python is instrumented: what Pillow and zlib do inside shows in which of our lines are reached.
with atheris.instrument_imports(include=["model", "service", "PIL", "zipfile", "tarfile"]):
    from tests.soak.fuzz.targets import TARGETS

from tests.support import mutants

STRUCTURED = 2 / 3
"""How many of the inputs are changed by parts of their format, and not by bytes alone."""


def mutate(data: bytes, max_size: int, seed: int) -> bytes:
    """Another input from one that reached something new."""
    rng = random.Random(seed)
    if data and rng.random() < STRUCTURED:
        return mutants.mutate(data, rng)[0][:max_size]
    changed = bytes(atheris.Mutate(data, max_size))
    return mutants.with_checksums(changed)[:max_size] if changed.startswith(mutants.PNG_SIGNATURE) else changed


def main() -> None:
    """Never returns."""
    warnings.simplefilter("ignore")  # Pillow warns of what it reads all the same
    target = TARGETS[sys.argv.pop(1)]
    atheris.Setup(sys.argv, target, custom_mutator=mutate)
    atheris.Fuzz()


if __name__ == "__main__":
    main()
