"""A real Milvus server, standalone, of the wheel that `make test-engines` installs; one at a time, for etcd's ports."""

import os
import signal
import socket
import subprocess
import sys
import time
from pathlib import Path

from model.errors import StoreUnavailable

PROGRAM = Path(sys.prefix) / "milvus" / "bin" / "milvus-server"
STARTED_S = 200


class MilvusServer:
    """A server whose data lies in a folder. It has a process group of its own, so that all of it can be killed."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        with socket.create_server(("127.0.0.1", 0)) as probe:
            self._port = probe.getsockname()[1]
        self.address = f"http://127.0.0.1:{self._port}"
        self._process: subprocess.Popen[bytes] | None = None

    def start(self) -> None:
        """Starts the server, or starts it again, and waits until it answers."""
        from indexer.stores.milvus import Milvus

        assert PROGRAM.exists(), f"There is no {PROGRAM}: make test-engines"
        arguments: list[str | Path] = [PROGRAM, "--data", self._folder / "data", "--proxy-port", str(self._port)]
        with (self._folder / "log").open("ab") as log:
            self._process = subprocess.Popen(arguments, stdout=log, stderr=log, start_new_session=True)
        deadline = time.monotonic() + STARTED_S
        while True:
            try:
                Milvus(self.address).call("list_collections")
                return
            except StoreUnavailable:
                assert self._process.poll() is None, f"Milvus has ended: {self._folder / 'log'}"
                assert time.monotonic() < deadline, f"Milvus does not answer: {self._folder / 'log'}"
                time.sleep(1)

    def kill(self) -> None:
        """Ends the server as a machine without power does."""
        if self._process is not None:
            os.killpg(self._process.pid, signal.SIGKILL)
            self._process.wait()
            self._process = None
