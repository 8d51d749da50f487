"""A Ray cluster of several nodes on this machine, a storage beside it, and photos that tell who read them."""

import os
import time
import uuid
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import boto3
import ray
from moto.server import ThreadedMotoServer
from ray.cluster_utils import Cluster

from model.dataset import Item, read_file
from model.errors import FileUnreadable

LOOPBACK = "127.0.0.2"
"""Ray takes 127.0.0.1 for this machine's address in the network, where the cluster does not listen."""

NODE: dict[str, Any] = {"num_cpus": 2, "node_ip_address": LOOPBACK, "object_store_memory": 100 << 20}
"""CPUs are declared: the nodes share the cores of the machine."""


@contextmanager
def running_cluster(nodes: int) -> Iterator[Cluster]:
    """A cluster, whose first node is the driver's."""
    cluster = Cluster(initialize_head=True, head_node_args={**NODE, "include_dashboard": False})
    try:
        for _ in range(nodes - 1):
            cluster.add_node(**NODE)
        cluster.wait_for_nodes()
        yield cluster
    finally:
        ray.shutdown()
        cluster.shutdown()


@contextmanager
def running_storage() -> Iterator[str]:
    """The URL of an empty bucket of S3; the environment of this process leads to it."""
    server = ThreadedMotoServer(LOOPBACK, 0, verbose=False)
    server.start()
    _, port = server.get_host_and_port()
    names = {
        "AWS_ENDPOINT_URL": f"http://{LOOPBACK}:{port}",
        **dict.fromkeys(("AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY"), "made-up"),
        "AWS_DEFAULT_REGION": "us-east-1",
    }
    os.environ |= names
    try:
        boto3.client("s3").create_bucket(Bucket="cars")
        yield "s3://cars"
    finally:
        for name in names:
            del os.environ[name]
        server.stop()


@dataclass(frozen=True, slots=True)
class LoggedPhoto(Item):
    """A photo that takes a while to read, and leaves a file in `log` with the node that read it."""

    log: Path = Path()

    def read(self) -> bytes:
        (self.log / uuid.uuid4().hex).write_text(f"{ray.get_runtime_context().get_node_id()} {self.id}")
        time.sleep(0.05)
        return read_file(self.path)


@dataclass(frozen=True, slots=True)
class UnmountedPhoto(Item):
    """A photo that only one process can read."""

    reader: int = 0

    def read(self) -> bytes:
        if os.getpid() != self.reader:
            raise FileUnreadable("The file cannot be read: No such file or directory.")
        return read_file(self.path)


def reads_in(log: Path) -> list[list[str]]:
    """The node and the id of each read."""
    return [path.read_text().split(" ", 1) for path in log.iterdir() if path.stat().st_size]
