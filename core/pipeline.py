"""The stages as functions of images, and :func:`remove_background`, which runs all of them in one process.

On AWS, each of three Lambda functions calls one of :func:`core.segmentation.looks.segment`, :func:`refine_edge` and
:func:`finish`, and passes intermediates through S3.
"""

import time
from dataclasses import dataclass
from typing import Any, Final

import cv2
import numpy as np

from core import layout
from core.arrays import Alpha, Mask, Matte, Picture, Rgb, Segmentation
from core.image import backdrop, blur, decode, encode, exif
from core.matting import alpha_facts, foreground, refine
from core.options import Options, Output
from core.segmentation import looks
from core.segmentation.quality import assess
from core.segmentation.sessions import Networks
from core.types import Precision, Quality

_PARTLY: Final = (0.001, 0.999)
"""Alpha of a pixel that is neither hidden nor opaque, in steps of 1/255."""


@dataclass(frozen=True)
class RefinedAlpha:
    """The alpha at the image's size, a report on how it was made, its facts, and the quality of its mask."""

    alpha: Alpha
    report: dict[str, Any]
    facts: alpha_facts.AlphaFacts
    quality: Quality

    def quality_facts(self) -> dict[str, Any]:
        """Return the sidecar's ``quality``, a JSON object."""
        return {**self.quality.facts(), **self.facts.facts()}


@dataclass(frozen=True)
class Cutout:
    """A finished result with its facts.

    ``timings_s`` has seconds per stage; ``warnings`` lists what of the file could not be honored, one sentence each.
    """

    encoded: encode.Encoded
    segmentation: Segmentation
    edge: RefinedAlpha
    timings_s: dict[str, float]
    warnings: tuple[str, ...]


def refine_edge(
    picture: Picture,
    mask: Mask,
    precision: Precision,
    roi: str | None = None,
    quality: Quality | None = None,
    *,
    from_alpha: bool = False,
) -> RefinedAlpha:
    """Solve for alpha at the image's size and describe it; pixels that are transparent in the file stay transparent.

    Args:
        picture: at full size.
        mask: h x w float32 in [0, 1]; of the region, if ``roi`` names one. A subject that continues beyond the region
            has no edge at its border, so alpha is solved and described as if the region were the whole image.
        precision: the work put into the edge.
        roi: ``options.roi``; outside it, alpha is 0.
        quality: of the mask, from its segmentation; None assesses the mask here.
        from_alpha: the mask is the image's own alpha, which needs no refinement.

    Raises:
        UnknownForegroundError: the mask has no certain foreground.
        InvalidOptionsError: see :func:`core.layout.region`.
    """
    height, width = picture.rgb.shape[:2]
    region = layout.region(roi, width, height)
    rgb = region.cut(picture.rgb)
    if from_alpha and picture.alpha is not None:
        matte = Matte(region.cut(picture.alpha), refine.report_of_none(precision))
    else:
        matte = refine.refine(rgb, mask, precision=precision)
    facts = alpha_facts.describe(matte.alpha)
    alpha = region.put_back(matte.alpha)
    if picture.alpha is not None:
        alpha = np.minimum(alpha, picture.alpha)
    return RefinedAlpha(alpha=alpha, report=matte.report, facts=facts, quality=quality or assess(rgb, mask))


def finish(picture: Picture, alpha: Alpha, options: Options, background: Rgb | None) -> encode.Encoded:
    """Remove the old background's colors from the edge and encode the result.

    Args:
        picture: at full size; with ``background_blur`` it is also the background, in white where it is transparent.
        alpha: H x W float32 in [0, 1], of the subject.
        options: of the result.
        background: h x w x 3 uint8 of any size, for ``background_key``; None without one.
    """
    if options.background_blur:
        background = blur.blurred(backdrop.composed(picture, backdrop.WHITE), alpha, options.blur_share)
    if options.output is Output.MASK:
        rgb = picture.rgb
    else:
        rgb = foreground.decontaminate(picture.rgb, alpha, options.precision_level)
        if picture.alpha is not None:  # the file states the subject's own color where a pixel is partly transparent
            stated = cv2.inRange(picture.alpha, *_PARTLY) & (alpha > 0).view(np.uint8)
            rgb = np.asarray(cv2.copyTo(picture.rgb, stated, rgb), np.uint8)
    kept = exif.kept(picture.exif, options.metadata)
    return encode.encode(rgb, alpha, options, background=background, exif=kept)


def remove_background(data: bytes, options: Options, *, networks: Networks, background: Rgb | None = None) -> Cutout:
    """Return the cut-out of an image: all stages in this process.

    Args:
        data: the image file.
        options: ``model`` must name a model; ``auto`` needs a stack, which has a default.
        networks: runs the model.
        background: h x w x 3 uint8, of any size, to put the subject on; ``options.background_key`` is ignored.

    Raises:
        BackgroundRemoverError: one of the leaf classes in :mod:`core.errors`.
    """
    timings_s: dict[str, float] = {}
    started = time.perf_counter()

    def clock(stage: str) -> None:
        nonlocal started
        now = time.perf_counter()
        timings_s[stage], started = round(now - started, 4), now

    picture = decode.decode(data)
    clock("decode")
    region = layout.region(options.roi, picture.info.width, picture.info.height)
    own = None if picture.alpha is None else region.cut(picture.alpha)
    seen = region.cut(backdrop.composed(picture))
    segmentation = looks.segment(seen, options.model, networks, options.precision_level, own)
    clock("segment")
    edge = refine_edge(
        picture,
        segmentation.mask,
        options.precision_level,
        options.roi,
        segmentation.quality,
        from_alpha=segmentation.from_alpha,
    )
    clock("refine")
    encoded = finish(picture, edge.alpha, options, background)
    clock("encode")
    warnings = (*picture.warnings, *segmentation.warnings, *encoded.warnings)
    return Cutout(encoded=encoded, segmentation=segmentation, edge=edge, timings_s=timings_s, warnings=warnings)
