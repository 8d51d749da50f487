"""Case 043: files that once broke decoders, each sent to a server and decoded here.

The collection is not ours and stays where it is; Pillow's (`Tests/images` of its source package) is meant.
"""

import tempfile
import time
from collections import Counter
from collections.abc import Callable
from pathlib import Path

from model.card import InputSpec
from model.errors import ImageRejected
from model.images.transform import prepare
from tests.support.demo_index import demo_index
from tests.support.servers import Server, running_server

ALLOWED = {200, 413, 415, 422}
"""413 for a file that is larger than an upload may be."""

LONGEST_S = 2
SPEC = InputSpec(resize=256, crop=224)


def try_corpus(folder: Path) -> tuple[list[str], list[str]]:
    """What became of the files below a folder, in a line for each way, and which did what they may not."""
    files = sorted(path for path in folder.rglob("*") if path.is_file() and path.stat().st_size)
    with tempfile.TemporaryDirectory(prefix="carsearch-corpus-") as scratch:
        index = demo_index(Path(scratch))
        with running_server(index.root, Path(scratch) / "log") as server:
            told, bad = tried(files, "over HTTP", lambda path: _sent(server, path))
            if server.process.poll() is not None:
                return [told], [*bad, f"the server ended:\n{server.log[-3000:]}"]
    here, bad_here = tried(files, "decoded here", _decoded)
    return [told, here], bad + bad_here


def tried(files: list[Path], how: str, outcome_of: Callable[[Path], int]) -> tuple[str, list[str]]:
    """Sums up what became of the files, and says which did what they may not."""
    outcomes: Counter[int] = Counter()
    slowest_s, slowest, bad = 0.0, "", []
    for path in files:
        started = time.perf_counter()
        try:
            outcome, why = outcome_of(path), ""
        except Exception as problem:
            outcome, why = 500, repr(problem)
        took_s = time.perf_counter() - started
        outcomes[outcome] += 1
        if took_s > slowest_s:
            slowest_s, slowest = took_s, path.name
        if outcome not in ALLOWED or took_s > LONGEST_S:
            bad.append(f"{path.name}: {outcome} after {took_s:.2f} s, {how} {why}")
    told = ", ".join(f"{count} x {outcome}" for outcome, count in sorted(outcomes.items()))
    return f"{len(files)} files {how}: {told}; the slowest took {slowest_s:.2f} s: {slowest}", bad


def _sent(server: Server, path: Path) -> int:
    """The status of the answer; raises TransportError where there is none."""
    return server.client.post("/search", files={"file": path.read_bytes()}).status_code


def _decoded(path: Path) -> int:
    """200 for a crop and 422 for a photo that is refused, as if it were answered."""
    try:
        prepare(path.read_bytes(), SPEC)
    except ImageRejected:
        return 422
    return 200
