"""Color without a lookup table: a curve from stored values to light, and a matrix from its primaries to those of sRGB.

PNG states them as code points, or as a gamma and chromaticities; HEIC and AVIF as code points; most ICC profiles of RGB
and gray contain no more either.

Sources: ITU-T H.273 (code points); ITU-R BT.2100 (PQ and HLG); BT.2390, section 5.4.1 (tone mapping); BT.2408 (203
cd/m2 is the white of text and paper in HDR); IEC 61966-2-1 (sRGB); ICC.1:2022.
"""

import struct
from dataclasses import dataclass
from functools import lru_cache
from typing import Any, Final, TypeAlias

import cv2
import numpy as np
from numpy.typing import NDArray

from core.arrays import Rgb

_Floats: TypeAlias = NDArray[np.float64]
Chromaticities: TypeAlias = tuple[float, ...]
"""x and y of white, red, green and blue, as in PNG's ``cHRM``."""

SRGB_PRIMARIES: Final[Chromaticities] = (0.3127, 0.3290, 0.64, 0.33, 0.30, 0.60, 0.15, 0.06)
_D65, _C = (0.3127, 0.3290), (0.310, 0.316)
_PRIMARIES: Final[dict[int, Chromaticities]] = {
    1: SRGB_PRIMARIES,
    4: (*_C, 0.67, 0.33, 0.21, 0.71, 0.14, 0.08),
    5: (*_D65, 0.64, 0.33, 0.29, 0.60, 0.15, 0.06),
    6: (*_D65, 0.630, 0.340, 0.310, 0.595, 0.155, 0.070),
    7: (*_D65, 0.630, 0.340, 0.310, 0.595, 0.155, 0.070),
    8: (*_C, 0.681, 0.319, 0.243, 0.692, 0.145, 0.049),
    9: (*_D65, 0.708, 0.292, 0.170, 0.797, 0.131, 0.046),
    10: (1 / 3, 1 / 3, 1, 0, 0, 1, 0, 0),
    11: (0.314, 0.351, 0.680, 0.320, 0.265, 0.690, 0.150, 0.060),
    12: (*_D65, 0.680, 0.320, 0.265, 0.690, 0.150, 0.060),
    22: (*_D65, 0.630, 0.340, 0.295, 0.605, 0.155, 0.077),
}
_NONE, _UNSPECIFIED = -1, 2
_SRGB_CURVE: Final = 13
# The curves of video cameras (BT.709, BT.601, BT.2020): screens show video and sRGB alike, and so does Chromium.
_SHOWN_AS_SRGB: Final = {1, _UNSPECIFIED, 6, 11, 12, 14, 15}
_PQ, _HLG = 16, 18
_HDR: Final = {_PQ: "PQ", _HLG: "HLG"}

_GAMMA_OF_SRGB: Final = 1 / 2.2
"""What writers of sRGB images state in ``gAMA``; libpng takes it for sRGB's curve, too."""
_GAMMA_TOLERANCE: Final = 0.001
_GAMMAS: Final = (0.1, 10.0)
_CHROMATICITY_TOLERANCE: Final = 0.002

_BLOCK_PIXELS: Final = 1 << 17
"""Pixels that are converted at a time: their floats take 1.5 MB."""

_WHITE_NITS, _PEAK_NITS = 203.0, 1000.0
_STEPS_PER_WHITE: Final = 65535 * _WHITE_NITS / 10_000
_DARK: Final = np.float32(1e-6)
_TO_D50: Final = (0.3457, 0.3585)
_BRADFORD: Final = np.array([[0.8951, 0.2664, -0.1614], [-0.7502, 1.7135, 0.0367], [0.0389, -0.0685, 1.0296]])

_ICC_HEADER_BYTES: Final = 128
_MAX_ICC_TAGS: Final = 100
# The number of parameters of a parametric curve, by its type.
_PARAMETERS: Final = {0: 1, 1: 3, 2: 4, 3: 5, 4: 7}


