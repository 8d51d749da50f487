"""The command `carsearch`, also `python -m carsearch`."""


def main() -> None:
    """Runs the command line, which is imported only after the check for hidden packages."""
    from service.cli.main import main as run

    run()


if __name__ == "__main__":
    main()
