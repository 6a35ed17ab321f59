"""Composites: pictures with a known alpha and foreground, to measure on masks that networks make of them.

Foregrounds are drawn (see :mod:`bench.subjects`) or taken from a dataset with true alphas; backgrounds are photographs
of scikit-image and drawn ones. Everything is split into two halves: what methods are tuned on, and what they are
judged on. A photograph, a dataset's foreground or a seed of one half is not used in the other. Equal arguments give
equal composites.
"""

from collections.abc import Callable, Iterator, Sequence
from enum import StrEnum
from typing import Any, Final

import cv2
import numpy as np
from numpy.typing import NDArray
from skimage import data as photographs

from bench.canvas import GAMMA, Canvas, Light, cover
from bench.pictures import GroundTruth
from bench.subjects import SUBJECTS, Draw, moving
from core.arrays import Alpha, Rgb

COUNT: Final = 200
"""Drawn composites of a half."""

_SIDES_PX: Final = (400, 600)
_NOISE: Final = 0.006  # rms, of 1
_PER_FOREGROUND: Final = 4
"""Composites of each foreground of a dataset."""


class Half(StrEnum):
    """The halves: what methods are tuned on, and what they are judged on."""

    TUNE = "tune"
    TEST = "test"


_PHOTOGRAPHS: Final[dict[Half, tuple[Callable[[], Rgb], ...]]] = {
    Half.TUNE: (
        lambda: photographs.coffee()[:, 430:], photographs.brick, photographs.hubble_deep_field,
        lambda: photographs.camera()[:, 330:], photographs.immunohistochemistry, photographs.retina,
    ),
    Half.TEST: (
        lambda: photographs.astronaut()[270:], lambda: photographs.chelsea()[190:], photographs.rocket,
        photographs.gravel, photographs.grass, lambda: photographs.stereo_motorcycle()[0],
    ),
}  # fmt: skip
"""Backgrounds, without the parts that show a subject of their own."""


def composites(
    half: Half, *, count: int = COUNT, subjects: Sequence[GroundTruth] = (), seed: int = 0
) -> Iterator[GroundTruth]:
    """Yield the composites of a half, 0.16 to 0.36 MP each.

    Args:
        half: which half.
        count: number of drawn composites; the kinds take turns.
        subjects: of a dataset, sorted by name; every second one belongs to the half, and is put on
            ``_PER_FOREGROUND`` backgrounds.
        seed: of all drawings.
    """
    for number in range(count):
        draw = SUBJECTS[number % len(SUBJECTS)]
        rng = np.random.default_rng([seed, half is Half.TEST, number])
        light, alpha = _drawn(half, draw, rng)
        yield _composed(f"{half}-{draw.__name__}-{number:03d}", draw.__name__, light, alpha, half, rng)
    for number, subject in enumerate(list(subjects)[half is Half.TEST :: 2]):
        light, fitted = _cut_out(subject.rgb, subject.alpha)
        for turn in range(_PER_FOREGROUND):
            rng = np.random.default_rng([seed, half is Half.TEST, 10_000 + number, turn])
            mirror = slice(None, None, -1 if turn % 2 else 1)
            yield _composed(
                f"{half}-{subject.name}-{turn}", "photograph", np.ascontiguousarray(light[:, mirror]),
                np.ascontiguousarray(fitted[:, mirror]), half, rng,
            )  # fmt: skip


def _drawn(half: Half, draw: Draw, rng: np.random.Generator) -> tuple[Light, Alpha]:
    width, height = (int(side) for side in rng.integers(*_SIDES_PX, 2))
    unit_px = min(width, height) / 2 * rng.uniform(0.75, 0.97)
    spare = width / 2 - unit_px, height / 2 - unit_px
    across = width / 2 + rng.uniform(-0.7, 0.7) * spare[0]
    down = height - unit_px if draw.__name__ == "portrait" else height / 2 + rng.uniform(-0.5, 0.9) * spare[1]
    canvas = Canvas(width, height, unit_px, (across, down))
    draw(canvas, rng)
    canvas.texture(_photograph(half, width, height, rng), rng.uniform(0, 0.35))
    canvas.illuminate(rng.uniform(0, 2 * np.pi), rng.uniform(0.15, 0.5))
    moves = draw is moving or rng.random() < 0.08
    return canvas.seen((rng.uniform(6, 30), rng.normal(0, 0.2)) if moves else (0.0, 0.0))


def _cut_out(rgb: Rgb, alpha: Alpha) -> tuple[Light, Alpha]:
    """Return a dataset's subject at a composite's size, with estimated foreground colors."""
    from pymatting import estimate_foreground_ml

    scale = _SIDES_PX[1] / max(alpha.shape)
    size = (round(alpha.shape[1] * scale), round(alpha.shape[0] * scale))
    small, fitted = (cv2.resize(plane, size, interpolation=cv2.INTER_AREA) for plane in (rgb, alpha))
    foreground = estimate_foreground_ml(small / 255.0, fitted.astype(np.float64)).clip(0, 1)
    return np.asarray(foreground**GAMMA * fitted[..., None], np.float32), np.asarray(fitted, np.float32)


