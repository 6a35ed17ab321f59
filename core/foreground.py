"""The subject's own colour: takes the old background out of half-transparent pixels."""

import math

import cv2
import numpy as np
from numpy.typing import NDArray

from core.tiles import enlarge, shrink, split
from core.types import Alpha, Rgb

_WIDE_SHARE = 0.05
"""Width of the wide blur, as a share of the picture's longer side: how far a colour is borrowed from."""

_WIDE_MIN_PX = 90
_FINE_PX = 7
_TILE_PX = 512

_FALLBACK = np.float32(1e-3)
"""Weight of the observed colour in a mean: it decides where a window holds next to none of a layer."""

_Colours = NDArray[np.float32]


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
    wide_px = max(_WIDE_MIN_PX, round(_WIDE_SHARE * max(alpha.shape)))
    cell_px = 2 ** int(math.log2(wide_px / 16))
    coarse = _wide_layers(rgb, alpha, cell_px, wide_px // cell_px)
    colours = rgb.copy()
    colours[alpha == 0] = 0
    for tile in split(alpha.shape, _TILE_PX):
        soft = (alpha[tile.window] > 0) & (alpha[tile.window] < 1)
        if not soft.any():
            continue
        around = tile.grown(max(_FINE_PX, 2 * cell_px), cell_px, alpha.shape)
        observed = rgb[around.window].astype(np.float32)
        opacity = alpha[around.window][..., None]
        size = observed.shape[:2]
        foreground, background = (
            enlarge(layer[around.cells(cell_px)], cell_px)[: size[0], : size[1]] for layer in coarse
        )
        foreground = _fuse(observed, opacity, foreground, background)
        foreground, background = (
            _layer_mean(foreground, opacity, _FINE_PX),
            _layer_mean(background, 1 - opacity, _FINE_PX),
        )
        foreground = _fuse(observed, opacity, foreground, background)[tile.inside(around)]
        np.copyto(colours[tile.window], np.rint(foreground).astype(np.uint8), where=soft[..., None])
    return colours


def _wide_layers(rgb: Rgb, alpha: Alpha, cell_px: int, width: int) -> tuple[_Colours, _Colours]:
    """Return the mean colour of the foreground and of the background around every cell of a coarse grid."""
    shape = tuple(-(-side // cell_px) for side in alpha.shape)
    premultiplied: _Colours = np.empty((*shape, 3), np.float32)
    for tile in split(alpha.shape, _TILE_PX):
        product = rgb[tile.window] * alpha[tile.window][..., None]
        premultiplied[tile.cells(cell_px)] = shrink(product, cell_px)
    observed = shrink(rgb, cell_px).astype(np.float32)
    opacity = shrink(alpha, cell_px)[..., None]
    return (
        _weighted_mean(premultiplied, opacity, observed, width),
        _weighted_mean(observed - premultiplied, 1 - opacity, observed, width),
    )


def _layer_mean(colours: _Colours, weight: NDArray[np.float32], width: int) -> _Colours:
    return _weighted_mean(colours * weight, weight, colours, width)


def _weighted_mean(weighted: _Colours, weight: NDArray[np.float32], fallback: _Colours, width: int) -> _Colours:
    """Blur the weighted colours and divide by the blurred weight."""
    side = (width | 1, width | 1)
    total = np.asarray(cv2.blur(weighted, side), np.float32) + _FALLBACK * fallback
    mean: _Colours = total / (np.asarray(cv2.blur(weight, side), np.float32)[..., None] + _FALLBACK)
    return mean


def _fuse(observed: _Colours, opacity: NDArray[np.float32], foreground: _Colours, background: _Colours) -> _Colours:
    """Move the foreground towards what explains the observed colour: I = alpha F + (1 - alpha) B."""
    unexplained = observed - opacity * foreground - (1 - opacity) * background
    fused: _Colours = foreground + opacity * unexplained
    return fused.clip(0, 255)
