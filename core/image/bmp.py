"""Read of a BMP what Pillow does not: masks of any bits, and the colors that headers of versions 4 and 5 declare.

Source: Microsoft, Windows GDI, "Bitmap Header Types", ``BITMAPV5HEADER``.
"""

import struct
from dataclasses import dataclass, replace
from typing import Final

import numpy as np
from numpy.typing import NDArray

from core.image.light import Chromaticities, Curve, Light, of_gamma

_MASKS_AT, _SPACE_AT, _ENDPOINTS_AT, _PROFILE_AT = 54, 70, 74, 126
_V3_BYTES, _V4_BYTES, _V5_BYTES = 56, 108, 124
_WITH_MASKS, _WITH_ALPHA_MASK = 3, 6
_KNOWN_MASKS: Final = {
    16: {(0xF800, 0x7E0, 0x1F, 0), (0x7C00, 0x3E0, 0x1F, 0)},
    32: {(0xFF0000, 0xFF00, 0xFF, 0), (0xFF0000, 0xFF00, 0xFF, 0xFF << 24), (0xFF, 0xFF00, 0xFF0000, 0xFF << 24)}
    | {(0, 0, 0, 0)},
}
"""What Pillow reads, without a copy."""

_CALIBRATED, _EMBEDDED, _LINKED = b"\0\0\0\0", b"DEBM", b"KNIL"
_GAMMAS: Final = (1.0, 10.0)
_TOLERANCE: Final = 0.01
_BAND_PIXELS: Final = 1_000_000


@dataclass(frozen=True)
class Colors:
    """How a BMP's colors are encoded.

    Attributes:
        icc: the ICC profile that is embedded.
        light: the encoding if there is no profile; None for sRGB.
        warnings: what was ignored.
    """

    icc: bytes | None = None
    light: Light | None = None
    warnings: tuple[str, ...] = ()


def colors(data: bytes) -> Colors:
    """Return the encoding of colors that the header declares."""
    size = int.from_bytes(data[14:18], "little")
    space = data[_SPACE_AT : _SPACE_AT + 4] if size >= _V4_BYTES else b""
    if space == _EMBEDDED and size >= _V5_BYTES:
        start, length = struct.unpack_from("<2I", data, _PROFILE_AT)
        if icc := data[14 + start : 14 + start + length]:
            return Colors(icc=icc)
        return Colors(warnings=("The color profile is missing.",))
    if space == _LINKED:
        return Colors(warnings=("The color profile is in another file and was ignored.",))
    if space != _CALIBRATED:
        return Colors()
    *endpoints, red, green, blue = struct.unpack_from("<9i3I", data, _ENDPOINTS_AT)
    try:
        return Colors(light=_calibrated(endpoints, [gamma / 65536 for gamma in (red, green, blue)]))
    except (ValueError, ZeroDivisionError):
        return Colors(warnings=("The color description (gamma, endpoints) is invalid and was ignored.",))


def _calibrated(endpoints: list[int], gammas: list[float]) -> Light | None:
    """Return the encoding by X, Y and Z of red, green and blue, and a gamma for each; all 0 is not stated.

    Raises:
        ValueError, ZeroDivisionError: the numbers are no gamma or no colors.
    """
    chromaticities: Chromaticities | None = None
    if any(endpoints):
        colors = [[one / 2**30 for one in endpoints[at : at + 3]] for at in (0, 3, 6)]
        white = [sum(ones) for ones in zip(*colors, strict=True)]
        if all(abs(sum(color) - 1) < _TOLERANCE for color in colors):
            white = [0.3127, 0.3290, 0.3583]  # some writers store x, y and z, which define no white
        chromaticities = tuple(one / sum(color) for color in (white, *colors) for one in color[:2])
    if not any(gammas):
        return of_gamma(None, chromaticities)
    if not all(_GAMMAS[0] <= gamma <= _GAMMAS[1] for gamma in gammas):
        raise ValueError(f"gammas {gammas}")
    linear = of_gamma(1.0, chromaticities)
    if linear is None or len(set(gammas)) == 1:
        return of_gamma(1 / gammas[0], chromaticities)
    return replace(linear, curves=tuple(Curve(exponent=gamma) for gamma in gammas))


def with_known_masks(data: bytes) -> bytes | None:
    """Return a BMP with masks of 8 bits each, or None if Pillow reads its own.

    Raises:
        ValueError, struct.error: the file is cut short, or a mask is not of adjacent bits.
    """
    size, width, height, _, bits, compression = struct.unpack_from("<IiiHHI", data, 14)
    if compression not in {_WITH_MASKS, _WITH_ALPHA_MASK} or bits not in _KNOWN_MASKS:
        return None
    *masks, alpha = struct.unpack_from("<4I", data, _MASKS_AT)
    if size < _V3_BYTES and compression == _WITH_MASKS:
        alpha = 0
    if compression == _WITH_MASKS and (*masks, alpha) in _KNOWN_MASKS[bits]:
        return None
    rows, row_bytes = abs(height), (width * bits + 31) // 32 * 4
    start = int.from_bytes(data[10:14], "little")
    if width <= 0 or start + rows * row_bytes > len(data):
        raise ValueError("image file is truncated")
    stored = np.frombuffer(data, np.uint8, rows * row_bytes, start).reshape(rows, row_bytes).view(f"<u{bits // 8}")
    pixels = np.zeros((rows, width, 4), np.uint8)
    step = max(1, _BAND_PIXELS // width)
    for top in range(0, rows, step):
        band = stored[top : top + step, :width]
        for at, mask in enumerate((*reversed(masks), alpha)):
            pixels[top : top + step, :, at] = _channel(band, mask)
    known = (0xFF0000, 0xFF00, 0xFF, 0xFF << 24 if alpha else 0)
    header = struct.pack("<IiiHHIIiiII", _V3_BYTES, width, height, 1, 32, _WITH_MASKS, pixels.nbytes, 0, 0, 0, 0)
    header += struct.pack("<4I", *known)
    return b"".join((struct.pack("<2sIHHI", b"BM", 0, 0, 0, 14 + len(header)), header, pixels.data))


def _channel(pixels: NDArray[np.unsignedinteger], mask: int) -> NDArray[np.uint8]:
    """Return the bits of a mask, scaled to 0 to 255."""
    if not mask:
        return np.zeros(pixels.shape, np.uint8)
    shift = (mask & -mask).bit_length() - 1
    most = mask >> shift
    if most & (most + 1):
        raise ValueError(f"a mask of separate bits, {mask:#x}")
    numbers = (pixels.astype(np.uint32) & np.uint32(mask)) >> np.uint32(shift)
    return (numbers * (255 / most) + 0.5).astype(np.uint8)
