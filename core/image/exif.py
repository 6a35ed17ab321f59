"""Select the EXIF data of a photograph that its result keeps.

The data are a TIFF directory, IFD0, with one below it for the exposure and one for the position (CIPA DC-008, Exif
2.32; TIFF 6.0, section 2). Values are copied bit for bit: Pillow would write a name as ASCII, with ``?`` for
other letters, and change the type of exposures.
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
_INTEGERS: Final = {1: "B", 3: "H", 4: "I", 6: "b", 7: "B", 8: "h", 9: "i"}
_SHORT, _LONG, _UNDEFINED = 3, 4, 7
_SRGB, _ADOBE_RGB, _UNCALIBRATED = 1, 2, 0xFFFF
_INTEROPERABILITY_INDEX: Final = 1

_POINTERS: Final = frozenset({IFD.Exif, IFD.GPSInfo})
# IFD0 of a TIFF also describes the pixels, so its tags are kept by an allow list under either policy.
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
_INVALID_FOR_RESULT: Final = frozenset(
    {
        *_POINTERS,  # a pointer that is not followed would be dangling
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
    """Return the EXIF data for a result.

    ``no_location`` keeps the camera and lens by name, the exposure, the dates, the resolution, the author and the
    copyright. ``all`` adds the position, captions and comments, serial numbers, and the maker notes, which are copied
    unchanged, although those of some makers contain offsets into the original file. ``none`` keeps nothing.

    No policy keeps the thumbnail (it shows the background), orientation and size (the pixels no longer have them), XMP
    or IPTC. The color space is sRGB.

    Args:
        exif: the source's block, TIFF header first, or a whole TIFF; None if there is none.
        policy: what to keep.

    Returns:
        A block of at most ``MAX_BYTES``, TIFF header first; None if nothing is left.

    Raises:
        DamagedExifError: the data cannot be read. The output of this function always can.
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


def orientation(exif: bytes) -> int | None:
    """Return how to turn the image upright, 1 to 8, or None if the data do not state it.

    The tag may have any type of integer: some writers use BYTE, although EXIF demands SHORT.

    Raises:
        DamagedExifError: the data cannot be read, or state no orientation that exists.
    """
    order = _order(exif)
    try:
        (at,) = struct.unpack_from(f"{order}I", exif, 4)
        (entries,) = struct.unpack_from(f"{order}H", exif, at)
        for i in range(entries):
            tag, type_, count, field = struct.unpack_from(f"{order}HHI4s", exif, at + 2 + 12 * i)
            if tag == Base.Orientation:
                if type_ not in _INTEGERS or not count:
                    raise DamagedExifError(f"The orientation is of type {type_}")
                value: int = struct.unpack_from(f"{order}{_INTEGERS[type_]}", field)[0]
                if value not in range(9):
                    raise DamagedExifError(f"The orientation is {value}")
                return value or None  # some writers mean "unknown" by 0
    except struct.error as error:
        raise DamagedExifError(f"A directory is cut short: {error}") from error
    return None


def is_adobe_rgb(exif: bytes) -> bool:
    """Return whether the data declare Adobe RGB: as DCF's interoperability index R03, or as some cameras do.

    Raises:
        DamagedExifError: the data cannot be read.
    """
    order = _order(exif)
    try:
        top = _read(exif, order, exif[4:8], {IFD.Exif}.__contains__)
        if IFD.Exif not in top:
            return False
        names = {Base.ColorSpace, Base.ExifInteroperabilityOffset}
        below = _read(exif, order, top[IFD.Exif].value[:4], names.__contains__)
        space = struct.unpack(f"{order}H", below[Base.ColorSpace].value[:2])[0] if Base.ColorSpace in below else None
        if space != _UNCALIBRATED or Base.ExifInteroperabilityOffset not in below:
            return bool(space == _ADOBE_RGB)
        pointer = below[Base.ExifInteroperabilityOffset].value[:4]
        index = _read(exif, order, pointer, {_INTEROPERABILITY_INDEX}.__contains__).get(_INTEROPERABILITY_INDEX)
    except struct.error as error:
        raise DamagedExifError(f"A directory is cut short: {error}") from error
    return index is not None and index.value[:3] == b"R03"


