"""A server asked by the document that it gives of itself: schemathesis makes requests that follow it, and others.

No answer may be 5xx, and each must be one that the document names: status, type of content, headers, shape.
"""

import os
import subprocess
import sys
import tempfile
from pathlib import Path

from tests.support.demo_index import demo_index
from tests.support.servers import running_server

CONFIG = Path(__file__).with_name("schemathesis.toml")
DATASET = "demo"


def run_schemathesis(document: str, seconds: int, *options: str) -> "subprocess.CompletedProcess[str]":
    """Asks the server of a document, an address or a file, for about so long; what it wrote is in `stdout`."""
    with tempfile.TemporaryDirectory(prefix="carsearch-api-") as scratch:
        command = [sys.executable, "-m", "schemathesis.cli", "--config-file", str(CONFIG), "run", document]
        return subprocess.run(
            [*command, "--max-time", str(seconds), "--report-dir", scratch, *options],
            text=True, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, timeout=seconds + 600, check=False,
            env={**os.environ, "PYTHONUNBUFFERED": "1"},
        )  # fmt: skip


def fuzz_server(url: str, seconds: int, *options: str) -> "subprocess.CompletedProcess[str]":
    """Asks a server that runs."""
    return run_schemathesis(f"{url}/openapi.json", seconds, *options)


def fuzz_own_server(seconds: int) -> "subprocess.CompletedProcess[str]":
    """Asks a server that is started for it."""
    with tempfile.TemporaryDirectory(prefix="carsearch-api-") as scratch:
        index = demo_index(Path(scratch))
        with running_server(index.root, Path(scratch) / "log", DATASETS=f'{{"demo": "{scratch}/gallery"}}') as server:
            return fuzz_server(server.url, seconds)
