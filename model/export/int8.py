"""int8: a network quantised by NNCF, with its two ends left in float.

Pooling and the L2 norm make one vector of a map: in 8 bits the sum of squares is so coarse that rows are no longer of
length 1, and a third of the right neighbours are lost. A small first convolution finds edges: its weights sum to
almost nothing, and when they are rounded the brightness of the photo shines through.
"""

import contextlib
import io
import logging
from collections.abc import Sequence

import nncf
import openvino as ov
from nncf.quantization.advanced_parameters import AdvancedQuantizationParameters, OverflowFix

from model.types import Pixels

# A first convolution of at most this side stays in float, where it costs a few hundredths of the time. ResNet-18's of 7
# gains nothing from it, because the errors of 49 weights even out, and would take a fourth more.
SMALL_KERNEL = 3
# What a network computes. Walking back from the result, these end what is only pooling and norm.
OF_THE_NETWORK = frozenset({"Add", "Clamp", "Convolution", "GroupConvolution", "MatMul", "Relu"})


def quantise(graph: ov.Model, crops: Sequence[Pixels]) -> ov.Model:
    """Makes an int8 graph of one in float, from the values that photos cause in it: crops uint8 (S, S, 3)."""
    nncf.set_log_level(logging.ERROR)
    with contextlib.redirect_stdout(io.StringIO()):  # its progress bars
        return nncf.quantize(
            graph,
            nncf.Dataset([crop[None] for crop in crops]),
            preset=nncf.QuantizationPreset.MIXED,
            subset_size=len(crops),
            fast_bias_correction=False,
            ignored_scope=nncf.IgnoredScope(names=[*first_if_small(graph), *pooling_and_norm(graph)], validate=False),
            # Weights of 7 bits. CPUs without VNNI add pairs of products in 16 bits, which those of 8-bit weights
            # overflow: the same photo would get another embedding there, and a worse one.
            advanced_parameters=AdvancedQuantizationParameters(overflow_fix=OverflowFix.ENABLE),
        )


def first_if_small(graph: ov.Model) -> list[str]:
    """Name of the convolution that sees the pixels, when its kernel is small."""
    first = next(node for node in graph.get_ordered_ops() if node.get_type_name() == "Convolution")
    return [first.get_friendly_name()] if max(first.input_value(1).get_shape()[2:]) <= SMALL_KERNEL else []


def pooling_and_norm(graph: ov.Model) -> list[str]:
    """Names of the operations between a graph's last activation and its result."""
    names: list[str] = []
    waiting = [graph.get_results()[0].input_value(0).get_node()]
    while waiting:
        node = waiting.pop()
        kind, name = node.get_type_name(), node.get_friendly_name()
        if kind not in OF_THE_NETWORK and kind not in ("Constant", "Parameter") and name not in names:
            names.append(name)
            waiting += [value.get_node() for value in node.input_values()]
    return names
