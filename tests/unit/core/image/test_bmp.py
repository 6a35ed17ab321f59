import struct

import numpy as np
import pytest

from core import errors
from core.image import light
from core.image.decode import decode
from tests.resilience.hostile.handmade import profile_with

WIDTH, HEIGHT = 29, 19
CALIBRATED, EMBEDDED, LINKED = b"\0\0\0\0", b"DEBM", b"KNIL"
SRGB_XYZ = (0.4124, 0.2126, 0.0193, 0.3576, 0.7152, 0.1192, 0.1805, 0.0722, 0.9505)
P3 = (0.3127, 0.3290, 0.68, 0.32, 0.265, 0.69, 0.15, 0.06)
P3_XYZ = (0.4866, 0.2290, 0.0, 0.2657, 0.6917, 0.0451, 0.1982, 0.0793, 1.0439)
P3_XY_AND_Z = (0.68, 0.32, 0.0, 0.265, 0.69, 0.045, 0.15, 0.06, 0.79)


def bmp_of_masks(
    bits: int, masks: tuple[int, ...], stored: np.ndarray, *, size: int = 40, compression: int = 3
) -> bytes:
    """A BMP of 16 or 32 bits, bottom row first; the masks are in a longer header, or follow a short one."""
    rows = stored.astype(f"<u{bits // 8}")[::-1]
    padding = bytes(-rows.shape[1] * bits // 8 % 4)
    pixels = b"".join(row.tobytes() + padding for row in rows)
    header = struct.pack("<IiiHHIIiiII", size, WIDTH, HEIGHT, 1, bits, compression, len(pixels), 0, 0, 0, 0)
    header = (header + struct.pack(f"<{len(masks)}I", *masks)).ljust(size, b"\0")
    return struct.pack("<2sIHHI", b"BM", 0, 0, 0, 14 + len(header)) + header + pixels


def share(stored: np.ndarray, mask: int) -> np.ndarray:
    shift = (mask & -mask).bit_length() - 1
    return (stored & mask) / mask if not shift else ((stored & mask) >> shift) / (mask >> shift)


@pytest.mark.parametrize(
    ("bits", "masks", "layout"),
    [
        (16, (0x7C00, 0x3E0, 0x1F, 0x8000), {"size": 56}),
        (16, (0xF00, 0xF0, 0xF, 0xF000), {"size": 108}),
        (16, (0xF00, 0xF0, 0xF), {}),
        (16, (0x1F, 0x7E0, 0xF800), {}),
        (32, (0x3FF << 20, 0x3FF << 10, 0x3FF), {}),
        (32, (0x3FF << 20, 0x3FF << 10, 0x3FF, 3 << 30), {"size": 124}),
        (32, (0xFF0000, 0xFF00, 0xFF, 0xFF << 24), {"compression": 6}),
    ],
)
def test_masks_of_any_bits_are_read(bits, masks, layout):
    stored = np.random.default_rng(0).integers(0, 1 << bits, (HEIGHT, WIDTH))
    picture = decode(bmp_of_masks(bits, masks, stored, **layout))
    shares = np.dstack([share(stored, mask) for mask in masks])
    alpha = shares[..., 3] if len(masks) > 3 else np.ones((HEIGHT, WIDTH))
    seen = alpha > 0
    assert np.abs(picture.rgb - shares[..., :3] * 255)[seen].max() <= 0.51
    assert np.abs((1 if picture.alpha is None else picture.alpha) - alpha).max() * 255 <= 0.51


def test_masks_of_separate_bits_and_pixels_that_end_early_are_corrupt():
    stored = np.zeros((HEIGHT, WIDTH), int)
    for data in (bmp_of_masks(16, (0xF0F, 0xF0, 0), stored), bmp_of_masks(16, (0xF00, 0xF0, 0xF), stored)[:-1]):
        with pytest.raises(errors.CorruptImageError):
            decode(data)


def colored(space: bytes, endpoints: tuple[float, ...] = (), gammas: tuple[float, ...] = (), profile: bytes = b""):
    """A BMP of 24 bits, black to white from left to right in green and blue, with a header of version 5."""
    rows = [struct.pack("<3B", level, level, 90) for level in range(0, 256, 8)]
    pixels = b"".join(rows) * 16
    header = struct.pack("<IiiHHIIiiII", 124, len(rows), 16, 1, 24, 0, len(pixels), 0, 0, 0, 0) + bytes(16) + space
    header += struct.pack("<9i", *(round(one * 2**30) for one in endpoints or [0] * 9))
    header += struct.pack("<3I", *(round(gamma * 65536) for gamma in gammas or [0] * 3))
    header += struct.pack("<4I", 4, 124 + len(pixels), len(profile), 0)
    return struct.pack("<2sIHHI", b"BM", 0, 0, 0, 14 + len(header)) + header + pixels + profile


PLAIN = decode(colored(b"BGRs")).rgb


@pytest.mark.parametrize(
    ("endpoints", "gammas", "expected"),
    [
        ((), (), None),
        (SRGB_XYZ, (2.2, 2.2, 2.2), None),
        (SRGB_XYZ, (1, 1, 1), light.of_gamma(1.0, None)),
        ((), (1.8, 1.8, 1.8), light.of_gamma(1 / 1.8, None)),
        (P3_XYZ, (), light.of_gamma(None, P3)),
        (P3_XY_AND_Z, (), light.of_gamma(None, P3)),
    ],
)
def test_declared_colors_are_converted(endpoints, gammas, expected):
    picture = decode(colored(CALIBRATED, endpoints, gammas))
    wanted = light.to_srgb(PLAIN, expected) if expected else PLAIN
    assert np.abs(picture.rgb.astype(int) - wanted).max() <= 1
    assert not picture.warnings


def test_each_channel_has_its_gamma():
    rgb = decode(colored(CALIBRATED, (), (2.2, 1, 2.2))).rgb.astype(int)
    linear = light.to_srgb(PLAIN, light.of_gamma(1.0, None)).astype(int)
    assert np.abs(rgb[..., 1] - linear[..., 1]).max() <= 1
    assert np.abs(rgb[..., 2] - PLAIN[..., 2]).max() <= 9  # a gamma of 2.2 is not the curve of sRGB


def test_an_embedded_profile_is_used():
    linear = b"curv" + bytes(8)
    rgb = decode(colored(EMBEDDED, profile=profile_with(rTRC=linear, gTRC=linear, bTRC=linear))).rgb
    assert np.abs(rgb.astype(int) - light.to_srgb(PLAIN, light.of_gamma(1.0, None))).max() <= 2


@pytest.mark.parametrize(
    ("data", "warning"),
    [
        (colored(CALIBRATED, (), (0.4545, 0.4545, 0.4545)), "color description"),
        (colored(CALIBRATED, (0.1,) * 9), "color description"),
        (colored(CALIBRATED, (1, 1, -2, *SRGB_XYZ[3:])), "color description"),
        (colored(EMBEDDED, profile=b"no profile"), "color profile"),
        (colored(EMBEDDED), "color profile"),
        (colored(LINKED, profile=b"C:\\screen.icm\0"), "another file"),
    ],
)
def test_colors_that_cannot_be_used_are_a_warning(data, warning):
    picture = decode(data)
    assert np.array_equal(picture.rgb, PLAIN)
    assert any(warning in found for found in picture.warnings)
