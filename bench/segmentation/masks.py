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
from numpy.typing import NDArray
from PIL import Image

from bench.markdown import table
from bench.segmentation.inputs import Network, enlarged, jpeg, photographs_of
from bench.segmentation.stages import session
from core.arrays import Mask
from core.errors import UnknownForegroundError
from core.image.decode import decode
from core.segmentation.segment import Prepared, finish, predict, prepare, sufficient_px

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
    resized = cv2.resize(unstretched, prepared.reduced.shape[1::-1], interpolation=cv2.INTER_AREA)
    return _mean_and_p99(ours - resized / resized.max())


def _mean_and_p99(difference: NDArray[Any]) -> tuple[float, float]:
    size = np.abs(difference)
    return float(size.mean()), float(np.percentile(size, 99))


def compare(networks: list[Network], dataset: Path | None) -> tuple[str, dict[str, Any]]:
    """Compare on each photograph, original and enlarged, with the given networks."""
    figures: dict[str, Any] = {}
    for one in networks:
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


def _files(dataset: Path | None) -> dict[str, list[bytes]]:
    pictures = [rgb for _, rgb in photographs_of(dataset)]
    return {
        "as they are": [jpeg(rgb) for rgb in pictures],
        f"{_LARGE_MEGAPIXELS:g} MP": [jpeg(enlarged(rgb, _LARGE_MEGAPIXELS)) for rgb in pictures],
    }
