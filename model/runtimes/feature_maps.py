"""The feature maps of a photo, from the graph that serves: cut off before its pooling, and what follows read from it.

A graph ends in pooling, a whitening where the model has one, and the L2 norm. Those are found by walking back from the
result, so that graphs which were exported before there was this module can be explained too.
"""

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import openvino as ov

from model.card import Card
from model.cores import available_cores
from model.errors import ExplanationUnavailable, PrecisionMissing
from model.explain import Explanation, Linear, Shares, explain, shares_of
from model.runtimes.openvino import choose_graph, compile_options
from model.types import Pixels

PASSED_OVER = frozenset({"Broadcast", "Divide", "Reshape", "Squeeze"})
"""Operations between pooling and result that change lengths and shapes only."""


class FeatureGraph:
    """The graph of a model up to its feature maps, compiled; safe to use from several threads.

    It is of the served precision where the model has such a graph, else of the one that OpenVINO would choose. Raises
    ExplanationUnavailable when there is none, or when it does not end in a pooling that can be taken apart.
    """

    def __init__(self, directory: Path, card: Card, precision: str) -> None:
        try:
            _, path = choose_graph(directory, card, precision if precision in card.precisions else None)
            graph = ov.Core().read_model(path)
            self._tail = read_tail(graph)
            cut = ov.Model([self._tail.maps], graph.get_parameters())
            self._compiled = ov.Core().compile_model(cut, "CPU", compile_options(available_cores()))
        except PrecisionMissing as problem:
            raise ExplanationUnavailable(
                "This model cannot explain its matches: it has no OpenVINO graph."
            ) from problem
        except RuntimeError as problem:
            raise ExplanationUnavailable(
                "This model cannot explain its matches: its graph cannot be read."
            ) from problem

    def shares(self, crop: Pixels) -> Shares:
        """A crop uint8 (S, S, 3) -> what each place adds to its pooled features: float64 (D, h, w)."""
        request = self._compiled.create_infer_request()  # of this call: requests are not shared between threads
        request.infer([crop[None]], share_inputs=True)
        return shares_of(request.get_output_tensor(0).data[0], self._tail.power)

    def explain(self, query: Shares, hit: Shares) -> Explanation:
        """The cosine of two photos by places; the places of a photo are those of its crop."""
        return explain(query, hit, self._tail.whitening, self._tail.offset)


@dataclass(frozen=True, slots=True)
class Tail:
    """The end of a graph: the feature maps (1, D, h, w) and what makes an embedding of them.

    The generalised mean over places with `power`, 1 for average pooling; then `whitening` (E, D) and `offset` (E,),
    where there are any.
    """

    maps: ov.Output
    power: float
    whitening: Linear | None
    offset: Linear | None


def read_tail(graph: ov.Model) -> Tail:
    """Walks from the result of a graph back to its pooling; raises ExplanationUnavailable for another end."""
    whitening = offset = None
    root, value = 1.0, graph.get_results()[0].input_value(0)
    while (node := value.get_node()).get_type_name() != "ReduceMean":
        match node.get_type_name():
            case "MatMul" if whitening is None:
                matrix = _constant(node, 1)
                whitening = matrix if node.get_attributes()["transpose_b"] else matrix.T
            case "Add" if whitening is None and offset is None:
                offset = _constant(node, 1).reshape(-1)
            case "Power":
                root *= float(_constant(node, 1).item())
            case other if other not in PASSED_OVER:
                raise _unknown_end(other)
        value = node.input_value(0)
    value, power = node.input_value(0), 1.0
    if value.get_node().get_type_name() == "Power":
        power = float(_constant(value.get_node(), 1).item())
        value = value.get_node().input_value(0)
    over = sorted(_constant(node, 1).astype(int).reshape(-1) % 4)
    if len(value.get_shape()) != 4 or over != [2, 3] or not np.isclose(root * power, 1):
        raise _unknown_end("ReduceMean")
    return Tail(value, power, whitening, offset)


def _constant(node: ov.Node, place: int) -> Any:
    """The value of a constant input, float64; raises ExplanationUnavailable when that is computed."""
    source = node.input_value(place).get_node()
    if source.get_type_name() == "Convert":  # of weights that are stored in half precision
        source = source.input_value(0).get_node()
    if source.get_type_name() != "Constant":
        raise _unknown_end(node.get_type_name())
    return source.data.astype(np.float64)


def _unknown_end(kind: str) -> ExplanationUnavailable:
    return ExplanationUnavailable(
        f"This model cannot explain its matches: the end of its graph is unknown ({kind} where pooling was expected)."
    )
