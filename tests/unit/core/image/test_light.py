"""Color without lookup tables, against LittleCMS and against published numbers."""

import io
import struct

import numpy as np
import pytest
from PIL import Image, ImageCms

from core.image import light
from core.image.colour import deep_to_srgb
from tests.resilience.hostile.handmade import DISPLAY_P3, cmyk_profile, linear_table_profile, profile_with, xyz

# Colorants adapted to D50, as published for ICC profiles (Lindbloom; BT.2020 by the same method).
COLORANTS = {
    "Adobe RGB": ((0.60974, 0.31111, 0.01947), (0.20528, 0.62567, 0.06087), (0.14919, 0.06322, 0.74457)),
    "BT.2020": ((0.67348, 0.27904, -0.00194), (0.16567, 0.67534, 0.02998), (0.12505, 0.04562, 0.79686)),
    "P3": ((0.51512, 0.24120, -0.00105), (0.29198, 0.69225, 0.04189), (0.15710, 0.06657, 0.78407)),
}
CHROMATICITIES = {
    "Adobe RGB": (0.3127, 0.3290, 0.64, 0.33, 0.21, 0.71, 0.15, 0.06),
    "BT.2020": (0.3127, 0.3290, 0.708, 0.292, 0.170, 0.797, 0.131, 0.046),
    "P3": (0.3127, 0.3290, 0.680, 0.320, 0.265, 0.690, 0.150, 0.060),
}
COLORS = np.random.default_rng(0).integers(0, 256, (64, 64, 3), np.uint8)


def curve(gamma: float) -> bytes:
    return b"curv\0\0\0\0" + struct.pack(">IH", 1, round(gamma * 256))


def profile(colorants: tuple[tuple[float, float, float], ...], trc: bytes | None = None) -> bytes:
    tags = {f"{c}XYZ": xyz(*colorant) for c, colorant in zip("rgb", colorants, strict=True)}
    return profile_with(**tags, **({f"{c}TRC": trc for c in "rgb"} if trc else {}))


def by_littlecms(pixels: np.ndarray, icc: bytes) -> np.ndarray:
    source = ImageCms.ImageCmsProfile(io.BytesIO(icc))
    transform = ImageCms.buildTransform(source, ImageCms.createProfile("sRGB"), "RGB", "RGB")
    return np.asarray(transform.apply(Image.fromarray(pixels))).astype(int)


def srgb(linear: float) -> float:
    return 255 * (linear * 12.92 if linear <= 0.0031308 else 1.055 * linear ** (1 / 2.4) - 0.055)


@pytest.mark.parametrize("name", COLORANTS)
@pytest.mark.parametrize("gamma", [1.0, 1.8, 2.2, 2.6])
def test_gamma_and_chromaticities_convert_as_the_same_profile_does(name, gamma):
    stated = light.of_gamma(round(100_000 / gamma) / 100_000, CHROMATICITIES[name])
    assert stated is not None
    expected = by_littlecms(COLORS, profile(COLORANTS[name], curve(gamma)))
    assert np.abs(light.to_srgb(COLORS, stated).astype(int) - expected).max() <= 2
    assert np.abs(light.to_srgb(COLORS, stated).astype(int) - expected).mean() < 0.2


@pytest.mark.parametrize("name, code", [("BT.2020", 9), ("P3", 12)])
def test_code_points_convert_as_the_same_profile_does(name, code):
    expected = by_littlecms(COLORS, profile(COLORANTS[name]))
    for transfer in (13, 1, 14):  # screens show video and sRGB alike
        stated = light.of_code_points(code, transfer)
        assert stated is not None
        assert np.abs(light.to_srgb(COLORS, stated).astype(int) - expected).max() <= 2


@pytest.mark.parametrize("dtype", [np.uint8, np.uint16])
@pytest.mark.parametrize("gamma", [1.0, 1 / 1.8, 0.3])
def test_every_level_of_gray_follows_its_gamma(dtype, gamma):
    white = np.iinfo(dtype).max
    levels = np.arange(white + 1, dtype=dtype).reshape(16, -1)
    stated = light.of_gamma(gamma, None)
    assert stated is not None
    found = light.to_srgb(levels, stated)
    expected = [srgb((level / white) ** (1 / gamma)) for level in levels.reshape(-1).tolist()]
    assert np.abs(found[..., 1].reshape(-1) - expected).max() <= 0.55
    assert np.array_equal(found[..., 0], found[..., 2])


def test_what_is_srgb_needs_no_conversion():
    assert light.of_code_points(1, 13) is light.of_code_points(2, 2) is light.of_code_points(1, 1) is None
    assert light.of_gamma(0.45455, None) is light.of_gamma(None, light.SRGB_PRIMARIES) is None
    assert light.of_gamma(0.45455, (0.3127, 0.329, 0.64, 0.33, 0.3, 0.6, 0.15, 0.06)) is None


def test_narrow_range_is_stretched():
    stated = light.of_code_points(1, 13, narrow=True)
    assert stated is not None
    levels = np.arange(256, dtype=np.uint8).reshape(16, 16)
    found = light.to_srgb(levels, stated)[..., 0].reshape(-1)
    assert found[[0, 16, 235, 255]].tolist() == [0, 0, 255, 255]
    assert found[126] == 128
    deep = light.to_srgb(levels.astype(np.uint16) * 256, stated)[..., 0].reshape(-1)
    assert np.array_equal(deep, found)


