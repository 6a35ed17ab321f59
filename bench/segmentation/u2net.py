"""Build U^2-Net and the smaller U^2-Net-p as ONNX graphs: the published architecture with random weights.

The cost of a run depends on the architecture, not on the weights, so speed can be measured without the published
weights. Source: Qin et al., U^2-Net: Going Deeper with Nested U-Structure for Salient Object Detection
(Pattern Recognition, 2020), table 1 and figure 5; padding, rounding and bilinear resizing as in the authors' code.

As in rembg's files, batch normalization is folded into the convolutions, and the outputs are the fused prediction and
the six side predictions, all after the sigmoid.
"""

from collections.abc import Sequence
from typing import Any, Final

import cv2
import numpy as np
import onnx
import onnxruntime
from onnx import TensorProto, helper, numpy_helper

INPUT_PX: Final = 320

_OPSET: Final = 17
_IR_VERSION: Final = 8

_BLOCKS: Final = ((7, False), (6, False), (5, False), (4, False), (4, True), (4, True))
"""Depth of the six encoder blocks, and whether a block dilates instead of pooling. Each decoder block mirrors the
encoder block of its size; the last encoder block has no counterpart."""

_WIDTHS: Final = {
    "u2net": (
        ((32, 64), (32, 128), (64, 256), (128, 512), (256, 512), (256, 512)),
        ((16, 64), (32, 64), (64, 128), (128, 256), (256, 512)),
    ),
    "u2netp": (((16, 64),) * 6, ((16, 64),) * 5),
}
"""Inner and outer channels of each block, encoder and decoder, from the largest to the smallest."""

NETWORKS: Final = tuple(_WIDTHS)

PARAMETERS: Final = {"u2net": 44_009_869, "u2netp": 1_131_181}
"""Parameters of the authors' modules, including two per normalized channel, which folding removes."""


def build(network: str, *, seed: int = 0) -> onnx.ModelProto:
    """Return a network that maps N x 3 x 320 x 320 to seven outputs of N x 1 x 320 x 320, for any N.

    Args:
        network: one of :data:`NETWORKS`.
        seed: seed of the weights, which use the initialization of He et al. (2015).
    """
    graph = _Graph(seed)
    encoder, decoder = _WIDTHS[network]
    features, channels = "image", 3
    sizes: list[tuple[str, int]] = []
    for stage, ((depth, dilated), (inner, outer)) in enumerate(zip(_BLOCKS, encoder, strict=True)):
        features = graph.block(graph.pool(features) if stage else features, channels, inner, outer, depth, dilated)
        channels = outer
        sizes.append((features, channels))

    sides = [graph.side(features, channels, len(sizes) - 1)]
    for stage in reversed(range(len(decoder))):
        (skipped, more), (depth, dilated), (inner, outer) = sizes[stage], _BLOCKS[stage], decoder[stage]
        joined = graph.join(graph.enlarge(features, 2), skipped)
        features = graph.block(joined, channels + more, inner, outer, depth, dilated)
        channels = outer
        sides.insert(0, graph.side(features, channels, stage))
    fused = graph.convolve(graph.join(*sides), len(sides), 1, kernel=1)
    model = graph.model(network, [fused, *sides])
    _spread(model, seed)
    return model


def parameters(model: onnx.ModelProto) -> int:
    """Return the number of parameters, including the two per normalized channel that were folded."""
    weights = {one.name: int(np.prod(one.dims)) for one in model.graph.initializer if one.name.endswith(("/w", "/b"))}
    normalized = {
        node.input[2] for node in model.graph.node if node.op_type == "Conv" and node.output[0].endswith("/folded")
    }
    return sum(weights.values()) + 2 * sum(weights[bias] for bias in normalized)


def _spread(model: onnx.ModelProto, seed: int) -> None:
    """Scale the fusing convolution so that predictions on smooth noise cover the range from 0 to 1.

    Otherwise, random weights predict 0 or 1 everywhere, because no normalization limits the sums of the blocks.
    """
    clouds = np.random.default_rng(seed).normal(0, 1, (10, 10, 3)).astype(np.float32)
    picture = cv2.resize(clouds, (INPUT_PX, INPUT_PX), interpolation=cv2.INTER_CUBIC).transpose(2, 0, 1)
    fusing = next(node for node in reversed(model.graph.node) if node.op_type == "Conv")
    model.graph.output.append(helper.make_tensor_value_info(fusing.output[0], TensorProto.FLOAT, None))
    session = onnxruntime.InferenceSession(model.SerializeToString(), providers=["CPUExecutionProvider"])
    [logits] = session.run([fusing.output[0]], {"image": picture[None]})
    del model.graph.output[-1]
    weights, bias = (one for one in model.graph.initializer if one.name in fusing.input)
    scaled = numpy_helper.to_array(weights) / logits.std()
    weights.CopyFrom(numpy_helper.from_array(scaled, weights.name))
    bias.CopyFrom(numpy_helper.from_array(-np.atleast_1d(logits.mean() / logits.std()), bias.name))