def _composed(name: str, kind: str, light: Light, alpha: Alpha, half: Half, rng: np.random.Generator) -> GroundTruth:
    """Put a subject on a background in linear light, as a camera does, and add noise."""
    behind = (background(half, alpha.shape[1], alpha.shape[0], rng).astype(np.float32) / 255) ** GAMMA
    if rng.random() < 0.5:
        behind *= 1 - rng.uniform(0.2, 0.5) * _shadow(alpha, rng)[..., None]
    seen = (light + (1 - alpha[..., None]) * behind).clip(0, 1) ** (1 / GAMMA)
    seen += rng.normal(0, _NOISE, seen.shape)
    foreground = (light / np.maximum(alpha[..., None], 1e-3)).clip(0, 1) ** (1 / GAMMA)
    return GroundTruth(name, kind, _bytes(seen), alpha, _bytes(foreground))


def _shadow(alpha: Alpha, rng: np.random.Generator) -> NDArray[np.float32]:
    move = np.array([[1, 0, rng.uniform(-25, 25)], [0, 1, rng.uniform(5, 25)]], np.float32)
    moved = cv2.warpAffine(alpha, move, alpha.shape[::-1], borderMode=cv2.BORDER_REPLICATE)
    return np.asarray(cv2.GaussianBlur(moved, (0, 0), rng.uniform(5, 18)), np.float32)


def background(half: Half, width: int, height: int, rng: np.random.Generator) -> Rgb:
    """Return a background of a half: a photograph in two of three cases, more or less out of focus, or a drawing."""
    if rng.random() < 2 / 3:
        sharp = _photograph(half, width, height, rng)
        sigma = rng.choice([0.0, 1.5, 4.0, 9.0])
        return sharp if sigma == 0 else np.asarray(cv2.GaussianBlur(sharp, (0, 0), sigma), np.uint8)
    draw = (_gradient, _clouds, _room, _lights)[rng.integers(4)]
    return _bytes(draw(width, height, rng))


def _photograph(half: Half, width: int, height: int, rng: np.random.Generator) -> Rgb:
    """Return a random part of a photograph of the half, perhaps mirrored and tinted."""
    whole = _PHOTOGRAPHS[half][rng.integers(len(_PHOTOGRAPHS[half]))]()
    part = [int(side * rng.uniform(0.45, 0.9)) for side in whole.shape[:2]]
    top, left = (int(rng.integers(0, side - taken + 1)) for side, taken in zip(whole.shape[:2], part, strict=True))
    cropped = cover(whole[top : top + part[0], left : left + part[1]], width, height)
    tint = rng.uniform(0.6, 1.1, 3) if whole.ndim == 2 else rng.uniform(0.85, 1.1, 3)
    return np.ascontiguousarray(_bytes(cropped / 255 * tint)[:, :: rng.choice((-1, 1))])


def _gradient(width: int, height: int, rng: np.random.Generator) -> NDArray[Any]:
    """Draw a studio's backdrop: one color that grows darker away from a light."""
    y, x = np.mgrid[0:height, 0:width] / max(width, height) - rng.uniform(0.2, 0.8, 2)[:, None, None]
    return np.asarray(rng.uniform(0.15, 0.95, 3) * (1 - rng.uniform(0.2, 0.8) * np.hypot(x, y))[..., None])


def _clouds(width: int, height: int, rng: np.random.Generator) -> NDArray[Any]:
    """Draw smooth noise of several scales around a color."""
    total = np.zeros((height, width, 3), np.float32)
    for cells in (3, 7, 17, 60):
        noise = rng.normal(0, 0.3 / cells**0.6, (cells, cells, 1)) * rng.uniform(0.5, 1, 3) + rng.normal(0, 0.04, 3)
        total += cv2.resize(noise.astype(np.float32), (width, height), interpolation=cv2.INTER_CUBIC)
    return np.asarray(total + rng.uniform(0.2, 0.8, 3))


def _room(width: int, height: int, rng: np.random.Generator) -> NDArray[Any]:
    """Draw a wall, a floor and some rectangles on the wall."""
    wall = _clouds(width, height, rng) * 0.3 + rng.uniform(0.2, 0.6, 3)
    horizon = int(height * rng.uniform(0.55, 0.85))
    wall[horizon:] = wall[horizon:] * 0.3 + rng.uniform(0.1, 0.6, 3)
    for _ in range(rng.integers(0, 4)):
        left, top = rng.integers(0, (width, horizon))
        size = rng.integers(30, 180, 2)
        wall[top : min(horizon, top + size[1]), left : left + size[0]] = rng.uniform(0, 1, 3)
    return np.asarray(cv2.GaussianBlur(wall, (0, 0), rng.uniform(0.5, 5)))


def _lights(width: int, height: int, rng: np.random.Generator) -> NDArray[Any]:
    """Draw lights out of focus: discs on a dark background."""
    scene = np.full((height, width, 3), rng.uniform(0, 0.3, 3), np.float32)
    for x, y in rng.integers(0, (width, height), (rng.integers(15, 60), 2)).tolist():
        disc = np.zeros((height, width), np.float32)
        cv2.circle(disc, (x, y), int(rng.integers(6, 40)), float(rng.uniform(0.1, 0.6)), -1, cv2.LINE_AA)
        scene += disc[..., None] * rng.uniform(0.3, 1, 3)
    return np.asarray(cv2.GaussianBlur(scene, (0, 0), 1.5))


def _bytes(values: NDArray[Any]) -> Rgb:
    return np.asarray(np.rint(np.clip(values, 0, 1) * 255), np.uint8)
