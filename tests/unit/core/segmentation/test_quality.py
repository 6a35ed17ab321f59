import json
from collections.abc import Callable

import cv2
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from core import pipeline
from core.arrays import Mask, Rgb
from core.image.decode import decode
from core.segmentation.quality import assess, doubtful
from core.types import Precision, Quality
from tests.conftest import disc as disc_file
from tests.fakes.scenes import Scene, block, brown, compose, disc, foliage, fur, garden, network_mask

SCENE = disc()
MASK = network_mask(SCENE.alpha)


@pytest.mark.parametrize("scene", [disc(), fur(), block(), foliage()], ids=["disc", "fur", "block", "foliage"])
def test_a_sound_mask_scores_high_and_needs_no_review(scene: Scene) -> None:
    quality = assess(scene.rgb, network_mask(scene.alpha))
    assert quality.score > 0.8
    assert not quality.review


def noisy() -> Mask:
    noise = np.random.default_rng(0).normal(0, 0.5, MASK.shape)
    return (MASK + noise).clip(0, 1).astype(np.float32)


def half_faded() -> Mask:
    faded = MASK.copy()
    faded[:, faded.shape[1] // 2 :] *= 0.45
    return faded


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
        (half_faded(), "mostly_uncertain"),
        (beside_the_subject(), "mask_and_picture_disagree"),
        (speck(), "tiny_subject"),
        (np.ones_like(MASK), "fills_picture"),
        (1 - MASK, "cut_by_border"),
    ],
    ids=["noisy", "washed out", "half faded", "beside", "speck", "everything", "background"],
)
def test_a_broken_mask_needs_review_and_the_reason_names_the_fault(mask: Mask, reason: str) -> None:
    quality = assess(SCENE.rgb, mask)
    assert quality.score < assess(SCENE.rgb, MASK).score - 0.1
    assert reason in quality.reasons


@pytest.mark.parametrize(("value", "reason"), [(0.0, "tiny_subject"), (0.5, "mostly_uncertain")])
def test_a_mask_without_information_scores_low(value: float, reason: str) -> None:
    quality = assess(SCENE.rgb, np.full((96, 128), value, np.float32))
    assert quality.score < 0.1
    assert reason in quality.reasons


def test_a_mirrored_look_that_disagrees_lowers_the_score() -> None:
    agreeing, disagreeing = assess(SCENE.rgb, MASK, MASK), assess(SCENE.rgb, MASK, beside_the_subject())
    assert not agreeing.review
    assert disagreeing.score < agreeing.score - 0.2
    assert "looks_differ" in disagreeing.reasons


def subject(paint: Callable[[Mask], object]) -> Scene:
    alpha = np.zeros((240, 320), np.float32)
    paint(alpha)
    return compose(alpha, brown(240, 320), garden(240, 320))


def portrait(alpha: Mask) -> None:
    cv2.circle(alpha, (160, 90), 50, 1.0, -1, cv2.LINE_AA)
    alpha[120:, 90:230] = 1


def two_people(alpha: Mask) -> None:
    alpha[60:200, 40:110] = alpha[40:190, 190:270] = 1


def many_pieces(alpha: Mask) -> None:
    for y in range(20, 240, 40):
        for x in range(20, 320, 40):
            cv2.circle(alpha, (x, y), 11, 1.0, -1)


@pytest.mark.parametrize("paint", [portrait, two_people])
def test_a_subject_cut_by_the_border_or_in_two_pieces_needs_no_review(paint: Callable[[Mask], object]) -> None:
    scene = subject(paint)
    assert not assess(scene.rgb, network_mask(scene.alpha)).review


def test_a_subject_in_many_pieces_is_fragmented() -> None:
    scene = subject(many_pieces)
    assert "fragmented" in assess(scene.rgb, network_mask(scene.alpha)).reasons


def product(background: int) -> tuple[Rgb, Mask]:
    """Return a dark box on a flat background, and its mask."""
    alpha = np.zeros((240, 320), np.float32)
    cv2.rectangle(alpha, (90, 60), (220, 190), 1.0, -1)
    alpha = np.asarray(cv2.GaussianBlur(alpha, (0, 0), 0.7), np.float32)
    rgb = np.array((70, 90, 140)) * alpha[..., None] + background * (1 - alpha[..., None])
    return rgb.round().astype(np.uint8), network_mask(alpha)


@pytest.mark.parametrize("background", [255, 250, 0])
def test_a_product_on_a_flat_background_scores_high(background: int) -> None:
    quality = assess(*product(background))
    assert quality.score > 0.8
    assert not quality.review


def test_the_score_is_the_same_at_every_precision_level() -> None:
    picture = decode(disc_file())
    mask = network_mask(SCENE.alpha)
    scores = {pipeline.refine_edge(picture, mask, level).quality for level in Precision}
    assert len(scores) == 1


@given(st.integers(0, 999), st.floats(0, 1))
@settings(max_examples=25, deadline=None)
def test_mirroring_picture_and_mask_keeps_the_score(seed: int, noise: float) -> None:
    field = np.random.default_rng(seed).normal(0, noise, MASK.shape).astype(np.float32)
    mask = np.asarray((MASK + cv2.GaussianBlur(field, (0, 0), 3)).clip(0, 1), np.float32)
    mirrored = assess(np.ascontiguousarray(SCENE.rgb[:, ::-1]), np.ascontiguousarray(mask[:, ::-1]))
    assert mirrored.score == pytest.approx(assess(SCENE.rgb, mask).score, abs=0.02)


@pytest.mark.parametrize("side_px", [160, 320, 1024])
def test_the_score_hardly_depends_on_the_size_of_the_mask(side_px: int) -> None:
    scene = disc(960, 1280, softness_px=3)
    assert assess(scene.rgb, network_mask(scene.alpha, side_px)).score > 0.8


@given(st.integers(1, 40), st.integers(1, 40), st.integers(1, 60), st.integers(1, 60), st.integers(0, 999))
@settings(max_examples=60, deadline=None)
def test_any_mask_gets_a_score_and_a_review_has_a_reason(
    mask_height: int, mask_width: int, height: int, width: int, seed: int
) -> None:
    rng = np.random.default_rng(seed)
    mask = rng.uniform(-1, 2, (mask_height, mask_width)).clip(0, 1).astype(np.float32)
    rgb = rng.integers(0, 256, (height, width, 3), np.uint8)
    for mirrored in (None, np.ascontiguousarray(mask[:, ::-1])):
        facts = assess(rgb, mask, mirrored).facts()
        assert json.loads(json.dumps(facts)) == facts
        assert 0 <= facts["score"] <= 1
        assert facts["review"] == bool(facts["reasons"])


def test_only_a_score_near_the_threshold_is_doubtful() -> None:
    assert not doubtful(Quality(0.99, ())) and not doubtful(Quality(0.01, ("mostly_uncertain",)))
    assert any(doubtful(Quality(score / 100, ())) for score in range(100))
