"""Pictures with known alpha and known foreground, composed on the spot, and masks as a network would give them."""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Final

import cv2
import numpy as np

from core.arrays import Alpha, Mask, Rgb

_SUPERSAMPLING: Final = 4


@dataclass(frozen=True)
class Scene:
    """A composite, and what it was composed of."""

    rgb: Rgb
    alpha: Alpha
    foreground: Rgb


def hair(height: int = 360, width: int = 480) -> Scene:
    """Draw a head with strands of hair before a blurred garden."""
    rng = np.random.default_rng(3)
    strands = np.zeros((height, width), np.uint8)
    centre = np.array([width / 2, height / 2])
    radius = height / 4
    for angle in rng.uniform(0, 2 * np.pi, 160):
        heading = np.array([np.cos(angle), np.sin(angle)])
        points = [centre + 0.9 * radius * heading]
        for _ in range(12):
            heading = heading + rng.normal(0, 0.15, 2)
            points.append(points[-1] + heading / np.hypot(*heading) * height / 60)
        path = (np.array(points) * 16).astype(np.int32)
        cv2.polylines(strands, [path], False, int(rng.integers(140, 256)), 1, cv2.LINE_AA, 4)
    alpha = np.maximum(strands.astype(np.float32) / 255, soft_disc(height, width, radius, 1))
    return compose(alpha, brown(height, width), garden(height, width))


def disc(height: int = 240, width: int = 320, *, softness_px: float = 6) -> Scene:
    """Draw a disc with a soft rim."""
    alpha = soft_disc(height, width, height / 3.5, softness_px)
    return compose(alpha, brown(height, width), garden(height, width))


