"""Synthetic pictures with a known alpha: subjects drawn stroke by stroke and composed over photographs.

A subject is drawn with opaque or translucent strokes at three times the resolution of the picture, and shaded with a
photograph. It is then downscaled, blurred like a lens, composed over the background in linear light, and given noise.
Soft alpha thus has the same cause as in a photograph: strokes that are thinner than a pixel.
"""

from collections.abc import Callable
from typing import Any, Final, TypeAlias

import cv2
import numpy as np
from numpy.typing import NDArray
from skimage import data as photographs

from core.types import Alpha, Rgb

Color: TypeAlias = tuple[int, int, int]
Points: TypeAlias = NDArray[np.floating[Any]]
"""N x 2 array of x and y in pixels of the picture."""

_SUPERSAMPLING: Final = 3
_LENS_SIGMA: Final = 0.6  # px
_NOISE: Final = 0.006  # rms, of 1
_GAMMA: Final = 2.2


class Canvas:
    """Color and coverage of a subject, at ``_SUPERSAMPLING`` times the size of the picture."""

    def __init__(self, width: int, height: int) -> None:
        self.width, self.height = width, height
        self.color = np.zeros((height * _SUPERSAMPLING, width * _SUPERSAMPLING, 3), np.uint8)
        self.coverage = np.zeros(self.color.shape[:2], np.uint8)

    def fill(self, outline: Points, color: Color, alpha: float = 1.0) -> None:
        """Fill a polygon; ``alpha`` replaces the previous coverage."""
        points = [_magnified(outline)]
        cv2.fillPoly(self.color, points, color)
        cv2.fillPoly(self.coverage, points, (round(255 * alpha),))

    def stroke(self, path: Points, width_px: float, color: Color, alpha: float = 1.0, *, closed: bool = False) -> None:
        """Draw a line of constant width."""
        points, thickness = [_magnified(path)], max(1, round(width_px * _SUPERSAMPLING))
        cv2.polylines(self.color, points, closed, color, thickness)
        cv2.polylines(self.coverage, points, closed, (round(255 * alpha),), thickness)

    def keep(self, outline: Points) -> None:
        """Erase everything outside a polygon."""
        inside = cv2.fillPoly(np.zeros_like(self.coverage), [_magnified(outline)], (1,))
        self.coverage *= np.asarray(inside, np.uint8)

    def shade(self, photograph: Rgb, strength: float) -> None:
        """Modulate the subject with the luminance of a photograph; strength 0 has no effect."""
        luma = cv2.cvtColor(cover(photograph, self.width, self.height), cv2.COLOR_RGB2GRAY).astype(np.float32)
        factor = 1 + strength * (luma / luma.mean() - 1)
        factor = cv2.resize(factor, self.coverage.shape[::-1], interpolation=cv2.INTER_LINEAR)
        self.color = np.clip(self.color * factor[..., None], 0, 255).astype(np.uint8)

    def dress(self, photograph: Rgb) -> None:
        """Replace the colors of the subject with those of a photograph."""
        dressed = cover(photograph, self.width, self.height)
        self.color = np.asarray(cv2.resize(dressed, self.coverage.shape[::-1]), np.uint8)


def compose(canvas: Canvas, background: Rgb, rng: np.random.Generator) -> tuple[Rgb, Alpha]:
    """Compose the subject over a background; return the picture and the true alpha."""
    size = (canvas.width, canvas.height)
    coverage = canvas.coverage.astype(np.float32) / 255
    light = (canvas.color.astype(np.float32) / 255) ** _GAMMA * coverage[..., None]
    premultiplied, alpha = (
        cv2.GaussianBlur(cv2.resize(plane, size, interpolation=cv2.INTER_AREA), (0, 0), _LENS_SIGMA)
        for plane in (light, coverage)
    )
    behind = (cover(background, *size).astype(np.float32) / 255) ** _GAMMA
    seen = (premultiplied + (1 - alpha[..., None]) * behind).clip(0, 1) ** (1 / _GAMMA)
    noisy = seen + rng.normal(0, _NOISE, seen.shape)
    return np.rint(noisy.clip(0, 1) * 255).astype(np.uint8), np.asarray(alpha, np.float32)


