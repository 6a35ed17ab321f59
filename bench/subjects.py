"""Subjects that are drawn by code, each with the kind of edge it is named after.

A subject fills about the square from (-1, -1) to (1, 1) of its canvas. Shapes, sizes and colors vary with the random
generator.
"""

from collections.abc import Callable
from typing import Final, TypeAlias

import numpy as np

from bench.canvas import Canvas, Color, Points, along, bezier, ellipse, points, strands, turned_body, varied, within

Draw: TypeAlias = Callable[[Canvas, np.random.Generator], None]

_HAIR: Final[tuple[Color, ...]] = (
    (42, 28, 22), (92, 58, 34), (168, 120, 66), (206, 178, 122), (150, 70, 36), (150, 148, 146),
)  # fmt: skip
_SKIN: Final[tuple[Color, ...]] = ((232, 190, 164), (206, 158, 126), (158, 108, 78), (98, 66, 48))
_PAINT: Final[tuple[Color, ...]] = (
    (178, 44, 38), (34, 84, 150), (214, 160, 40), (40, 110, 70), (230, 226, 216), (36, 36, 40), (132, 70, 130),
    (214, 110, 60),
)  # fmt: skip


def _pick(colors: tuple[Color, ...], rng: np.random.Generator) -> Color:
    return _shade(colors[rng.integers(len(colors))], rng)


def _shade(color: Color, rng: np.random.Generator) -> Color:
    [shade] = varied(color, 1, rng)
    return shade


def portrait(canvas: Canvas, rng: np.random.Generator) -> None:
    """Draw a head and shoulders with loose hair, cut by the lower border."""
    hair, skin, cloth = _pick(_HAIR, rng), _pick(_SKIN, rng), _pick(_PAINT, rng)
    length, curl, fall = rng.uniform(0.15, 1.1), rng.uniform(0.03, 0.2), rng.uniform(0.12, 0.3)
    width = rng.uniform(0.75, 1.0)
    canvas.fill(ellipse((0, 1.35), (width, 0.85)), cloth)
    count = int(rng.uniform(600, 1500))
    towards = rng.uniform(-1.25 * np.pi, 0.25 * np.pi, count)
    roots = np.array([0, -0.25]) + np.stack([0.4 * np.cos(towards), 0.5 * np.sin(towards)], 1) * rng.uniform(
        0.7, 1, (count, 1)
    )
    canvas.fill(ellipse((0, -0.28), (0.44, 0.54)), hair)
    canvas.strands(
        strands(roots, towards, rng.uniform(0.4, 1, count) * length, rng, curl=curl, fall=fall),
        hair,
        (0.35, 1.2),
        rng,
    )
    canvas.fill(points((-0.17, 0.1), (0.17, 0.1), (0.22, 0.62), (-0.22, 0.62)), _shade(skin, rng))
    canvas.fill(ellipse((0, -0.14), (0.33, 0.44)), skin)
    for side in (-1, 1):
        canvas.fill(ellipse((side * 0.13, -0.2), (0.05, 0.025)), (40, 34, 34))
        canvas.thick(
            bezier((side * 0.06, -0.28), (side * 0.1, -0.31), (side * 0.16, -0.31), (side * 0.2, -0.28)), 0.015, hair
        )
    canvas.fill(ellipse((0, 0.1), (0.1, 0.03)), (150, 70, 70))
    canvas.thick(bezier((0.0, -0.18), (0.03, -0.08), (0.05, -0.03), (-0.02, -0.02)), 0.012, (120, 80, 66))
    count = 140
    roots = np.stack([rng.uniform(-0.33, 0.33, count), rng.uniform(-0.66, -0.52, count)], 1)
    sideways = np.where(roots[:, 0] > rng.uniform(-0.2, 0.2), 0.25, np.pi - 0.25) + rng.normal(0, 0.25, count)
    canvas.strands(
        strands(roots, sideways, rng.uniform(0.3, 0.75, count), rng, curl=0.06, fall=0.13),
        hair,
        (0.4, 1.2),
        rng,
    )


