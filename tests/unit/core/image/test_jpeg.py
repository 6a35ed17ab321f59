import numpy as np
import pytest
from PIL import Image

from core import errors, limits
from core.image.decode import decode
from tests.conftest import file_of
from tests.resilience.hostile.handmade import jpeg_segments, png, segment

END_IS_MISSING = ("The file ends without its end marker.",)


def photograph(mode: str, **parameters: object) -> bytes:
    rng = np.random.default_rng(0)
    coarse = Image.fromarray(rng.integers(0, 256, (20, 27, 3), np.uint8)).resize((217, 163), Image.Resampling.BICUBIC)
    return file_of(coarse.convert(mode), "JPEG", quality=92, **parameters)


@pytest.mark.parametrize("mode", ["RGB", "L", "CMYK"])
@pytest.mark.parametrize("progressive", [False, True])
@pytest.mark.parametrize("restarts", [{}, {"restart_marker_blocks": 5}])
def test_a_jpeg_that_lacks_only_its_end_marker_is_read_and_it_is_said(mode, progressive, restarts):
    data = photograph(mode, progressive=progressive, **restarts)
    whole = decode(data)
    for end in (-1, -2):
        picture = decode(data[:end])
        assert np.array_equal(picture.rgb, whole.rgb)
        assert picture.warnings == (*END_IS_MISSING, *whole.warnings)
        assert picture.info.bytes == len(data) + end
    assert decode(data[:-2], at_least_px=50).warnings == picture.warnings


@pytest.mark.parametrize("progressive", [False, True])
def test_a_jpeg_that_lacks_pixels_is_corrupt_at_any_length(progressive):
    data = photograph("RGB", progressive=progressive)
    for end in [*range(len(data) - 60, len(data) - 2), *range(600, len(data) - 60, 97)]:
        with pytest.raises(errors.CorruptImageError):
            decode(data[:end])


def test_a_progressive_jpeg_that_lacks_whole_scans_is_corrupt():
    parts = jpeg_segments(photograph("RGB", progressive=True))
    scans = [i for i, part in enumerate(parts) if part[1] == 0xDA]
    assert len(scans) == 10
    for i in scans[:-1]:
        with pytest.raises(errors.CorruptImageError):
            decode(b"".join(parts[: i + 1]))


SEGMENTS = {
    "APP0": b"JFIF\0",
    "APP13": b"Photoshop 3.0\x008BIM",
    "APP14": b"Adobe",
}


@pytest.mark.parametrize("name, body", SEGMENTS.items())
def test_a_damaged_segment_is_said_and_does_not_cost_the_picture(name, body):
    start, *rest = jpeg_segments(photograph("RGB"))
    picture = decode(b"".join((start, segment(0xE0 + int(name[3:]), body), *rest)))
    assert np.array_equal(picture.rgb, decode(photograph("RGB")).rgb)
    assert picture.warnings in {(), (f"Damaged segments of the JPEG were ignored: {name}.",)}
    assert picture.warnings or name == "APP13"


def test_a_segment_cut_short_is_corrupt():
    start, *rest = jpeg_segments(photograph("RGB"))
    with pytest.raises(errors.CorruptImageError):
        decode(start + b"\xff\xe5\xff\xff" + b"".join(rest)[:1000])


def test_data_behind_the_end_are_no_missing_end():
    whole = photograph("RGB")
    picture = decode(whole + b"\xff\xda\0\1 other data")
    assert np.array_equal(picture.rgb, decode(whole).rgb)
    assert picture.warnings == ()


def test_the_limits_hold_ahead_of_the_search_for_missing_pixels():
    start, *rest = jpeg_segments(photograph("L"))
    large = [segment(0xC0, part[4:5] + b"\xff\xff\xff\xff" + part[9:]) if part[1] == 0xC0 else part for part in rest]
    with pytest.raises(errors.TooManyPixelsError):
        decode(start + b"".join(large[:-1]))
    assert limits.MAX_PIXELS < 0xFFFF**2


def test_other_formats_with_the_marker_are_left_alone():
    assert decode(png(16, 16, 8, 0, (b"\0" + b"\xff" * 16) * 16)).warnings == ()
