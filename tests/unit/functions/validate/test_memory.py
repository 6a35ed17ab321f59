"""The memory that is expected of a function, against measurements, and the images that are rejected for it."""

from typing import Any

import pytest

from core.errors import TooManyPixelsError
from core.options import Options
from core.types import ImageInfo, Precision
from functions.validate.memory import FunctionMemory, check_image, encode_bytes, refine_bytes, segment_bytes

DEFAULTS = FunctionMemory(segment_mb=3008, refine_mb=3008, encode_mb=3008)
LARGEST = FunctionMemory(segment_mb=10240, refine_mb=10240, encode_mb=10240)
U2NETP_BYTES = 500_000_000

REFINE_MB = {
    ("jpeg", "standard"): {12: 280, 100: 1271},
    ("jpeg", "high"): {12: 334, 100: 1326},
    ("png", "high"): {12: 416, 48: 955, 100: 1711},
    ("jpeg", "ultra_high"): {12: 548, 100: 1513},
}
"""Measured with ``python -m bench.studies.stage_memory``: peak by megapixels."""

ENCODE_MB: dict[str, tuple[str, dict[str, Any], bool, dict[int, int]]] = {
    "png": ("jpeg", {}, False, {12: 296, 100: 1262}),
    "PNG with alpha": ("png", {}, False, {12: 377, 48: 925, 100: 1790}),
    "ultra_high": ("jpeg", {"precision_level": "ultra_high"}, False, {12: 302, 100: 1269}),
    "scaled": ("jpeg", {"scale": "90%"}, False, {12: 454, 100: 2686}),
    "on an image": ("jpeg", {"background_key": "b"}, True, {12: 337, 100: 1668}),
    "blurred": ("jpeg", {"background_blur": "0.5%"}, False, {12: 342, 48: 885, 100: 1666}),
    "PNG with alpha, blurred": ("png", {"background_blur": "0.5%"}, False, {12: 434, 48: 1215, 100: 2359}),
    "scaled, blurred": ("jpeg", {"scale": "90%", "background_blur": "0.5%"}, False, {12: 491, 48: 1513, 100: 3021}),
    "blurred, on a canvas": ("jpeg", {"canvas": "2000x2000", "background_blur": "0.5%"}, False, {12: 465, 48: 1271}),
    "scaled, on an image": ("jpeg", {"scale": "90%", "background_key": "b"}, True, {12: 490, 100: 2986}),
    "zip": ("jpeg", {"format": "zip"}, False, {12: 427, 100: 2289}),
    "jpeg": ("jpeg", {"format": "jpeg"}, False, {12: 415, 100: 2162}),
    "webp": ("jpeg", {"format": "webp"}, False, {12: 572, 100: 3674}),
    "webp_lossless": ("jpeg", {"format": "webp_lossless"}, False, {12: 637, 48: 2042, 100: 4070}),
    "avif": ("jpeg", {"format": "avif"}, False, {12: 783, 48: 2708, 100: 5475}),
    "avif, at most 12 MP": ("jpeg", {"format": "avif", "max_megapixels": 12}, False, {48: 1261, 100: 2242}),
    "avif, scaled, on an image": (
        "jpeg",
        {"format": "avif", "scale": "90%", "background_key": "b"},
        True,
        {12: 961, 100: 6732},
    ),
    "mask": ("jpeg", {"output": "mask"}, False, {12: 229, 100: 931}),
    "on a canvas": ("jpeg", {"format": "jpeg", "canvas": "2000x2000", "scale": "85%"}, False, {12: 403, 48: 1005}),
    "png on a canvas": ("jpeg", {"canvas": "2000x2000"}, False, {48: 1125, 100: 2115}),
    "on a canvas of 36 MP": ("jpeg", {"canvas": "6000x6000"}, False, {12: 861, 48: 1501}),
    "outlined, on a canvas": ("jpeg", {"canvas": "2000x2000", "outline": "8px"}, False, {12: 547, 48: 1126}),
    "outlined": ("jpeg", {"outline": "8px"}, False, {12: 562, 48: 1358}),
}
"""The same: format of the image, options, whether there is a background image, and peak by megapixels.

Lossless WebP and AVIF show an opaque subject, which takes more memory than a figure.
"""


def image(format_: str, megapixels: int) -> ImageInfo:
    return ImageInfo(format_, megapixels * 1000, 1000, 1)


def assert_close(expected: float, measured_mb: int) -> None:
    assert measured_mb * 1e6 <= expected <= 1.75 * measured_mb * 1e6


@pytest.mark.parametrize(("format_", "precision"), REFINE_MB)
def test_refine_takes_no_more_than_expected(format_: str, precision: str) -> None:
    for megapixels, measured_mb in REFINE_MB[format_, precision].items():
        assert_close(refine_bytes(image(format_, megapixels), Precision(precision)), measured_mb)


@pytest.mark.parametrize("case", ENCODE_MB)
def test_encode_takes_no_more_than_expected(case: str) -> None:
    format_, options, has_background, measured = ENCODE_MB[case]
    for megapixels, measured_mb in measured.items():
        background = image("jpeg", megapixels) if has_background else None
        expected = encode_bytes(image(format_, megapixels), Options.parse(options), background)
        assert_close(expected, measured_mb)


def test_segment_takes_no_more_than_expected() -> None:
    """Measured: docs/how-to/models.md."""
    assert_close(segment_bytes(image("jpeg", 100), U2NETP_BYTES), 458)
    assert_close(segment_bytes(image("png", 100), U2NETP_BYTES), 1292)


@pytest.mark.parametrize(
    ("format_", "options"),
    [
        ("jpeg", {}),
        ("png", {"precision_level": "ultra_high"}),
        ("jpeg", {"format": "jpeg", "precision_level": "ultra_high"}),
        ("jpeg", {"format": "zip"}),
        ("heic", {"output": "mask"}),
        ("jpeg", {"format": "avif", "max_megapixels": 16}),
    ],
)
def test_the_default_sizes_hold_the_largest_image(format_: str, options: dict[str, Any]) -> None:
    check_image(image(format_, 100), Options.parse(options), None, U2NETP_BYTES, DEFAULTS)


def test_the_largest_sizes_hold_every_image_with_every_option() -> None:
    options = Options.parse({"format": "avif", "scale": "90%", "background_key": "b", "precision_level": "ultra_high"})
    check_image(image("heic", 100), options, image("png", 100), 7_000_000_000, LARGEST)


@pytest.mark.parametrize(
    ("options", "model_bytes", "functions", "stage"),
    [
        ({"format": "avif"}, 0, DEFAULTS, "Encode"),
        ({"precision_level": "ultra_high"}, 0, FunctionMemory(None, 2048, 3008), "Refine"),
        ({}, 3_000_000_000, DEFAULTS, "Segment"),
    ],
)
def test_an_image_that_a_function_cannot_hold_is_rejected(
    options: dict[str, Any], model_bytes: int, functions: FunctionMemory, stage: str
) -> None:
    with pytest.raises(TooManyPixelsError) as caught:
        check_image(image("png", 100), Options.parse(options), None, model_bytes, functions)
    assert caught.value.message.startswith(f"{stage} needs")
    assert (caught.value.field, caught.value.value) == ("image.pixels", "100000 x 1000")
    assert caught.value.remedy.endswith(f"deploy with a larger {stage}Memory.")


def test_other_hosts_than_lambda_have_memory_of_their_own() -> None:
    functions = FunctionMemory(segment_mb=None, refine_mb=3008, encode_mb=3008)
    check_image(image("png", 100), Options(), None, 7_000_000_000, functions)
