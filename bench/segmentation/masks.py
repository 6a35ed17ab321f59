"""Compare our masks with rembg's on the same photographs and network: inputs, predictions, and masks.

rembg resamples the whole picture with the Lanczos filter. core decodes JPEGs at a reduced size and averages areas.
"""

import io
import math
from dataclasses import dataclass, fields
from pathlib import Path
from typing import Any, Final

import cv2
import numpy as np
import onnx
from numpy.typing import NDArray
from onnx import TensorProto, helper, numpy_helper
from PIL import Image

from bench.markdown import table
from bench.segmentation.inputs import OUT, Network, described, enlarged, jpeg, photographs_of
from bench.segmentation.stages import session
from bench.segmentation.u2net import INPUT_PX
from core.errors import UnknownForegroundError
from core.image.decode import decode
from core.segmentation.segment import Prepared, finish, predict, prepare, sufficient_px
from core.types import Mask

_LARGE_MEGAPIXELS: Final = 12.0
_SUMMARIES: Final = (np.nanmedian, np.nanmax)
_HEADS: Final = {
    "input_mean": "input, mean",
    "input_p99": "99 %",
    "prediction_mean": "prediction, mean",
    "prediction_p99": "99 %",
    "mask_mean": "mask, mean",
    "mask_p99": "99 %",
}


@dataclass(frozen=True)
class Differences:
    """Mean and 99th percentile of absolute differences.

    ``input`` is in 8-bit levels, ``prediction`` and ``mask`` in [0, 1]. rembg's mask is resized to our size and its
    contrast stretch is reverted. ``mask`` is NaN if our mask has no foreground and is rejected.
    """

    input_mean: float
    input_p99: float
    prediction_mean: float
    prediction_p99: float
    mask_mean: float
    mask_p99: float


class Comparison:
    """One network, loaded by core and by rembg."""

    def __init__(self, network: Network) -> None:
        self._name, self._networks, self._session = network.name, network.loaded(), session(network)
        self._registry = self._networks.source.registry

    def differences(self, file: bytes) -> Differences:
        """Segment an encoded picture with core and with rembg."""
        picture = decode(file, at_least_px=sufficient_px(self._name, self._registry))
        prepared = prepare(picture.rgb, self._name, self._registry)
        [prediction] = predict([prepared], self._networks)
        with Image.open(io.BytesIO(file)) as opened:
            [theirs] = self._session.predict(opened)
        entry = self._session.inner_session.entry[0]
        their_prediction = self._session.inner_session.prediction[0, 0]
        std = np.array(self._registry[self._name].std)[:, None, None]
        return Differences(
            *_mean_and_p99((prepared.pixels - entry) * std * 255),
            *_mean_and_p99(prediction - their_prediction),
            *_masks(prepared, prediction, np.asarray(theirs), their_prediction),
        )


def _masks(
    prepared: Prepared, prediction: Mask, theirs: NDArray[np.uint8], their_prediction: Mask
) -> tuple[float, float]:
    try:
        ours = finish(prepared, prediction).mask
    except UnknownForegroundError:
        return float("nan"), float("nan")
    least, most = their_prediction.min(), their_prediction.max()
    unstretched = theirs.astype(np.float32) / 255 * (most - least) + least
    resized = cv2.resize(unstretched, prepared.mask_size[::-1], interpolation=cv2.INTER_AREA)
    return _mean_and_p99(ours - resized / resized.max())


def _mean_and_p99(difference: NDArray[Any]) -> tuple[float, float]:
    size = np.abs(difference)
    return float(size.mean()), float(np.percentile(size, 99))


def compare(networks: list[Network], dataset: Path | None) -> tuple[str, dict[str, Any]]:
    """Compare on each photograph, original and enlarged, with the given networks and those of ``SMOOTH``."""
    folder = OUT / "networks"
    smooth = [described(_written(folder / f"{name}.onnx", build())) for name, build in SMOOTH.items()]
    figures: dict[str, Any] = {}
    for one in [*smooth, *networks]:
        comparison = Comparison(one)
        for size, files in _files(dataset).items():
            all_of = [comparison.differences(file) for file in files]
            figures[f"{one.name}, {size}"] = {
                "pictures": len(files),
                "rejected": sum(math.isnan(each.mask_mean) for each in all_of),
                **{
                    field.name: [summary([getattr(each, field.name) for each in all_of]) for summary in _SUMMARIES]
                    for field in fields(Differences)
                },
            }
    rows = [
        [name, str(row["pictures"]), *(" / ".join(f"{value:.3g}" for value in row[key]) for key in _HEADS)]
        for name, row in figures.items()
    ]
    return table(
        "Absolute differences from rembg: input in 8-bit levels, prediction and mask in [0, 1];"
        " median picture / worst picture",
        ["network, picture", "pictures", *_HEADS.values()],
        rows,
    ), figures


def brightness() -> onnx.ModelProto:
    """Return a pixelwise network, so that its prediction differs exactly where the input differs."""
    return _network(
        [
            helper.make_node("ReduceMean", ["image"], ["gray"], axes=[1], keepdims=1),
            helper.make_node("Mul", ["gray", "gain"], ["scaled"]),
            helper.make_node("Sigmoid", ["scaled"], ["mask"]),
        ],
        gain=1.0,
    )


def contrast() -> onnx.ModelProto:
    """Return a network that detects regions brighter than their surroundings."""
    return _network(
        [
            helper.make_node("ReduceMean", ["image"], ["gray"], axes=[1], keepdims=1),
            *_mean_of_square("gray", "center", 9),
            *_mean_of_square("gray", "surround", 81),
            helper.make_node("Sub", ["center", "surround"], ["contrast"]),
            helper.make_node("Mul", ["contrast", "gain"], ["scaled"]),
            helper.make_node("Sigmoid", ["scaled"], ["mask"]),
        ],
        gain=4.0,
    )


SMOOTH: Final = {"brightness": brightness, "contrast": contrast}


def _mean_of_square(entry: str, output: str, side: int) -> list[onnx.NodeProto]:
    half = side // 2
    rows = helper.make_node("AveragePool", [entry], [f"{output} rows"], kernel_shape=[1, side], pads=[0, half] * 2)
    whole = helper.make_node("AveragePool", [f"{output} rows"], [output], kernel_shape=[side, 1], pads=[half, 0] * 2)
    return [rows, whole]


def _network(nodes: list[onnx.NodeProto], gain: float) -> onnx.ModelProto:
    def value(name: str, channels: int) -> onnx.ValueInfoProto:
        return helper.make_tensor_value_info(name, TensorProto.FLOAT, ["batch", channels, INPUT_PX, INPUT_PX])

    constants = [numpy_helper.from_array(np.array(gain, np.float32), "gain")]
    graph = helper.make_graph(nodes, "smooth", [value("image", 3)], [value("mask", 1)], constants)
    return helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8)


def _written(path: Path, model: onnx.ModelProto) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(model.SerializeToString())
    return path


def _files(dataset: Path | None) -> dict[str, list[bytes]]:
    pictures = [rgb for _, rgb in photographs_of(dataset)]
    return {
        "as they are": [jpeg(rgb) for rgb in pictures],
        f"{_LARGE_MEGAPIXELS:g} MP": [jpeg(enlarged(rgb, _LARGE_MEGAPIXELS)) for rgb in pictures],
    }
