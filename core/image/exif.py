"""What a result keeps of a photograph's EXIF data.

The data are a TIFF directory, IFD0, with one below it for the exposure and one for the position (CIPA DC-008, Exif
2.32; TIFF 6.0, section 2). Their values are copied here, bit for bit: Pillow would write a name as ASCII, with ``?``
for each letter that has none, and give exposures another type.
"""

import struct
from collections.abc import Callable
from dataclasses import dataclass
from typing import Final, TypeAlias

from PIL.ExifTags import IFD, Base

from core.options import Metadata

JPEG_PREFIX: Final = b"Exif\0\0"
"""Precedes the block in a JPEG's APP1 segment."""

MAX_BYTES: Final = 65_527
"""Largest block: a JPEG's segment of 65,535 bytes less its length and the six bytes ahead of the block."""

_HEADER_BYTES: Final = 8
_SIZES: Final = {1: 1, 2: 1, 3: 2, 4: 4, 5: 8, 6: 1, 7: 1, 8: 2, 9: 4, 10: 8, 11: 4, 12: 8, 129: 1}
_SHORT, _LONG, _UNDEFINED = 3, 4, 7
_SRGB: Final = 1

_POINTERS: Final = frozenset({IFD.Exif, IFD.GPSInfo})
# IFD0 of a TIFF describes the pixels too, so that what is kept of it is listed under either policy.
_PHOTOGRAPH: Final = frozenset(
    {
        Base.Make,
        Base.Model,
        Base.XResolution,
        Base.YResolution,
        Base.ResolutionUnit,
        Base.DateTime,
        Base.Artist,
        Base.Copyright,
    }
)
_CAPTIONS: Final = frozenset(
    {
        Base.DocumentName,
        Base.ImageDescription,
        Base.Software,
        Base.HostComputer,
        Base.Rating,
        Base.RatingPercent,
        Base.XPTitle,
        Base.XPComment,
        Base.XPAuthor,
        Base.XPKeywords,
        Base.XPSubject,
    }
)
_EXPOSURE: Final = frozenset(
    {
        Base.ExposureTime,
        Base.FNumber,
        Base.ExposureProgram,
        Base.ISOSpeedRatings,
        Base.SensitivityType,
        Base.StandardOutputSensitivity,
        Base.RecommendedExposureIndex,
        Base.ISOSpeed,
        Base.ExifVersion,
        Base.DateTimeOriginal,
        Base.DateTimeDigitized,
        Base.OffsetTime,
        Base.OffsetTimeOriginal,
        Base.OffsetTimeDigitized,
        Base.SubsecTime,
        Base.SubsecTimeOriginal,
        Base.SubsecTimeDigitized,
        Base.ShutterSpeedValue,
        Base.ApertureValue,
        Base.BrightnessValue,
        Base.ExposureBiasValue,
        Base.MaxApertureValue,
        Base.SubjectDistance,
        Base.MeteringMode,
        Base.LightSource,
        Base.Flash,
        Base.FocalLength,
        Base.FlashEnergy,
        Base.ExposureIndex,
        Base.SensingMethod,
        Base.FileSource,
        Base.SceneType,
        Base.CustomRendered,
        Base.ExposureMode,
        Base.WhiteBalance,
        Base.DigitalZoomRatio,
        Base.FocalLengthIn35mmFilm,
        Base.SceneCaptureType,
        Base.GainControl,
        Base.Contrast,
        Base.Saturation,
        Base.Sharpness,
        Base.SubjectDistanceRange,
        Base.LensSpecification,
        Base.LensMake,
        Base.LensModel,
    }
)
_SUBJECT_AREA: Final = 0x9214  # Pillow has no name for it
_UNTRUE_OF_THE_RESULT: Final = frozenset(
    {
        *_POINTERS,  # where they are not looked for, they would point into nothing
        Base.ComponentsConfiguration,
        Base.CompressedBitsPerPixel,
        Base.ExifImageWidth,
        Base.ExifImageHeight,
        Base.ExifInteroperabilityOffset,
        Base.Gamma,
        Base.RelatedSoundFile,
        Base.SubjectLocation,
        _SUBJECT_AREA,
    }
)


class DamagedExifError(ValueError):
    """The data break the rules of TIFF, or are larger than ``MAX_BYTES``."""


def kept(exif: bytes | None, policy: Metadata) -> bytes | None:
    """Return the EXIF data that a result carries.

    ``no_location`` keeps the camera and lens by name, the exposure, the dates, the resolution, the author and the
    copyright. ``all`` adds the position, captions and comments, serial numbers, and the maker's notes, which are moved
    as they are: some makers point into the file they were written to. ``none`` keeps nothing.

    Under no policy are there a thumbnail, which would show the background, the orientation and the size, which the
    pixels no longer have, or what is no EXIF data and lies beside them: XMP and IPTC. The colour space is sRGB.

    Args:
        exif: the source's block, its TIFF header first, or a whole TIFF; None if there is none.
        policy: what to keep.

    Returns:
        A block of at most ``MAX_BYTES``, its TIFF header first; None if nothing is left.

    Raises:
        DamagedExifError: it cannot be read. What this function returned always can.
    """
    if exif is None or policy is Metadata.NONE:
        return None
    try:
        block = _filter(exif, everything=policy is Metadata.ALL)
    except struct.error as error:
        raise DamagedExifError(f"A directory is cut short: {error}") from error
    if block and len(block) > MAX_BYTES:
        raise DamagedExifError(f"It has {len(block)} bytes")
    return block


