"""Look at an image more than once, and merge the masks: a network that is in doubt errs differently each time.

The precision level decides how many looks there are:

- draft, standard: one.
- high: a mirrored one if the first mask is undecided, or its quality in doubt.
- ultra_high: also a brightened one if the first mask is undecided.

``classical`` has one look at every level. A decided mask is kept as it is: on such masks further looks did as much harm
as good. An undecided one is averaged with the others; the more undecided a mask, the less it counts. Hosts can predict
the looks of several images together::

    look = first(rgb, model, registry, precision)
    while isinstance(look, Look):
        [prediction] = predict([look.prepared], networks)
        look = follow(look, prediction)

"""

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Final

import cv2
import numpy as np

from core.arrays import Alpha, Mask, Rgb, Segmentation
from core.errors import UnknownForegroundError
from core.segmentation.quality import doubtful, overlap
from core.segmentation.registry import CLASSICAL, Model
from core.segmentation.segment import Prepared, conclude, confidence, predict, prepare, prepare_for, shows_subject
from core.segmentation.sessions import Networks
from core.types import LookName, Precision

# Tuned on masks that u2netp made of 110 composites of bench.composites' tune half and of 9 photographs.
# ``make bench-matting HALF=tune`` measures their effect; docs/explanation/looks.md has the alternatives.
_UNDECIDED: Final = 0.3  # value of undecided() from which on a mask is merged with those of further looks
_SHARPNESS: Final = 8.0  # rate at which a mask's weight falls with that value
_GAMMA: Final = 0.7  # exponent of the brightened look's values
_BRIGHTER: Final = np.rint(255 * (np.arange(256) / 255) ** _GAMMA).astype(np.uint8)

_MIN_HIDDEN_SHARE: Final = 0.05
"""Smallest share of the image that an alpha must hide to be a mask: rounded corners hide less."""


@dataclass(frozen=True)
class Look:
    """A look at an image, ready for prediction.

    Attributes:
        prepared: what to predict.
        name: kind of the look.
        precision: precision level of the job.
        rgb: the image; None if no look follows.
        earlier: confidences that the earlier looks gave, h x w float32 in [0, 1].
        reduced: the image at the mask's size.
        prior: the mask to use if no look finds a subject, h x w float32 in [0, 1]; None if there is none.
    """

    prepared: Prepared
    name: LookName
    precision: Precision
    rgb: Rgb | None
    earlier: tuple[Mask, ...]
    reduced: Rgb
    prior: Mask | None = None

    @property
    def model(self) -> Model | None:
        """The model's entry; None for the built-in segmenter."""
        return self.prepared.model

    @property
    def final(self) -> bool:
        """Whether no look follows, whatever the prediction."""
        return self.rgb is None


def segment(rgb: Rgb, model: str, networks: Networks, precision: Precision, alpha: Alpha | None = None) -> Segmentation:
    """Return the mask of an image's subject, of all looks that the precision level provides for.

    Args, result and errors are those of :func:`core.segmentation.segment.segment` and :func:`first`.
    """
    look = first(rgb, model, networks.source.registry, precision, alpha)
    return complete(look, lambda prepared: predict([prepared], networks)[0])


def complete(look: Look, run: Callable[[Prepared], Mask]) -> Segmentation:
    """Make a look and those that follow.

    Args:
        look: see :func:`first`.
        run: returns the prediction of an image.

    Raises:
        UnknownForegroundError: no subject was found.
    """
    outcome: Look | Segmentation = look
    while isinstance(outcome, Look):
        outcome = follow(outcome, run(outcome.prepared))
    return outcome


def first(
    rgb: Rgb, model: str, registry: Mapping[str, Model], precision: Precision, alpha: Alpha | None = None
) -> Look:
    """Prepare the first look.

    Args:
        rgb: H x W x 3 uint8, sRGB; sides of :func:`core.segmentation.segment.sufficient_px` suffice.
        model: a name in the registry, or ``classical``.
        registry: the networks.
        precision: decides about further looks.
        alpha: the image's own, H x W float32 in [0, 1], at any scale. It is the mask if no look finds a subject, and
            if it hides part of the image and shows another.

    Raises:
        InvalidOptionsError: there is no such model.
    """
    prepared = prepare(rgb, model, registry)
    once = precision in (Precision.DRAFT, Precision.STANDARD) or model == CLASSICAL
    prior = None if alpha is None else _prior(alpha, prepared.reduced)
    return Look(prepared, "first", precision, None if once else rgb, (), prepared.reduced, prior)