def cover(photograph: Rgb, width: int, height: int) -> Rgb:
    """Resize and crop a photograph, gray or RGB, to the given size, keeping the aspect ratio."""
    color = photograph if photograph.ndim == 3 else np.repeat(photograph[..., None], 3, axis=2)
    scale = max(width / color.shape[1], height / color.shape[0])
    size = (max(width, round(color.shape[1] * scale)), max(height, round(color.shape[0] * scale)))
    resized = cv2.resize(color, size, interpolation=cv2.INTER_CUBIC if scale > 1 else cv2.INTER_AREA)
    left, top = (size[0] - width) // 2, (size[1] - height) // 2
    return np.ascontiguousarray(resized[top : top + height, left : left + width])


def hair(rng: np.random.Generator) -> tuple[Rgb, Alpha]:
    """Draw a head and shoulders with long, loose hair."""
    canvas = Canvas(864, 720)
    center = np.array([432.0, 300.0])
    canvas.fill(_ellipse((432, 760), (270, 240)), (52, 74, 110))
    _hair_of_a_head(canvas, center, 1500, rng)
    canvas.fill(_ellipse((432, 470), (50, 90)), (190, 140, 114))
    canvas.fill(_ellipse((432, 325), (92, 125)), (222, 172, 145))
    canvas.shade(photographs.astronaut()[80:200, 170:290], 0.2)
    _fringe(canvas, center, rng)
    return compose(canvas, photographs.stereo_motorcycle()[0], rng)


def _hair_of_a_head(canvas: Canvas, center: Points, count: int, rng: np.random.Generator) -> None:
    canvas.fill(_ellipse((432, 290), (128, 150)), (46, 30, 22))
    towards = rng.uniform(-1.25 * np.pi, 0.25 * np.pi, count)
    roots = center + np.stack([118 * np.cos(towards), 140 * np.sin(towards)], axis=1) * rng.uniform(0.75, 1, (count, 1))
    paths = _strands(roots, towards, rng.uniform(140, 380, count), rng, curl=0.10, fall=0.17)
    _paint_strands(canvas, paths, _varied((74, 46, 30), count, rng), (0.35, 1.1), rng)


def _fringe(canvas: Canvas, center: Points, rng: np.random.Generator) -> None:
    roots = center + np.stack([rng.uniform(-90, 90, 160), rng.uniform(-125, -100, 160)], axis=1)
    sideways = np.where(roots[:, 0] > center[0], 0.25, np.pi - 0.25) + rng.normal(0, 0.25, 160)
    paths = _strands(roots, sideways, rng.uniform(120, 260, 160), rng, curl=0.06, fall=0.13)
    _paint_strands(canvas, paths, _varied((74, 46, 30), 160, rng), (0.4, 1.1), rng)


def fur(rng: np.random.Generator) -> tuple[Rgb, Alpha]:
    """Draw a sitting animal with short, dense fur and whiskers."""
    canvas = Canvas(900, 640)
    coat = cover(photographs.chelsea()[20:290, 90:400], 900, 640)
    parts = [_ellipse((450, 560), (220, 300)), _ellipse((450, 240), (150, 130))]
    parts += [np.array([(450 + s * 130, 230), (450 + s * 125, 70), (450 + s * 30, 140)], float) for s in (-1, 1)]
    for outline in parts:
        canvas.fill(outline, (120, 88, 62))
    for outline in parts:
        edge, outwards = _along(outline, 2600, rng)
        inside, downwards = _within(outline, 4000, rng)
        roots, towards = np.concatenate([inside, edge]), np.concatenate([downwards, outwards])
        paths = _strands(roots, towards, rng.uniform(8, 34, len(roots)), rng, curl=0.10, fall=0.04)
        x, y = roots.astype(int).clip(0, (899, 639)).T
        _paint_strands(canvas, paths, _varied(coat[y, x], len(roots), rng), (0.35, 1.0), rng)
    for side in (-1, 1):
        roots = np.array([450.0 + side * 60, 290.0]) + rng.normal(0, 12, (7, 2))
        towards = (0 if side > 0 else np.pi) + rng.normal(0, 0.2, 7)
        whiskers = _strands(roots, towards, np.full(7, 260.0), rng, curl=0.01)
        _paint_strands(canvas, whiskers, _varied((225, 220, 210), 7, rng), (0.5, 0.8), rng)
    return compose(canvas, photographs.coffee(), rng)


