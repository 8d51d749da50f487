"""Quantisation to int8 by NNCF, with both ends of the network left in float.

Pooling and the L2 norm: in 8 bits the sum of squares is so coarse that rows are no longer of length 1, and a third of
the correct neighbours are lost. A small first convolution: it finds edges, so its weights sum to nearly zero; once they
are rounded, the brightness of the photo leaks through.
"""

import contextlib
import io
import logging
from collections.abc import Sequence

import nncf
import openvino as ov
from nncf.quantization.advanced_parameters import AdvancedQuantizationParameters, OverflowFix

from model.types import Pixels

# A first convolution with a kernel of at most this side stays in float, which costs a few percent of the time.
# ResNet-18's kernel of 7 gains nothing from that, because the errors of 49 weights average out, and costs a quarter.
SMALL_KERNEL = 3
# Operations of the network itself. Walking back from the result, pooling and norm end at the first of them.
OF_THE_NETWORK = frozenset({"Add", "Clamp", "Convolution", "GroupConvolution", "Relu"})


def quantise(graph: ov.Model, crops: Sequence[Pixels]) -> ov.Model:
    """Quantises a graph, calibrated on the activations of crops uint8 (S, S, 3)."""
    nncf.set_log_level(logging.ERROR)
    with contextlib.redirect_stdout(io.StringIO()):  # its progress bars
        return nncf.quantize(
            graph,
            nncf.Dataset([crop[None] for crop in crops]),
            preset=nncf.QuantizationPreset.MIXED,
            subset_size=len(crops),
            fast_bias_correction=False,
            ignored_scope=nncf.IgnoredScope(names=[*first_if_small(graph), *pooling_and_norm(graph)], validate=False),
            # 7-bit weights: CPUs without VNNI add pairs of products in 16 bits, which overflow with 8-bit weights. The
            # same photo would get another, worse embedding there.
            advanced_parameters=AdvancedQuantizationParameters(overflow_fix=OverflowFix.ENABLE),
        )


def first_if_small(graph: ov.Model) -> list[str]:
    """The name of the first convolution, when its kernel is small."""
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
