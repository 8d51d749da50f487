"""Runtimes by name; each is imported only when it is chosen, so that a slim install never imports torch."""

from collections.abc import Callable
from ctypes import CDLL
from importlib import import_module
from importlib.util import find_spec
from pathlib import Path
from typing import cast

from model.card import BF16, INT8, Card
from model.errors import ModelInvalid, PrecisionMissing, SettingsInvalid, missing_dependency
from model.runtimes.base import Runtime

Factory = Callable[[Path, Card, str | None, Path | None], Runtime]

RUNTIMES = {
    "openvino": "model.runtimes.openvino:OpenVINORuntime",
    "onnx": "model.runtimes.onnx:OnnxRuntime",
    "torch": "model.runtimes.torch:TorchRuntime",
    "fake": "model.runtimes.fake:FakeRuntime",
}

ON_CPU = {"openvino": "openvino", "onnx": "onnxruntime", "torch": "torch"}
"""What runs on a CPU, best first -> the package that it needs."""


def load_runtime(
    name: str, directory: Path, card: Card, precision: str | None = None, cache_dir: Path | None = None
) -> Runtime:
    """Loads a model artifact into a runtime; "auto" is torch on CUDA, and elsewhere the first of OpenVINO, ONNX
    Runtime and torch that is installed.

    The default precision is int8 for OpenVINO, where the card has such a graph, and fp32 elsewhere; only torch runs
    bf16. `cache_dir` keeps compiled graphs between starts. Raises MissingDependency naming the extra, PrecisionMissing,
    ModelInvalid when the runtime cannot load the artifact, SettingsInvalid for an unknown name.
    """
    chosen = _automatic(precision) if name == "auto" else name
    if chosen not in RUNTIMES:
        raise SettingsInvalid(f'There is no runtime "{name}"; there are: auto, {", ".join(RUNTIMES)}.')
    if (chosen, precision) == ("openvino", BF16):
        raise PrecisionMissing("The runtime openvino runs no model in bf16; use the runtime torch.")
    module, _, attribute = RUNTIMES[chosen].partition(":")
    try:
        factory = cast(Factory, getattr(import_module(module), attribute))
    except ModuleNotFoundError as problem:
        raise missing_dependency(problem) or problem from problem
    runtime = factory(directory, card, precision, cache_dir)
    if runtime.dim != card.embedding_dim:
        raise ModelInvalid(f"The card says {card.embedding_dim} dimensions, the graph gives {runtime.dim}.")
    return runtime


def _automatic(precision: str | None) -> str:
    if precision == BF16:
        return "torch"
    installed = (name for name, package in ON_CPU.items() if find_spec(package) is not None)
    on_cpu = next(installed, "openvino")
    if precision == INT8 or not _has_cuda_driver():
        return on_cpu  # int8 on CUDA too: torch has none
    try:
        torch = import_module("torch")
    except ModuleNotFoundError:
        return on_cpu
    return "torch" if torch.cuda.is_available() else on_cpu


def _has_cuda_driver() -> bool:
    """Whether NVIDIA's driver is installed. The import of torch, which could tell too, takes seconds."""
    try:
        CDLL("libcuda.so.1")
    except OSError:
        return False
    return True
