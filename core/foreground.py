"""The subject's own colour: takes the old background out of half-transparent pixels."""

import math
from typing import Final, TypeAlias

import cv2
import numpy as np
from numpy.typing import NDArray

from core.tiles import enlarge, shrink, split
from core.types import Alpha, Rgb

_WIDE_SHARE: Final = 0.05
"""Width of the wide blur, as a share of the picture's longer side: how far a colour is borrowed from."""

_WIDE_PX: Final = (90, 512)
"""Least and most of that width."""

_FINE_PX: Final = 7
_TILE_PX: Final = 512

_FALLBACK: Final = np.float32(1e-3)
"""Weight of the observed colour in a mean: it decides where a window holds next to none of a layer."""

_Colours: TypeAlias = NDArray[np.float32]


def decontaminate(rgb: Rgb, alpha: Alpha) -> Rgb:
    """Estimate the foreground's colours by blur fusion, twice: wide, then fine.

    The wide blur works on a coarse grid; the fine one and the fusion at full size, tile by tile, where
    0 < alpha < 1. Source: Forte, Approximate Fast Foreground Colour Estimation (2021).

    Args:
        rgb: H x W x 3 uint8, the picture.
        alpha: H x W float32 in [0, 1], 1 opaque.

    Returns:
        H x W x 3 uint8, straight (not multiplied by alpha). Where alpha is 1 it is the picture to the bit;
        where alpha is 0 it is 0, so that a cut-out does not carry the background that was removed.
    """
    least, most = _WIDE_PX
    wide_px = min(most, max(least, round(_WIDE_SHARE * max(alpha.shape))))
    cell_px = 2 ** int(math.log2(wide_px / 16))
    coarse = _wide_layers(rgb, alpha, cell_px, wide_px // cell_px)
    colours = np.asarray(cv2.bitwise_and(rgb, rgb, mask=(alpha > 0).astype(np.uint8)), np.uint8)
    for tile in split(alpha.shape, _TILE_PX):
        soft = (alpha[tile.window] > 0) & (alpha[tile.window] < 1)
        if not soft.any():
            continue
        around = tile.grown(max(_FINE_PX, 2 * cell_px), cell_px, alpha.shape)
        observed = rgb[around.window].astype(np.float32)
        opacity = _three(alpha[around.window])
        rows, columns = observed.shape[:2]
        foreground, background = (enlarge(layer[around.cells(cell_px)], cell_px)[:rows, :columns] for layer in coarse)
        foreground = _fuse(observed, opacity, foreground, background)
        foreground = _mean(foreground * opacity, opacity, foreground, _FINE_PX)
        background = _mean(background * (1 - opacity), 1 - opacity, background, _FINE_PX)
        foreground = _fuse(observed, opacity, foreground, background)[tile.inside(around)]
        np.copyto(colours[tile.window], np.rint(foreground).astype(np.uint8), where=soft[..., None])
    return colours


def _wide_layers(rgb: Rgb, alpha: Alpha, cell_px: int, width: int) -> tuple[_Colours, _Colours]:
    """Return the mean colour of the foreground and of the background around every cell of a coarse grid."""
    observed = shrink(rgb, cell_px).astype(np.float32)
    opacity = _three(shrink(alpha, cell_px))
    premultiplied = np.empty_like(observed)
    for tile in split(alpha.shape, _TILE_PX):
        product = rgb[tile.window] * _three(alpha[tile.window])
        premultiplied[tile.cells(cell_px)] = shrink(product, cell_px)
    return (
        _mean(premultiplied, opacity, observed, width),
        _mean(observed - premultiplied, 1 - opacity, observed, width),
    )


def _mean(weighted: _Colours, weight: _Colours, fallback: _Colours, width: int) -> _Colours:
    """Return the weighted mean colour in windows of that width, from the colours times their weights."""
    side = (width | 1, width | 1)
    total = np.asarray(cv2.blur(weighted, side), np.float32) + _FALLBACK * fallback
    mean: _Colours = total / (np.asarray(cv2.blur(weight, side), np.float32) + _FALLBACK)
    return mean


def _fuse(observed: _Colours, opacity: _Colours, foreground: _Colours, background: _Colours) -> _Colours:
    """Move the foreground towards what explains the observed colour: I = alpha F + (1 - alpha) B."""
    unexplained = observed - opacity * foreground - (1 - opacity) * background
    fused: _Colours = foreground + opacity * unexplained
    return fused.clip(0, 255)


def _three(plane: Alpha) -> _Colours:
    # Once for each channel: far faster than to have numpy stretch it over an innermost axis of three.
    return np.asarray(cv2.merge([plane, plane, plane]), np.float32)
