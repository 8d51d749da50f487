"""python -m bench.spine --gallery DIR --model DIR: what each step of the way costs on this machine.

Prints a table and writes JSON. Times are medians; rates are photos a second. Run it on an otherwise idle machine: the
figures are for reading side by side within one run.
"""

import argparse
import json
import statistics
import tempfile
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TypeVar

import httpx
from rich.console import Console
from rich.table import Table

from bench.serving import running_server
from indexer.build import build_index
from indexer.versions import IndexDirectory
from model.data import read_items
from model.embedder import Embedder
from model.preprocess import decode, fit
from service.engine import Engine

Value = TypeVar("Value")


def median_ms(work: Callable[[Value], object], values: Sequence[Value]) -> float:
    """Median time of `work` over the values, in milliseconds, after one that is not counted."""
    work(values[0])
    times = []
    for value in values:
        started = time.perf_counter()
        work(value)
        times.append(time.perf_counter() - started)
    return statistics.median(times) * 1000


def measure(gallery: Path, model: Path, queries: int) -> dict[str, float]:
    """Indexes a gallery and searches it, in process and over HTTP."""
    embedder = Embedder.load(model)
    items = read_items(gallery).items
    photos = [item.read() for item in items[:: max(1, len(items) // queries)][:queries]]
    spec = embedder.card.input
    crop = embedder.prepare(photos[0])[None]
    embedding = embedder.embed_crops(crop)[0]
    with tempfile.TemporaryDirectory() as folder:
        index = IndexDirectory(Path(folder))
        started = time.perf_counter()
        built = build_index(gallery, index, embedder)
        indexed_s = time.perf_counter() - started
        started = time.perf_counter()
        build_index(gallery, index, embedder)
        again_s = time.perf_counter() - started
        engine = Engine.load(index)
        return {
            "photos": built.photos,
            "decode_ms": median_ms(decode, photos),
            "fit_ms": median_ms(lambda pixels: fit(pixels, spec), [decode(photo) for photo in photos]),
            "forward_ms": median_ms(lambda _: embedder.embed_crops(crop), photos),
            "faiss_search_ms": median_ms(lambda _: engine.store.search(embedding[None], 5), photos),
            "search_in_process_ms": median_ms(lambda photo: engine.search(photo, 5), photos),
            "search_over_http_ms": over_http(Path(folder), photos),
            "index_photos_per_s": built.photos / indexed_s,
            "reindex_unchanged_photos_per_s": built.photos / again_s,
        }


def over_http(index: Path, photos: list[bytes]) -> float:
    """Median time of a lone client's POST /search to a server process, in milliseconds."""
    with running_server(index) as (port, _), httpx.Client(base_url=f"http://127.0.0.1:{port}") as client:
        return median_ms(lambda photo: client.post("/search", files={"file": photo}).raise_for_status(), photos)


def main() -> None:
    """Command line; see the module."""
    parser = argparse.ArgumentParser(prog="python -m bench.spine", description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("--gallery", type=Path, required=True)
    parser.add_argument("--model", type=Path, required=True)
    parser.add_argument("--queries", type=int, default=200)
    parser.add_argument("--json", type=Path)
    options = parser.parse_args()
    figures = measure(options.gallery, options.model, options.queries)
    table = Table("figure", "value")
    for name, value in figures.items():
        table.add_row(name, f"{value:.4g}")
    Console().print(table)
    if options.json:
        options.json.write_text(json.dumps(figures, indent=1) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