def animal(canvas: Canvas, rng: np.random.Generator) -> None:
    """Draw a sitting or standing animal with fur, ears, a tail and whiskers."""
    coat, length = _pick(_HAIR, rng), rng.uniform(0.05, 0.2)
    head = np.array([rng.uniform(-0.15, 0.15), -0.5])
    parts = [ellipse((0.75, 0.35), (0.3, 0.1), -0.7)]
    if rng.random() < 0.5:
        parts += [ellipse((0, 0.45), (rng.uniform(0.42, 0.6), 0.62))]
        parts += [ellipse((side * 0.25, 0.9), (0.2, 0.12)) for side in (-1, 1)]
    else:
        head = np.array([-0.7, -0.4])
        parts += [ellipse((0, 0.1), (0.75, 0.36))] + [
            points((x, 0.2), (x + 0.16, 0.2), (x + 0.13, 0.95), (x + 0.02, 0.95)) for x in (-0.6, -0.36, 0.3, 0.52)
        ]
    ears, tall = rng.uniform(0.1, 0.2), rng.uniform(0.25, 0.6)
    parts += [
        head + points((side * 0.1, -0.15), (side * (0.1 + ears), -0.2 - tall), (side * 0.34, -0.05)) for side in (-1, 1)
    ]
    parts += [head + ellipse((0, 0), (0.38, 0.34))]
    for outline in parts:
        canvas.fill(outline, coat)
    for outline in parts:
        edge, outwards = along(outline, 900, rng)
        inside, downwards = within(outline, 900, rng)
        roots, towards = np.concatenate([inside, edge]), np.concatenate([downwards, outwards])
        lengths = rng.uniform(0.3, 1, len(roots)) * length
        canvas.strands(strands(roots, towards, lengths, rng, curl=0.1, fall=0.04), coat, (0.35, 1.1), rng)
    for side in (-1, 1):
        canvas.fill(head + ellipse((side * 0.15, -0.06), (0.06, 0.07)), (196, 160, 60))
        canvas.fill(head + ellipse((side * 0.15, -0.06), (0.03, 0.05)), (12, 12, 12))
        roots = head + np.array([side * 0.1, 0.12]) + rng.normal(0, 0.03, (6, 2))
        towards = (0 if side > 0 else np.pi) + rng.normal(0, 0.2, 6)
        canvas.strands(strands(roots, towards, np.full(6, 0.6), rng, curl=0.01), (225, 220, 210), (0.5, 0.8), rng)
    canvas.fill(head + ellipse((0, 0.1), (0.06, 0.045)), (60, 36, 36))


def plant(canvas: Canvas, rng: np.random.Generator) -> None:
    """Draw a potted plant with gaps between its leaves."""
    count, leaf, pot = int(rng.uniform(10, 26)), rng.uniform(0.15, 0.36), _pick(_PAINT, rng)
    green = _pick(((72, 118, 48), (48, 96, 60), (120, 140, 50), (130, 50, 60)), rng)
    towards = -np.pi / 2 + np.linspace(-1.1, 1.1, count) + rng.normal(0, 0.1, count)
    stems = strands(
        np.array([0, 0.5]) + rng.normal(0, 0.04, (count, 2)),
        towards,
        rng.uniform(0.7, 1.5, count),
        rng,
        curl=0.02,
        fall=0.02,
    )
    for stem in stems:
        canvas.stroke(stem, 1.6, (86, 92, 48))
        for at in range(5, len(stem), 2):
            angle = np.arctan2(*(stem[at] - stem[at - 1])[::-1])
            for side in (-1, 1):
                outline = stem[at] + _leaf(angle + side * rng.uniform(0.5, 1.1), rng.uniform(0.6, 1.2) * leaf)
                canvas.fill(outline, _shade(green, rng))
    canvas.fill(points((-0.34, 0.45), (0.34, 0.45), (0.25, 1.0), (-0.25, 1.0)), pot)
    canvas.fill(points((-0.38, 0.42), (0.38, 0.42), (0.38, 0.54), (-0.38, 0.54)), _shade(pot, rng))