def wires(height: int = 240, width: int = 320) -> Scene:
    """Draw a block that holds straight thin wires."""
    drawn = np.zeros((height, width), np.uint8)
    cv2.rectangle(drawn, (width // 3, height // 3), (2 * width // 3, 2 * height // 3), 255, -1)
    for x in range(20, width, 40):
        cv2.line(drawn, (width // 2, height // 2), (x, 10), 255, 1, cv2.LINE_AA)
    return compose(drawn.astype(np.float32) / 255, brown(height, width), garden(height, width))


def fur(height: int = 300, width: int = 400) -> Scene:
    """Draw a body under short, dense hair."""
    rng = np.random.default_rng(6)
    towards = rng.uniform(0, 2 * np.pi, 1500)
    lean = towards + rng.normal(0, 0.4, towards.size)
    roots = np.stack([width / 2 + width / 4 * np.cos(towards), height / 2 + height / 4 * np.sin(towards)], axis=1)
    tips = roots + rng.uniform(3, 14, (towards.size, 1)) * np.stack([np.cos(lean), np.sin(lean)], axis=1)

    def paint(canvas: Alpha) -> None:
        cv2.ellipse(canvas, _at(width / 2, height / 2), _at(width / 4, height / 4), 0, 0, 360, 1.0, -1)
        cv2.polylines(canvas, list(_paths(np.stack([roots, tips], axis=1))), False, 1.0, 3)

    return compose(_painted(height, width, paint), brown(height, width), garden(height, width))


def spokes(height: int = 300, width: int = 400) -> Scene:
    """Draw a wheel: a tyre, a hub, and wires of about one pixel between them."""
    centre, radius = np.array([width / 2, height / 2]), 0.4 * height

    def paint(canvas: Alpha) -> None:
        cv2.ellipse(canvas, _at(*centre), _at(radius, radius), 0, 0, 360, 1.0, 10 * _SUPERSAMPLING)
        cv2.ellipse(canvas, _at(*centre), _at(30, 30), 0, 0, 360, 1.0, -1)
        for angle in np.linspace(0, 2 * np.pi, 24, endpoint=False):
            end = centre + radius * np.array([np.cos(angle), np.sin(angle)])
            cv2.line(canvas, _at(*centre), _at(*end), 1.0, _SUPERSAMPLING)

    return compose(_painted(height, width, paint), brown(height, width), garden(height, width))


def foliage(height: int = 300, width: int = 400) -> Scene:
    """Draw a bush whose leaves leave gaps."""
    rng = np.random.default_rng(7)
    centres = np.array([width / 2, height / 2]) + rng.normal(0, height / 7, (160, 2))

    def paint(canvas: Alpha) -> None:
        for centre, turn in zip(centres, rng.uniform(0, 180, len(centres)), strict=True):
            cv2.ellipse(canvas, _at(*centre), _at(13, 4), float(turn), 0, 360, 1.0, -1)

    return compose(_painted(height, width, paint), brown(height, width), garden(height, width))


def glass(height: int = 300, width: int = 400) -> Scene:
    """Draw a tumbler: a wall that lets most light through, a solid foot, and a highlight."""

    def paint(canvas: Alpha) -> None:
        left, right, top, foot = 0.35 * width, 0.65 * width, 0.15 * height, 0.7 * height
        cv2.rectangle(canvas, _at(left, top), _at(right, foot), 0.4, -1)
        cv2.rectangle(canvas, _at(left, foot), _at(right, 0.9 * height), 1.0, -1)
        cv2.ellipse(canvas, _at(0.42 * width, height / 2), _at(0.02 * width, height / 4), 0, 0, 360, 0.9, -1)

    white = (200 + 40 * _clouds(height, width, cell_px=height // 5, seed=8)).clip(0, 255).astype(np.uint8)
    return compose(_painted(height, width, paint), white, brown(height, width))


def lattice(height: int = 300, width: int = 400) -> Scene:
    """Draw a trellis: bars around many small holes, in a solid frame."""

    def paint(canvas: Alpha) -> None:
        left, right, top, bottom = 0.2 * width, 0.8 * width, 0.15 * height, 0.85 * height
        for x in np.arange(left, right, 20):
            cv2.line(canvas, _at(x, top), _at(x, bottom), 1.0, 7 * _SUPERSAMPLING)
        for y in np.arange(top, bottom, 20):
            cv2.line(canvas, _at(left, y), _at(right, y), 1.0, 7 * _SUPERSAMPLING)
        cv2.rectangle(canvas, _at(left, top), _at(right, bottom), 1.0, 40 * _SUPERSAMPLING)

    return compose(_painted(height, width, paint), brown(height, width), garden(height, width))


def block(height: int = 300, width: int = 400) -> Scene:
    """Draw a box with hard edges, a little tilted."""

    def paint(canvas: Alpha) -> None:
        corners = [(0.3, 0.25), (0.72, 0.2), (0.68, 0.8), (0.27, 0.73)] * np.array([width, height])
        cv2.fillPoly(canvas, [_paths(corners)], 1.0)

    return compose(_painted(height, width, paint), brown(height, width), garden(height, width))


def camouflage(height: int = 300, width: int = 400) -> Scene:
    """Draw a disc of the very colours that are behind it, in another place."""
    behind = garden(height, width)
    alpha = soft_disc(height, width, height / 3.5, 3)
    return compose(alpha, np.ascontiguousarray(behind[::-1, ::-1]), behind)


def soft_disc(height: int, width: int, radius: float, softness_px: float) -> Alpha:
    y, x = np.mgrid[0:height, 0:width].astype(np.float32)
    distance = np.hypot(x - width / 2, y - height / 2)
    return np.clip((radius - distance) / softness_px + 0.5, 0, 1).astype(np.float32)


def brown(height: int, width: int) -> Rgb:
    shade = _clouds(height, width, cell_px=height // 8, seed=1)
    return (np.array([90, 50, 30]) + 60 * (shade - 0.5)).clip(0, 255).astype(np.uint8)


def garden(height: int, width: int) -> Rgb:
    shade = _clouds(height, width, cell_px=height // 5, seed=2)
    detail = _clouds(height, width, cell_px=6, seed=4)
    return (np.array([120, 170, 140]) + 90 * (shade - 0.5) + 20 * (detail - 0.5)).clip(0, 255).astype(np.uint8)


def compose(alpha: Alpha, foreground: Rgb, background: Rgb) -> Scene:
    rgb = foreground * alpha[..., None] + background * (1 - alpha[..., None])
    noise = np.random.default_rng(5).normal(0, 1, rgb.shape)
    return Scene(np.rint(rgb + noise).clip(0, 255).astype(np.uint8), alpha, foreground)


def network_mask(alpha: Alpha, side_px: int = 96) -> Mask:
    """Return the alpha as a network of that input size sees it: smaller and blurred."""
    scale = side_px / max(alpha.shape)
    size = (max(1, round(alpha.shape[1] * scale)), max(1, round(alpha.shape[0] * scale)))
    mask = cv2.GaussianBlur(cv2.resize(alpha, size, interpolation=cv2.INTER_AREA), (0, 0), 0.7)
    return mask.astype(np.float32)


def _painted(height: int, width: int, paint: Callable[[Alpha], None]) -> Alpha:
    """Return what is painted on a canvas ``_SUPERSAMPLING`` times as large, as a lens sees it."""
    canvas = np.zeros((_SUPERSAMPLING * height, _SUPERSAMPLING * width), np.float32)
    paint(canvas)
    return cv2.GaussianBlur(cv2.resize(canvas, (width, height), interpolation=cv2.INTER_AREA), (0, 0), 0.5)


def _at(x: float, y: float) -> tuple[int, int]:
    """Return a point, or two half axes, of the picture in pixels of that canvas."""
    return round(_SUPERSAMPLING * x), round(_SUPERSAMPLING * y)


def _paths(points: np.ndarray) -> np.ndarray:
    return np.rint(_SUPERSAMPLING * points).astype(np.int32)


def _clouds(height: int, width: int, *, cell_px: int, seed: int) -> np.ndarray:
    coarse = np.random.default_rng(seed).uniform(0, 1, (height // cell_px + 2, width // cell_px + 2, 3))
    return cv2.resize(coarse.astype(np.float32), (width, height), interpolation=cv2.INTER_CUBIC)
