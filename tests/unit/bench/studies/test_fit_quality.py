from dataclasses import fields

import numpy as np
import pytest

from bench.intervals import auc
from bench.studies.fit_quality import _DRAWN, _PHOTOGRAPHED, ONE_LOOK, Sample, cross_validated, finding, fitted
from core.segmentation.quality import Features


def samples(count: int = 120) -> list[Sample]:
    """Return samples whose cut-out is bad if the uncertainty is high; every other subject is a photograph."""
    rng = np.random.default_rng(0)
    made = []
    for number in range(count):
        values = dict(zip((field.name for field in fields(Features)), rng.normal(0, 1, 8).tolist(), strict=True))
        bad = values["uncertainty"] + rng.normal(0, 0.3) > 0.5
        kind = (_DRAWN, _PHOTOGRAPHED)[number % 2]
        made.append(Sample(kind, kind, str(number // 2), Features(**values), bool(bad), 0.5, None))
    return made


def test_cross_validated_scores_separate_bad_from_good() -> None:
    chosen = samples()
    scores = cross_validated(chosen, ONE_LOOK, dict.fromkeys(ONE_LOOK, 0.0))
    bad = np.array([one.bad for one in chosen])
    assert auc(scores, bad) > 0.9


def test_the_threshold_finds_nine_of_ten_bad_masks_of_photographs() -> None:
    chosen = samples()
    scores = np.random.default_rng(1).uniform(0, 1, len(chosen))
    photographs = np.array([one.bad and one.kind == _PHOTOGRAPHED for one in chosen])
    found = np.mean(scores[photographs] < finding(chosen, scores))
    assert found == pytest.approx(0.9, abs=0.05)


def test_the_report_has_constants_and_figures_for_both_models() -> None:
    text = fitted(samples())
    assert text.count(" = Model(") == 2
    assert text.count("| score | masks |") == 2
