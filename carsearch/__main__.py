"""The command `carsearch`, also `python -m carsearch`."""

import sys


def main() -> None:
    """Runs the command line, which is imported only after the check for hidden packages."""
    try:
        from service.cli.main import main as run

        run()
    except KeyboardInterrupt:  # while it was imported, or once more while the first was being handled
        sys.exit(130)


if __name__ == "__main__":
    main()