def _leaf(angle: float, length: float) -> Points:
    """Return the outline of a pointed leaf that starts at the origin."""
    t = np.linspace(0, 1, 14)
    half_width = 0.2 * np.sin(np.pi * t**0.8)
    outline = np.concatenate([np.stack([t, half_width], 1), np.stack([t, -half_width], 1)[::-1]])
    leaf: Points = length * outline @ np.array([[np.cos(angle), np.sin(angle)], [-np.sin(angle), np.cos(angle)]])
    return leaf


def lace(canvas: Canvas, rng: np.random.Generator) -> None:
    """Draw a round basket, fan or doily: many small holes in a solid frame."""
    color, step, half = _pick(_PAINT, rng), rng.uniform(0.09, 0.18), (rng.uniform(0.7, 1.0), rng.uniform(0.6, 0.95))
    lean = rng.uniform(0.4, 1.2)
    for offset in np.arange(-3, 3, step):
        for side in (-1, 1):
            sway = offset + rng.normal(0, 0.005)
            canvas.thick(
                points((sway - side * lean, -1), (sway + side * lean, 1)),
                rng.uniform(0.25, 0.5) * step,
                _shade(color, rng),
            )
    for ring in np.arange(0.3, 1, 0.25):
        canvas.thick(
            np.vstack([outline := ellipse((0, 0), (half[0] * ring, half[1] * ring)), outline[:1]]),
            0.03,
            _shade(color, rng),
        )
    outline = ellipse((0, 0), half)
    canvas.keep(outline)
    canvas.thick(outline, rng.uniform(0.06, 0.12), color)
    canvas.fill(ellipse((0, 0), (rng.uniform(0.15, 0.45), rng.uniform(0.15, 0.4))), _shade(color, rng))


def glass(canvas: Canvas, rng: np.random.Generator) -> None:
    """Draw a wine glass, a bottle or a bowl: translucent walls, nearly opaque rims and highlights."""
    tint, drink = _pick(((200, 212, 214), (120, 160, 120), (196, 180, 150)), rng), _pick(_PAINT, rng)
    stemmed = rng.random() < 0.5
    half = rng.uniform(0.3, 0.75, 3)
    profile = np.array([half[0] * 0.8, half[0], half[1] if not stemmed else half[0], 0.06 if stemmed else half[2]])
    bottom = 0.25 if stemmed else 0.95
    bowl, level = turned_body(0, -0.95, bottom, profile), rng.uniform(-0.5, 0.2)
    canvas.fill(bowl, tint, rng.uniform(0.15, 0.45))
    inside = bowl[(bowl[:, 1] > level)] * (0.94, 1.0)
    canvas.fill(inside, drink, rng.uniform(0.5, 0.9))
    canvas.fill(ellipse((0, level), (float(np.ptp(inside[:, 0])) / 2, 0.05)), _shade(drink, rng), 0.6)
    canvas.stroke(bowl, rng.uniform(1.5, 4), (226, 232, 234), 0.8, closed=True)
    if stemmed:
        canvas.fill(points((-0.035, bottom - 0.02), (0.035, bottom - 0.02), (0.03, 0.9), (-0.03, 0.9)), tint, 0.55)
        canvas.fill(ellipse((0, 0.92), (0.45, 0.08)), tint, rng.uniform(0.4, 0.7))
        canvas.stroke(ellipse((0, 0.92), (0.45, 0.08)), 2, (236, 240, 242), 0.9, closed=True)
    for x in (-0.6, 0.55):
        canvas.fill(
            ellipse((x * half[0], rng.uniform(-0.6, -0.3)), (0.03, rng.uniform(0.1, 0.3))), (252, 252, 250), 0.9
        )