class _Graph:
    """Builds an ONNX graph; each method adds operators and returns the name of their output."""

    def __init__(self, seed: int) -> None:
        self._rng = np.random.default_rng(seed)
        self._nodes: list[onnx.NodeProto] = []
        self._constants: dict[str, onnx.TensorProto] = {}

    def block(self, entry: str, channels: int, inner: int, outer: int, depth: int, dilated: bool) -> str:
        """Add a residual U-block: RSU-7 to RSU-4, or the dilated RSU-4F, which keeps its resolution."""
        whole = self._normalized(entry, channels, outer)
        features, levels = whole, []
        for level in range(depth - 1):
            if level and not dilated:
                features = self.pool(features)
            features = self._normalized(features, inner if level else outer, inner, 2**level if dilated else 1)
            levels.append(features)
        features = self._normalized(features, inner, inner, 2 ** (depth - 1) if dilated else 2)
        for level in reversed(range(depth - 1)):
            if level < depth - 2 and not dilated:
                features = self.enlarge(features, 2)
            joined = self.join(features, levels[level])
            features = self._normalized(joined, 2 * inner, inner if level else outer, 2**level if dilated else 1)
        return self._add("Add", [features, whole])

    def side(self, features: str, channels: int, stage: int) -> str:
        """Add the side prediction of a stage, upsampled to the size of the input."""
        prediction = self.convolve(features, channels, 1)
        return self.enlarge(prediction, 2**stage) if stage else prediction

    def convolve(self, entry: str, channels: int, outer: int, *, kernel: int = 3) -> str:
        """Add a convolution without normalization and activation."""
        return self._convolution(entry, channels, outer, kernel, 1, "")

    def pool(self, entry: str) -> str:
        return self._add("MaxPool", [entry], kernel_shape=[2, 2], strides=[2, 2], ceil_mode=1)

    def join(self, *entries: str) -> str:
        return self._add("Concat", list(entries), axis=1)

    def enlarge(self, entry: str, times: int) -> str:
        name = f"times{times}"
        self._constants[name] = numpy_helper.from_array(np.array([1, 1, times, times], np.float32), name)
        return self._add("Resize", [entry, "", name], mode="linear", coordinate_transformation_mode="half_pixel")

    def model(self, name: str, predictions: Sequence[str]) -> onnx.ModelProto:
        """Return the model with a sigmoid on each prediction."""
        outputs = [f"d{number}" for number in range(len(predictions))]
        self._nodes += [
            helper.make_node("Sigmoid", [prediction], [output])
            for prediction, output in zip(predictions, outputs, strict=True)
        ]

        def value(name: str, channels: int) -> onnx.ValueInfoProto:
            return helper.make_tensor_value_info(name, TensorProto.FLOAT, ["batch", channels, INPUT_PX, INPUT_PX])

        graph = helper.make_graph(
            self._nodes,
            name,
            [value("image", 3)],
            [value(output, 1) for output in outputs],
            list(self._constants.values()),
        )
        model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", _OPSET)], ir_version=_IR_VERSION)
        onnx.checker.check_model(model, full_check=True)
        return model

    def _normalized(self, entry: str, channels: int, outer: int, dilation: int = 1) -> str:
        return self._add("Relu", [self._convolution(entry, channels, outer, 3, dilation, "/folded")])

    def _convolution(self, entry: str, channels: int, outer: int, kernel: int, dilation: int, mark: str) -> str:
        name = f"conv{len(self._nodes)}"
        fan_in = channels * kernel**2
        weights = self._rng.normal(0, np.sqrt(2 / fan_in), (outer, channels, kernel, kernel)).astype(np.float32)
        for suffix, array in (("/w", weights), ("/b", np.zeros(outer, np.float32))):
            self._constants[name + suffix] = numpy_helper.from_array(array, name + suffix)
        padding = dilation * (kernel // 2)
        return self._add(
            "Conv",
            [entry, f"{name}/w", f"{name}/b"],
            output=name + mark,
            kernel_shape=[kernel, kernel],
            dilations=[dilation, dilation],
            pads=[padding] * 4,
        )

    def _add(self, operator: str, entries: list[str], output: str = "", **attributes: Any) -> str:
        output = output or f"{operator.lower()}{len(self._nodes)}"
        self._nodes.append(helper.make_node(operator, entries, [output], **attributes))
        return output
