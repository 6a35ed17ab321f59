"""Segment an image: prepare, predict, finish, for every network and for the built-in segmenter.

Only ``predict`` needs the network, and takes several images at a time; a host can run the other two steps on other
threads.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Final

import cv2
import numpy as np
from numpy.typing import NDArray

from core.arrays import Mask, Rgb, Segmentation
from core.errors import UnknownForegroundError
from core.segmentation import classical
from core.segmentation.quality import assess
from core.segmentation.registry import CLASSICAL, Model, check_name
from core.segmentation.sessions import Networks

_MIN_SUBJECT_SHARE: Final = 0.001
"""Smallest share of the image that counts as a subject."""

_OVERSAMPLED: Final = 2
"""Area averaging of an image of twice the input's side gives the same input as the full image."""


@dataclass(frozen=True)
class Prepared:
    """An image, preprocessed for its model.

    Attributes:
        model: the model's entry, None for the built-in segmenter.
        pixels: 3 x S x S float32, normalized, S the network's input side; for the built-in segmenter the reduced
            image.
        reduced: the image at the mask's size, h x w x 3 uint8.
    """

    model: Model | None
    pixels: NDArray[np.float32] | Rgb
    reduced: Rgb


def sufficient_px(model: str, registry: Mapping[str, Model]) -> int:
    """Return the image side beyond which a model's input does not change: ``at_least_px`` of ``decode``.

    Raises:
        InvalidOptionsError: there is no such model.
    """
    check_name(model, registry)
    return _OVERSAMPLED * (classical.INPUT_PX if model == CLASSICAL else registry[model].input_px)


def segment(rgb: Rgb, model: str, networks: Networks) -> Segmentation:
    """Return the mask of an image's subject.

    Args:
        rgb: H x W x 3 uint8, sRGB; sides of :func:`sufficient_px` suffice.
        model: a name in the registry, or ``classical``.
        networks: runs the model.

    Returns:
        The mask, h x w float32 in [0, 1], at most as large as the network's input and with the image's
        aspect ratio; its quality; the model's name; the SHA-256 of its weights, None for ``classical``.

    Raises:
        UnknownForegroundError: no subject was found.
        InvalidOptionsError, WeightsUnavailableError, WeightsHashMismatchError, GpuUnavailableError: see
            :meth:`core.segmentation.sessions.Networks.load`.
    """
    prepared = prepare(rgb, model, networks.source.registry)
    [prediction] = predict([prepared], networks)
    return finish(prepared, prediction)


def prepare(rgb: Rgb, model: str, registry: Mapping[str, Model]) -> Prepared:
    """Scale and normalize an image for a model.

    rembg resamples the whole image with a Lanczos kernel and normalizes in float64; docs/explanation/performance.md
    compares masks and times.

    Raises:
        InvalidOptionsError: there is no such model.
    """
    check_name(model, registry)
    if model == CLASSICAL:
        rgb = classical.reduced(rgb)
        return Prepared(None, rgb, rgb)
    return prepare_for(registry[model], rgb)


def prepare_for(model: Model, rgb: Rgb) -> Prepared:
    """Scale and normalize an image for a network."""
    height, width = rgb.shape[:2]
    side = model.input_px
    enlarged = max(height, width) < side
    kernel = cv2.INTER_CUBIC if enlarged else cv2.INTER_AREA
    square = np.asarray(cv2.resize(rgb, (side, side), interpolation=kernel), np.uint8)
    scale = min(1.0, side / max(height, width))
    mask_size = max(1, round(width * scale)), max(1, round(height * scale))
    reduced = np.asarray(cv2.resize(rgb, mask_size, interpolation=cv2.INTER_AREA), np.uint8)
    return Prepared(model, _normalize(square, model), reduced)


def _normalize(square: Rgb, model: Model) -> NDArray[np.float32]:
    """Return planes of ``(value / brightest value - mean) / std``, which is what rembg feeds."""
    values = np.arange(256) / max(int(square.max()), 1)
    planes = np.empty((3, *square.shape[:2]), np.float32)
    for plane, channel, mean, std in zip(planes, cv2.split(square), model.mean, model.std, strict=True):
        cv2.LUT(channel, ((values - mean) / std).astype(np.float32), dst=plane)
    return planes


def predict(prepared: Sequence[Prepared], networks: Networks) -> list[Mask]:
    """Run a model on a batch of images that were prepared for it; :func:`finish` turns predictions into masks.

    Raises:
        WeightsUnavailableError, WeightsHashMismatchError, GpuUnavailableError: see
            :meth:`core.segmentation.sessions.Networks.load`.
    """
    model = prepared[0].model
    if model is None:
        return [classical.segment(one.pixels) for one in prepared]  # type: ignore[arg-type]
    return list(networks.predict(model.name, np.stack([one.pixels for one in prepared])))


def finish(prepared: Prepared, prediction: Mask) -> Segmentation:
    """Turn a prediction into a mask and assess it.

    Raises:
        UnknownForegroundError: no subject was found.
    """
    return conclude(prepared.model, prepared.reduced, confidence(prepared, prediction))


def confidence(prepared: Prepared, prediction: Mask) -> Mask:
    """Return the network's own confidence, h x w float32 in [0, 1], with the image's aspect ratio."""
    model = prepared.model
    if model is None:
        return prediction
    square = 1 / (1 + np.exp(-prediction)) if model.logits else prediction
    size = prepared.reduced.shape[1::-1]
    return np.asarray(cv2.resize(square, size, interpolation=cv2.INTER_AREA).clip(0.0, 1.0), np.float32)


def conclude(model: Model | None, reduced: Rgb, seen: Mask, mirrored: Mask | None = None) -> Segmentation:
    """Turn confidence into a mask and assess it.

    rembg stretches masks to the full range instead, so that noise on an empty image looks like a subject.

    Args:
        model: the model's entry, None for the built-in segmenter.
        reduced: the image at the mask's size.
        seen: h x w float32 in [0, 1].
        mirrored: another look's confidence, mirrored back, if there was one; see
            :func:`core.segmentation.quality.assess`.

    Raises:
        UnknownForegroundError: no subject was found.
    """
    if not shows_subject(seen):
        raise UnknownForegroundError(
            "No subject was found",
            field="image",
            value=f"a subject of {float(np.mean(seen > 0.5)):.2%} of the image",
            remedy="Use an image whose subject stands out from its background, or another model.",
        )
    mask = seen / seen.max()
    quality = assess(reduced, mask, None if mirrored is None else mirrored / max(float(mirrored.max()), 0.5))
    return Segmentation(mask, quality, model.name if model else CLASSICAL, model.sha256 if model else None)


def shows_subject(seen: Mask) -> bool:
    """Return whether enough of the image is more likely subject than background."""
    return bool(np.mean(seen > 0.5) >= _MIN_SUBJECT_SHARE)