@pytest.mark.parametrize("transfer, name", [(16, "PQ"), (18, "HLG")])
@pytest.mark.parametrize("primaries", [1, 9, 12])
def test_hdr_is_tone_mapped(transfer, name, primaries):
    """BT.2408: at a signal of 0.38 an 18 % gray has 26 cd/m2 under white of 203, in PQ and in HLG."""
    stated = light.of_code_points(primaries, transfer)
    assert stated is not None
    assert stated.hdr == name
    gray = light.to_srgb(np.arange(65536, dtype=np.uint16).reshape(256, 256), stated).reshape(-1, 3).astype(int)
    assert np.abs(gray[round(0.38 * 65535)] - srgb(26 / 203)).max() <= 4
    assert (np.diff(gray, axis=0) >= 0).all()
    assert gray[round((0.58 if name == "PQ" else 0.75) * 65535)].max() < 240, "highlights stay apart from white"
    assert gray[-1].min() >= 254


def test_saturated_hdr_keeps_its_hue():
    stated = light.of_code_points(9, 16)
    assert stated is not None
    bright = np.full((1, 1, 3), (49_000, 45_000, 35_000), np.uint16)
    red, green, blue = light.to_srgb(bright, stated)[0, 0]
    assert red > green > blue > 0


def test_light_above_the_peak_keeps_the_ratio_of_its_channels():
    stated = light.of_code_points(1, 16)
    assert stated is not None
    nits_3000_1500_750 = np.full((1, 1, 3), (57_113, 52_170, 47_218), np.uint16)
    found = light.to_srgb(nits_3000_1500_750, stated)[0, 0]
    assert np.abs(found - [255, srgb(0.5), srgb(0.25)]).max() <= 1


@pytest.mark.parametrize("code_points", [(0, 13), (3, 13), (99, 13), (1, 3), (12, 0), (12, 19)])
def test_unknown_code_points_are_refused(code_points):
    with pytest.raises(ValueError, match="unknown"):
        light.of_code_points(*code_points)


@pytest.mark.parametrize(
    "gamma, chromaticities",
    [
        (0.0, None),
        (42_949.0, None),
        (None, (0.0,) * 8),
        (None, (0.3127, 0.329, *(0.3, 0.3) * 3)),
        (None, (0.3, 0, 0.6, 0.3, 0.3, 0.6, 0.1, 0.1)),
    ],
)
def test_numbers_that_are_no_colors_are_refused(gamma, chromaticities):
    with pytest.raises(ValueError, match=r"gamma|chromaticities"):
        light.of_gamma(gamma, chromaticities)


CURVES = {
    "no samples": b"curv\0\0\0\0" + struct.pack(">I", 0),
    "a gamma": curve(1.8),
    "nine samples": b"curv\0\0\0\0" + struct.pack(">I9H", 9, *(round(65535 * (i / 8) ** 2) for i in range(9))),
    "function 0": b"para\0\0\0\0" + struct.pack(">2Hi", 0, 0, 2 << 16),
    "function 1": b"para\0\0\0\0" + struct.pack(">2H3i", 1, 0, 2 << 16, 60_000, 5_000),
    "function 2": b"para\0\0\0\0" + struct.pack(">2H4i", 2, 0, 2 << 16, 60_000, 5_000, 600),
    "function 3": b"para\0\0\0\0" + struct.pack(">2H5i", 3, 0, 157_286, 62_119, 3_417, 5_072, 2_651),
}


@pytest.mark.parametrize("trc", CURVES.values(), ids=CURVES.keys())
def test_a_profile_of_curves_and_a_matrix_converts_as_littlecms_does(trc):
    icc = profile(COLORANTS["Adobe RGB"], trc)
    found, warnings = deep_to_srgb(COLORS.astype(np.uint16) * 257, icc)
    assert warnings == ()
    difference = np.abs(found.astype(int) - by_littlecms(COLORS, icc))
    assert (difference > 1).mean() < 0.02, "where a channel is near 0, LittleCMS rounds more"
    assert difference.mean() < 0.1


def test_a_linear_profile_keeps_all_levels_of_16_bits():
    ramp = np.tile(np.arange(65536, dtype=np.uint16).reshape(256, 256, 1), (1, 1, 3))
    neutral = ((0.43607, 0.22249, 0.01392), (0.38515, 0.71687, 0.09708), (0.14307, 0.06061, 0.71410))
    found, _ = deep_to_srgb(ramp, profile(neutral, curve(1.0)))
    assert len(np.unique(found)) == 256
    expected = [srgb(level / 65535) for level in range(65536)]
    assert np.abs(found.reshape(-1, 3) - np.array(expected)[:, None]).max() <= 1


def test_other_profiles_are_left_to_littlecms():
    assert light.of_profile(cmyk_profile()) is None
    assert light.of_profile(DISPLAY_P3[:200]) is None
    assert light.of_profile(b"no profile") is None
    assert light.of_profile(profile(COLORANTS["P3"], b"curv\0\0\0\0" + struct.pack(">I", 70_000))) is None
    rgb, warnings = deep_to_srgb(np.full((16, 16, 3), 128 * 257, np.uint16), cmyk_profile())
    assert (rgb == 128).all()
    assert any("color profile" in warning for warning in warnings)


def test_levels_lost_to_a_profile_of_tables_cause_a_warning():
    """LittleCMS takes 8 bits through Pillow."""
    ramp = np.tile(np.arange(65536, dtype=np.uint16).reshape(256, 256, 1), (1, 1, 3))
    found, warnings = deep_to_srgb(ramp, linear_table_profile())
    expected = [srgb(level / 65535) for level in range(65536)]
    assert np.abs(found.reshape(-1, 3) - np.array(expected)[:, None]).mean() < 1
    [warning] = warnings
    assert "8 of the image's 16 bits" in warning
    assert deep_to_srgb(ramp, DISPLAY_P3)[1] == ()