def foliage(rng: np.random.Generator) -> tuple[Rgb, Alpha]:
    """Draw a potted plant with gaps between its leaves."""
    canvas = Canvas(720, 900)
    count = 26
    roots = np.array([360.0, 740.0]) + rng.normal(0, 14, (count, 2))
    towards = -np.pi / 2 + np.linspace(-1.1, 1.1, count) + rng.normal(0, 0.08, count)
    for stem in _strands(roots, towards, rng.uniform(260, 600, count), rng, curl=0.015, fall=0.012):
        canvas.stroke(stem, 2.2, (86, 92, 48))
        for at in range(8, len(stem), 2):
            along = np.arctan2(*(stem[at] - stem[at - 1])[::-1])
            for side in (-1, 1):
                shade = _varied((72, 118, 48), 1, rng)[0]
                canvas.fill(_leaf(stem[at], along + side * rng.uniform(0.5, 1.1), rng.uniform(26, 62)), shade)
    canvas.shade(photographs.grass(), 0.5)
    canvas.fill(np.array([(270, 735), (450, 735), (425, 885), (295, 885)], float), (176, 92, 60))
    return compose(canvas, photographs.rocket(), rng)


def _leaf(base: Points, angle: float, length: float) -> Points:
    """Return the outline of a pointed leaf that starts at ``base``."""
    along = np.linspace(0, 1, 14)
    half_width = 0.17 * np.sin(np.pi * along**0.8)
    outline = np.concatenate([np.stack([along, half_width], 1), np.stack([along, -half_width], 1)[::-1]])
    turn = np.array([[np.cos(angle), np.sin(angle)], [-np.sin(angle), np.cos(angle)]])
    outlined: Points = base + length * outline @ turn
    return outlined


def bicycle(rng: np.random.Generator) -> tuple[Rgb, Alpha]:
    """Draw a bicycle with spokes and cables in front of a wall."""
    canvas = Canvas(960, 640)
    rear, front, pedals = np.array([250.0, 400.0]), np.array([720.0, 400.0]), np.array([455.0, 410.0])
    saddle, head = np.array([400.0, 180.0]), np.array([655.0, 175.0])
    for hub in (rear, front):
        for number in range(32):
            towards = 2 * np.pi * number / 32 + rng.normal(0, 0.01)
            rim = hub + 172 * np.array([np.cos(towards), np.sin(towards)])
            skewed = hub + 14 * np.array([np.cos(towards + 1.2), np.sin(towards + 1.2)])
            canvas.stroke(np.stack([skewed, rim]), 0.8, (205, 208, 212))
        canvas.stroke(_ellipse(hub, (174, 174)), 5, (170, 172, 176), closed=True)
        canvas.stroke(_ellipse(hub, (184, 184)), 12, (34, 34, 36), closed=True)
        canvas.fill(_ellipse(hub, (16, 16)), (120, 122, 126))
    for tube in ((rear, pedals), (rear, saddle), (saddle, pedals), (saddle, head), (pedals, head), (head, front)):
        canvas.stroke(np.stack(tube), 13, (168, 42, 36))
    canvas.stroke(np.array([(345, 165), (455, 160)], float), 16, (40, 36, 34))
    canvas.stroke(np.array([(655, 175), (640, 115), (700, 105), (725, 140)], float), 8, (60, 60, 64))
    cable = np.array([(700, 108), (640, 90), (610, 130), (650, 215)], float)
    canvas.stroke(_smooth(cable), 1.2, (24, 24, 24))
    canvas.stroke(_ellipse(pedals, (36, 36)), 4, (90, 92, 96), closed=True)
    canvas.shade(photographs.gravel(), 0.25)
    wall = photographs.brick()[..., None] * np.array([1.0, 0.82, 0.7])
    return compose(canvas, wall.astype(np.uint8), rng)


