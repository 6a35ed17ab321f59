"""The matting benchmark: methods, report, and contact sheets."""

from argparse import Namespace
from pathlib import Path

import cv2
import numpy as np
import pytest

from bench import matting_report, sheet
from bench.composites import Half, composites
from bench.errors import Errors
from bench.masks import Fault, mask
from bench.matting import Case, cases, judge
from bench.matting_methods import BARE, LEVELS, REMBG
from bench.matting_report import COMPOSITES, MADE, PHOTOGRAPHS, Result, Seen
from bench.pictures import GroundTruth
from core.arrays import Rgb, Segmentation
from core.segmentation.quality import assess
from core.types import Precision, Quality


@pytest.fixture(scope="module")
def disc() -> GroundTruth:
    """A light disc on a dark background, 96 x 72."""
    alpha = np.zeros((72, 96), np.float32)
    cv2.circle(alpha, (48, 36), 20, 1.0, -1, cv2.LINE_AA)
    rgb = np.rint(40 + 180 * alpha[..., None].repeat(3, axis=2)).astype(np.uint8)
    return GroundTruth("disc", "disc", rgb, alpha)


def result(picture: str, group: str = COMPOSITES, network: str = "u2netp", **sad: float) -> Result:
    errors = {name.replace("_mask", " mask"): Errors(value, value / 100, value) for name, value in sad.items()}
    return Result(group, network, picture, "cup", errors, seconds=dict.fromkeys(errors, 0.1))


def test_every_method_is_compared_from_the_mask_and_from_the_picture(disc: GroundTruth, tmp_path: Path) -> None:
    small = mask(disc.alpha, 24, Fault.CLEAN)

    def look(rgb: Rgb, precision: Precision) -> Segmentation:
        if precision is Precision.HIGH:
            return Segmentation(disc.alpha, Quality(1, ()), "u2netp", None, ("first", "mirrored"))
        return Segmentation(small, Quality(1, ()), "u2netp", None)

    found, alphas = judge(Case(COMPOSITES, "u2netp", disc, small, look), tmp_path)
    assert found.errors.keys() == alphas.keys() == {BARE, REMBG, *LEVELS}
    assert found.errors["standard"].sad < 0.5 * found.errors[BARE].sad
    assert found.from_picture["standard"] == found.errors["standard"]
    assert found.from_picture["high"].sad < found.errors["high"].sad
    assert found.seen["high"].looks == ("first", "mirrored") and found.seen["high"].mask_mse < 1e-6
    assert found.seen["draft"].mask_mse == pytest.approx(found.errors[BARE].mse)
    assert (found.score, found.review) == (assess(disc.rgb, small).score, assess(disc.rgb, small).review)


def test_masks_are_given_or_made_by_the_networks_here(tmp_path: Path) -> None:
    [truth] = composites(Half.TEST, count=1)
    for folder, pixels in (("input", truth.rgb[..., ::-1]), ("alpha", truth.alpha * 255)):
        (tmp_path / folder).mkdir()
        cv2.imwrite(str(tmp_path / folder / "a.png"), pixels)
    cv2.imwrite(str(tmp_path / "a.other.png"), np.full((30, 40), 13107, np.uint16))
    arguments = Namespace(dataset=tmp_path, masks=tmp_path, count=1, half=Half.TEST, networks=["u2netp"], pictures=None)
    left_out: list[str] = []
    given, predicted, composite, made = cases(arguments, left_out)
    assert [one.group for one in (given, predicted, composite, made)] == [
        PHOTOGRAPHS,
        PHOTOGRAPHS,
        "composites, test half",
        MADE,
    ]
    assert (given.network, given.look) == ("other", None)
    np.testing.assert_allclose(given.mask, 0.2)
    for one in (predicted, composite):
        assert one.network == "u2netp"
        assert one.look is not None
        np.testing.assert_array_equal(one.look(one.truth.rgb, Precision.DRAFT).mask, one.mask)
    np.testing.assert_array_equal(composite.truth.rgb, truth.rgb)
    assert left_out == []


def test_pictures_without_a_subject_are_listed(tmp_path: Path) -> None:
    for folder, pixels in (("input", np.full((60, 80, 3), 127, np.uint8)), ("alpha", np.zeros((60, 80), np.uint8))):
        (tmp_path / folder).mkdir()
        cv2.imwrite(str(tmp_path / folder / "gray.png"), pixels)
    arguments = Namespace(dataset=tmp_path, masks=None, count=0, half=Half.TEST, networks=["u2netp"], pictures=None)
    left_out: list[str] = []
    assert [one.group for one in cases(arguments, left_out)] == [MADE]
    assert left_out == ["pictures of the dataset, u2netp, gray"]
    assert "- pictures of the dataset, u2netp, gray: the network found no" in matting_report.markdown([], "", left_out)


