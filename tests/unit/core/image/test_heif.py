import struct
from fractions import Fraction

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image

from core import errors
from core.image import heif
from core.image.decode import decode
from tests.conftest import file_of
from tests.resilience.hostile.handmade import DISPLAY_P3

WIDTH, HEIGHT = 96, 64


def pixels() -> np.ndarray:
    """A color in each block of 8 x 8, in steps across and down."""
    y, x = np.mgrid[:HEIGHT, :WIDTH] // 8
    return np.stack([x * 20, y * 30, np.full_like(x, 60)], axis=-1).astype(np.uint8)


def avif(width: int, height: int, right: int, below: int, denominator: int = 1) -> bytes:
    """An AVIF with a clean aperture where Pillow stored an ICC profile."""
    data = file_of(Image.fromarray(pixels()), "AVIF", quality=100, subsampling="4:4:4", icc_profile=DISPLAY_P3)
    at, first = data.index(b"colrprof"), data.index(b"ipma") + 15
    size = int.from_bytes(data[at - 4 : at], "big")
    numbers = struct.pack(">4I4i", width, 1, height, 1, right, denominator, below, denominator)
    data = data[:at] + b"clap" + numbers.ljust(size - 8, b"\0") + data[at - 4 + size :]
    essential = bytes(index | 0x80 for index in data[first : first + data[first - 1]])
    return data[:first] + essential + data[first + len(essential) :]


@pytest.mark.parametrize(
    "aperture, left, top",
    [((40, 30, -8, 5), 20, 22), ((96, 64, 0, 0), 0, 0), ((48, 32, 24, 16), 48, 32), ((40, 30, -17, 11, 2), 19, 22)],
)
def test_the_clean_aperture_of_an_avif_is_cropped(aperture, left, top):
    width, height = aperture[:2]
    picture = decode(avif(*aperture))
    assert (picture.info.width, picture.info.height) == (width, height)
    cropped = pixels()[top : top + height, left : left + width]
    assert picture.rgb.shape == cropped.shape
    assert np.abs(picture.rgb.astype(int) - cropped).max() <= 6
    assert picture.warnings == ()


@pytest.mark.parametrize("aperture", [(97, 64, 0, 0), (40, 30, 60, 0), (40, 30, 0, -40), (0, 30, 0, 0)])
def test_a_clean_aperture_outside_the_image_is_said_and_ignored(aperture):
    picture = decode(avif(*aperture))
    assert picture.rgb.shape == (HEIGHT, WIDTH, 3)
    assert picture.warnings == ("The clean aperture is not inside the image and was ignored.",)


def test_a_clean_aperture_too_small_to_work_on_is_refused():
    with pytest.raises(errors.ImageTooSmallError):
        decode(avif(12, 30, 0, 0))


def color(name: str, primaries: int, transfer: int, **parameters: object) -> bytes:
    gray = Image.new("RGB", (32, 32), (150, 120, 120))
    data = file_of(gray, name, quality=95, **parameters)
    assert data.count(b"nclx") == 1
    at = data.index(b"nclx") + 4
    return data[:at] + struct.pack(">2H", primaries, transfer) + data[at + 4 :]


@pytest.mark.parametrize("name", ["AVIF", "HEIF"])
@pytest.mark.parametrize(
    "code_points, expected",
    [((1, 13), (150, 120, 120)), ((2, 2), (150, 120, 120)), ((12, 13), (156, 119, 119)), ((1, 8), (201, 181, 181))],
)
def test_code_points_are_converted(name, code_points, expected):
    picture = decode(color(name, *code_points))
    assert np.abs(picture.rgb[16, 16].astype(int) - expected).max() <= 3
    assert picture.warnings == ()


@pytest.mark.parametrize("name", ["AVIF", "HEIF"])
@pytest.mark.parametrize("transfer, hdr", [(16, "PQ"), (18, "HLG")])
def test_hdr_is_tone_mapped_and_it_is_said(name, transfer, hdr):
    picture = decode(color(name, 9, transfer))
    assert picture.warnings == (f"The image is HDR ({hdr}): it was tone-mapped to sRGB.",)
    assert picture.rgb[16, 16, 0] > 180


