"""The writer's files are read by decoders that are not ours, and checked byte by byte."""

import io
import struct
import zlib

import cv2
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image

from core.image import png

SHAPES = [(1, 1), (1, 2), (2, 1), (4, 1), (1, 4), (3, 5), (700, 1000), (1, 600_000), (600_000, 1)]


def written(pixels: np.ndarray, **said: object) -> bytes:
    height, width = pixels.shape[:2]
    channels = pixels.shape[2] if pixels.ndim == 3 else 1
    return png.write(lambda top, bottom: pixels[top:bottom], height, width, channels, **said)


def chunks(data: bytes) -> list[tuple[bytes, bytes]]:
    """Take a PNG apart; every length and checksum has to be right, and nothing may follow the end."""
    assert data[:8] == b"\x89PNG\r\n\x1a\n"
    found, at = [], 8
    while at < len(data):
        (length,) = struct.unpack_from(">I", data, at)
        name, body = data[at + 4 : at + 8], data[at + 8 : at + 8 + length]
        assert struct.unpack_from(">I", data, at + 8 + length)[0] == zlib.crc32(name + body)
        found.append((name, body))
        at += 12 + length
    assert (at, found[-1]) == (len(data), (b"IEND", b""))
    return found


def assert_holds(data: bytes, pixels: np.ndarray) -> None:
    unpacker = zlib.decompressobj()  # it checks Adler's checksum
    stream = unpacker.decompress(b"".join(body for name, body in chunks(data) if name == b"IDAT"))
    assert (unpacker.eof, unpacker.unused_data) == (True, b"")
    rows = np.frombuffer(stream, np.uint8).reshape(len(pixels), -1)
    assert rows.shape[1] == 1 + pixels[0].size
    assert set(rows[:, 0]) <= {2, 4}
    assert np.array_equal(np.asarray(Image.open(io.BytesIO(data))), pixels)
    by_opencv = cv2.imdecode(np.frombuffer(data, np.uint8), cv2.IMREAD_UNCHANGED)
    order = {1: None, 3: cv2.COLOR_BGR2RGB, 4: cv2.COLOR_BGRA2RGBA}[pixels.shape[2] if pixels.ndim == 3 else 1]
    assert np.array_equal(by_opencv if order is None else cv2.cvtColor(by_opencv, order), pixels)


@pytest.mark.parametrize("channels", [(), (3,), (4,)])
@pytest.mark.parametrize("shape", SHAPES)
def test_noise_of_any_shape_comes_back(shape, channels):
    pixels = np.random.default_rng(7).integers(0, 256, (*shape, *channels), np.uint8)
    assert_holds(written(pixels), pixels)


@settings(max_examples=60, deadline=None)
@given(
    seed=st.integers(0, 2**32),
    height=st.integers(1, 40),
    width=st.integers(1, 40),
    channels=st.sampled_from([(), (3,), (4,)]),
    levels=st.sampled_from([1, 2, 3, 16, 256]),
)
def test_few_levels_meet_every_case_of_the_predictor(seed, height, width, channels, levels):
    pixels = np.random.default_rng(seed).integers(0, levels, (height, width, *channels), np.uint8)
    assert_holds(written(pixels), pixels)


def test_strips_of_every_kind_are_joined():
    rng = np.random.default_rng(7)
    noise = rng.integers(0, 256, (300, 1000, 4), np.uint8)
    lettering = np.zeros((900, 1000, 4), np.uint8)
    for line in range(30, 900, 30):
        cv2.putText(lettering, "the same words again, " * 3, (5, line), 0, 0.8, (250, 240, 230, 255), 2, cv2.LINE_AA)
    pixels = np.vstack([noise, np.zeros((300, 1000, 4), np.uint8), lettering, noise])
    data = written(pixels)
    assert_holds(data, pixels)
    searched = len(data) - 2 * len(written(noise))
    assert searched < len(cv2.imencode(".png", lettering)[1])


def test_rows_are_asked_for_a_strip_at_a_time():
    asked = []

    def rows(top: int, bottom: int) -> np.ndarray:
        asked.append((top, bottom))
        return np.zeros((bottom - top, 1000, 4), np.uint8)

    png.write(rows, 5000, 1000, 4)
    assert {bottom - top for top, bottom in asked[1:-1]} <= {132}
    assert sorted(row for top, bottom in asked for row in range(top + (top > 0), bottom)) == list(range(5000))


def test_what_is_said_of_the_picture_lies_before_its_pixels():
    pixels = np.zeros((2, 2, 3), np.uint8)
    block = b"II*\0\x08\0\0\0\0\0\0\0\0\0"
    said = chunks(written(pixels, srgb=True, pixels_per_metre=(11_811, 2_835), exif=block))
    assert [name for name, _ in said[:4]] == [b"IHDR", b"sRGB", b"pHYs", b"eXIf"]
    assert dict(said)[b"pHYs"] == struct.pack(">2IB", 11_811, 2_835, 1)
    assert dict(said)[b"eXIf"] == block
    assert [name for name, _ in chunks(written(pixels)) if name != b"IDAT"] == [b"IHDR", b"IEND"]
