"""Looks with a network that errs in a known way: it is a function of the image, not of files."""

from collections.abc import Callable
from dataclasses import replace

import cv2
import numpy as np
import pytest

from core.arrays import Mask, Rgb, Segmentation
from core.errors import UnknownForegroundError
from core.segmentation import looks
from core.segmentation.looks import Look, complete, first, follow, merge, undecided
from core.segmentation.quality import assess
from core.segmentation.registry import CLASSICAL, MODELS
from core.segmentation.segment import Prepared
from core.types import Precision
from tests.fakes.tiny_networks import without_weights

MODEL = "u2netp"
ONE_LOOK = (Precision.DRAFT, Precision.STANDARD)
Network = Callable[[Mask], Mask]
"""Turns the brightness of the network's input, 0 to 1, into a prediction."""


def disc(height: int, width: int, center: tuple[int, int], radius: int, value: int = 255) -> Rgb:
    """Return a bright disc, the subject, on a dark ground."""
    rgb = np.zeros((height, width, 3), np.uint8)
    cv2.circle(rgb, center, radius, (value,) * 3, -1)
    return rgb


def brightness(prepared: Prepared) -> Mask:
    lowest = (0 - MODELS[MODEL].mean[0]) / MODELS[MODEL].std[0]
    highest = (1 - MODELS[MODEL].mean[0]) / MODELS[MODEL].std[0]
    plane = np.asarray(prepared.pixels)[0]
    return np.asarray(((plane - lowest) / (highest - lowest)).clip(0, 1), np.float32)


def segmented(rgb: Rgb, precision: Precision, *networks: Network) -> Segmentation:
    """Segment with one network per look; the last one sees the further looks."""
    left = list(networks)

    def run(prepared: Prepared) -> Mask:
        network = left.pop(0) if len(left) > 1 else left[0]
        return network(brightness(prepared))

    return complete(first(rgb, MODEL, MODELS, precision), run)


def sound(seen: Mask) -> Mask:
    return seen


