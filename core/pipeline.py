"""The stages as functions of pictures, and all of them in one process.

The functions on AWS call the same three (:func:`core.segmentation.segment.segment`, :func:`refine_edge` and
:func:`finish`), one each, and pass intermediates through S3.
"""

import time
from dataclasses import dataclass
from typing import Any

import numpy as np

from core import layout
from core.image import decode, encode, exif
from core.matting import foreground, quality, refine
from core.options import Options, Output
from core.segmentation import segment
from core.segmentation.sessions import Networks
from core.types import Alpha, Mask, Picture, Precision, Rgb, Segmentation


@dataclass(frozen=True)
class Edge:
    """The refined alpha, how it was made, and what it is worth."""

    alpha: Alpha
    report: dict[str, Any]
    quality: quality.Quality


@dataclass(frozen=True)
class Cutout:
    """A finished result with its facts.

    ``timings_s`` are seconds per stage; ``warnings`` say, one sentence each, what of the file could not be honoured.
    """

    encoded: encode.Encoded
    segmentation: Segmentation
    edge: Edge
    timings_s: dict[str, float]
    warnings: tuple[str, ...]


def refine_edge(picture: Picture, mask: Mask, precision: Precision, roi: str | None = None) -> Edge:
    """Solve for alpha at the picture's size and judge it; transparency that the file had stays transparent.

    Args:
        picture: at its full size.
        mask: h x w float32 in [0, 1], of the region if there is one: a subject that goes on beyond the region's border
            has no edge there, so it is solved for and judged as if the region were the picture.
        precision: how much work goes into the edge.
        roi: ``options.roi``; outside of it alpha is 0.

    Raises:
        UnknownForegroundError: the mask holds no certain foreground.
        InvalidOptionsError: see :func:`core.layout.region`.
    """
    height, width = picture.rgb.shape[:2]
    region = layout.region(roi, width, height)
    matte = refine.refine(region.cut(picture.rgb), mask, precision=precision)
    assessed = quality.assess(mask, matte)
    alpha = region.put_back(matte.alpha)
    if picture.alpha is not None:
        alpha = np.minimum(alpha, picture.alpha)
    return Edge(alpha=alpha, report=matte.report, quality=assessed)


def finish(picture: Picture, alpha: Alpha, options: Options, background: Rgb | None) -> encode.Encoded:
    """Free the edge of the old background's colours and encode the result."""
    if options.output is Output.MASK:
        rgb = picture.rgb
    else:
        rgb = foreground.decontaminate(picture.rgb, alpha, options.precision_level)
    kept = exif.kept(picture.exif, options.metadata)
    return encode.encode(rgb, alpha, options, background=background, exif=kept)


def remove_background(data: bytes, options: Options, *, networks: Networks, background: Rgb | None = None) -> Cutout:
    """Do all stages in this process.

    Args:
        data: the picture's file.
        options: with ``model`` naming a model; ``auto`` is for hosts that have a default.
        networks: runs the model.
        background: H x W x 3 uint8 to put the subject on; ``options.background_key`` is for S3.

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
    segmentation = segment.segment(region.cut(picture.rgb), options.model, networks)
    clock("segment")
    edge = refine_edge(picture, segmentation.mask, options.precision_level, options.roi)
    clock("refine")
    encoded = finish(picture, edge.alpha, options, background)
    clock("encode")
    return Cutout(encoded=encoded, segmentation=segmentation, edge=edge, timings_s=timings_s, warnings=picture.warnings)
