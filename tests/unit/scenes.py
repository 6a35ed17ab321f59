"""Pictures with known alpha and known foreground, composed on the spot, and masks as a network would give them."""

from dataclasses import dataclass

import cv2
import numpy as np

from core.types import Alpha, Mask, Rgb


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


def _clouds(height: int, width: int, *, cell_px: int, seed: int) -> np.ndarray:
    coarse = np.random.default_rng(seed).uniform(0, 1, (height // cell_px + 2, width // cell_px + 2, 3))
    return cv2.resize(coarse.astype(np.float32), (width, height), interpolation=cv2.INTER_CUBIC)
