"""Foreground estimation: remove the old background's color from partly transparent pixels."""

from collections.abc import Mapping
from typing import Final, TypeAlias

import cv2
import numpy as np
from numpy.typing import NDArray

from core.arrays import Alpha, Rgb
from core.matting.tiles import Tile, enlarge, on_each, shrink, split
from core.types import Precision

_SWEEPS: Final[Mapping[Precision, tuple[int, int, int]]] = {
    Precision.DRAFT: (4, 2, 1),
    Precision.STANDARD: (4, 2, 1),
    Precision.HIGH: (4, 4, 2),
    Precision.ULTRA_HIGH: (8, 8, 8),
}
"""Number of sweeps at 1/4, 1/2 and full size."""

_COARSE_SWEEPS: Final = 8
_CELL_PX: Final = 8  # of the coarse grid: twice the first cell size above
_TILE_PX: Final = 384

_PRIOR: Final = np.float32(0.05)
"""Weight of the colors around a pixel against its own, which is 1 where the pixel shows one layer only."""

_FALLBACK: Final = np.float32(3e-3)
"""Weight in a mean of a pixel that shows nothing of the layer; matters only where no other pixel is near."""

_Planes: TypeAlias = NDArray[np.float32]
"""3 x H x W, in [0, 255]: planar, so that numpy need not broadcast an opacity over an innermost axis of 3."""

_Layers: TypeAlias = NDArray[np.float32]
"""2 x 3 x H x W, in [0, 255]: the colors of foreground and background."""


def decontaminate(rgb: Rgb, alpha: Alpha, precision: Precision = Precision.HIGH) -> Rgb:
    """Return the foreground's colors.

    From coarse to fine, the colors of both layers are smoothed, then changed as little as possible to satisfy
    I = alpha F + (1 - alpha) B. Up to 1/8 of the size this is done for the whole image, from there on only for tiles
    with soft pixels.

    Sources: the weighted means are those of Forte, Approximate Fast Foreground Colour Estimation (2021); the levels,
    and solving for both layers at once, are those of Germer et al., Fast Multi-Level Foreground Estimation (2020).

    Args:
        rgb: H x W x 3 uint8, the image.
        alpha: H x W float32 in [0, 1], 1 opaque.
        precision: higher levels take more sweeps at the finer sizes.

    Returns:
        H x W x 3 uint8, straight (not multiplied by alpha). Where alpha is 1 it equals the image;
        where alpha is 0 it is 0, so that a cut-out does not contain the removed background.
    """
    sweeps = _SWEEPS[precision]
    coarse = _coarse_layers(shrink(rgb, _CELL_PX), shrink(alpha, _CELL_PX))
    colours = np.zeros_like(rgb)

    def paint(tile: Tile) -> None:
        visible = alpha[tile.window] > 0
        cv2.copyTo(rgb[tile.window], visible.astype(np.uint8), colours[tile.window])
        soft = (visible & (alpha[tile.window] < 1)).astype(np.uint8)
        if soft.any():
            part = tile.part(soft, 1, _CELL_PX)
            found = _foreground(rgb, alpha, part, coarse, sweeps)
            cv2.copyTo(cv2.convertScaleAbs(found), soft[part.inside(tile)], colours[part.window])

    on_each(split(alpha.shape, _TILE_PX), paint)
    return colours


def _coarse_layers(rgb: Rgb, alpha: Alpha) -> _Layers:
    """Return the layers of a small image, starting from its mean color for both."""
    observed = _planes(rgb)
    if max(alpha.shape) == 1:
        return np.stack([observed, observed])
    layers = _enlarged(_coarse_layers(shrink(rgb, 2), shrink(alpha, 2)), alpha.shape)
    return _solve(observed, alpha, layers, _COARSE_SWEEPS)


def _foreground(rgb: Rgb, alpha: Alpha, part: Tile, coarse: _Layers, sweeps: tuple[int, ...]) -> NDArray[np.float32]:
    """Return the foreground of a part of the image, from the coarse layers: h x w x 3."""
    cells_px = [_CELL_PX >> level for level in range(1, len(sweeps) + 1)]
    # A sweep reaches one cell; all enlarging together reaches less than one cell of the coarse grid.
    margin_px = _CELL_PX + sum(count * cell_px for count, cell_px in zip(sweeps, cells_px, strict=True))
    around = part.grown(margin_px, _CELL_PX, alpha.shape)
    layers = coarse[..., *around.cells(_CELL_PX)]
    for count, cell_px in zip(sweeps, cells_px, strict=True):
        observed, opacity = _planes(shrink(rgb[around.window], cell_px)), shrink(alpha[around.window], cell_px)
        layers = _solve(observed, opacity, _enlarged(layers, opacity.shape), count)
    return np.asarray(cv2.merge(layers[0][..., *part.inside(around)]), np.float32)


def _planes(rgb: Rgb) -> _Planes:
    return np.stack(cv2.split(rgb)).astype(np.float32)


def _enlarged(layers: _Layers, shape: tuple[int, ...]) -> _Layers:
    """Return layers of twice the size, cropped to ``shape``."""
    height, width = shape
    large = np.empty((2, 3, height, width), np.float32)
    for layer, small in zip(large.reshape(6, height, width), layers.reshape(6, *layers.shape[2:]), strict=True):
        layer[:] = enlarge(small, 2)[:height, :width]
    return large


def _solve(observed: _Planes, opacity: Alpha, layers: _Layers, count: int) -> _Layers:
    """Fit the layers to the image ``count`` times and smooth them in between; in place."""
    shown = np.stack([opacity, 1 - opacity])[:, None]
    share = shown / (np.square(shown).sum(axis=0) + _PRIOR)
    _explain(observed, opacity, share, layers)
    if count > 1:
        weight = shown + _FALLBACK
        total = _smooth(weight.copy())
        for _ in range(count - 1):
            layers *= weight
            _smooth(layers)
            layers /= total
            _explain(observed, opacity, share, layers)
    return layers


def _explain(observed: _Planes, opacity: Alpha, share: NDArray[np.float32], layers: _Layers) -> None:
    """Add to each layer its share, 2 x 1 x H x W, of the residual of the image."""
    foreground, background = layers
    unexplained = background - foreground
    unexplained *= opacity
    unexplained -= background
    unexplained += observed
    layers += share * unexplained
    layers.clip(0, 255, out=layers)


def _smooth(planes: NDArray[np.float32]) -> NDArray[np.float32]:
    """Replace every value of any number of planes by its mean over 3 x 3 pixels, in place."""
    for plane in planes.reshape(-1, *planes.shape[-2:]):
        cv2.blur(plane, (3, 3), plane)
    return planes
