"""Draw subjects stroke by stroke, at three times the size of the picture, so that thin strokes have a soft alpha."""

from typing import Any, Final, TypeAlias

import cv2
import numpy as np
from numpy.typing import NDArray

from core.arrays import Alpha, Rgb

Color: TypeAlias = tuple[int, int, int]
Points: TypeAlias = NDArray[np.floating[Any]]
"""N x 2 array of x and y, in units of the canvas."""

Light: TypeAlias = NDArray[np.float32]
"""H x W x 3 float32 in [0, 1]: linear light."""

GAMMA: Final = 2.2
_SUPERSAMPLING: Final = 3
_LENS_SIGMA: Final = 0.6  # px
_STEPS: Final = 20  # of a strand


class Canvas:
    """Color and coverage of a subject.

    Coordinates are in units: the origin is at ``center``, y points down, and a unit is ``unit_px`` pixels of the
    picture. Widths of strokes are in pixels.
    """

    def __init__(self, width: int, height: int, unit_px: float, center: tuple[float, float]) -> None:
        self.size = (width, height)
        self._unit, self._center = unit_px * _SUPERSAMPLING, np.array(center) * _SUPERSAMPLING
        self.color = np.zeros((height * _SUPERSAMPLING, width * _SUPERSAMPLING, 3), np.uint8)
        self.coverage = np.zeros(self.color.shape[:2], np.uint8)

    def fill(self, outline: Points, color: Color, alpha: float = 1.0) -> None:
        """Fill a polygon; ``alpha`` replaces the previous coverage."""
        points = [self._magnified(outline)]
        cv2.fillPoly(self.color, points, color)
        cv2.fillPoly(self.coverage, points, (round(255 * alpha),))

    def stroke(self, path: Points, width_px: float, color: Color, alpha: float = 1.0, *, closed: bool = False) -> None:
        """Draw a line of constant width."""
        points, thickness = [self._magnified(path)], max(1, round(width_px * _SUPERSAMPLING))
        cv2.polylines(self.color, points, closed, color, thickness)
        cv2.polylines(self.coverage, points, closed, (round(255 * alpha),), thickness)

    def thick(self, path: Points, width: float, color: Color) -> None:
        """Draw a line whose width is in units."""
        self.stroke(path, width * self._unit / _SUPERSAMPLING, color)

    def ring(self, outline: Points, width: float, color: Color) -> None:
        """Draw a closed line whose width is in units."""
        self.thick(np.vstack([outline, outline[:1]]), width, color)

    def strands(self, paths: Points, color: Color, width_px: tuple[float, float], rng: np.random.Generator) -> None:
        """Draw strands in shades of a color, with random widths between two limits."""
        for path, shade in zip(paths, varied(color, len(paths), rng), strict=True):
            self.stroke(path, rng.uniform(*width_px), shade)

    def keep(self, outline: Points) -> None:
        """Erase everything outside a polygon."""
        inside = cv2.fillPoly(np.zeros_like(self.coverage), [self._magnified(outline)], (1,))
        self.coverage *= np.asarray(inside, np.uint8)

    def texture(self, photograph: Rgb, strength: float) -> None:
        """Modulate the subject with the luminance of a photograph; strength 0 has no effect."""
        luma = cv2.cvtColor(cover(photograph, *self.size), cv2.COLOR_RGB2GRAY).astype(np.float32)
        self._brighten(1 + strength * (luma / luma.mean() - 1))

    def illuminate(self, towards: float, strength: float) -> None:
        """Shade the subject as a rounded body that is lit from an angle, in radians."""
        small = (max(1, self.size[0] // 4), max(1, self.size[1] // 4))
        body = cv2.resize(self.coverage, small, interpolation=cv2.INTER_AREA).astype(np.float32) / 255
        height = sum(cv2.GaussianBlur(body, (0, 0), sigma) for sigma in (3, 8, 20))
        down, across = np.gradient(height)
        slope = (across * np.cos(towards) + down * np.sin(towards)) / 0.12
        self._brighten(1 + strength * np.tanh(-slope))

    def _brighten(self, factor: NDArray[np.floating[Any]]) -> None:
        enlarged = cv2.resize(np.asarray(factor, np.float32), self.coverage.shape[::-1], interpolation=cv2.INTER_LINEAR)
        for rows in range(0, len(self.color), 256):  # in strips, to save memory
            part = slice(rows, rows + 256)
            self.color[part] = np.clip(self.color[part] * enlarged[part, :, None], 0, 255)

    def seen(self, motion: tuple[float, float] = (0.0, 0.0)) -> tuple[Light, Alpha]:
        """Return the subject's light, premultiplied by alpha, and its alpha, as a lens and a moving camera see them.

        Args:
            motion: length in pixels and angle in radians.
        """
        coverage = self.coverage.astype(np.float32) / 255
        light = cv2.LUT(self.color, ((np.arange(256) / 255) ** GAMMA).astype(np.float32)) * coverage[..., None]
        small = (cv2.resize(plane, self.size, interpolation=cv2.INTER_AREA) for plane in (light, coverage))
        premultiplied, alpha = (_moved(cv2.GaussianBlur(plane, (0, 0), _LENS_SIGMA), motion) for plane in small)
        return np.asarray(premultiplied, np.float32), np.asarray(alpha.clip(0, 1), np.float32)

    def _magnified(self, points: Points) -> NDArray[np.int32]:
        return np.asarray(np.rint(np.asarray(points) * self._unit + self._center), np.int32)


def _moved(plane: NDArray[Any], motion: tuple[float, float]) -> NDArray[Any]:
    length, angle = motion
    if length < 2:
        return plane
    side = 2 * int(length / 2 + 1) + 1
    kernel = np.zeros((side, side), np.float32)
    reach = length / 2 * np.array([np.cos(angle), np.sin(angle)])
    ends = np.rint((side // 2 + np.stack([-reach, reach])) * 16).astype(np.int32)
    cv2.line(kernel, ends[0].tolist(), ends[1].tolist(), 1.0, 1, cv2.LINE_AA, 4)
    return cv2.filter2D(plane, -1, kernel / kernel.sum(), borderType=cv2.BORDER_REPLICATE)


def cover(photograph: Rgb, width: int, height: int) -> Rgb:
    """Resize and crop a photograph, gray or RGB, to the given size, keeping the aspect ratio."""
    color = photograph if photograph.ndim == 3 else np.repeat(photograph[..., None], 3, axis=2)
    scale = max(width / color.shape[1], height / color.shape[0])
    size = (max(width, round(color.shape[1] * scale)), max(height, round(color.shape[0] * scale)))
    resized = cv2.resize(color, size, interpolation=cv2.INTER_CUBIC if scale > 1 else cv2.INTER_AREA)
    left, top = (size[0] - width) // 2, (size[1] - height) // 2
    return np.ascontiguousarray(resized[top : top + height, left : left + width])


def points(*corners: tuple[float, float]) -> Points:
    """Return corners as an array."""
    return np.array(corners, float)


def ellipse(center: Any, half_axes: tuple[float, float], turned: float = 0.0) -> Points:
    """Return the outline of an ellipse, turned by an angle in radians."""
    t = np.linspace(0, 2 * np.pi, 90, endpoint=False)
    x, y = half_axes[0] * np.cos(t), half_axes[1] * np.sin(t)
    cos, sin = np.cos(turned), np.sin(turned)
    outline: Points = np.asarray(center, float) + np.stack([x * cos - y * sin, x * sin + y * cos], axis=1)
    return outline


def bezier(*corners: tuple[float, float]) -> Points:
    """Return a curve with four control points."""
    t = np.linspace(0, 1, 30)[:, None]
    weights = [(1 - t) ** 3, 3 * t * (1 - t) ** 2, 3 * t**2 * (1 - t), t**3]
    curve: Points = sum(weight * np.array(corner, float) for weight, corner in zip(weights, corners, strict=True))
    return curve


def turned_body(center: float, top: float, bottom: float, half_widths: Points) -> Points:
    """Return the outline of a body made on a lathe, from its half widths at equal distances from top to bottom."""
    y = np.linspace(top, bottom, 60)
    half = np.interp(y, np.linspace(top, bottom, len(half_widths)), half_widths)
    smooth = cv2.GaussianBlur(half[:, None], (1, 0), 1, sigmaY=2.5, borderType=cv2.BORDER_REPLICATE)[:, 0]
    return np.concatenate([np.stack([center + smooth, y], 1), np.stack([center - smooth, y], 1)[::-1]])


def along(outline: Points, count: int, rng: np.random.Generator, depth: float = 0.02) -> tuple[Points, Points]:
    """Return random roots up to ``depth`` inside an outline, and angles that point outwards."""
    center, ends = outline.mean(axis=0), np.roll(outline, -1, axis=0)
    length = np.hypot(*(ends - outline).T)
    side = rng.choice(len(outline), count, p=length / length.sum())
    roots = outline[side] + rng.random((count, 1)) * (ends[side] - outline[side])
    inwards = (center - roots) / (np.hypot(*(center - roots).T)[:, None] + 1e-9)
    normal = (ends[side] - outline[side])[:, ::-1] * (1, -1)
    normal = normal * np.where((normal * inwards).sum(axis=1, keepdims=True) > 0, -1, 1)
    angles = np.arctan2(normal[:, 1], normal[:, 0]) + rng.normal(0, 0.35, count)
    return roots + inwards * rng.uniform(0, depth, (count, 1)), angles


def within(outline: Points, count: int, rng: np.random.Generator) -> tuple[Points, Points]:
    """Return random roots inside a star-shaped outline, from top to bottom, and angles that point down."""
    center = outline.mean(axis=0)
    roots = center + np.sqrt(rng.random((count, 1))) * (outline[rng.integers(len(outline), size=count)] - center)
    return roots[np.argsort(roots[:, 1])], np.pi / 2 + rng.normal(0, 0.3, count)


def strands(
    roots: Points, towards: Points, lengths: Points, rng: np.random.Generator, *, curl: float, fall: float = 0.0
) -> Points:
    """Return strands whose direction varies randomly by ``curl`` and turns down by ``fall``, in radians per step.

    Returns:
        N x 20 x 2 array.
    """
    wander = rng.normal(0, curl, (len(roots), _STEPS)).cumsum(axis=1) * 0.6
    path, angle = [roots], towards.copy()
    for step in range(_STEPS - 1):
        angle = angle + fall * np.cos(angle)
        bent = angle + wander[:, step]
        path.append(path[-1] + (lengths / _STEPS)[:, None] * np.stack([np.cos(bent), np.sin(bent)], axis=1))
    return np.stack(path, axis=1)


def varied(color: Color, count: int, rng: np.random.Generator) -> list[Color]:
    """Return ``count`` lighter and darker variants of a color."""
    shades = (np.asarray(color) * rng.uniform(0.65, 1.4, (count, 1))).clip(0, 255).astype(int)
    return [(red, green, blue) for red, green, blue in shades.tolist()]