def _prior(alpha: Alpha, reduced: Rgb) -> Mask | None:
    """Return the alpha at the mask's size, or None if it hides too little to be the mask, or shows no subject."""
    small = cv2.resize(alpha, reduced.shape[1::-1], interpolation=cv2.INTER_AREA)
    mask = np.asarray(small.clip(0.0, 1.0), np.float32)
    return mask if shows_subject(mask) and np.mean(mask < 0.5) >= _MIN_HIDDEN_SHARE else None


def follow(look: Look, prediction: Mask) -> Look | Segmentation:
    """Return the next look, or the mask of all looks if this was the last one.

    Raises:
        UnknownForegroundError: no subject was found, and the image's own alpha shows none.
    """
    try:
        return _follow(look, prediction)
    except UnknownForegroundError:
        if look.prior is None:
            raise
        return replace(conclude(look.model, look.reduced, look.prior), from_alpha=True)


def _follow(look: Look, prediction: Mask) -> Look | Segmentation:
    seen = confidence(look.prepared, prediction)
    if look.name == "first":
        return _after_first(look, seen)
    if look.name == "mirrored":
        return _after_mirrored(look, np.ascontiguousarray(seen[:, ::-1]))
    return _merged(look, (*look.earlier, seen), ("first", "mirrored", "brightened"))


def _after_first(look: Look, seen: Mask) -> Look | Segmentation:
    if look.rgb is None or look.model is None:
        return conclude(look.model, look.reduced, seen)
    if undecided(seen) < _UNDECIDED and shows_subject(seen):
        found = conclude(look.model, look.reduced, seen)
        if not doubtful(found.quality):
            return found
    prepared = prepare_for(look.model, np.ascontiguousarray(look.rgb[:, ::-1]))
    return replace(look, name="mirrored", prepared=prepared, earlier=(seen,))


def _after_mirrored(look: Look, seen: Mask) -> Look | Segmentation:
    [earlier] = look.earlier
    if undecided(earlier) < _UNDECIDED and shows_subject(earlier):
        found = conclude(look.model, look.reduced, earlier, mirrored=seen)
        return replace(found, rejected_looks=("mirrored",))
    if look.precision is not Precision.ULTRA_HIGH or look.rgb is None or look.model is None:
        return _merged(look, (earlier, seen), ("first", "mirrored"))
    prepared = prepare_for(look.model, np.asarray(cv2.LUT(look.rgb, _BRIGHTER), np.uint8))
    return replace(look, name="brightened", prepared=prepared, earlier=(earlier, seen), rgb=None)


def _merged(look: Look, seen: tuple[Mask, ...], names: tuple[LookName, ...]) -> Segmentation:
    """Return the merged mask; if it shows no subject, the first one.

    The first or the mirrored mask, whichever agrees less with the merged one, lowers the score.
    """
    merged = merge(seen)
    if shows_subject(merged) or not shows_subject(seen[0]):
        other = min(seen[:2], key=lambda one: overlap(one, merged))
        return replace(conclude(look.model, look.reduced, merged, mirrored=other), looks=names)
    return replace(conclude(look.model, look.reduced, seen[0], mirrored=seen[1]), rejected_looks=names[1:])


def merge(masks: Sequence[Mask]) -> Mask:
    """Return the mean of masks, h x w float32 in [0, 1]. The more undecided a mask, the less it counts.

    A network that recognizes the subject is mostly decided about it; one that does not is not.
    """
    weights = [math.exp(-_SHARPNESS * undecided(mask)) for mask in masks]
    return np.asarray(np.average(np.stack(masks), axis=0, weights=weights), np.float32)


def undecided(mask: Mask) -> float:
    """Return how undecided a mask is: 0 if all values m are 0 or 1, about 4 if it is faint.

    It is the sum of 4 m (1 - m) divided by the sum of m.
    """
    area = float(mask.sum(dtype=np.float64))
    return float((4 * mask * (1 - mask)).sum(dtype=np.float64)) / area if area else 4.0