def vessel(canvas: Canvas, rng: np.random.Generator) -> None:
    """Draw a vase, jug or bottle: a hard, smooth edge, and often a handle with a hole."""
    color = _pick(_PAINT, rng)
    profile = np.concatenate([rng.uniform(0.12, 0.4, 2), rng.uniform(0.3, 0.75, 3), rng.uniform(0.2, 0.5, 1)])
    if rng.random() < 0.6:
        reach = rng.uniform(0.75, 1.1)
        canvas.thick(
            bezier((0.15, -0.6), (reach, -0.7), (reach, 0.4), (0.3, 0.35)),
            rng.uniform(0.06, 0.13),
            _shade(color, rng),
        )
    body = turned_body(0, -0.9, 0.95, profile)
    canvas.fill(body, color)
    for y in rng.uniform(-0.6, 0.8, rng.integers(0, 4)):
        canvas.fill(body[np.abs(body[:, 1] - y) < 0.06], _pick(_PAINT, rng))
    canvas.fill(ellipse((0, -0.9), (profile[0], 0.05)), _shade((60, 54, 50), rng))


def figure(canvas: Canvas, rng: np.random.Generator) -> None:
    """Draw a whole person: limbs with gaps between them, and hair."""
    skin, shirt, trousers, hair = _pick(_SKIN, rng), _pick(_PAINT, rng), _pick(_PAINT, rng), _pick(_HAIR, rng)
    hips = points((-0.14, 0.05), (0.14, 0.05))
    for side, hip in zip((-1, 1), hips, strict=True):
        knee, foot = (side * rng.uniform(0.1, 0.35), 0.5), (side * rng.uniform(0.1, 0.45), 0.95)
        canvas.thick(np.array([hip, knee, foot]), 0.2, trousers)
        canvas.fill(ellipse((foot[0] + side * 0.06, 0.95), (0.15, 0.07)), (40, 36, 34))
        shoulder = np.array([side * 0.24, -0.5])
        elbow = shoulder + 0.36 * np.array([side * rng.uniform(0.3, 1), rng.uniform(-0.4, 0.9)])
        hand = elbow + 0.34 * np.array([side * rng.uniform(-0.6, 0.9), rng.uniform(-1, 0.8)])
        canvas.thick(np.array([shoulder, elbow]), 0.15, shirt)
        canvas.thick(np.array([elbow, hand]), 0.11, skin)
        canvas.fill(ellipse(hand, (0.075, 0.075)), skin)
    canvas.fill(points((-0.3, -0.56), (0.3, -0.56), (0.25, 0.1), (-0.25, 0.1)), shirt)
    canvas.thick(points((0, -0.7), (0, -0.5)), 0.12, skin)
    count = int(rng.uniform(150, 500))
    towards = rng.uniform(-1.2 * np.pi, 0.2 * np.pi, count)
    roots = np.array([0, -0.8]) + np.stack([0.14 * np.cos(towards), 0.17 * np.sin(towards)], 1)
    canvas.strands(
        strands(roots, towards, rng.uniform(0.1, 0.45, count), rng, curl=0.1, fall=0.18),
        hair,
        (0.4, 1.1),
        rng,
    )
    canvas.fill(ellipse((0, -0.78), (0.14, 0.18)), skin)
    canvas.fill(ellipse((0, -0.88), (0.15, 0.1)), hair)


