import cv2
import numpy as np
import pytest

from core.arrays import Alpha
from core.image.outline import draw, silhouette


def disc(side: int, radius: float, soft_px: float = 1.0) -> Alpha:
    across = np.arange(side) - side / 2 + 0.5
    distance = np.hypot(across[:, None], across[None])
    return np.clip((radius - distance) / soft_px + 0.5, 0, 1).astype(np.float32)


@pytest.mark.parametrize(("side", "radius", "width_px"), [(200, 60, 8), (400, 120, 2), (1600, 500, 60)])
def test_the_outline_of_a_disc_is_a_larger_disc_with_an_antialiased_edge(
    side: int, radius: float, width_px: float
) -> None:
    covered = silhouette(disc(side, radius), width_px)
    assert covered.sum() == pytest.approx(np.pi * (radius + width_px) ** 2, rel=0.01)
    error = np.abs(covered - disc(side, radius + width_px))
    assert error.max() <= 0.6 and error[covered > 0].mean() < 0.02
    levels = np.unique(np.round(covered[(covered > 0) & (covered < 1)], 2))
    assert len(levels) > 20, "the edge has many levels, so it shows no steps"


def test_the_outline_is_drawn_in_its_color_behind_the_subject() -> None:
    alpha = disc(100, 20)
    rgb, covered = draw(np.full((100, 100, 3), (200, 10, 30), np.uint8), alpha, 10, "#00ff80")
    assert tuple(rgb[50, 50]) == (200, 10, 30) and tuple(rgb[50, 76]) == (0, 255, 128)
    assert covered[50, 50] == covered[50, 76] == 1 and covered[50, 90] == 0
    half = (alpha > 0.3) & (alpha < 0.7)
    assert (np.abs(rgb[half][:, 0] / 200 - alpha[half]) < 0.02).all(), "the subject's edge stays soft"


def test_specks_and_haze_outside_the_outline_are_removed_and_narrow_gaps_are_filled() -> None:
    alpha = disc(300, 60)
    alpha[20:22, 20:22], alpha[250:290, 250:290] = 1, 0.1
    alpha[148:152, 150:] = 0  # a slot of 4 px
    covered = silhouette(alpha, 10)
    assert covered[15:30, 15:30].max() == 0 == covered[250:, 250:].max()
    assert covered[149:151, 150:210].min() == 1


def test_a_subject_at_the_border_has_an_outline_that_ends_there() -> None:
    alpha = np.zeros((200, 100), np.float32)
    alpha[100:, 30:70] = 1
    covered = silhouette(alpha, 10)
    assert covered[-1, 21] == covered[150, 21] == 1 and covered[-1, 18] == covered[150, 18] == 0


def test_an_alpha_without_a_solid_subject_has_no_outline() -> None:
    assert silhouette(np.full((50, 60), 0.1, np.float32), 5).max() == 0


def test_the_outline_of_a_ragged_edge_is_calm() -> None:
    alpha = np.zeros((400, 400), np.float32)
    teeth = 200 + np.where(np.arange(400) // 4 % 2, 5, 0)  # 4 px wide, 5 px high
    alpha[np.arange(400)[:, None] >= teeth[None]] = 1
    edge = silhouette(alpha, 12)[:, 50:-50].sum(axis=0)
    assert np.ptp(edge) < 1.5
    assert cv2.countNonZero((silhouette(alpha, 12) == 0).astype(np.uint8)) > 0
