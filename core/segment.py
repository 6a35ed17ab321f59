"""Find the subject: one entry for every network of the registry and for the built-in segmenter."""

import os
from collections.abc import Mapping
from functools import lru_cache
from pathlib import Path
from typing import Any, Final

import cv2
import numpy as np

from core import classical, compiled, models
from core.errors import UnknownForegroundError
from core.models import CLASSICAL, MODELS, Model, ModelSource
from core.types import Mask, Rgb, Segmentation

_MIN_SUBJECT_SHARE: Final = 0.001
"""Smallest share of the picture that counts as a subject."""

_OVERSAMPLED: Final = 2
"""A picture of twice the side that is looked at gives, by area, what the full one gives."""


def sufficient_px(model: str, *, registry: Mapping[str, Model] = MODELS) -> int:
    """Return the side from which on a larger picture shows a model nothing more: ``decode``'s ``at_least_px``.

    Raises:
        InvalidOptionsError: there is no such model.
    """
    models.check_name(model, registry=registry)
    return _OVERSAMPLED * (classical.INPUT_PX if model == CLASSICAL else registry[model].input_px)


def segment(rgb: Rgb, model: str, *, weights: ModelSource, registry: Mapping[str, Model] = MODELS) -> Segmentation:
    """Find the subject of a picture.

    Args:
        rgb: H x W x 3 uint8, sRGB; sides of :func:`sufficient_px` are enough.
        model: a name in ``registry``, or ``classical``.
        weights: where the model's weights are, or come from.
        registry: the networks there are.

    Returns:
        The mask, h x w float32 in [0, 1], at most as large as the network's input and with the picture's
        aspect ratio; the model's name; the SHA-256 of its weights, None for ``classical``.

    Raises:
        UnknownForegroundError: the picture shows no subject.
        InvalidOptionsError: there is no such model.
        WeightsUnavailableError: the weights could not be had in time.
        WeightsHashMismatchError: the weights are not the pinned ones.
    """
    if model == CLASSICAL:
        mask, digest = classical.segment(rgb), None
    else:
        path = models.weights(model, weights, registry=registry)
        mask, digest = _predict(rgb, registry[model], path), registry[model].sha256
    share = float(np.mean(mask > 0.5))
    if share < _MIN_SUBJECT_SHARE:
        raise UnknownForegroundError(
            "No subject was found",
            field="image",
            value=f"a subject of {share:.2%} of the picture",
            remedy="Send a picture of one subject that stands out from its background, or try another model.",
        )
    return Segmentation(mask / mask.max(), model, digest)


def _predict(rgb: Rgb, model: Model, weights_path: Path) -> Mask:
    """Run a network and return its own confidence.

    rembg's masks do not show it: they are stretched to the full range, so that the noise of a prediction on
    an empty picture looks like a subject.
    """
    from PIL import Image

    session = _session(model.name, weights_path, model.sha256)
    side = model.input_px
    enlarged = max(rgb.shape[:2]) < side
    square = cv2.resize(rgb, (side, side), interpolation=cv2.INTER_CUBIC if enlarged else cv2.INTER_AREA)
    feed = session.normalize(Image.fromarray(square), model.mean, model.std, (side, side))
    output = session.inner_session.run(None, feed)[0][0, 0].astype(np.float32)
    confidence = 1 / (1 + np.exp(-output)) if model.logits else output
    height, width = rgb.shape[:2]
    scale = min(1.0, side / max(height, width))
    size = max(1, round(width * scale)), max(1, round(height * scale))
    mask: Mask = cv2.resize(confidence, size, interpolation=cv2.INTER_AREA).clip(0.0, 1.0)
    return mask


@lru_cache(maxsize=1)
def _session(name: str, weights_path: Path, _sha256: str) -> Any:
    """Load a network with rembg; the last one is kept, because one alone can hold gigabytes."""
    compiled.pymatting()  # rembg imports it
    import onnxruntime
    from rembg.sessions import sessions

    class Verified(sessions[name]):  # type: ignore[misc]
        """The session of rembg, given a verified file where it would look for one and download it."""

        @classmethod
        def download_models(cls, *_args: Any, **_kwargs: Any) -> str:
            return str(weights_path)

    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = _cpus()
    return Verified(name, options, providers=["CPUExecutionProvider"])


def _cpus() -> int:
    """Return how many processors this process may use; onnxruntime would count the machine's."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
