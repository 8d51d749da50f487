"""CUDA graphs on stand-ins that do at once, on the CPU, what the device would do later.

They show which stream waits for what and that nothing is read before it was written, not what a GPU computes.
"""

import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from types import SimpleNamespace
from typing import Any, cast

import numpy as np
import pytest
import torch

from model.card import load_card
from model.network.embedding_net import EmbeddingNetwork, load_network
from model.runtimes import cuda_graphs
from model.runtimes.cuda_graphs import WARM_UPS, CudaGraphs
from model.types import Embeddings

pytestmark = pytest.mark.torch
GPU: Any = SimpleNamespace(type="cuda")


class Device:
    """Streams, events and graphs that write down what is asked of them."""

    def __init__(self) -> None:
        self.log: list[str] = []
        self.current = "default"
        self.recording: list[Callable[[], object]] | None = None
        self._streams = iter(("copying", "computing"))

    def cuda(self) -> SimpleNamespace:
        return SimpleNamespace(
            Stream=self._stream, Event=self._event, CUDAGraph=self._graph, graph=self._capture, stream=self._on,
            device=self._device, current_stream=lambda _device: SimpleNamespace(name="default"),
        )  # fmt: skip

    def _stream(self, _device: Any) -> SimpleNamespace:
        name = next(self._streams)
        return SimpleNamespace(
            name=name,
            wait_event=lambda event: self.log.append(f"{name} waits for {event.after}"),
            synchronize=lambda: self.log.append(f"host waits for {name}"),
        )

    def _event(self, blocking: bool) -> SimpleNamespace:
        event = SimpleNamespace(after="nothing", blocking=blocking)
        event.record = lambda stream: setattr(event, "after", stream.name)
        event.synchronize = lambda: self.log.append(f"host waits for {event.after}")
        return event

    def _graph(self) -> SimpleNamespace:
        graph = SimpleNamespace(steps=[])

        def replay() -> None:
            self.log.append(f"replay on {self.current}")
            for step in graph.steps:
                step()

        graph.replay = replay
        return graph

    @contextmanager
    def _capture(self, graph: SimpleNamespace, stream: SimpleNamespace, capture_error_mode: str) -> Iterator[None]:
        assert (stream.name, capture_error_mode) == ("computing", "thread_local")
        self.recording = graph.steps
        yield
        self.recording = None

    @contextmanager
    def _on(self, stream: SimpleNamespace) -> Iterator[None]:
        before, self.current = self.current, stream.name
        yield
        self.current = before

    @contextmanager
    def _device(self, _device: Any) -> Iterator[None]:
        yield


class Network:
    """A network whose calls a stand-in graph can repeat into the same buffer."""

    def __init__(self, network: Any, device: Device) -> None:
        self.dim, self.spec = network.dim, network.spec
        self._network, self._device = network, device
        self.calls = 0

    def __call__(self, crops: torch.Tensor) -> torch.Tensor:
        self.calls += 1
        rows: torch.Tensor = self._network(crops)
        if self._device.recording is not None:
            self._device.recording.append(lambda: rows.copy_(self._network(crops)))
            rows.zero_()  # a recording computes nothing
        return rows


class FakeTorch:
    """torch, but for what needs a GPU."""

    def __init__(self, device: Device) -> None:
        self.cuda = device.cuda()

    def __getattr__(self, name: str) -> Any:
        return getattr(torch, name)

    def empty(self, *sizes: Any, pin_memory: bool = False) -> torch.Tensor:
        assert pin_memory
        return torch.empty(*sizes)

    def zeros(self, size: Any, dtype: torch.dtype, device: Any) -> torch.Tensor:
        assert device is GPU
        return torch.zeros(size, dtype=dtype)


@pytest.fixture
def device(monkeypatch: pytest.MonkeyPatch) -> Device:
    """A stand-in for the device, in the place of torch.cuda."""
    device = Device()

    def pinned(tensor: torch.Tensor) -> SimpleNamespace:
        def to(_device: Any, non_blocking: bool) -> torch.Tensor:
            assert non_blocking
            device.log.append(f"copy on {device.current}")
            return tensor.clone()

        return SimpleNamespace(to=to)

    monkeypatch.setattr(cuda_graphs, "torch", FakeTorch(device))
    monkeypatch.setattr(torch.Tensor, "pin_memory", pinned)
    monkeypatch.setattr(
        torch.Tensor, "record_stream", lambda _, stream: device.log.append(f"memory is held for {stream.name}")
    )
    return device


@pytest.fixture(scope="module")
def network(real_model: Path) -> EmbeddingNetwork:
    return load_network(real_model, load_card(real_model))


def random_crops(count: int) -> torch.Tensor:
    generator = torch.Generator().manual_seed(count)
    return torch.randint(0, 256, (count, 64, 64, 3), dtype=torch.uint8, generator=generator)


def embeddings_of(network: EmbeddingNetwork, crops: torch.Tensor) -> Embeddings:
    with torch.inference_mode():
        rows: Embeddings = network(crops).numpy()
    return rows


def test_a_batch_is_copied_computed_and_copied_back_in_this_order(device: Device, network: EmbeddingNetwork) -> None:
    counted: Any = Network(network, device)
    graphs = CudaGraphs(counted, GPU, (2, 4))
    crops = random_crops(3)
    first = graphs.start(crops)
    assert device.log == [
        "copy on copying",
        "host waits for computing",  # the warm-up, once a shape
        "computing waits for copying",
        "memory is held for computing",
        "replay on computing",
    ]
    assert counted.calls == WARM_UPS + 1
    second = graphs.start(crops.flip(0))  # the buffers are used again before the first result is asked for
    assert counted.calls == WARM_UPS + 1
    wanted = embeddings_of(network, crops)
    assert np.abs(second() - wanted[::-1]).max() < 1e-5
    assert np.abs(first() - wanted).max() < 1e-5
    assert device.log[-1] == "host waits for computing"


def test_a_padded_batch_has_its_own_rows_whatever_a_larger_one_left(device: Device, network: EmbeddingNetwork) -> None:
    graphs = CudaGraphs(cast(Any, Network(network, device)), GPU, (1, 4, 8))
    for count in (8, 1, 2, 4, 3, 5):
        crops = random_crops(count)
        rows = graphs.start(crops)()
        assert rows.shape == (count, 512)
        assert np.abs(rows - embeddings_of(network, crops)).max() < 1e-5


def test_after_a_batch_that_fails_the_next_one_is_right(device: Device, network: EmbeddingNetwork) -> None:
    graphs = CudaGraphs(cast(Any, Network(network, device)), GPU, (4,))
    with pytest.raises(RuntimeError):
        graphs.start(random_crops(2)[:, 1:])  # crops of another size
    found: list[Embeddings] = []
    other = threading.Thread(target=lambda: found.append(graphs.start(random_crops(3))()))
    other.start()
    other.join(timeout=60)  # the lock was released
    assert np.abs(found[0] - embeddings_of(network, random_crops(3))).max() < 1e-5
