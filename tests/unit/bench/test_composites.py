"""Composites are reproducible, have a known alpha and foreground, and the halves share nothing."""

import cv2
import numpy as np
import pytest

from bench.composites import Half, composites
from bench.pictures import GroundTruth
from bench.subjects import SUBJECTS


@pytest.fixture(scope="module")
def drawn() -> list[GroundTruth]:
    return list(composites(Half.TEST, count=len(SUBJECTS)))


def test_subjects_cover_a_tenth_to_half_of_the_picture(drawn: list[GroundTruth]) -> None:
    assert {truth.kind for truth in drawn} == {draw.__name__ for draw in SUBJECTS}
    for truth in drawn:
        assert truth.rgb.dtype == np.uint8
        assert truth.rgb.shape == (*truth.alpha.shape, 3)
        assert truth.alpha.dtype == np.float32
        assert truth.alpha.min() == 0
        assert truth.alpha.max() > 0.8
        assert 0.04 < truth.alpha.mean() < 0.6


def test_picture_shows_the_foreground_where_alpha_is_one(drawn: list[GroundTruth]) -> None:
    for truth in (one for one in drawn if one.kind != "glass"):
        opaque = truth.alpha > 0.999
        assert truth.foreground is not None
        difference = truth.rgb[opaque].astype(int) - truth.foreground[opaque]
        assert np.abs(difference).mean() < 3  # noise


def test_subjects_have_the_edges_that_they_are_named_after(drawn: list[GroundTruth]) -> None:
    by_kind = {truth.kind: truth for truth in drawn}
    soft = {kind: ((truth.alpha > 0.05) & (truth.alpha < 0.95)).mean() for kind, truth in by_kind.items()}
    assert soft["vessel"] < 0.02 < soft["portrait"]
    translucent = (by_kind["glass"].alpha > 0.1) & (by_kind["glass"].alpha < 0.92)
    assert translucent.sum() > 0.3 * (by_kind["glass"].alpha > 0.1).sum()
    background = (by_kind["lace"].alpha < 0.3).astype(np.uint8)
    assert cv2.connectedComponents(background, connectivity=4)[0] > 40


def test_equal_arguments_give_equal_composites_and_other_seeds_others(drawn: list[GroundTruth]) -> None:
    [again] = composites(Half.TEST, count=1)
    np.testing.assert_array_equal(again.rgb, drawn[0].rgb)
    for others in (composites(Half.TUNE, count=1), composites(Half.TEST, count=1, seed=1)):
        [other] = others
        assert other.alpha.shape != again.alpha.shape or not np.array_equal(other.alpha, again.alpha)


def test_each_subject_of_a_dataset_belongs_to_one_half() -> None:
    alpha = np.zeros((60, 80), np.float32)
    cv2.circle(alpha, (40, 30), 20, 1.0, -1)
    subjects = [
        GroundTruth(name, "photograph", np.full((60, 80, 3), 40 * number, np.uint8), alpha)
        for number, name in enumerate(("a", "b", "c"), 1)
    ]
    names = {
        half: {truth.name.split("-")[1] for truth in composites(half, count=0, subjects=subjects)} for half in Half
    }
    assert names == {Half.TUNE: {"a", "c"}, Half.TEST: {"b"}}
    first, mirrored, *_ = composites(Half.TEST, count=0, subjects=subjects)
    np.testing.assert_allclose(first.alpha, mirrored.alpha[:, ::-1])
    np.testing.assert_allclose(first.foreground[first.alpha > 0.99], 80, atol=1)
