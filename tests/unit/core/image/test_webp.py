import struct

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image

from core import errors
from core.image import webp
from core.image.decode import decode
from tests.conftest import file_of

DAMAGED = ("The container of the WebP is damaged: metadata behind the pixels may be missing.",)
NOISE = Image.fromarray(np.random.default_rng(0).integers(0, 256, (32, 32, 3), np.uint8))
EXIF = b"II*\0\x08\0\0\0\1\0\x12\1\3\0\1\0\0\0\3\0\0\0\0\0\0\0"
WHOLE = file_of(NOISE, "WEBP", lossless=True, exif=EXIF, xmp=b"<x/>" * 25)


def with_size(data: bytes, size: int) -> bytes:
    return data[:4] + struct.pack("<I", size) + data[8:]


@pytest.mark.parametrize(
    "data",
    [WHOLE[:-50], WHOLE[:-1], WHOLE + b"XMP \xff\0\0\0", with_size(WHOLE, len(WHOLE) - 60), with_size(WHOLE, 10**9)],
    ids=["cut in XMP", "cut by a byte", "chunk without data", "size too small", "size too large"],
)
def test_damage_behind_the_pixels_is_said_and_does_not_cost_the_picture(data):
    picture = decode(data)
    assert np.array_equal(picture.rgb, np.asarray(NOISE)[::-1, ::-1]), "its orientation is 3"
    assert picture.warnings == (() if data.startswith(WHOLE) else DAMAGED)


def test_metadata_that_are_cut_off_are_not_announced():
    assert webp.repaired(WHOLE) is None
    at = WHOLE.index(b"EXIF")
    repaired = webp.repaired(WHOLE[: at + 10])
    assert repaired is not None
    assert repaired == with_size(WHOLE[:20] + b"\0" + WHOLE[21:at], at - 8)


def test_pixels_cut_short_are_corrupt():
    for end in range(30, WHOLE.index(b"EXIF") - 1, 101):
        with pytest.raises(errors.CorruptImageError):
            decode(WHOLE[:end])


@given(damage=st.lists(st.tuples(st.integers(0, 10_000), st.binary(min_size=1, max_size=4)), min_size=1, max_size=4))
@settings(max_examples=60)
def test_damaged_files_end_in_a_picture_or_a_typed_error(damage):
    data = bytearray(WHOLE)
    for at, content in damage:
        start = 4 + at % (len(data) - 8)
        data[start : start + len(content)] = content
    try:
        decode(bytes(data))
    except errors.BackgroundRemoverError as error:
        assert not error.retryable