@dataclass(frozen=True)
class Light:
    """How stored values encode light.

    Attributes:
        curves: for one channel or three, a code point of H.273, a gamma, or the curve of an ICC profile.
        matrix: rows of the matrix from linear RGB to linear sRGB; None for gray and for the primaries of sRGB.
        narrow: whether black is 16/255 and white 235/255, as in video.
        black: the light of the profile's black, which becomes that of sRGB.
    """

    curves: tuple["Curve", ...]
    matrix: tuple[tuple[float, ...], ...] | None = None
    narrow: bool = False
    black: float = 0.0

    @property
    def hdr(self) -> str | None:
        """The name of the HDR curve, or None."""
        return _HDR.get(self.curves[0].code)


@dataclass(frozen=True)
class Curve:
    """A curve from [0, 1] to [0, 1]: a code point of H.273, an exponent, or an ICC profile's tag."""

    code: int = _NONE
    exponent: float = 1.0
    tag: bytes = b""


def of_code_points(primaries: int, transfer: int, *, narrow: bool = False) -> Light | None:
    """Return the encoding by code points of H.273, or None for sRGB.

    Raises:
        ValueError: a code point is unknown.
    """
    chromaticities = _PRIMARIES.get(1 if primaries == _UNSPECIFIED else primaries)
    curve = Curve(code=_SRGB_CURVE if transfer in _SHOWN_AS_SRGB else transfer)
    if chromaticities is None:
        raise ValueError(f"unknown color primaries {primaries}")
    _linear(curve, np.zeros(1))
    if chromaticities is SRGB_PRIMARIES and curve.code == _SRGB_CURVE and not narrow:
        return None
    return Light((curve,), _to_srgb(chromaticities), narrow)


def of_gamma(gamma: float | None, chromaticities: Chromaticities | None) -> Light | None:
    """Return the encoding by PNG's ``gAMA`` (0.45455 for most images) and ``cHRM``, or None for sRGB.

    Raises:
        ValueError: the numbers are no gamma or no colors.
    """
    if gamma is not None and not _GAMMAS[0] <= gamma <= _GAMMAS[1]:
        raise ValueError(f"gamma {gamma}")
    if chromaticities is None or np.allclose(chromaticities, SRGB_PRIMARIES, atol=_CHROMATICITY_TOLERANCE, rtol=0):
        chromaticities = SRGB_PRIMARIES
    if chromaticities is SRGB_PRIMARIES and (gamma is None or abs(gamma - _GAMMA_OF_SRGB) <= _GAMMA_TOLERANCE):
        return None
    curve = Curve(code=_SRGB_CURVE) if gamma is None else Curve(exponent=1 / gamma)
    return Light((curve,), _to_srgb(chromaticities))


@lru_cache(maxsize=1)
def of_profile(icc: bytes) -> Light | None:
    """Return the encoding of an ICC profile, or None if it is not made of curves and a matrix alone."""
    curves: tuple[Curve, ...]
    matrix: tuple[tuple[float, ...], ...] | None = None
    try:
        tags = _tags(icc)
        if any(name[:3] in {b"A2B", b"D2B"} for name in tags):
            return None
        if icc[16:20] == b"GRAY":
            curves, luminances = (Curve(tag=tags[b"kTRC"]),), np.ones(1)
        elif icc[16:20] == b"RGB " and icc[20:24] == b"XYZ ":
            colorants = [np.array(struct.unpack(">8x3i", tags[c + b"XYZ"][:20])) / 65536 for c in (b"r", b"g", b"b")]
            white, _ = _to_xyz(SRGB_PRIMARIES)
            to_d50 = _adapted(white, _xyz(*_TO_D50))
            to_srgb = np.linalg.inv(to_d50 @ _to_xyz(SRGB_PRIMARIES)[1]) @ np.stack(colorants, axis=1)
            matrix, luminances = tuple(map(tuple, to_srgb.tolist())), np.array([colorant[1] for colorant in colorants])
            curves = tuple(Curve(tag=tags[c + b"TRC"]) for c in (b"r", b"g", b"b"))
        else:
            return None
        black = float(luminances @ np.concatenate([_linear(curve, np.zeros(1)) for curve in curves]))
    except (KeyError, ValueError, struct.error):
        return None
    # As LittleCMS does by default, from version 4 of profiles on.
    return Light(curves, matrix, black=black if icc[8] >= 4 and 0 < black < 0.5 else 0.0)


