"""A segmentation network of a few hundred bytes whose mask is the brightness."""

import hashlib
import json
from typing import Final

import numpy as np
from onnx import TensorProto, helper, numpy_helper

NAME: Final = "brightness"
BUCKET: Final = "models"
KEY: Final = f"{NAME}.onnx"
_SIDE_PX: Final = 64


def content() -> bytes:
    """Return the ONNX file."""
    graph = helper.make_graph(
        [
            helper.make_node("ReduceMean", ["image"], ["mean"], axes=[1], keepdims=1),
            helper.make_node("Mul", ["mean", "gain"], ["scaled"]),
            helper.make_node("Add", ["scaled", "shift"], ["mask"]),
        ],
        NAME,
        [helper.make_tensor_value_info("image", TensorProto.FLOAT, [1, 3, _SIDE_PX, _SIDE_PX])],
        [helper.make_tensor_value_info("mask", TensorProto.FLOAT, [1, 1, _SIDE_PX, _SIDE_PX])],
        [
            numpy_helper.from_array(np.array(0.25, np.float32), "gain"),
            numpy_helper.from_array(np.array(0.5, np.float32), "shift"),
        ],
    )
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 13)], ir_version=8)
    return bytes(model.SerializeToString())


def custom_models() -> str:
    """Return a CustomModels parameter that contains this network."""
    file = content()
    facts = {"name": NAME, "uri": f"s3://{BUCKET}/{KEY}", "bytes": len(file), "input_px": _SIDE_PX}
    return json.dumps([{**facts, "sha256": hashlib.sha256(file).hexdigest()}])