def glass(rng: np.random.Generator) -> tuple[Rgb, Alpha]:
    """Draw a wine glass on a board: a translucent wall, nearly opaque rim and highlights."""
    canvas = Canvas(720, 900)
    canvas.fill(np.array([(150, 780), (570, 780), (640, 860), (80, 860)], float), (148, 104, 66))
    canvas.fill(np.array([(80, 860), (640, 860), (640, 880), (80, 880)], float), (104, 70, 42))
    canvas.shade(photographs.brick()[:40], 0.5)
    y = np.linspace(0, 1, 60)
    half = 150 * np.sqrt(np.clip(1 - (0.15 + 0.85 * y) ** 4, 0, 1)) * (0.86 + 0.14 * y)
    bowl = np.concatenate([np.stack([360 + half, 110 + 430 * y], 1), np.stack([360 - half, 110 + 430 * y], 1)[::-1]])
    canvas.fill(bowl, (188, 202, 206), 0.25)
    wine = bowl[(bowl[:, 1] > 330)]
    canvas.fill(wine, (150, 28, 40), 0.6)
    canvas.fill(_ellipse((360, 330), (float(np.ptp(wine[:, 0])) / 2, 16)), (178, 50, 58), 0.55)
    canvas.stroke(bowl, 3, (226, 232, 234), 0.75, closed=True)
    canvas.stroke(_ellipse((360, 112), (128, 12)), 2, (240, 244, 246), 0.8, closed=True)
    canvas.fill(np.array([(350, 535), (370, 535), (367, 790), (353, 790)], float), (206, 216, 220), 0.5)
    canvas.stroke(np.array([(363, 540), (362, 785)], float), 2, (255, 255, 255), 0.9)
    canvas.fill(_ellipse((360, 800), (120, 24)), (170, 142, 116))
    canvas.stroke(_ellipse((360, 800), (120, 24)), 3, (236, 240, 242), closed=True)
    for at, reach in (((262, 250), (9, 90)), ((282, 240), (3, 60)), ((445, 420), (5, 50))):
        canvas.fill(_ellipse(at, reach), (252, 252, 250), 0.9)
    return compose(canvas, photographs.coffee(), rng)


def smooth(rng: np.random.Generator) -> tuple[Rgb, Alpha]:
    """Draw a vase: a hard, smooth edge, and a handle with a hole."""
    canvas = Canvas(720, 840)
    y = np.linspace(0, 1, 80)
    half = 70 + 95 * np.sin(np.pi * np.clip(1.25 * y - 0.2, 0, 1)) ** 1.3 + 18 * np.exp(-12 * y)
    body = np.concatenate([np.stack([330 + half, 120 + 640 * y], 1), np.stack([330 - half, 120 + 640 * y], 1)[::-1]])
    canvas.stroke(_smooth(np.array([(400, 200), (540, 190), (570, 330), (470, 420)], float)), 24, (62, 104, 150))
    canvas.fill(body, (70, 116, 164))
    canvas.fill(_ellipse((330, 122), (88, 20)), (40, 66, 96))
    light = np.tile(np.linspace(255, 60, 720).astype(np.uint8), (840, 1))
    canvas.shade(light, 0.6)
    canvas.shade(photographs.retina()[400:1000, 400:1000], 0.25)
    return compose(canvas, photographs.astronaut(), rng)


def lattice(rng: np.random.Generator) -> tuple[Rgb, Alpha]:
    """Draw a wicker tray: many small holes in a solid frame."""
    canvas = Canvas(960, 640)
    for offset in range(-380, 1000, 27):
        for lean in (0, 380):
            sway = offset + rng.normal(0, 2)
            path = np.array([(sway + lean, -10), (sway + 380 - lean, 650)], float)
            canvas.stroke(path, rng.uniform(5, 10), _varied((166, 122, 74), 1, rng)[0])
    canvas.keep(_ellipse((480, 320), (385, 240)))
    canvas.stroke(_ellipse((480, 320), (385, 240)), 26, (150, 106, 62), closed=True)
    canvas.shade(photographs.gravel(), 0.5)
    return compose(canvas, photographs.hubble_deep_field(), rng)


def camouflage(rng: np.random.Generator) -> tuple[Rgb, Alpha]:
    """Draw an animal in grass of the same color."""
    canvas = Canvas(900, 640)
    parts = [_ellipse((430, 380), (250, 130)), _ellipse((690, 270), (95, 80)), _ellipse((215, 330), (70, 30))]
    parts += [np.array([(x, 400), (x + 45, 400), (x + 36, 575), (x + 6, 575)], float) for x in (260, 330, 520, 590)]
    for outline in parts:
        canvas.fill(outline, (128, 128, 92))
        roots, outwards = _along(outline, 900, rng)
        paths = _strands(roots, outwards, rng.uniform(4, 16, len(roots)), rng, curl=0.1, fall=0.03)
        _paint_strands(canvas, paths, _varied((128, 128, 92), len(roots), rng), (0.35, 1.0), rng)
    tint = np.array([0.86, 0.9, 0.6])
    blades = photographs.grass()[..., None]
    canvas.dress((blades[::-1, ::-1] * (0.84, 0.83, 0.55)).astype(np.uint8))
    light = np.tile(np.linspace(255, 150, 640).astype(np.uint8)[:, None], (1, 900))
    canvas.shade(light, 0.8)
    return compose(canvas, (blades * tint).astype(np.uint8), rng)