def test_unknown_code_points_are_said_and_taken_as_srgb():
    picture = decode(color("AVIF", 77, 13))  # libheif refuses the file
    assert np.abs(picture.rgb[16, 16].astype(int) - (150, 120, 120)).max() <= 3
    assert picture.warnings == ("The color description (nclx) is not supported and was ignored.",)


def test_damaged_exif_data_of_an_avif_are_said_and_do_not_cost_the_picture():
    exif = Image.Exif()
    exif[0x010F] = "Maker"
    data = file_of(Image.fromarray(pixels()), "AVIF", exif=exif)
    at = data.rindex(b"MM\0*" if b"MM\0*" in data else b"II*\0")
    picture = decode(data[:at] + b"XX" + data[at + 2 :])
    assert picture.rgb.shape == (HEIGHT, WIDTH, 3)
    assert picture.exif is None
    assert picture.warnings == ("The EXIF data are damaged and were ignored.",)
    assert heif.without_exif(file_of(Image.fromarray(pixels()), "AVIF")) is None


def box(name: bytes, contents: bytes) -> bytes:
    return struct.pack(">I", len(contents) + 8) + name + contents


NCLX = box(b"colr", b"nclx" + struct.pack(">3HB", 12, 16, 0, 128))
CLAP = box(b"clap", struct.pack(">4I4i", 10, 1, 21, 2, 1, 2, -3, 1))


def file_with(ipma: bytes, pitm: bytes = b"\0\0\0\0\0\7") -> bytes:
    properties = box(b"iprp", box(b"ipco", box(b"ispe", bytes(12)) + NCLX + CLAP) + box(b"ipma", ipma))
    return box(b"ftyp", b"avif") + box(b"meta", bytes(4) + box(b"pitm", pitm) + properties)


OF_THE_PRIMARY = heif.Properties(12, 16, (Fraction(10), Fraction(21, 2), Fraction(1, 2), Fraction(-3)))


def test_properties_belong_to_an_item():
    small = b"\0\0\0\0" + struct.pack(">I", 2) + b"\0\3\1\1" + b"\0\7\2\2\x83"
    large = b"\1\0\0\1" + struct.pack(">I", 2) + b"\0\0\0\3\1\0\1" + b"\0\0\0\7\2\0\2\x80\3"
    assert heif.read(file_with(small)) == OF_THE_PRIMARY
    assert heif.read(file_with(large, b"\1\0\0\0\0\0\0\7")) == OF_THE_PRIMARY
    assert heif.read(file_with(small, b"\0\0\0\0\0\3")) == heif.Properties()
    assert heif.read(file_with(small, b"\0\0\0\0\0\1")) == heif.Properties()
    assert heif.read(box(b"ftyp", b"avif")) == heif.Properties()


def test_floods_are_refused():
    with pytest.raises(ValueError, match="boxes"):
        heif.read(box(b"free", b"") * 20_000)
    with pytest.raises(ValueError, match="ipma"):
        heif.read(file_with(b"\0\0\0\0\xff\xff\xff\xff" + b"\0\3\0" * 400_000))


@given(
    damage=st.lists(st.tuples(st.integers(0, 300), st.binary(min_size=1, max_size=4)), max_size=4),
    end=st.none() | st.integers(0, 300),
)
@settings(max_examples=100)
def test_damaged_boxes_are_read_or_refused(damage, end):
    data = bytearray(file_with(b"\0\0\0\0" + struct.pack(">I", 1) + b"\0\7\2\2\x83"))
    for at, content in damage:
        data[at % len(data) : at % len(data) + len(content)] = content
    try:
        properties = heif.read(bytes(data[:end]))
        properties.crop(100, 100)
    except ValueError:
        return
    assert 0 <= properties.transfer < 65536