def to_srgb(pixels: NDArray[Any], light: Light) -> Rgb:
    """Convert H x W or H x W x 3, uint8 or uint16, to sRGB of 8 bits.

    HDR is tone-mapped: its white of text and paper, 203 cd/m2, stays below that of sRGB, and highlights up to 1,000
    cd/m2 are compressed into the rest.
    """
    if light.matrix is None and not light.hdr:
        encoded = cv2.LUT(pixels, _direct_table(light, pixels.dtype.itemsize))
        return np.asarray(encoded if pixels.ndim == 3 else cv2.merge([encoded] * 3), np.uint8)
    height, width = pixels.shape[:2]
    rgb = np.empty((height, width, 3), np.uint8)
    rows = max(1, _BLOCK_PIXELS // width)
    for top in range(0, height, rows):
        rgb[top : top + rows] = _block(pixels[top : top + rows], light)
    return rgb


def _block(pixels: NDArray[Any], light: Light) -> Rgb:
    if pixels.ndim == 2:
        pixels = np.asarray(cv2.merge([pixels] * 3))
    linear = cv2.LUT(pixels, _light_table(light, pixels.dtype.itemsize))
    if light.hdr == "HLG":
        luminance = cv2.transform(linear, np.array([[0.2627, 0.6780, 0.0593]], np.float32))
        linear = _times(linear, cv2.pow(np.maximum(luminance, _DARK), 0.2) * np.float32(_PEAK_NITS / _WHITE_NITS))
    if light.matrix is not None:
        linear = cv2.transform(linear, np.array(light.matrix, np.float32))
    if light.hdr:
        peaks = np.maximum(cv2.reduce(linear.reshape(-1, 3), 1, cv2.REDUCE_MAX).reshape(linear.shape[:2]), _DARK)
        linear = _times(linear, cv2.divide(_compressed(peaks), peaks))
    return np.asarray(cv2.LUT(_steps(linear), _srgb_table()), np.uint8)


def _steps(linear: Any, per_white: float = 65535.0, black: float = 0.0) -> Any:
    """Return light above ``black`` in steps, clipped to 0 to 65,535."""
    flat = linear.reshape(-1)
    return cv2.addWeighted(flat, per_white, flat, 0, -black * per_white, dtype=cv2.CV_16U).reshape(linear.shape)


def _compressed(peaks: Any) -> Any:
    """Tone-map brightest channels: light up to the knee stays, and more is compressed up to 1 (BT.2390)."""
    knee, highlights = _tone_curve()
    return cv2.add(np.minimum(peaks, np.float32(knee)), cv2.LUT(_steps(peaks, _STEPS_PER_WHITE, knee), highlights))


def _times(linear: Any, gain: Any) -> Any:
    """Multiply all channels of each pixel by its gain."""
    return cv2.multiply(linear, cv2.merge([gain] * 3))


def _srgb_of(linear: _Floats) -> NDArray[np.uint8]:
    """Return the 8-bit values of sRGB for light in [0, 1]."""
    encoded = np.where(linear <= 0.0031308, linear * 12.92, 1.055 * linear ** (1 / 2.4) - 0.055)
    values: NDArray[np.uint8] = (encoded * 255 + 0.5).astype(np.uint8)
    return values


@lru_cache(maxsize=1)
def _srgb_table() -> NDArray[np.uint8]:
    """Return the 8-bit values of sRGB for linear light in 65,536 steps."""
    return _srgb_of(np.linspace(0, 1, 65536))


@lru_cache(maxsize=2)
def _direct_table(light: Light, item_bytes: int) -> NDArray[np.uint8]:
    """Return the value of sRGB for every stored value of each channel: 1 x values x channels."""
    return _srgb_of(np.clip(_light_table(light, item_bytes).astype(np.float64), 0, 1))


@lru_cache(maxsize=2)
def _light_table(light: Light, item_bytes: int) -> NDArray[np.float32]:
    """Return the linear light of every stored value of each channel: 1 x values x channels."""
    levels = 256**item_bytes
    values = np.arange(levels) / (levels - 1)
    if light.narrow:
        unit = levels // 256
        values = np.clip((np.arange(levels) / unit - 16) / 219, 0, 1)
    curves = light.curves[:1] if len(set(light.curves)) == 1 else light.curves
    linear = np.stack([_linear(curve, values) for curve in curves], axis=-1)[np.newaxis]
    return ((linear - light.black) / (1 - light.black)).astype(np.float32)


def _linear(curve: Curve, values: _Floats) -> _Floats:
    """Return the light of values in [0, 1]; 1 is the white of text and paper.

    Raises:
        ValueError, struct.error: the curve is of an unknown kind or damaged.
    """
    if curve.tag:
        return np.clip(_of_tag(curve.tag, values), 0, 1)
    exponents = {_NONE: curve.exponent, 4: 2.2, 5: 2.8, 8: 1.0}
    if curve.code in exponents:
        return values ** exponents[curve.code]
    if curve.code == _SRGB_CURVE:
        return np.where(values <= 0.04045, values / 12.92, ((values + 0.055) / 1.055) ** 2.4)
    if curve.code == 7:  # SMPTE 240M
        return np.where(values < 0.0913, values / 4, ((values + 0.1115) / 1.1115) ** (1 / 0.45))
    if curve.code == _PQ:
        return _nits_of_pq(values) / _WHITE_NITS
    if curve.code == 17:  # SMPTE ST 428-1
        return np.minimum(values**2.6 * (52.37 / 48), 1)
    if curve.code == _HLG:  # of the scene; the display's is a function of all three channels
        a, b, c = 0.17883277, 0.28466892, 0.55991073
        return np.where(values <= 0.5, values**2 / 3, (np.exp((values - c) / a) + b) / 12)
    raise ValueError(f"unknown transfer characteristics {curve.code}")


def _nits_of_pq(values: _Floats) -> _Floats:
    power = values ** (32 / 2523)
    return 10000 * (np.maximum(power - 3424 / 4096, 0) / (2413 / 128 - 2392 / 128 * power)) ** (16384 / 2610)


def _pq_of_nits(nits: _Floats) -> _Floats:
    power = (nits / 10000) ** (2610 / 16384)
    return ((3424 / 4096 + 2413 / 128 * power) / (1 + 2392 / 128 * power)) ** (2523 / 32)


@lru_cache(maxsize=1)
def _tone_curve() -> tuple[float, NDArray[np.float32]]:
    """Return the knee, and what light above it adds to it, for each of 65,536 steps."""
    peak, white = (float(_pq_of_nits(np.array(nits))) for nits in (_PEAK_NITS, _WHITE_NITS))
    most = white / peak
    start = 1.5 * most - 0.5
    signal = np.linspace(start, 1, 1000)
    t = (signal - start) / (1 - start)
    mapped = (2 * t**3 - 3 * t**2 + 1) * start + (t**3 - 2 * t**2 + t) * (1 - start) + (-2 * t**3 + 3 * t**2) * most
    before, after = _nits_of_pq(signal * peak) / _WHITE_NITS, _nits_of_pq(mapped * peak) / _WHITE_NITS
    knee = float(before[0])
    light = knee + np.arange(65536) / _STEPS_PER_WHITE
    return knee, (np.interp(light, before, after) - knee).astype(np.float32)


def _xyz(x: float, y: float) -> _Floats:
    return np.array([x / y, 1.0, (1 - x - y) / y])


def _to_xyz(chromaticities: Chromaticities) -> tuple[_Floats, _Floats]:
    """Return XYZ of white, and the matrix from linear RGB to XYZ."""
    white = _xyz(*chromaticities[:2])
    columns = np.array([[x, y, 1 - x - y] for x, y in zip(chromaticities[2::2], chromaticities[3::2], strict=True)]).T
    return white, columns * np.linalg.solve(columns, white)


def _adapted(white: _Floats, to: _Floats) -> _Floats:
    """Return the matrix that adapts XYZ from one white to another."""
    adapted: _Floats = np.linalg.inv(_BRADFORD) @ np.diag((_BRADFORD @ to) / (_BRADFORD @ white)) @ _BRADFORD
    return adapted


def _to_srgb(chromaticities: Chromaticities) -> tuple[tuple[float, ...], ...] | None:
    """Return the matrix from linear RGB of these primaries to linear sRGB, or None for those of sRGB.

    Raises:
        ValueError: the chromaticities are not those of three colors around a white.
    """
    if chromaticities == SRGB_PRIMARIES:
        return None
    try:
        with np.errstate(all="ignore"):
            white, xyz = _to_xyz(chromaticities)
            srgb_white, srgb = _to_xyz(SRGB_PRIMARIES)
            matrix = np.linalg.inv(srgb) @ _adapted(white, srgb_white) @ xyz
    except (ZeroDivisionError, np.linalg.LinAlgError) as error:
        raise ValueError("chromaticities of no color") from error
    if not (np.abs(matrix) < 1000).all():  # also true for NaN
        raise ValueError("chromaticities of no color")
    return tuple(map(tuple, matrix.tolist()))


def _tags(icc: bytes) -> dict[bytes, bytes]:
    """Return the tags of an ICC profile by name."""
    (count,) = struct.unpack_from(">I", icc, _ICC_HEADER_BYTES)
    if count > _MAX_ICC_TAGS:
        raise ValueError(f"{count} tags")
    entries = [struct.unpack_from(">4sII", icc, _ICC_HEADER_BYTES + 4 + 12 * i) for i in range(count)]
    return {name: icc[offset : offset + size] for name, offset, size in entries}


def _of_tag(tag: bytes, values: _Floats) -> _Floats:
    """Apply a curve of an ICC profile: ``curv``, samples or a gamma, or ``para``, a function."""
    if tag[:4] == b"curv":
        (count,) = struct.unpack_from(">I", tag, 8)
        if count == 0:
            return values
        if count > 65536:
            raise ValueError(f"a curve of {count} samples")
        samples = np.array(struct.unpack_from(f">{count}H", tag, 12))
        if count == 1:
            exponent: _Floats = values ** (samples[0] / 256)
            return exponent
        return np.interp(values, np.linspace(0, 1, count), samples / 65535)
    if tag[:4] != b"para":
        raise ValueError(f"a curve of type {tag[:4]!r}")
    kind = struct.unpack_from(">H", tag, 8)[0]
    count = _PARAMETERS.get(kind)
    if count is None:
        raise ValueError(f"a parametric curve of type {kind}")
    g, a, b, c, d, e, f = ([v / 65536 for v in struct.unpack_from(f">{count}i", tag, 12)] + [0.0] * 7)[:7]
    if kind == 0:
        a, b, d = 1.0, 0.0, -1.0
    elif kind in {1, 2}:
        c, e, f, d = 0.0, c, c, (-b / a if a else 0.0)
    with np.errstate(all="ignore"):
        power = np.maximum(a * values + b, 0) ** g + e
        light: _Floats = np.nan_to_num(np.where(values >= d, power, c * values + f))
    return light