SCENES: Final[tuple[Callable[[np.random.Generator], tuple[Rgb, Alpha]], ...]] = (
    hair,
    fur,
    foliage,
    bicycle,
    glass,
    smooth,
    lattice,
    camouflage,
)


def _magnified(points: Points) -> NDArray[np.int32]:
    return np.rint(np.asarray(points) * _SUPERSAMPLING).astype(np.int32)


def _ellipse(center: Any, half_axes: tuple[float, float]) -> Points:
    turn = np.linspace(0, 2 * np.pi, 120, endpoint=False)
    return np.asarray(center) + np.stack([half_axes[0] * np.cos(turn), half_axes[1] * np.sin(turn)], axis=1)


def _smooth(corners: Points) -> Points:
    """Return a Bezier curve with four control points."""
    t = np.linspace(0, 1, 40)[:, None]
    weights = [(1 - t) ** 3, 3 * t * (1 - t) ** 2, 3 * t**2 * (1 - t), t**3]
    curve: Points = sum(weight * corner for weight, corner in zip(weights, corners, strict=True))
    return curve


def _along(outline: Points, count: int, rng: np.random.Generator) -> tuple[Points, Points]:
    """Return random roots just inside an outline, and angles that point outwards."""
    center = outline.mean(axis=0)
    ends = np.roll(outline, -1, axis=0)
    share = np.hypot(*(ends - outline).T)
    side = rng.choice(len(outline), count, p=share / share.sum())
    roots = outline[side] + rng.random((count, 1)) * (ends[side] - outline[side])
    inwards = (center - roots) / np.hypot(*(center - roots).T)[:, None]
    normal = (ends[side] - outline[side])[:, ::-1] * (1, -1)
    normal = normal * np.where((normal * inwards).sum(axis=1, keepdims=True) > 0, -1, 1)
    return roots + inwards * rng.uniform(0, 10, (count, 1)), np.arctan2(normal[:, 1], normal[:, 0]) + rng.normal(
        0, 0.35, count
    )


def _strands(
    roots: Points, towards: Points, lengths: Points, rng: np.random.Generator, *, curl: float, fall: float = 0.0
) -> Points:
    """Return strands whose direction varies randomly by ``curl`` and turns down by ``fall``, in rad per step.

    Returns:
        N x 24 x 2 array.
    """
    steps = 24
    wander = rng.normal(0, curl, (len(roots), steps)).cumsum(axis=1) * 0.6
    path, angle = [roots], towards.copy()
    for step in range(steps - 1):
        angle = angle + fall * np.cos(angle)
        bent = angle + wander[:, step]
        path.append(path[-1] + (lengths / steps)[:, None] * np.stack([np.cos(bent), np.sin(bent)], axis=1))
    return np.stack(path, axis=1)


def _within(outline: Points, count: int, rng: np.random.Generator) -> tuple[Points, Points]:
    """Return random roots inside a star-shaped outline, from top to bottom, and angles that point down."""
    center = outline.mean(axis=0)
    roots = center + np.sqrt(rng.random((count, 1))) * (outline[rng.integers(len(outline), size=count)] - center)
    return roots[np.argsort(roots[:, 1])], np.pi / 2 + rng.normal(0, 0.3, count)


def _paint_strands(
    canvas: Canvas, paths: Points, colors: list[Color], width_px: tuple[float, float], rng: np.random.Generator
) -> None:
    for path, color in zip(paths, colors, strict=True):
        canvas.stroke(path, rng.uniform(*width_px), color)


def _varied(color: Color | Rgb, count: int, rng: np.random.Generator) -> list[Color]:
    """Return ``count`` lighter and darker variants of a color, or of N x 3 colors."""
    varied = (np.asarray(color) * rng.uniform(0.65, 1.4, (count, 1))).clip(0, 255).astype(int)
    return [(red, green, blue) for red, green, blue in varied.tolist()]
