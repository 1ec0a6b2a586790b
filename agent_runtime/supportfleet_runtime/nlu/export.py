"""Write a trained linear classifier as an ONNX graph.

The graph does all that is left after featurising: weigh each bucket by its rarity (idf), scale a text to length 1, sum
the rows of the weight matrix that it hits, add the bias, softmax. Only the hit rows are gathered, so the cost of a text
depends on its length, not on the number of buckets. Rows are kept in int8 with one scale for each label, a quarter of
their size in float32; the calibration's temperature is part of scale and bias.

Nothing in the bytes depends on the machine or the moment: the same arrays give the same file.
"""

from dataclasses import dataclass
from typing import Any, Final

import numpy as np
import onnx
from numpy.typing import NDArray
from onnx import TensorProto, helper, numpy_helper

OPSET: Final = 17
IR_VERSION: Final = 8
_INT8_MAX: Final = 127
_SMALLEST_LENGTH: Final = 1e-12


@dataclass(frozen=True)
class LinearModel:
    """Weights [buckets, labels], bias [labels] and the buckets' idf [buckets]."""

    weights: NDArray[np.float64]
    bias: NDArray[np.float64]
    idf: NDArray[np.float64]


def export_onnx(model: LinearModel) -> bytes:
    """Serialise a model as an ONNX graph."""
    rows, scale = quantize(model.weights)
    constants: dict[str, NDArray[Any]] = {
        "idf": model.idf.astype(np.float32),
        "rows": rows,
        "scale": scale,
        "bias": model.bias.astype(np.float32),
        "middle_axis": np.array([1], dtype=np.int64),
        "smallest": np.array(_SMALLEST_LENGTH, dtype=np.float32),
    }
    nodes = [
        helper.make_node("Gather", ["idf", "buckets"], ["rarity"]),
        helper.make_node("Mul", ["weights", "rarity"], ["weighted"]),
        helper.make_node("ReduceL2", ["weighted"], ["length"], axes=[-1], keepdims=1),
        helper.make_node("Max", ["length", "smallest"], ["divisor"]),
        helper.make_node("Div", ["weighted", "divisor"], ["unit"]),
        helper.make_node("Gather", ["rows", "buckets"], ["hit_int8"]),
        helper.make_node("Cast", ["hit_int8"], ["hit"], to=TensorProto.FLOAT),
        helper.make_node("Unsqueeze", ["unit", "middle_axis"], ["unit_row"]),
        helper.make_node("MatMul", ["unit_row", "hit"], ["sum_row"]),
        helper.make_node("Squeeze", ["sum_row", "middle_axis"], ["sum"]),
        helper.make_node("Mul", ["sum", "scale"], ["scaled"]),
        helper.make_node("Add", ["scaled", "bias"], ["logits"]),
        helper.make_node("Softmax", ["logits"], ["scores"], axis=-1),
    ]
    graph = helper.make_graph(
        nodes,
        "intent",
        [
            helper.make_tensor_value_info("buckets", TensorProto.INT64, ["texts", "features"]),
            helper.make_tensor_value_info("weights", TensorProto.FLOAT, ["texts", "features"]),
        ],
        [helper.make_tensor_value_info("scores", TensorProto.FLOAT, ["texts", len(model.bias)])],
        [numpy_helper.from_array(value, name) for name, value in constants.items()],
    )
    proto = helper.make_model(graph, opset_imports=[helper.make_opsetid("", OPSET)], producer_name="supportfleet")
    proto.ir_version = IR_VERSION
    onnx.checker.check_model(proto)
    data: bytes = proto.SerializeToString(deterministic=True)
    return data


def quantize(weights: NDArray[np.float64]) -> tuple[NDArray[np.int8], NDArray[np.float32]]:
    """Round each label's weights to 255 steps; the steps' size is the label's scale."""
    scale = np.abs(weights).max(axis=0) / _INT8_MAX
    scale[scale == 0] = 1
    return np.rint(weights / scale).astype(np.int8), scale.astype(np.float32)
