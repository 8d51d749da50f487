"""The network as an ONNX graph, whose weights stay in the safetensors files beside it."""

import json
from pathlib import Path
from typing import cast

import onnxscript.optimizer
import torch
from onnx import GraphProto, ModelProto, StringStringEntryProto, TensorProto
from onnx.helper import make_node, make_tensor_value_info
from onnx.numpy_helper import to_array
from onnx_ir.passes.common import ClearMetadataAndDocStringPass
from torch import Tensor, nn

from model.card import ONNX_NAME, WEIGHTS_NAME, WHITENING_NAME
from model.network.embedding_net import EmbeddingNetwork
from model.runtimes.onnx import CROP, EMBEDDING, MAPS, POWER
from model.storage import write_durably

FOLDED_VALUES = 4
"""Constants of up to so many values are computed now. Larger ones are weights, which must stay as they are stored."""

TYPES = {"F16": TensorProto.FLOAT16, "F32": TensorProto.FLOAT}


class _Named(nn.Module):
    """Puts `network.` before names of weights: `mean` alone is also what the exporter calls a result."""

    def __init__(self, network: EmbeddingNetwork) -> None:
        super().__init__()
        self.network = network

    def forward(self, crops: Tensor) -> Tensor:
        rows: Tensor = self.network(crops)
        return rows


def write_onnx(network: EmbeddingNetwork, directory: Path) -> None:
    """Writes the graph of one photo, durably: uint8 (1, S, S, 3) -> float32 (1, D), unit length.

    `network` is the one that the directory's files hold.
    """
    crop = torch.zeros(1, network.spec.crop, network.spec.crop, 3, dtype=torch.uint8)
    exported = torch.onnx.export(
        _Named(network).eval(), (crop,), input_names=[CROP], output_names=[EMBEDDING],
        dynamo=True, optimize=False, verbose=False,
    )  # fmt: skip
    program = cast(torch.onnx.ONNXProgram, exported)
    onnxscript.optimizer.optimize(program.model, input_size_limit=FOLDED_VALUES, output_size_limit=FOLDED_VALUES)
    ClearMetadataAndDocStringPass()(program.model)  # which name files of this machine
    model = program.model_proto
    _refer(model.graph, directory / WEIGHTS_NAME, "network.backbone.")
    if network.whitening is not None:
        _refer(model.graph, directory / WHITENING_NAME, "network.")
    if not network.spec.mirror:  # two pictures have two maps
        _add_maps(model)
    write_durably(directory / ONNX_NAME, model.SerializeToString(deterministic=True))


def _refer(graph: GraphProto, path: Path, prefix: str) -> None:
    """Replaces weights by references to where a safetensors file has them, and by what makes fp32 of these."""
    with path.open("rb") as file:
        header_bytes = int.from_bytes(file.read(8), "little")
        header = json.loads(file.read(header_bytes))
    nodes = list(graph.node)
    for weight in graph.initializer:
        if (stored := header.get(weight.name.removeprefix(prefix))) is None:
            continue
        start, stop = stored["data_offsets"]
        place = {"location": path.name, "offset": 8 + header_bytes + start, "length": stop - start}
        reference = TensorProto(
            name=f"{weight.name}.stored", data_type=TYPES[stored["dtype"]], dims=weight.dims,
            data_location=TensorProto.EXTERNAL,
            external_data=[StringStringEntryProto(key=key, value=str(value)) for key, value in place.items()],
        )  # fmt: skip
        nodes.insert(0, make_node("Cast", [reference.name], [weight.name], to=TensorProto.FLOAT))
        weight.CopyFrom(reference)
    del graph.node[:]
    graph.node.extend(nodes)


def _add_maps(model: ModelProto) -> None:
    """Makes the feature maps a second result, and tells the power of their mean, for `model.explain`."""
    graph = model.graph
    made_by = {node.output[0]: node for node in graph.node}
    (pooling,) = (node for node in graph.node if node.op_type == "ReduceMean")
    maps, power = pooling.input[0], 1.0
    if (powers := made_by[maps]).op_type == "Pow":
        (exponent,) = (to_array(one) for one in graph.initializer if one.name == powers.input[1])
        maps, power = powers.input[0], exponent.item()
    graph.node.append(make_node("Identity", [maps], [MAPS]))
    graph.output.append(make_tensor_value_info(MAPS, TensorProto.FLOAT, None))
    model.metadata_props.append(StringStringEntryProto(key=POWER, value=str(power)))
