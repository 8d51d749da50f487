"""`python -m model.training`: trains on a machine that has only the training packages."""

import sys

from model.training.trainer import main

if __name__ == "__main__":
    sys.exit(main())
