import numpy as np
import pytest

from bench.studies.foreground import Composite, evaluate
from tests.fakes.scenes import hair


def test_true_colors_have_no_error_and_an_offset_of_ten_levels_gives_an_error_of_ten() -> None:
    scene = hair(120, 160)
    truth = Composite("hair", scene.rgb, scene.alpha, scene.foreground.clip(0, 245))
    exact = evaluate(truth, truth.alpha, truth.colors)
    assert (exact.colors, exact.composite) == (0, 0)
    off = evaluate(truth, truth.alpha, truth.colors + np.uint8(10))
    assert off.colors == pytest.approx(10)
    assert 0 < off.composite < 10