@dataclass(frozen=True)
class _Entry:
    """A tag's stored value: ``count`` numbers or bytes of a type."""

    type: int
    count: int
    value: bytes


_Directory: TypeAlias = dict[int, _Entry]


def _filter(exif: bytes, *, everything: bool) -> bytes | None:
    order = _order(exif)
    top = _read(exif, order, exif[4:8], (_POINTERS | _PHOTOGRAPH | (_CAPTIONS if everything else set())).__contains__)
    pointers = {tag: top.pop(tag).value[:4] for tag in _POINTERS if tag in top}
    exposure: _Directory = {}
    position: _Directory = {}
    if IFD.Exif in pointers:
        keeps = (lambda tag: tag not in _INVALID_FOR_RESULT) if everything else _EXPOSURE.__contains__
        exposure = _read(exif, order, pointers[IFD.Exif], keeps)
    if IFD.GPSInfo in pointers and everything:
        position = _read(exif, order, pointers[IFD.GPSInfo], lambda _: True)
    if not (top or exposure or position):
        return None
    exposure.setdefault(Base.ExifVersion, _Entry(_UNDEFINED, 4, b"0232"))
    exposure[Base.ColorSpace] = _Entry(_SHORT, 1, struct.pack(f"{order}H", _SRGB))
    below: dict[int, _Directory] = {IFD.Exif: exposure}
    if position:
        below[IFD.GPSInfo] = position
    return _write(order, top, below)


def _order(exif: bytes) -> str:
    """Return the byte order, as struct names it."""
    order = {b"II*\0": "<", b"MM\0*": ">"}.get(exif[:4])
    if order is None:
        raise DamagedExifError("There is no TIFF header")
    return order


def _read(exif: bytes, order: str, pointer: bytes, keeps: Callable[[int], bool]) -> _Directory:
    """Read the entries to keep of the directory that a stored offset points to; their total size is limited."""
    (at,) = struct.unpack(f"{order}I", pointer)
    directory: _Directory = {}
    size_bytes = 0
    (entries,) = struct.unpack_from(f"{order}H", exif, at)
    for i in range(entries):
        tag, type_, count, field = struct.unpack_from(f"{order}HHI4s", exif, at + 2 + 12 * i)
        if not keeps(tag) or type_ not in _SIZES:  # TIFF 6.0: readers skip unknown types
            continue
        length = count * _SIZES[type_]
        size_bytes += length
        if size_bytes > MAX_BYTES:
            raise DamagedExifError(f"A directory has {size_bytes} bytes or more")
        start = 0 if length <= len(field) else struct.unpack(f"{order}I", field)[0]
        value = (field if length <= len(field) else exif)[start : start + length]
        if len(value) < length:
            raise DamagedExifError(f"Tag {tag} is outside the data")
        directory[tag] = _Entry(type_, count, value)
    return directory


def _write(order: str, top: _Directory, below: dict[int, _Directory]) -> bytes:
    """Return a block of a directory and its subdirectories."""
    header = {"<": b"II*\0", ">": b"MM\0*"}[order] + struct.pack(f"{order}I", _HEADER_BYTES)
    pointers = {tag: _Entry(_LONG, 1, bytes(4)) for tag in below}
    end = _HEADER_BYTES + len(_packed(order, top | pointers, _HEADER_BYTES))
    tail = b""
    for tag, directory in below.items():
        pointers[tag] = _Entry(_LONG, 1, struct.pack(f"{order}I", end + len(tail)))
        tail += _packed(order, directory, end + len(tail))
    return header + _packed(order, top | pointers, _HEADER_BYTES) + tail


def _packed(order: str, entries: _Directory, at: int) -> bytes:
    """Return the bytes of a directory at an offset, followed by the values that do not fit into its entries."""
    table, values = struct.pack(f"{order}H", len(entries)), b""
    values_at = at + len(table) + 12 * len(entries) + 4
    for tag, entry in sorted(entries.items()):  # TIFF requires sorted tags and even offsets
        field = entry.value
        if len(field) > 4:
            field = struct.pack(f"{order}I", values_at + len(values))
            values += entry.value + bytes(len(entry.value) % 2)
        table += struct.pack(f"{order}HHI4s", tag, entry.type, entry.count, field)
    return table + bytes(4) + values
