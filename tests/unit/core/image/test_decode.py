import itertools
import struct
import subprocess
import sys
import tracemalloc
from functools import cache
from pathlib import Path

import cv2
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image, ImageCms
from PIL.PngImagePlugin import PngInfo

from core import errors, limits
from core.image import light
from core.image.decode import decode, decode_plane
from core.image.encode import encode_plane
from core.types import ImageInfo
from tests.conftest import file_of
from tests.resilience.hostile.handmade import (
    DISPLAY_P3,
    bmp_of_runs,
    cmyk_profile,
    jpeg_segments,
    png,
    profile_with,
    segment,
    xyz,
)

FORMATS = {name: name.upper() for name in ("jpeg", "png", "webp", "tiff", "bmp", "gif", "avif")} | {"heic": "HEIF"}
WIDTH, HEIGHT = 96, 64
RED, GREEN, BLUE, GREY = (200, 30, 30), (30, 180, 30), (30, 30, 200), (128, 128, 128)


def quarters() -> Image.Image:
    """One colour in each corner, so that every turn and flip shows."""
    picture = Image.new("RGB", (WIDTH, HEIGHT), GREY)
    picture.paste(RED, (0, 0, WIDTH // 2, HEIGHT // 2))
    picture.paste(GREEN, (WIDTH // 2, 0, WIDTH, HEIGHT // 2))
    picture.paste(BLUE, (0, HEIGHT // 2, WIDTH // 2, HEIGHT))
    return picture


def ramp(levels: int = 256) -> np.ndarray:
    return np.tile(np.linspace(0, levels - 1, WIDTH).astype(np.uint16), (HEIGHT, 1))


def corners(rgb: np.ndarray) -> list[tuple[int, ...]]:
    """Top left, top right, bottom left, bottom right."""
    return [tuple(int(v) for v in rgb[y, x]) for y in (8, -8) for x in (8, -8)]


def close(found: list[tuple[int, ...]], expected: list[tuple[int, ...]], levels: int = 8) -> bool:
    return bool(np.abs(np.subtract(found, expected)).max() <= levels)


def tiff(order: str, bits: int, photometric: int, pixels: bytes, *, subfile_type: int = 0) -> bytes:
    """A grey TIFF made by hand, of WIDTH x HEIGHT, with its pixels in one strip behind the directory."""
    tags = [(254, subfile_type), (256, WIDTH), (257, HEIGHT), (258, bits), (259, 1), (262, photometric)]
    tags += [(273, 8 + 2 + 12 * 10 + 4), (277, 1), (278, HEIGHT), (279, len(pixels))]
    directory = b"".join(struct.pack(order + "HHII", tag, 4, 1, value) for tag, value in tags)
    start = {"<": b"II", ">": b"MM"}[order] + struct.pack(order + "HI", 42, 8)
    return start + struct.pack(order + "H", len(tags)) + directory + b"\0\0\0\0" + pixels


@pytest.mark.parametrize("name", FORMATS)
def test_every_format_decodes_to_upright_srgb(name):
    data = file_of(quarters(), FORMATS[name])
    picture = decode(data)
    assert picture.info == ImageInfo(name, WIDTH, HEIGHT, len(data))
    assert (picture.rgb.shape, picture.rgb.dtype) == ((HEIGHT, WIDTH, 3), np.uint8)
    assert close(corners(picture.rgb), [RED, GREEN, BLUE, GREY])
    assert picture.alpha is None
    assert picture.warnings == ()


@pytest.mark.parametrize("name", ["jpeg", "png", "webp", "tiff", "avif"])
@pytest.mark.parametrize(
    ("orientation", "expected"),
    [
        (1, [RED, GREEN, BLUE, GREY]),
        (2, [GREEN, RED, GREY, BLUE]),
        (3, [GREY, BLUE, GREEN, RED]),
        (4, [BLUE, GREY, RED, GREEN]),
        (5, [RED, BLUE, GREEN, GREY]),
        (6, [BLUE, RED, GREY, GREEN]),
        (7, [GREY, GREEN, BLUE, RED]),
        (8, [GREEN, GREY, RED, BLUE]),
    ],
)
def test_exif_orientation_is_applied(name, orientation, expected):
    exif = Image.Exif()
    exif[0x0112] = orientation
    data = file_of(quarters(), FORMATS[name], exif=exif)
    picture = decode(data)
    assert close(corners(picture.rgb), expected)
    assert picture.rgb.shape[:2] == ((WIDTH, HEIGHT) if orientation >= 5 else (HEIGHT, WIDTH))
    assert picture.rgb.shape[:2] == (picture.info.height, picture.info.width)


XMP = b'<x:xmpmeta xmlns:x="adobe:ns:meta/"><rdf:Description tiff:Orientation="6"/></x:xmpmeta>'


@pytest.mark.parametrize("name", ["JPEG", "WEBP", "PNG", "AVIF"])
@pytest.mark.parametrize("xmp", [XMP, XMP.replace(b'="6"/', b">6</tiff:Orientation")])
def test_an_orientation_in_xmp_alone_is_said_and_does_not_turn_the_picture(name, xmp):
    parameters = {"xmp": xmp}
    if name == "PNG":
        parameters = {"pnginfo": PngInfo()}
        parameters["pnginfo"].add_itxt("XML:com.adobe.xmp", xmp.decode(), zip=True)
    picture = decode(file_of(quarters(), name, **parameters))
    assert close(corners(picture.rgb), [RED, GREEN, BLUE, GREY])
    assert picture.warnings == ("The orientation in XMP (6) was ignored: only that in the EXIF data counts.",)


def test_the_orientation_in_exif_counts_whatever_xmp_states():
    exif = Image.Exif()
    exif[0x0112] = 3
    picture = decode(file_of(quarters(), "JPEG", exif=exif, xmp=XMP))
    assert close(corners(picture.rgb), [GREY, BLUE, GREEN, RED])
    assert picture.warnings == ()


@pytest.mark.parametrize("name", ["JPEG", "PNG", "WEBP"])
def test_an_orientation_of_type_byte_is_applied(name):
    turned = b"Exif\0\0II*\0\x08\0\0\0\1\0\x12\1\1\0\1\0\0\0\6\0\0\0\0\0\0\0"
    picture = decode(file_of(quarters(), name, exif=turned))
    assert close(corners(picture.rgb), [BLUE, RED, GREY, GREEN])


@pytest.mark.parametrize("name", ["JPEG", "PNG", "WEBP"])
def test_an_orientation_that_does_not_exist_is_said(name):
    exif = Image.Exif()
    exif[0x0112] = 9
    picture = decode(file_of(quarters(), name, exif=exif))
    assert close(corners(picture.rgb), [RED, GREEN, BLUE, GREY])
    assert picture.warnings == ("The EXIF data are damaged: the image is taken as upright.",)


def test_alpha_turns_with_the_picture():
    exif = Image.Exif()
    exif[0x0112] = 6
    picture = quarters()
    picture.putalpha(Image.linear_gradient("L").resize((WIDTH, HEIGHT)))
    upright = decode(file_of(picture, "PNG", exif=exif))
    assert upright.alpha.shape == upright.rgb.shape[:2] == (WIDTH, HEIGHT)
    assert upright.alpha[0, 0] > 0.9
    assert upright.alpha[0, -1] < 0.1


def test_heic_rotation_is_applied_once():
    data = file_of(quarters(), "HEIF")
    exif = Image.Exif()
    exif[0x0112] = 6
    with_exif = file_of(quarters(), "HEIF", exif=exif)
    assert close(corners(decode(with_exif).rgb), [RED, GREEN, BLUE, GREY]), "HEIF ignores EXIF's orientation"

    # Put the property irot, 90 degrees anticlockwise, where the property pixi was.
    at = data.index(b"pixi")
    rotated = data[:at] + b"irot\1" + data[at + 5 :]
    picture = decode(rotated)
    assert close(corners(picture.rgb), [GREEN, GREY, RED, BLUE])
    assert (picture.info.width, picture.info.height) == (HEIGHT, WIDTH)


@pytest.mark.parametrize("name", ["JPEG", "PNG", "WEBP", "TIFF", "HEIF", "AVIF"])
def test_exif_data_are_handed_on_without_the_orientation(name):
    exif = Image.Exif()
    exif[0x0112], exif[0x010F] = 1 if name == "AVIF" else 6, "Maker"  # Pillow's AVIF keeps a turn apart from EXIF
    picture = decode(file_of(quarters(), name, exif=exif))
    handed_on = Image.Exif()
    handed_on.load(picture.exif)
    assert handed_on[0x010F] == "Maker"
    assert 0x0112 not in handed_on
    assert picture.warnings == ()


@pytest.mark.parametrize("name", ["JPEG", "PNG", "WEBP", "BMP", "GIF", "HEIF", "AVIF"])
def test_without_exif_data_there_are_none(name):
    assert decode(file_of(quarters(), name)).exif is None


@pytest.mark.filterwarnings("ignore::UserWarning:PIL")
@pytest.mark.parametrize("exif", [b"neither II nor MM", b"MM\0*\0\0\0\x08\xff\xff"])
def test_damaged_exif_is_said_and_does_not_cost_the_picture(exif):
    picture = decode(file_of(quarters(), "PNG", exif=exif))
    assert close(corners(picture.rgb), [RED, GREEN, BLUE, GREY])
    assert picture.exif is None
    assert any("EXIF" in warning for warning in picture.warnings)


@cache
@cache
def detailed(width: int, height: int) -> Image.Image:
    """A picture with detail at every scale, and no two corners alike."""
    rng = np.random.default_rng(0)
    layers = [
        Image.fromarray(rng.integers(0, 256, (height // n + 1, width // n + 1, 3), np.uint8)) for n in (3, 16, 90)
    ]
    summed = np.mean([np.asarray(layer.resize((width, height), Image.Resampling.BICUBIC)) for layer in layers], axis=0)
    return Image.fromarray(summed.astype(np.uint8))


def shrunk(rgb: np.ndarray, width: int = 100, height: int = 75) -> np.ndarray:
    return cv2.resize(rgb, (width, height), interpolation=cv2.INTER_AREA).astype(int)


JPEGS = {
    "baseline": {},
    "progressive": {"progressive": True},
    "turned": {"exif": b"Exif\0\0MM\0*\0\0\0\x08\0\1\1\x12\0\3\0\0\0\1\0\6\0\0\0\0\0\0"},
    "wide gamut": {"icc_profile": DISPLAY_P3},
}


@pytest.mark.parametrize("parameters", JPEGS.values(), ids=JPEGS.keys())
@pytest.mark.parametrize("size", [(800, 600), (807, 593), (801, 607)])
@pytest.mark.parametrize(("at_least_px", "divisor"), [(1, 8), (125, 4), (296, 2), (594, 1)])
def test_a_jpeg_is_decoded_at_the_smallest_scale_that_is_large_enough(size, parameters, at_least_px, divisor):
    data = file_of(detailed(*size), "JPEG", quality=92, **parameters)
    full, reduced = decode(data), decode(data, at_least_px=at_least_px)
    assert (reduced.info, reduced.warnings) == (full.info, full.warnings)
    assert reduced.rgb.shape == tuple(-(-side // divisor) if side > 3 else side for side in full.rgb.shape)
    difference = np.abs(shrunk(reduced.rgb, 50, 38) - shrunk(full.rgb, 50, 38))
    assert difference.mean() < (2 if divisor < 8 else 4)


@pytest.mark.parametrize("mode", ["L", "CMYK"])
def test_grey_and_cmyk_jpegs_are_reduced_too(mode):
    data = file_of(detailed(1600, 1200).convert(mode), "JPEG", quality=92)
    full, reduced = decode(data), decode(data, at_least_px=300)
    assert (reduced.info, reduced.warnings) == (full.info, full.warnings)
    assert reduced.rgb.shape == (300, 400, 3)
    assert np.abs(shrunk(reduced.rgb) - shrunk(full.rgb)).mean() < 2


@pytest.mark.parametrize("name", sorted(FORMATS.keys() - {"jpeg"}))
def test_other_formats_are_decoded_in_full(name):
    data = file_of(quarters(), FORMATS[name])
    assert np.array_equal(decode(data, at_least_px=1).rgb, decode(data).rgb)


@pytest.mark.parametrize("progressive", [False, True])
def test_what_is_refused_at_full_size_is_refused_at_any(progressive):
    data = file_of(detailed(320, 240), "JPEG", quality=92, progressive=progressive)
    for end in [*range(len(data) - 40, len(data), 3), *range(600, len(data), 3997)]:
        outcomes = []
        for at_least_px in (None, 100, 50, 1):
            try:
                outcomes.append(decode(data[:end], at_least_px=at_least_px).info)
            except errors.CorruptImageError:
                outcomes.append(None)
        assert len(set(outcomes)) == 1, end


@pytest.mark.parametrize("order", ["<", ">"])
@pytest.mark.parametrize("bits", [8, 16])
@pytest.mark.parametrize("photometric", [0, 1])
def test_grey_tiff_keeps_its_whole_range(order, bits, photometric):
    values = ramp(2**bits)
    pixels = values.astype(order + ("u1" if bits == 8 else "u2")).tobytes()
    grey = decode(tiff(order, bits, photometric, pixels)).rgb[0, :, 1].astype(int)
    expected = np.round(values[0] * (255 / (2**bits - 1)))
    assert np.abs(grey - (expected if photometric == 1 else 255 - expected)).max() <= 1


def test_12_bit_tiff_is_scaled_by_its_own_white():
    packed = bytearray()
    for first, second in ramp(4096).reshape(-1, 2).tolist():
        packed += bytes((first >> 4, (first & 15) << 4 | second >> 8, second & 255))
    grey = decode(tiff("<", 12, 1, bytes(packed))).rgb[0, :, 0]
    assert (grey[0], grey[-1]) == (0, 255)


def test_16_bit_png_keeps_its_whole_range():
    grey = decode(file_of(Image.fromarray(ramp(65536)), "PNG")).rgb[0, :, 0].astype(int)
    assert np.abs(grey - ramp(65536)[0] / 257).max() <= 0.51

    rows = b"".join(b"\0" + np.repeat(row, 3).astype(">u2").tobytes() for row in ramp(65536))
    colour = decode(png(WIDTH, HEIGHT, 16, 2, rows)).rgb[0, :, 2].astype(int)
    assert np.abs(colour - ramp(65536)[0] / 257).max() <= 1


def test_float_tiff_is_read_if_its_white_is_one():
    values = ramp().astype(np.float32)
    grey = decode(file_of(Image.fromarray(values / 255), "TIFF")).rgb[0, :, 0]
    assert np.array_equal(grey, ramp()[0])
    for nonsense in (values, values - 1, np.full_like(values, np.nan)):
        with pytest.raises(errors.UnsupportedFormatError, match="white"):
            decode(file_of(Image.fromarray(nonsense), "TIFF"))


def test_32_bit_integers_are_refused():
    with pytest.raises(errors.UnsupportedFormatError, match="white"):
        decode(file_of(Image.fromarray(ramp().astype(np.int32)), "TIFF"))


@pytest.mark.parametrize("mode", ["1", "L", "P"])
@pytest.mark.parametrize("name", ["PNG", "TIFF", "GIF", "BMP"])
def test_bilevel_grey_and_palette_pictures_become_rgb(mode, name):
    picture = Image.fromarray(np.where(ramp() < 128, 0, 255).astype(np.uint8)).convert(mode)
    rgb = decode(file_of(picture, name)).rgb
    assert np.array_equal(rgb[0, [0, -1]], [[0, 0, 0], [255, 255, 255]])


@pytest.mark.parametrize("name", ["PNG", "TIFF", "WEBP", "AVIF", "HEIF"])
def test_transparency_is_handed_on_with_straight_colour_and_white_where_nothing_is_seen(name):
    picture = quarters()
    steps = np.zeros((HEIGHT, WIDTH), np.uint8)
    steps[:, WIDTH // 2 :], steps[HEIGHT // 2 :] = 100, 255
    picture.putalpha(Image.fromarray(steps))
    lossless = {"WEBP": {"lossless": True, "exact": True}, "HEIF": {"quality": 95}}.get(name, {})
    decoded = decode(file_of(picture, name, **lossless))
    assert decoded.alpha.dtype == np.float32
    assert np.abs(decoded.alpha - steps / 255)[::8, ::8].max() <= 0.02
    top_left, *rest = corners(decoded.rgb)
    assert close(rest, [GREEN, BLUE, GREY], levels=12)
    if name in {"PNG", "TIFF", "WEBP"}:  # the others' lossy alpha is rarely 0
        assert top_left == (255, 255, 255)


def test_an_alpha_that_hides_nothing_is_none():
    picture = quarters()
    picture.putalpha(255)
    assert decode(file_of(picture, "PNG")).alpha is None


def test_grey_with_alpha_is_read():
    grey = Image.fromarray(ramp().astype(np.uint8))
    for name in ("PNG", "TIFF"):
        decoded = decode(file_of(Image.merge("LA", (grey, grey)), name))
        assert np.allclose(decoded.alpha * 255, ramp(), atol=0.01)
        assert np.array_equal(decoded.rgb[0, 1:, 0], ramp()[0, 1:])


def test_transparent_palette_entries_and_colours_make_alpha():
    palette = quarters().quantize(4)
    first = palette.getpixel((0, 0))
    one = decode(file_of(palette, "PNG", transparency=first))
    each = decode(file_of(palette, "PNG", transparency=bytes(64 if i == first else 255 for i in range(4))))
    gif = decode(file_of(palette, "GIF", transparency=first))
    colour = decode(file_of(quarters(), "PNG", transparency=RED))
    assert [picture.alpha[0, 0] for picture in (one, gif, colour)] == [0, 0, 0]
    assert each.alpha[0, 0] == pytest.approx(64 / 255)
    assert all(picture.alpha[-1, -1] == 1 for picture in (one, each, gif, colour))

    grey = decode(file_of(Image.fromarray(ramp(65536)), "PNG", transparency=65535))
    assert np.array_equal(grey.alpha[0, [0, -1]], [1, 0])


@pytest.mark.parametrize("transparent", [False, True])
def test_a_gif_frame_smaller_than_its_screen_is_surrounded_by_transparency(transparent):
    frame = Image.new("P", (40, 30), 0)
    frame.putpalette([*RED, *GREEN, *BLUE])
    data = bytearray(file_of(frame, "GIF", **({"transparency": 2} if transparent else {})))
    data[6:10] = struct.pack("<HH", WIDTH, HEIGHT)
    at = data.index(b"\x2c\0\0\0\0" + struct.pack("<HH", 40, 30))
    data[at + 1 : at + 5] = struct.pack("<HH", 5, 7)
    picture = decode(bytes(data))
    inside = np.zeros((HEIGHT, WIDTH), bool)
    inside[7:37, 5:45] = True
    assert picture.alpha is not None
    assert np.array_equal(picture.alpha == 1, inside)
    assert np.array_equal(picture.alpha == 0, ~inside)
    assert (picture.rgb[inside] == RED).all()


def bmp32(masks, channels, *, top_down=False):
    """A BMP of 32 bits with masks for red, green, blue and alpha, and a header of version 4."""
    pixels = np.zeros(channels.shape[:2], np.uint32)
    for mask, channel in zip(masks, np.moveaxis(channels, 2, 0), strict=True):
        if mask:
            pixels |= channel.astype(np.uint32) << ((mask & -mask).bit_length() - 1)
    height, width = pixels.shape
    header = struct.pack(
        "<IiiHHIIiiII", 108, width, -height if top_down else height, 1, 32, 3, pixels.nbytes, 0, 0, 0, 0
    )
    header += struct.pack("<4I", *masks) + b"BGRs" + bytes(48)
    rows = pixels if top_down else pixels[::-1]
    start = 14 + len(header)
    return struct.pack("<2sIHHI", b"BM", start + pixels.nbytes, 0, 0, start) + header + rows.astype("<u4").tobytes()


BYTES = [0xFF << shift for shift in (0, 8, 16, 24)]


@pytest.mark.parametrize("order", ["".join(order) for order in itertools.permutations("BGRA")])
@pytest.mark.parametrize("with_alpha", [False, True])
def test_a_32_bit_bmp_is_read_by_its_masks(order, with_alpha):
    red, green, blue, alpha = (BYTES[order.index(channel)] for channel in "RGBA")
    channels = np.random.default_rng(0).integers(1, 256, (20, 30, 4), np.uint8)
    for top_down in (False, True):
        picture = decode(bmp32((red, green, blue, alpha if with_alpha else 0), channels, top_down=top_down))
        assert np.array_equal(picture.rgb, channels[..., :3])
        assert (picture.alpha is not None) == with_alpha
        if picture.alpha is not None:
            assert np.array_equal(np.rint(picture.alpha * 255), channels[..., 3])


def test_a_bmp_whose_alpha_is_0_everywhere_is_opaque():
    channels = np.random.default_rng(0).integers(0, 256, (20, 30, 4), np.uint8)
    channels[..., 3] = 0
    masks = (0xFF0000, 0xFF00, 0xFF, 0xFF000000)
    picture = decode(bmp32(masks, channels))
    assert picture.alpha is None
    assert np.array_equal(picture.rgb, channels[..., :3])
    channels[0, 0, 3] = 1
    assert decode(bmp32(masks, channels)).alpha is not None


def test_an_srgb_profile_changes_nothing():
    plain = decode(file_of(quarters(), "PNG")).rgb
    tagged = decode(file_of(quarters(), "PNG", icc_profile=profile_with()))
    assert np.array_equal(plain, tagged.rgb)


@pytest.mark.parametrize("name", ["JPEG", "PNG", "WEBP", "TIFF", "AVIF", "HEIF"])
def test_a_wide_gamut_is_converted(name):
    grey = Image.new("RGB", (32, 32), (150, 120, 120))
    picture = decode(file_of(grey, name, quality=95, icc_profile=DISPLAY_P3))
    # As computed from the primaries of both, which share their curve: 155.8, 118.5, 119.3.
    assert close([tuple(picture.rgb[16, 16])], [(156, 119, 119)], levels=3)
    assert picture.warnings == ()


def test_a_profile_of_which_a_jpegs_segment_is_missing_is_a_warning():
    """A profile above 64 kB takes several segments."""
    data = file_of(quarters(), "JPEG", icc_profile=DISPLAY_P3 + bytes(70_000))
    second = data.index(b"ICC_PROFILE\0\2\2") - 4
    length = 2 + int.from_bytes(data[second + 2 : second + 4], "big")
    picture = decode(data[:second] + data[second + length :])
    assert np.array_equal(picture.rgb, decode(file_of(quarters(), "JPEG")).rgb)
    assert picture.warnings == ("Damaged segments of the JPEG were ignored: APP2.",)


def exif_of(color_space: int, index: bytes) -> bytes:
    """EXIF data of three directories: the exposure, with the color space, and the interoperability index below it."""
    top = struct.pack("<H2HIII", 1, 0x8769, 4, 1, 26, 0)
    below = struct.pack("<H2HII2HIII", 2, 0xA001, 3, 1, color_space, 0xA005, 4, 1, 56, 0)
    return b"Exif\0\0II*\0" + struct.pack("<I", 8) + top + below + struct.pack("<H2HI4sI", 1, 1, 2, 4, index, 0)


@pytest.mark.parametrize(
    ("color_space", "index", "is_adobe_rgb"),
    [
        (0xFFFF, b"R03\0", True),
        (0xFFFF, b"R98\0", False),
        (1, b"R03\0", False),
        (1, b"R98\0", False),
        (2, b"R98\0", True),
    ],
)
def test_a_cameras_adobe_rgb_is_converted(color_space, index, is_adobe_rgb):
    data = file_of(quarters(), "JPEG", quality=95)
    tagged = decode(file_of(quarters(), "JPEG", quality=95, exif=exif_of(color_space, index)))
    adobe_rgb = light.of_gamma(256 / 563, (0.3127, 0.3290, 0.64, 0.33, 0.21, 0.71, 0.15, 0.06))
    expected = light.to_srgb(decode(data).rgb, adobe_rgb) if is_adobe_rgb else decode(data).rgb
    assert np.array_equal(tagged.rgb, expected)
    assert not tagged.warnings
    with_profile = file_of(quarters(), "JPEG", icc_profile=DISPLAY_P3)
    exif = exif_of(color_space, index)
    assert np.array_equal(
        decode(file_of(quarters(), "JPEG", icc_profile=DISPLAY_P3, exif=exif)).rgb, decode(with_profile).rgb
    )


def test_a_profile_of_rgb_on_a_grey_picture_is_used():
    dark = profile_with(**{f"{c}XYZ": xyz(0.1, 0.1, 0.1) for c in "rgb"})
    grey = Image.new("L", (32, 32), 200)
    assert decode(file_of(grey, "PNG", icc_profile=dark)).rgb[0, 0, 1] < 150


@pytest.mark.parametrize("profile", [b"no profile", DISPLAY_P3[:200], cmyk_profile()])
@pytest.mark.parametrize("name", ["JPEG", "PNG"])
def test_an_unusable_profile_is_said_and_does_not_cost_the_picture(name, profile):
    picture = decode(file_of(quarters(), name, icc_profile=profile))
    assert close(corners(picture.rgb), [RED, GREEN, BLUE, GREY])
    assert any("color profile" in warning for warning in picture.warnings)


@pytest.mark.parametrize("name", ["JPEG", "TIFF"])
def test_cmyk_without_a_profile_is_approximated_and_said(name):
    picture = decode(file_of(quarters().convert("CMYK"), name))
    assert close(corners(picture.rgb), [RED, GREEN, BLUE, GREY])
    assert any("CMYK" in warning for warning in picture.warnings)


@pytest.mark.parametrize("name", ["JPEG", "TIFF"])
def test_cmyk_goes_by_its_profile(name):
    inks = Image.merge("CMYK", [Image.new("L", (32, 32), ink) for ink in (255, 0, 255, 0)])
    picture = decode(file_of(inks, name, icc_profile=cmyk_profile()))
    assert picture.rgb[16, 16].min() > 240, "in this profile only black ink is seen"
    assert picture.warnings == ()


def test_lab_tiff_is_converted():
    to_lab = ImageCms.buildTransform(ImageCms.createProfile("sRGB"), ImageCms.createProfile("LAB"), "RGB", "LAB")
    picture = decode(file_of(to_lab.apply(quarters()), "TIFF"))
    assert close(corners(picture.rgb), [RED, GREEN, BLUE, GREY], levels=16)  # 8-bit Lab is coarse


def test_the_pixels_can_be_written_to():
    for name in ("JPEG", "PNG"):
        assert decode(file_of(quarters(), name)).rgb.flags.writeable


@pytest.mark.parametrize(
    ("data", "found"),
    [
        (b"%PDF-1.7\n", "PDF"),
        (b"\xef\xbb\xbf \n<svg xmlns='x'/>", "SVG"),
        (b"<!DOCTYPE html><p>", "web page"),
        (b"8BPS\0\1", "Photoshop"),
        (b"\0\0\0\x20ftypisom\0\0\0\0isomiso2", "video"),
        (b"PK\3\4\0\0", "ZIP"),
        (b"no picture at all", "text"),
        (b"\0\1\2\3" * 8, "unknown"),
    ],
)
def test_what_is_no_picture_is_named(data, found):
    with pytest.raises(errors.UnsupportedFormatError, match=found) as caught:
        decode(data)
    assert caught.value.field == "image.format"
    assert "HEIC" in caught.value.remedy


def test_a_raw_file_is_not_taken_for_its_preview():
    with pytest.raises(errors.UnsupportedFormatError, match="raw"):
        decode(tiff("<", 8, 1, bytes(WIDTH * HEIGHT), subfile_type=1))


def test_no_bytes_are_refused():
    with pytest.raises(errors.EmptyImageError):
        decode(b"")


def test_too_many_bytes_are_refused():
    with pytest.raises(errors.FileTooLargeError) as caught:
        decode(bytes(limits.MAX_BYTES + 1))
    assert caught.value.value == limits.MAX_BYTES + 1


MEASURE = """
import sys
from pathlib import Path
from core.image.decode import decode

def kilobytes(of):
    return next(int(line.split()[1]) for line in Path("/proc/self/status").read_text().splitlines() if of in line)

data = sys.stdin.buffer.read()
before = kilobytes("VmRSS")
picture = decode(data)
print((kilobytes("VmHWM") - before) * 1024 / (picture.info.width * picture.info.height))
"""


@pytest.mark.skipif(not Path("/proc/self/status").exists(), reason="needs Linux's /proc")
@pytest.mark.parametrize("mode, pillow_name", [("RGBA", "PNG"), ("LA", "PNG"), ("CMYK", "TIFF")])
@pytest.mark.slow
def test_decoding_needs_memory_for_little_more_than_the_picture(mode, pillow_name):
    data = file_of(Image.new(mode, (4000, 4000), 0), pillow_name, compress_level=1)
    measured = subprocess.run([sys.executable, "-c", MEASURE], input=data, capture_output=True, check=True)
    assert float(measured.stdout) < 13  # bytes a pixel; Validate has 20 for the largest picture


@pytest.mark.parametrize("mode", [pytest.param("RGB", marks=pytest.mark.slow), "RGBA"])
def test_a_large_picture_is_whole(mode):
    rng = np.random.default_rng(0)
    pixels = np.repeat(rng.integers(1, 256, (2501, 1, len(mode)), dtype=np.uint8), 2000, axis=1)
    picture = decode(file_of(Image.fromarray(pixels), "PNG", compress_level=1))
    assert np.array_equal(picture.rgb, pixels[..., :3])
    if mode == "RGBA":
        assert picture.alpha is not None
        assert np.array_equal(np.rint(picture.alpha * 255), pixels[..., 3])


@pytest.mark.filterwarnings("ignore::PIL.Image.DecompressionBombWarning")
@pytest.mark.parametrize(
    "side, value",
    [(12_000, "12000 x 12000"), (30_000, "more than 200000000"), (2_000_000, "more than 200000000")],
)
def test_too_many_pixels_are_refused_from_the_header(side, value):
    data = png(side, side, 8, 2, b"")
    tracemalloc.start()
    with pytest.raises(errors.TooManyPixelsError) as caught:
        decode(data)
    _, peak_bytes = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert (caught.value.field, caught.value.value) == ("image.pixels", value)
    assert peak_bytes < 10_000_000


def test_too_small_a_picture_is_refused():
    with pytest.raises(errors.ImageTooSmallError):
        decode(file_of(Image.new("RGB", (1, 1)), "PNG"))
    assert decode(file_of(Image.new("RGB", (limits.MIN_SIDE_PX,) * 2), "PNG")).info.width == limits.MIN_SIDE_PX


@pytest.mark.parametrize("name", ["GIF", "PNG", "WEBP", "TIFF", "AVIF"])
def test_several_frames_or_pages_are_refused(name):
    frames = [Image.new("RGB", (32, 32), colour) for colour in (RED, GREEN, BLUE)]
    with pytest.raises(errors.AnimatedImageError):
        decode(file_of(frames[0], name, save_all=True, append_images=frames[1:]))


def test_a_heic_sequence_is_refused():
    with pytest.raises(errors.AnimatedImageError):
        decode(b"\0\0\0\x18ftyphevc\0\0\0\0msf1hevc" + bytes(100))


def test_of_several_pictures_in_a_heic_the_primary_one_is_taken_and_it_is_said():
    other = Image.new("RGB", (64, 64), GREY)
    picture = decode(file_of(quarters(), "HEIF", save_all=True, append_images=[other]))
    assert close(corners(picture.rgb), [RED, GREEN, BLUE, GREY])
    assert any("primary" in warning for warning in picture.warnings)


def test_further_pictures_in_a_telephones_jpeg_are_no_frames():
    other = Image.new("RGB", (64, 64), GREY)
    picture = decode(file_of(quarters(), "MPO", save_all=True, append_images=[other]))
    assert picture.info.format == "jpeg"
    assert close(corners(picture.rgb), [RED, GREEN, BLUE, GREY])


def jpeg_with(*segments: bytes) -> bytes:
    start, *rest = jpeg_segments(file_of(quarters(), "JPEG"))
    return b"".join([start, *segments, *rest])


def with_exif_segments(count: int) -> bytes:
    return jpeg_with(*[segment(0xE1, b"Exif\0\0II*\0\x08\0\0\0" + bytes(6))] * count)


def test_a_jpeg_may_be_followed_by_any_number_of_others_with_exif_data():
    assert decode(with_exif_segments(1) * 71).info.format == "jpeg"


def test_a_jpeg_of_more_than_64_segments_of_exif_data_is_corrupt():
    assert decode(with_exif_segments(64)).info.format == "jpeg"
    with pytest.raises(errors.CorruptImageError) as caught:
        decode(with_exif_segments(65))
    assert caught.value.value == "jpeg: more than 64 segments of EXIF data"


@pytest.mark.slow
def test_the_search_for_scans_gives_up_a_flood_of_segments():
    with pytest.raises(errors.CorruptImageError) as caught:
        decode(jpeg_with(segment(0xE5, b"") * limits.MAX_READS, segment(0xFE, b"\xff\xda" * 200)))
    assert caught.value.value == f"jpeg: more than {limits.MAX_READS} segments"


def test_a_bmp_may_have_a_run_for_each_pixel():
    numbers = np.random.default_rng(0).integers(0, 256, (700, 900), np.uint8)
    runs = np.stack([np.ones_like(numbers), numbers], axis=-1).reshape(700, 1800)
    rows = b"\0\0".join(row.tobytes() for row in runs)
    rgb = decode(bmp_of_runs(900, 700, rows + b"\0\1")).rgb
    assert np.array_equal(rgb[::-1, :, 1], 255 - numbers)


def test_the_runs_of_a_bmp_that_end_before_its_pixels_are_corrupt():
    row = b"\x60\1\0\0"
    for runs in (row * 63, row * 63 + b"\0\1", row * 63 + b"\x30\1\0"):
        with pytest.raises(errors.CorruptImageError):
            decode(bmp_of_runs(WIDTH, HEIGHT, runs))


def test_more_runs_than_can_be_read_in_seconds_are_refused_unread():
    with pytest.raises(errors.CorruptImageError) as caught:
        decode(bmp_of_runs(5000, 5000, b"\1\1" * (limits.MAX_RUNS_BYTES // 2)))
    assert caught.value.value == f"bmp: more than {limits.MAX_RUNS_BYTES} bytes of runs"


@pytest.mark.parametrize("name", FORMATS)
def test_a_file_cut_short_is_corrupt(name):
    noise = np.random.default_rng(0).integers(0, 256, (HEIGHT, WIDTH, 3), np.uint8)
    data = file_of(Image.fromarray(noise), FORMATS[name])
    with pytest.raises(errors.CorruptImageError):
        decode(data[: len(data) // 2])


def test_a_tiff_directory_that_points_at_itself_ends():
    data = bytearray(tiff("<", 8, 1, bytes(WIDTH * HEIGHT)))
    data[8 + 2 + 12 * 10 : 8 + 2 + 12 * 10 + 4] = struct.pack("<I", 8)
    assert decode(bytes(data)).info.format == "tiff"


@given(draw=st.binary(max_size=200))
@settings(max_examples=50, deadline=None)
def test_any_bytes_end_in_a_typed_error(draw):
    with pytest.raises(errors.BackgroundRemoverError):
        decode(draw)


def test_a_plane_that_is_none_is_corrupt():
    plane = encode_plane(np.ones((32, 32), np.float32))
    for data in (b"", b"nothing", plane[:-20], file_of(quarters(), "PNG"), file_of(Image.fromarray(ramp()), "PNG")):
        with pytest.raises(errors.CorruptImageError):
            decode_plane(data)
