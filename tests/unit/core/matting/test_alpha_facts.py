import json

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from core.matting.alpha_facts import describe


def test_shares_are_shares_of_the_image() -> None:
    alpha = np.zeros((100, 200), np.float32)
    alpha[:, :50] = 1
    alpha[:, 50:60] = 0.5
    facts = describe(alpha)
    assert facts.uncertain_share == pytest.approx(0.05)
    assert facts.foreground_share == pytest.approx(0.275)
    assert facts.touches_border == ("top", "bottom", "left")


@pytest.mark.parametrize("scale", [1, 8])
def test_regions_are_counted_without_dust(scale: int) -> None:
    alpha = np.zeros((200, 200), np.float32)
    alpha[50:150, 20:90] = alpha[50:150, 110:180] = 1
    alpha[10, 10] = alpha[190, 30:32] = 1
    assert describe(alpha.repeat(scale, 0).repeat(scale, 1)).regions == 2


@given(st.integers(1, 60), st.integers(1, 60), st.integers(0, 999))
@settings(max_examples=40, deadline=None)
def test_any_alpha_has_facts_in_json(height: int, width: int, seed: int) -> None:
    alpha = np.random.default_rng(seed).uniform(-1, 2, (height, width)).clip(0, 1).astype(np.float32)
    facts = describe(alpha).facts()
    assert json.loads(json.dumps(facts)) == facts
    assert set(facts["touches_border"]) <= {"top", "right", "bottom", "left"}
