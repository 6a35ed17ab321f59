import numpy as np
import pytest

from bench.studies.foreground import Composite, judge
from tests.fakes.scenes import hair


def test_true_colours_have_no_error_and_colours_off_by_ten_levels_one_of_ten() -> None:
    scene = hair(120, 160)
    truth = Composite("hair", scene.rgb, scene.alpha, scene.foreground.clip(0, 245))
    exact = judge(truth, truth.alpha, truth.colours)
    assert (exact.colours, exact.composite) == (0, 0)
    off = judge(truth, truth.alpha, truth.colours + np.uint8(10))
    assert off.colours == pytest.approx(10)
    assert 0 < off.composite < 10
