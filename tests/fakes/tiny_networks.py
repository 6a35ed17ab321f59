"""Networks of a few operations with known predictions."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from hashlib import sha256
from pathlib import Path

import numpy as np
import onnx
from onnx import TensorProto, helper, numpy_helper

from core.errors import WeightsUnavailableError
from core.segmentation import registry
from core.segmentation.registry import MODELS, Model
from core.segmentation.sessions import Networks

SIDE = 32


@dataclass(frozen=True)
class Directory:
    """A source of weights that neither verifies nor downloads; None has no files."""

    folder: Path | None = None
    registry: Mapping[str, Model] = field(default_factory=lambda: MODELS)

    def path(self, name: str) -> Path:
        registry.network(name, self.registry)
        path = self.folder and self.folder / f"{name}.onnx"
        if path is None or not path.exists():
            raise WeightsUnavailableError("No such file", field="options.model", value=name, remedy="Install it.")
        return path


def without_weights() -> Networks:
    """The registry's networks, none of which can be loaded: enough for the classical segmenter."""
    return Networks(Directory(), threads=1)


def network(
    *,
    batch: int | str = "n",
    dtype: int = TensorProto.FLOAT,
    gain: float = 1.0,
    before: Sequence[onnx.NodeProto] = (),
    constants: dict[str, np.ndarray] | None = None,
) -> bytes:
    """A network that predicts ``gain`` times the mean of the normalized channels.

    Args:
        batch: dimension of its input; a name allows any number.
        dtype: of its input and output.
        gain: factor of the mean.
        before: operations from ``image`` to ``checked``; none for identity.
        constants: of these operations.
    """
    number = helper.tensor_dtype_to_np_dtype(dtype)
    nodes = [
        *(before or [helper.make_node("Identity", ["image"], ["checked"])]),
        helper.make_node("ReduceMean", ["checked"], ["mean"], axes=[1], keepdims=1),
        helper.make_node("Mul", ["mean", "gain"], ["mask"]),
    ]
    graph = helper.make_graph(
        nodes,
        "brightness",
        [helper.make_tensor_value_info("image", dtype, [batch, 3, SIDE, SIDE])],
        [helper.make_tensor_value_info("mask", dtype, [batch, 1, SIDE, SIDE])],
        [
            numpy_helper.from_array(np.array(gain, number), "gain"),
            *(numpy_helper.from_array(value, name) for name, value in (constants or {}).items()),
        ],
    )
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 13)], ir_version=8)
    return model.SerializeToString()


def only_for_batches_of(size: int) -> bytes:
    """A network that fails for any other number of images."""
    return network(
        before=[helper.make_node("Reshape", ["image", "shape"], ["checked"])],
        constants={"shape": np.array([size, 3, SIDE, SIDE])},
    )


def fails_on_black() -> bytes:
    """A network that fails if an image is black: it looks up the second entry of a table of one."""
    return network(
        before=[
            helper.make_node("ReduceMax", ["image"], ["brightest"], axes=[1, 2, 3], keepdims=1),
            helper.make_node("Less", ["brightest", "nothing"], ["black"]),
            helper.make_node("Cast", ["black"], ["index"], to=TensorProto.INT64),
            helper.make_node("Gather", ["table", "index"], ["one"]),
            helper.make_node("Mul", ["image", "one"], ["checked"]),
        ],
        constants={"nothing": np.float32(0), "table": np.ones(1, np.float32)},  # type: ignore[dict-item]
    )


def install(directory: Path, name: str, content: bytes) -> Model:
    """Write a network into a directory of weights and return its entry."""
    (directory / f"{name}.onnx").write_bytes(content)
    return Model(
        name=name,
        file=f"{name}.onnx",
        sha256=sha256(content).hexdigest(),
        bytes=len(content),
        input_px=SIDE,
        memory_bytes=0,
        licence="MIT",
        commercial_use=True,
        uri=f"https://models.example.com/{name}.onnx",
    )
