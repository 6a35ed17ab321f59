import json

import cv2
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from core.matting.quality import Quality, assess
from core.matting.refine import refine
from core.types import Alpha, Mask, Matte, Precision
from tests.fakes.scenes import Scene, brown, compose, disc, garden, hair, network_mask, wires

SCENE = disc()
MASK = network_mask(SCENE.alpha)


def judged(mask: Mask) -> Quality:
    """Assess a mask of the disc, refined on the picture of the disc."""
    return assess(mask, refine(SCENE.rgb, mask))


@pytest.mark.parametrize("precision", list(Precision))
@pytest.mark.parametrize("scene", [hair(), disc(), wires()], ids=["hair", "disc", "wires"])
def test_a_sound_mask_scores_high_and_needs_no_review(scene: Scene, precision: Precision) -> None:
    mask = network_mask(scene.alpha)
    quality = assess(mask, refine(scene.rgb, mask, precision=precision))
    assert quality.score > 0.8
    assert not quality.review


def agreed(alpha: Alpha) -> Matte:
    """Return an alpha that mask and picture agree on."""
    return Matte(alpha, disagreement=0.0, report={})


def noisy() -> Mask:
    noise = np.random.default_rng(0).normal(0, 0.5, MASK.shape)
    return (MASK + noise).clip(0, 1).astype(np.float32)


def half_missing() -> Mask:
    half = MASK.copy()
    half[:, half.shape[1] // 2 :] = 0
    return half


def beside_the_subject() -> Mask:
    return np.roll(MASK, MASK.shape[1] // 6, axis=1)


def speck() -> Mask:
    speck = np.zeros(MASK.shape, np.float32)
    speck[30:33, 40:43] = 1
    return speck


def washed_out() -> Mask:
    washed: Mask = 0.35 + 0.3 * MASK
    washed[34:38, 46:50] = 1
    return washed


@pytest.mark.parametrize(
    ("mask", "reason"),
    [
        (noisy(), "mostly_uncertain"),
        (washed_out(), "mostly_uncertain"),
        (half_missing(), "mask_and_picture_disagree"),
        (beside_the_subject(), "mask_and_picture_disagree"),
        (speck(), "tiny_subject"),
        (np.ones_like(MASK), "fills_picture"),
        (1 - MASK, "cut_by_border"),
    ],
)
def test_a_broken_mask_scores_low_and_says_why(mask: Mask, reason: str) -> None:
    quality = judged(mask)
    assert quality.score < 0.7 < judged(MASK).score
    assert quality.review
    assert reason in quality.reasons


@pytest.mark.parametrize("value", [0.0, 0.5])
def test_a_mask_that_knows_nothing_scores_nothing(value: float) -> None:
    quality = assess(np.full((96, 128), value, np.float32), agreed(np.full((240, 320), value, np.float32)))
    assert quality.score == 0
    assert "mostly_uncertain" in quality.reasons


def test_a_portrait_cut_by_the_bottom_edge_needs_no_review() -> None:
    alpha = SCENE.alpha.copy()
    alpha[120:, 90:230] = 1
    scene = compose(alpha, brown(*alpha.shape), garden(*alpha.shape))
    mask = network_mask(alpha)
    quality = assess(mask, refine(scene.rgb, mask))
    assert quality.touches_border == ("bottom",)
    assert not quality.review
    assert quality.score > 0.8


def test_a_subject_in_many_pieces_is_fragmented() -> None:
    alpha = np.zeros((240, 320), np.float32)
    for y in range(20, 240, 40):
        for x in range(20, 320, 40):
            cv2.circle(alpha, (x, y), 11, 1.0, -1)
    scene = compose(alpha, brown(240, 320), garden(240, 320))
    mask = network_mask(alpha)
    quality = assess(mask, refine(scene.rgb, mask))
    assert quality.score < 0.7
    assert "fragmented" in quality.reasons


def test_two_people_are_not_fragments() -> None:
    alpha = np.zeros((240, 320), np.float32)
    alpha[60:200, 40:110] = alpha[40:190, 190:270] = 1
    scene = compose(alpha, brown(240, 320), garden(240, 320))
    mask = network_mask(alpha)
    quality = assess(mask, refine(scene.rgb, mask))
    assert quality.regions == 2
    assert not quality.review


def test_shares_are_shares_of_the_picture() -> None:
    alpha = np.zeros((100, 200), np.float32)
    alpha[:, :50] = 1
    alpha[:, 50:60] = 0.5
    quality = assess(alpha, agreed(alpha))
    assert quality.uncertain_share == pytest.approx(0.05)
    assert quality.foreground_share == pytest.approx(0.275)
    assert quality.touches_border == ("top", "bottom", "left")


def test_dust_is_no_region() -> None:
    alpha = np.zeros((200, 200), np.float32)
    alpha[50:150, 50:150] = 1
    alpha[10, 10] = alpha[190, 30:32] = 1
    assert assess(alpha, agreed(alpha)).regions == 1


@given(st.integers(1, 40), st.integers(1, 40), st.integers(16, 60), st.integers(16, 60), st.integers(0, 999))
@settings(max_examples=60, deadline=None)
def test_any_mask_gets_a_score_and_facts_in_json(
    mask_height: int, mask_width: int, height: int, width: int, seed: int
) -> None:
    rng = np.random.default_rng(seed)
    mask = rng.uniform(-1, 2, (mask_height, mask_width)).clip(0, 1).astype(np.float32)
    alpha = rng.uniform(-1, 2, (height, width)).clip(0, 1).astype(np.float32)
    facts = assess(mask, agreed(alpha)).facts()
    assert json.loads(json.dumps(facts)) == facts
    assert 0 <= facts["score"] <= 1
    assert facts["review"] == bool(facts["reasons"])
    assert set(facts["touches_border"]) <= {"top", "right", "bottom", "left"}
