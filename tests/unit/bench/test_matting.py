"""The matting benchmark: runs, errors, report, and contact sheets."""

from pathlib import Path

import cv2
import numpy as np
import pytest

from bench import matting_report, sheet
from bench.errors import Errors
from bench.masks import Fault
from bench.matting import run
from bench.matting_methods import BARE, REMBG
from bench.matting_report import BAND, PICTURE, Result
from bench.pictures import GroundTruth


@pytest.fixture(scope="module")
def disc() -> GroundTruth:
    """A light disc on a dark background, 96 x 72."""
    alpha = np.zeros((72, 96), np.float32)
    cv2.circle(alpha, (48, 36), 20, 1.0, -1, cv2.LINE_AA)
    rgb = np.rint(40 + 180 * alpha[..., None].repeat(3, axis=2)).astype(np.uint8)
    return GroundTruth("disc", "disc", rgb, alpha)


def result(hint: str, method: str, sad: float, **facts: object) -> Result:
    errors = Errors(sad, sad**2, sad, sad)
    return Result("cup", hint, method, {PICTURE: errors, BAND: errors}, 0.1, 0.1, 10**6, **facts)


def test_every_method_has_a_result_for_every_mask(disc: GroundTruth, tmp_path: Path) -> None:
    results = run([disc], (24, 48), [Fault.CLEAN], {BARE, "standard"}, tmp_path)
    by_case = {(one.method, one.hint): one for one in results}
    assert set(by_case) == {(method, hint) for method in (BARE, "standard") for hint in ("24-clean", "48-clean")}
    for hint in ("24-clean", "48-clean"):
        bare, standard = (by_case[method, hint].errors for method in (BARE, "standard"))
        assert bare and standard
        assert standard[PICTURE].sad < 0.5 * bare[PICTURE].sad
        assert bare[BAND].mse > bare[PICTURE].mse
    assert cv2.imread(str(tmp_path / "disc" / "24-clean-standard.png"), cv2.IMREAD_GRAYSCALE).shape == (72, 96)


def test_failed_method_is_reported_and_writes_no_alpha(disc: GroundTruth, tmp_path: Path) -> None:
    nothing = GroundTruth("nothing", "none", disc.rgb, np.zeros_like(disc.alpha))
    (failed,) = (
        one for one in run([nothing], (24,), [Fault.CLEAN], {BARE, "draft"}, tmp_path) if one.method == "draft"
    )
    assert failed.failed and failed.failed.startswith("UnknownForegroundError")
    assert failed.errors is None
    assert not (tmp_path / "nothing" / "24-clean-draft.png").exists()
    assert "nothing, 24-clean, draft: UnknownForegroundError" in matting_report.markdown([failed], "here")


def test_ratios_are_geometric_means_without_fallbacks() -> None:
    results = [
        result("96-clean", "high", 1), result("96-clean", REMBG, 2),
        result("320-clean", "high", 1), result("320-clean", REMBG, 8),
        result("320-holed", "high", 1), result("320-holed", REMBG, 1, fell_back=True, notes=("max_nnz",)),
    ]  # fmt: skip
    keyed = {(one.picture, one.hint, one.method): one for one in results}
    cases = [("cup", hint) for hint in ("96-clean", "320-clean", "320-holed")]
    assert matting_report.ratio(keyed, "high", REMBG, cases, PICTURE, "sad") == pytest.approx(0.25)
    assert matting_report.ratio(keyed, "high", REMBG, cases[2:], PICTURE, "sad") is None
    text = matting_report.markdown(results, "here")
    assert "| `high`, sad | <= 0.65 | 0.25 | 0.25 | met |" in text
    assert "- cup, 320-holed, rembg: max_nnz" in text


def test_report_distinguishes_missed_goals_from_unmeasured_ones() -> None:
    text = matting_report.markdown([result("96-clean", "high", 1), result("96-clean", REMBG, 1)], "here")
    assert "| `high`, sad | <= 0.65 | 1.00 | 1.00 | missed |" in text
    assert "| `ultra_high`, sad | <= 0.60 | - | - | - |" in text


def test_report_lists_masks_for_which_high_is_worse_than_the_bare_mask() -> None:
    results = [result("96-clean", BARE, 1), result("320-clean", BARE, 1)]
    results += [result("96-clean", "high", 1.01), result("320-clean", "high", 1.5)]
    text = matting_report.markdown(results, "here")
    assert "| cup | 1.23 | 320-clean 1.50 |" in text
    assert "| 0 | 1 |  | missed |" in text


def test_busiest_window_contains_the_soft_alpha() -> None:
    alpha = np.zeros((100, 200), np.float32)
    alpha[:, :20] = 1
    alpha[60:80, 150:170] = 0.5
    rows, columns = sheet.busiest_window(alpha, 30)
    assert rows.start <= 60 and rows.stop >= 80
    assert columns.start <= 150 and columns.stop >= 170
    assert alpha[sheet.busiest_window(alpha, 150)].shape == (100, 150)


def test_contact_sheet_has_a_tile_per_crop() -> None:
    gray, color = np.ones((40, 30), np.float32), np.full((40, 30, 3), (250, 10, 10), np.uint8)
    drawn = sheet.draw(("picture", "alpha", "other"), {"one": (color, gray, None), "two": (color, gray, gray)})
    assert drawn.width > 3 * sheet.CROP_PX
    assert drawn.height > 2 * sheet.CROP_PX
    colors = np.asarray(drawn).reshape(-1, 3)
    assert (colors == (250, 10, 10)).all(axis=1).sum() == 2 * 40 * 30
