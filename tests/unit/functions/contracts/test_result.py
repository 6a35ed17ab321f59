import numpy as np

from core.segmentation import quality
from functions.contracts.result import REASONS, reason_text


def test_each_reason_for_review_has_words() -> None:
    rules = quality._rules(np.full((32, 32), 0.5, np.float32))
    assert {*quality._REASONS.values(), *rules} == set(REASONS)


def test_a_reason_of_a_newer_stack_is_readable() -> None:
    assert reason_text("out_of_focus") == "out of focus"