@dataclass(frozen=True)
class _Entry:
    """A tag's value, as it is stored: ``count`` numbers or bytes of a type."""

    type: int
    count: int
    value: bytes


_Directory: TypeAlias = dict[int, _Entry]


def _filter(exif: bytes, *, everything: bool) -> bytes | None:
    order = {b"II*\0": "<", b"MM\0*": ">"}.get(exif[:4])
    if order is None:
        raise DamagedExifError("There is no TIFF header")

    def directory(pointer: bytes, keeps: Callable[[int], bool]) -> _Directory:
        (at,) = struct.unpack(f"{order}I", pointer)
        return _read(exif, order, at, keeps)

    top = directory(exif[4:8], (_POINTERS | _PHOTOGRAPH | (_CAPTIONS if everything else set())).__contains__)
    pointers = {tag: top.pop(tag).value[:4] for tag in _POINTERS if tag in top}
    exposure: _Directory = {}
    position: _Directory = {}
    if IFD.Exif in pointers:
        keeps = (lambda tag: tag not in _UNTRUE_OF_THE_RESULT) if everything else _EXPOSURE.__contains__
        exposure = directory(pointers[IFD.Exif], keeps)
    if IFD.GPSInfo in pointers and everything:
        position = directory(pointers[IFD.GPSInfo], lambda _: True)
    if not (top or exposure or position):
        return None
    exposure.setdefault(Base.ExifVersion, _Entry(_UNDEFINED, 4, b"0232"))
    exposure[Base.ColorSpace] = _Entry(_SHORT, 1, struct.pack(f"{order}H", _SRGB))
    below: dict[int, _Directory] = {IFD.Exif: exposure}
    if position:
        below[IFD.GPSInfo] = position
    return _write(order, top, below)


def _read(exif: bytes, order: str, at: int, keeps: Callable[[int], bool]) -> _Directory:
    """Read those entries of the directory at an offset that are to be kept; their bytes are bounded together."""
    directory: _Directory = {}
    size_bytes = 0
    (entries,) = struct.unpack_from(f"{order}H", exif, at)
    for i in range(entries):
        tag, type_, count, field = struct.unpack_from(f"{order}HHI4s", exif, at + 2 + 12 * i)
        if not keeps(tag) or type_ not in _SIZES:  # a reader passes over types that it does not know: TIFF 6.0
            continue
        length = count * _SIZES[type_]
        size_bytes += length
        if size_bytes > MAX_BYTES:
            raise DamagedExifError(f"A directory has {size_bytes} bytes or more")
        start = 0 if length <= len(field) else struct.unpack(f"{order}I", field)[0]
        value = (field if length <= len(field) else exif)[start : start + length]
        if len(value) < length:
            raise DamagedExifError(f"Tag {tag} lies outside of the data")
        directory[tag] = _Entry(type_, count, value)
    return directory


def _write(order: str, top: _Directory, below: dict[int, _Directory]) -> bytes:
    """Return a block of a directory and those that it points to."""
    header = {"<": b"II*\0", ">": b"MM\0*"}[order] + struct.pack(f"{order}I", _HEADER_BYTES)
    pointers = {tag: _Entry(_LONG, 1, bytes(4)) for tag in below}
    end = _HEADER_BYTES + len(_packed(order, top | pointers, _HEADER_BYTES))
    tail = b""
    for tag, directory in below.items():
        pointers[tag] = _Entry(_LONG, 1, struct.pack(f"{order}I", end + len(tail)))
        tail += _packed(order, directory, end + len(tail))
    return header + _packed(order, top | pointers, _HEADER_BYTES) + tail


def _packed(order: str, entries: _Directory, at: int) -> bytes:
    """Return the bytes of a directory that lies at an offset, and of the values that do not fit into its entries."""
    table, values = struct.pack(f"{order}H", len(entries)), b""
    values_at = at + len(table) + 12 * len(entries) + 4
    for tag, entry in sorted(entries.items()):  # TIFF wants them sorted, and each value at an even offset
        field = entry.value
        if len(field) > 4:
            field = struct.pack(f"{order}I", values_at + len(values))
            values += entry.value + bytes(len(entry.value) % 2)
        table += struct.pack(f"{order}HHI4s", tag, entry.type, entry.count, field)
    return table + bytes(4) + values
