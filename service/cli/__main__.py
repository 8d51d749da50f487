"""`python -m service.cli`: the same as `python -m carsearch`."""

import sys

try:
    from carsearch.__main__ import main
except ImportError as problem:  # a hidden package
    sys.exit(f"error: {problem}")

main()