def blind_on_the_left(seen: Mask) -> Mask:
    """Return a prediction that is undecided in the left third of the input."""
    erring = seen.copy()
    erring[:, : seen.shape[1] // 3] *= 0.45
    return erring


def faint(seen: Mask) -> Mask:
    return np.asarray(0.6 * seen, np.float32)


def error(mask: Mask, rgb: Rgb) -> float:
    truth = cv2.resize((rgb[..., 0] > 128).astype(np.float32), mask.shape[::-1], interpolation=cv2.INTER_AREA)
    return float(np.square(mask - truth).mean())


@pytest.mark.parametrize("precision", ONE_LOOK)
def test_the_lower_levels_look_once(precision: Precision) -> None:
    rgb = disc(200, 300, (150, 100), 60)
    assert first(rgb, MODEL, MODELS, precision).final
    found = segmented(rgb, precision, blind_on_the_left, sound)
    assert found.looks == ("first",) and not found.rejected_looks
    assert np.array_equal(found.mask, segmented(rgb, precision, blind_on_the_left).mask)


@pytest.mark.parametrize(
    ("precision", "looks"),
    [(Precision.HIGH, ("first", "mirrored")), (Precision.ULTRA_HIGH, ("first", "mirrored", "brightened"))],
)
def test_an_undecided_mask_is_merged_with_those_of_further_looks(precision: Precision, looks: tuple[str, ...]) -> None:
    rgb = disc(200, 300, (110, 100), 80)
    found = segmented(rgb, precision, blind_on_the_left)
    assert found.looks == looks and not found.rejected_looks
    once = segmented(rgb, Precision.STANDARD, blind_on_the_left)
    assert undecided(once.mask) > 0.3
    assert error(found.mask, rgb) < 0.3 * error(once.mask, rgb), "the mirrored look sees the left third"
    assert found.mask.shape == once.mask.shape


@pytest.mark.parametrize("precision", [Precision.HIGH, Precision.ULTRA_HIGH])
def test_a_decided_mask_of_good_quality_is_looked_at_once(precision: Precision) -> None:
    rgb = disc(200, 300, (110, 100), 80)
    look = first(rgb, MODEL, MODELS, precision)
    assert not look.final
    found = follow(look, brightness(look.prepared))
    assert isinstance(found, Segmentation) and found.looks == ("first",)
    assert np.array_equal(found.mask, segmented(rgb, Precision.STANDARD, sound).mask)


def test_a_mirrored_look_at_a_decided_mask_of_doubtful_quality_serves_its_score_only() -> None:
    look = first(disc(200, 300, (110, 100), 80), MODEL, MODELS, Precision.ULTRA_HIGH)
    once = follow(look, brightness(look.prepared))
    assert isinstance(once, Segmentation)
    mirrored = replace(look, name="mirrored", earlier=(once.mask,))
    found = follow(mirrored, np.zeros_like(brightness(look.prepared)))
    assert isinstance(found, Segmentation)
    assert (found.looks, found.rejected_looks) == (("first",), ("mirrored",))
    assert np.array_equal(found.mask, once.mask)
    assert found.quality.score < once.quality.score


@pytest.mark.parametrize("size", [(200, 300), (201, 301), (33, 500), (640, 480), (16, 16)])
def test_the_mask_of_a_mirrored_look_is_mirrored_back(size: tuple[int, int]) -> None:
    height, width = size
    rgb = disc(*size, (width // 3, height // 2), max(3, min(size) // 4))
    found = segmented(rgb, Precision.HIGH, faint, sound)
    assert found.looks == ("first", "mirrored")
    expected = segmented(rgb, Precision.STANDARD, sound).mask
    assert np.abs(found.mask - expected).mean() < 0.01


def test_the_third_look_sees_a_brighter_image_that_is_not_mirrored() -> None:
    inputs: list[Mask] = []

    def kept(seen: Mask) -> Mask:
        inputs.append(seen)
        return faint(seen)

    rgb = disc(200, 320, (80, 100), 50)
    rgb[150:, 200:] = 60
    segmented(rgb, Precision.ULTRA_HIGH, kept)
    once, mirrored, brightened = inputs
    assert np.array_equal(mirrored, once[:, ::-1])
    assert np.abs(brightened - np.power(once, 0.7)).mean() < 0.003
    assert brightened[-10:, -10:].min() > once[-10:, -10:].max() + 0.1


def test_a_further_look_that_sees_nothing_takes_no_subject_away() -> None:
    rgb = disc(240, 320, (200, 100), 40)
    found = segmented(rgb, Precision.ULTRA_HIGH, faint, np.zeros_like)
    assert error(found.mask, rgb) < 0.01


def test_a_subject_that_only_the_mirrored_look_sees_is_found() -> None:
    rgb = disc(200, 300, (150, 100), 60)
    found = segmented(rgb, Precision.HIGH, np.zeros_like, sound)
    assert found.looks == ("first", "mirrored")
    assert error(found.mask, rgb) < 0.01


@pytest.mark.parametrize("precision", Precision)
def test_no_look_finds_a_subject_in_nothing(precision: Precision) -> None:
    with pytest.raises(UnknownForegroundError):
        segmented(disc(200, 300, (150, 100), 60), precision, np.zeros_like)


def test_the_score_is_that_of_the_merged_mask_and_the_look_that_agrees_least() -> None:
    rgb = disc(200, 300, (110, 100), 80)
    merged, once = (segmented(rgb, level, blind_on_the_left, sound) for level in (Precision.HIGH, Precision.DRAFT))
    reduced = first(rgb, MODEL, MODELS, Precision.HIGH).reduced
    assert merged.quality == assess(reduced, merged.mask, once.mask)
    assert merged.quality != assess(reduced, merged.mask, merged.mask)


@pytest.mark.parametrize("precision", Precision)
def test_the_built_in_segmenter_looks_once(precision: Precision) -> None:
    rgb = disc(200, 300, (150, 100), 60)
    assert looks.segment(rgb, CLASSICAL, without_weights(), precision).looks == ("first",)


def test_a_look_holds_the_image_only_if_another_look_can_follow() -> None:
    look: Look | Segmentation = first(disc(200, 300, (150, 100), 60), MODEL, MODELS, Precision.ULTRA_HIGH)
    held = []
    while isinstance(look, Look):
        held.append(not look.final)
        look = follow(look, faint(brightness(look.prepared)))
    assert held == [True, True, False]


def test_an_undecided_mask_counts_less() -> None:
    certain = np.zeros((10, 10), np.float32)
    certain[:5] = 1
    unsure = np.full((10, 10), 0.5, np.float32)
    assert np.abs(merge([certain, unsure]) - certain).max() < 0.01
    assert np.array_equal(merge([certain, certain[::-1]]), np.full((10, 10), 0.5))
    assert (undecided(certain), undecided(unsure)) == (0, 2)
    assert undecided(np.zeros_like(certain)) > undecided(unsure), "an empty mask counts least"
