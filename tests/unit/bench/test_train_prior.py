from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

from bench.masks import Fault, mask
from bench.pictures import GroundTruth
from bench.studies import train_prior
from bench.studies.train_prior import Example, Kind
from core.matting import prior
from tests.fakes.scenes import Scene, fur, hair


def example(draw: Callable[[], Scene], fault: Fault) -> Example | None:
    scene = draw()
    picture = GroundTruth(draw.__name__, "drawn", scene.rgb, scene.alpha)
    return train_prior.examine(picture, mask(scene.alpha, 96, fault), draw.__name__, Kind(2000, 1))


def test_training_comes_closer_to_the_truth_than_the_closed_form(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    found = [one for draw in (hair, fur) for one in [example(draw, Fault.JITTERED)] if one]
    assert len(found) == 2
    monkeypatch.setattr(train_prior, "_BATCH", 256)
    fitted = train_prior.fit(found)
    for one in found:
        rows = one.rows[:, 0] + prior.share(one.rows) * prior._apply(fitted, one.rows)
        assert np.square(rows.clip(0, 1) - one.truth).mean() < 0.8 * np.square(one.rows[:, 0] - one.truth).mean()
    train_prior._write(fitted, tmp_path / "prior.npz")
    with np.load(tmp_path / "prior.npz") as stored:
        np.testing.assert_array_equal(stored["weights0"], fitted.weights[0])


def test_a_sound_mask_teaches_nothing() -> None:
    assert example(hair, Fault.CLEAN) is None