def test_output_of_rembg_is_kept_for_the_next_run(disc: GroundTruth, tmp_path: Path) -> None:
    case = Case(MADE, "24 px", disc, mask(disc.alpha, 24, Fault.CLEAN))
    (first, alphas), (second, again) = judge(case, tmp_path), judge(case, tmp_path)
    assert first.seconds[REMBG] == second.seconds[REMBG]  # of the first run
    np.testing.assert_array_equal(alphas[REMBG], again[REMBG])
    judge(Case(MADE, "48 px", disc, mask(disc.alpha, 48, Fault.CLEAN)), tmp_path)
    assert len(list(tmp_path.glob("*.npz"))) == 2


def test_failed_level_is_reported(disc: GroundTruth, tmp_path: Path) -> None:
    found, _ = judge(Case(MADE, "24 px", disc, 0.4 * mask(disc.alpha, 24, Fault.CLEAN)), tmp_path)
    assert found.failures.keys() == set(LEVELS)
    text = matting_report.markdown([found], "here")
    assert "- made from the true alpha, 24 px, disc, draft: The mask has no certain foreground" in text
    assert "did not contain foreground" in text  # rembg returned the bare mask


def test_ratios_are_geometric_means_over_pictures_that_count_once() -> None:
    results = [
        result("a", high=1, rembg=2), result("a", network="isnet", high=1, rembg=8), result("b", high=1, rembg=1),
        result("c", rembg=1),
    ]  # fmt: skip
    assert matting_report.ratio(results, "high", REMBG, "sad").value == pytest.approx(0.5)
    assert str(matting_report.ratio(results, "draft", REMBG, "sad")) == "-"


def test_report_separates_kinds_of_masks_and_lists_pictures_worse_than_the_bare_mask() -> None:
    results = [
        result("c", PHOTOGRAPHS, bare_mask=1, high=0.9, rembg=1),
        result("a", bare_mask=1, high=1.01, rembg=1),
        result("b", bare_mask=1, high=1.5, rembg=1),
        result("d", MADE, bare_mask=1, high=0.9, rembg=1),
    ]
    text = matting_report.markdown(results, "here")
    photographs, mixed, made, *_ = (
        text.index(title) for title in ("networks, pictures", "networks, composites", "Masks made")
    )
    assert photographs < mixed < made
    assert "- high: 1 of 2 (50.0 %): b (u2netp) 1.50" in text[mixed:made]
    assert "- high: 0 of 1 (0.0 %)" in text[photographs:mixed]
    assert "| high | 0.90 | 0.90 | 0.90 | 0.90 / 0.75 / 0.92 |" in text[photographs:mixed]


def test_second_looks_are_compared_with_one_look() -> None:
    def seen(picture: str, sad: float, *looks: str, rejected: tuple[str, ...] = ()) -> Result:
        one_look = dict.fromkeys((BARE, REMBG, *LEVELS), Errors(2, 0.02, 2))
        return Result(
            COMPOSITES, "u2netp", picture, "cup", one_look, from_picture={"ultra_high": Errors(sad, 0.02, 2)},
            seen={"ultra_high": Seen(looks, rejected, 0.01)}, seconds=dict.fromkeys(one_look, 0.1),
        )  # fmt: skip

    text = matting_report.markdown([
        seen("a", 1.0, "first", "mirrored", "brightened"), seen("b", 2.3, "first", "mirrored"),
        seen("c", 2.0, "first", rejected=("mirrored",)), seen("d", 2.0, "first"),
    ], "here")  # fmt: skip
    [row] = [line for line in text[text.index("Second looks") :].splitlines() if line.startswith("| ultra_high | 2.00")]
    cells = [cell.strip() for cell in row.strip("|").split("|")]
    assert cells[1:3] == ["2.00", "50%"]
    assert [cell.partition(" ")[0] for cell in cells[3:7]] == ["0.50", "0.87", "1.00", "1.00"]
    assert cells[7:] == ["25%", "b 1.15"]


def test_quality_score_is_judged_on_masks_of_networks() -> None:
    def scored(picture: str, score: float, mse: float, review: bool, group: str = COMPOSITES) -> Result:
        errors = dict.fromkeys((BARE, REMBG, "high"), Errors(1, mse, 1))
        return Result(
            group, "u2netp", picture, "cup", errors, seconds=dict.fromkeys(errors, 0.1),
            score=score, review=review,
        )  # fmt: skip

    results = [
        scored("a", 0.1, 0.03, True), scored("b", 0.3, 0.04, False), scored("c", 0.95, 0.001, False),
        scored("d", 1.0, 0.01, True), scored("e", 0.0, 0.0, False, MADE),
    ]  # fmt: skip
    text = matting_report.markdown(results, "here")
    [row] = [line for line in text.splitlines() if line.startswith("| composites, u2netp | ")]
    assert row.startswith("| composites, u2netp | 4 | 2 | 1.00 (1.00 to 1.00) | 0.50 (")
    assert row.count("| 0.50 (") == 2
    assert "| 0.8 to 1.0 | 1.00 (0.97, 2) |" in text
    assert "| 0.0 to 0.2 | 0.00 (0.10, 1) |" in text


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
