"""Runs the long runs, one after the other, and writes their results to docs/measured/reliability.md and .json.

python -m tests.soak                   all of them, as large as promised: hours
python -m tests.soak swaps kills       some of them
python -m tests.soak --small           all of them in small, printed and not written
"""

import argparse
import importlib
import json
import sys
import tempfile
import time
from dataclasses import asdict
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from model.storage import write_durably
from tests.soak.outcome import Extent, Figure

RUNS = ("uploads", "swaps", "stops", "kills", "builds", "changes", "overload", "soak")
"""Modules of this package, in the order of the table."""

MEASURED = Path(__file__).resolve().parent.parent.parent / "docs" / "measured"
TITLE = (
    "# Long runs, as measured\n\nWritten by `python -m tests.soak` (`make endure`). "
    "[reliability.md](../reliability.md) explains the figures."
)


def measure(name: str, extent: Extent) -> list[Figure]:
    """Runs one of RUNS in a scratch folder of its own."""
    module = importlib.import_module(f"tests.soak.{name}")
    with tempfile.TemporaryDirectory(prefix=f"carsearch-{name}-") as folder:
        figures: list[Figure] = module.run(extent, Path(folder), _say)
    return figures


def _say(line: str) -> None:
    print(f"{datetime.now(UTC):%H:%M:%S} {line}", file=sys.stderr, flush=True)


def write(results: dict[str, Any], folder: Path) -> None:
    """Writes JSON and table into a folder; earlier results of other runs are kept."""
    path = folder / "reliability.json"
    known = json.loads(path.read_text()) if path.is_file() else {}
    known |= results
    ordered = {name: known[name] for name in RUNS if name in known}
    folder.mkdir(parents=True, exist_ok=True)
    write_durably(path, (json.dumps(ordered, indent=1) + "\n").encode())
    write_durably(folder / "reliability.md", f"{TITLE}\n\n{_table(ordered)}\n".encode())


def _table(results: dict[str, Any]) -> str:
    lines = ["| run | figure | value | bar |  | of |", "| --- | --- | --- | --- | --- | --- |"]
    for name, result in results.items():
        about = f"`{name}`, {result['finished']}, {result['took_s'] / 60:.0f} min"
        for figure in result["figures"]:
            verdict = "PASS" if figure["kept"] else "MISS"
            cells = (about, figure["name"], figure["value"], figure["bar"], verdict, figure["how"])
            lines.append(f"| {' | '.join(cells)} |")
            about = ""
    return "\n".join(lines)


def main() -> int:
    """Exits with 1 when a promise was not kept."""
    parser = argparse.ArgumentParser(prog="python -m tests.soak")
    parser.add_argument("runs", nargs="*", metavar="RUN", help=f"by default all: {', '.join(RUNS)}")
    parser.add_argument("--small", action="store_true", help="seconds instead of hours; nothing is written")
    chosen = parser.parse_args()
    if unknown := set(chosen.runs) - set(RUNS):
        parser.error(f"there is no run {', '.join(sorted(unknown))}; there are: {', '.join(RUNS)}")
    extent: Extent = "small" if chosen.small else "large"
    kept = True
    for name in chosen.runs or RUNS:
        _say(f"{name}: begins")
        started = time.monotonic()
        figures = measure(name, extent)
        for figure in figures:
            verdict = "PASS" if figure.kept else "MISS"
            print(f"{verdict} {name}: {figure.name} {figure.value} ({figure.bar}) {figure.how}", flush=True)
        kept = kept and all(figure.kept for figure in figures)
        if extent == "large":
            took_s = time.monotonic() - started
            finished = f"{datetime.now(UTC):%Y-%m-%d}"
            result = {"finished": finished, "took_s": took_s, "figures": [asdict(one) for one in figures]}
            write({name: result}, MEASURED)
    return 0 if kept else 1


if __name__ == "__main__":
    sys.exit(main())