def machine(canvas: Canvas, rng: np.random.Generator) -> None:
    """Draw a bicycle with spokes and cables."""
    paint, radius = _pick(_PAINT, rng), rng.uniform(0.36, 0.46)
    rear, front, pedals = points((-0.6, 0.4)), points((0.62, 0.4)), points((-0.08, 0.43))
    saddle, head = points((-0.24, -0.28)), points((0.42, -0.3))
    for hub in (rear[0], front[0]):
        for towards in np.linspace(0, 2 * np.pi, int(rng.uniform(16, 36)), endpoint=False):
            rim = hub + radius * np.array([np.cos(towards), np.sin(towards)])
            canvas.stroke(
                np.stack([hub + 0.03 * np.array([np.cos(towards + 1.2), np.sin(towards + 1.2)]), rim]),
                0.8,
                (205, 208, 212),
            )
        tire = ellipse(hub, (radius, radius))
        canvas.thick(tire, rng.uniform(0.04, 0.08), (34, 34, 36))
        canvas.fill(ellipse(hub, (0.05, 0.05)), (120, 122, 126))
    for tube in ((rear, pedals), (rear, saddle), (saddle, pedals), (saddle, head), (pedals, head), (head, front)):
        canvas.thick(np.vstack(tube), 0.05, paint)
    canvas.thick(points((-0.4, -0.32), (-0.1, -0.33)), 0.07, (40, 36, 34))
    canvas.thick(points((0.42, -0.3), (0.38, -0.46), (0.55, -0.5), (0.6, -0.4)), 0.035, (60, 60, 64))
    canvas.stroke(bezier((0.55, -0.48), (0.36, -0.58), (0.24, -0.42), (0.4, -0.2)), 1.2, (24, 24, 24))
    canvas.fill(ellipse(pedals[0], (0.11, 0.11)), (90, 92, 96))


def feathers(canvas: Canvas, rng: np.random.Generator) -> None:
    """Draw a bird or a flower: a body with translucent feathers or petals and fine barbs."""
    color, count = _pick(_PAINT, rng), int(rng.uniform(9, 22))
    for towards in np.linspace(-1.15 * np.pi, 0.15 * np.pi, count) + rng.normal(0, 0.05, count):
        reach = rng.uniform(0.75, 1.1)
        shade = _shade(color, rng)
        canvas.fill(points((0, 0.25)) + _leaf(towards, reach), shade, rng.uniform(0.55, 1.0))
        shaft = np.array([0, 0.25]) + np.linspace(0.2, reach, 40)[:, None] * np.array(
            [np.cos(towards), np.sin(towards)]
        )
        for side in (-1, 1):
            barbs = strands(shaft, np.full(40, towards + side * 0.5), np.full(40, 0.25 * reach), rng, curl=0.04)
            canvas.strands(barbs, shade, (0.35, 0.8), rng)
    canvas.fill(ellipse((0, 0.35), (0.26, 0.4)), _shade(color, rng))
    canvas.fill(ellipse((0, -0.05), (0.15, 0.16)), _pick(_PAINT, rng))
    canvas.thick(points((0, 0.7), (0, 1.0)), 0.05, (90, 96, 60))


def moving(canvas: Canvas, rng: np.random.Generator) -> None:
    """Draw a car, a plain solid; composites blur it along its motion."""
    paint, roof = _pick(_PAINT, rng), rng.uniform(-0.55, -0.3)
    canvas.fill(
        points(
            (-0.98, 0.02),
            (-0.7, -0.08),
            (-0.45, roof),
            (0.3, roof),
            (0.62, -0.05),
            (0.97, 0.05),
            (1.0, 0.35),
            (-1.0, 0.35),
        ),
        paint,
    )
    canvas.fill(points((-0.6, -0.06), (-0.4, roof + 0.07), (-0.08, roof + 0.07), (-0.08, -0.06)), (46, 56, 66))
    canvas.fill(points((0.0, -0.06), (0.0, roof + 0.07), (0.26, roof + 0.07), (0.5, -0.06)), (52, 62, 72))
    for x in (-0.58, 0.58):
        canvas.fill(ellipse((x, 0.36), (0.22, 0.22)), (26, 26, 28))
        canvas.fill(ellipse((x, 0.36), (0.12, 0.12)), (170, 172, 176))
    canvas.fill(ellipse((0.93, 0.12), (0.06, 0.05)), (244, 240, 200))


SUBJECTS: Final[tuple[Draw, ...]] = (
    portrait, animal, vessel, plant, figure, moving, lace, portrait, animal, vessel, feathers, figure, machine, glass,
)  # fmt: skip
"""What :mod:`bench.composites` draws, in turn."""
