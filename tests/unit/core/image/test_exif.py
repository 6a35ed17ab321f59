import contextlib
import struct
import tracemalloc
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image
from PIL.ExifTags import GPS, IFD, Base

from core.image.exif import MAX_BYTES, DamagedExifError, kept, orientation
from core.options import Metadata

ORDERS = {"<": b"II*\0", ">": b"MM\0*"}
SHORT, LONG, RATIONAL, UNDEFINED, SIGNED_RATIONAL = 3, 4, 5, 7, 10
THUMBNAIL = b"\xff\xd8\xff\xdb thumbnail"

Entry = tuple[int, int, int, bytes]


def directory(order: str, entries: list[Entry], at: int, following: int = 0) -> bytes:
    table, values = struct.pack(order + "H", len(entries)), b""
    for tag, type_, count, value in entries:
        if len(value) > 4:
            place = at + 2 + 12 * len(entries) + 4 + len(values)
            values, value = values + value, struct.pack(order + "I", place)
        table += struct.pack(order + "HHI4s", tag, type_, count, value)
    return table + struct.pack(order + "I", following) + values


def photograph(order: str = ">") -> bytes:
    """What a camera writes, with a position, a maker's note, a thumbnail in IFD1, and all that no result may claim."""

    def ascii_(tag: int, text: str) -> Entry:
        return tag, 2, len(text.encode()) + 1, text.encode() + b"\0"

    def short(tag: int, value: int) -> Entry:
        return tag, SHORT, 1, struct.pack(order + "H", value)

    def rationals(tag: int, *values: int, type_: int = RATIONAL) -> Entry:
        letter = "i" if type_ == SIGNED_RATIONAL else "I"
        return tag, type_, len(values) // 2, struct.pack(f"{order}{len(values)}{letter}", *values)

    top = [
        ascii_(Base.ImageDescription, "At home"),
        ascii_(Base.Make, "Maker"),
        ascii_(Base.Model, "X100"),
        short(Base.Orientation, 6),
        rationals(Base.XResolution, 300, 1),
        rationals(Base.YResolution, 300, 1),
        short(Base.ResolutionUnit, 2),
        ascii_(Base.DateTime, "2026:01:05 10:00:00"),
        ascii_(Base.Artist, "François Müller"),
        ascii_(Base.Copyright, "© François"),
        ascii_(Base.XMLPacket, "<x:xmpmeta>GPSLatitude</x:xmpmeta>"),
        ascii_(Base.IPTCNAA, "Paris"),
    ]
    exposure = [
        rationals(Base.ExposureTime, 1, 250),
        rationals(Base.FNumber, 28, 10),
        short(Base.ISOSpeedRatings, 200),
        (Base.ExifVersion, UNDEFINED, 4, b"0231"),
        ascii_(Base.DateTimeOriginal, "2026:01:05 09:59:00"),
        rationals(Base.ExposureBiasValue, 1, 3, type_=SIGNED_RATIONAL),
        rationals(Base.FocalLength, 23, 1),
        (Base.MakerNote, UNDEFINED, 12, b"serial 12345"),
        short(Base.ColorSpace, 65535),
        (Base.ExifImageWidth, LONG, 1, struct.pack(order + "I", 6000)),
        (Base.ExifImageHeight, LONG, 1, struct.pack(order + "I", 4000)),
        ascii_(Base.BodySerialNumber, "12345"),
        ascii_(Base.LensModel, "23 mm"),
    ]
    position = [
        ascii_(GPS.GPSLatitudeRef, "N"),
        rationals(GPS.GPSLatitude, 48, 1, 51, 1, 30, 1),
        ascii_(GPS.GPSLongitudeRef, "E"),
        rationals(GPS.GPSLongitude, 2, 1, 21, 1, 8, 1),
    ]
    pointers = [(IFD.Exif, LONG, 1, bytes(4)), (IFD.GPSInfo, LONG, 1, bytes(4))]
    exposure_at = 8 + len(directory(order, top + pointers, 8))  # type: ignore[operator]
    position_at = exposure_at + len(directory(order, exposure, exposure_at))
    second_at = position_at + len(directory(order, position, position_at))
    second = [(Base.JpegIFOffset, LONG, 1, bytes(4)), (Base.JpegIFByteCount, LONG, 1, bytes(4))]
    pointers = [
        (IFD.Exif, LONG, 1, struct.pack(order + "I", exposure_at)),
        (IFD.GPSInfo, LONG, 1, struct.pack(order + "I", position_at)),
    ]
    return (
        ORDERS[order]
        + struct.pack(order + "I", 8)
        + directory(order, top + pointers, 8, following=second_at)  # type: ignore[operator]
        + directory(order, exposure, exposure_at)
        + directory(order, position, position_at)
        + directory(order, second, second_at)
        + THUMBNAIL
    )


def tags(block: bytes | None, below: IFD | None = None) -> dict[int, Any]:
    """What Pillow reads in a block."""
    assert block is not None
    exif = Image.Exif()
    exif.load(block)
    return exif.get_ifd(below) if below else dict(exif)


@pytest.mark.parametrize("order", ORDERS)
@pytest.mark.parametrize("policy", [Metadata.NO_LOCATION, Metadata.ALL])
def test_camera_exposure_date_resolution_and_author_are_kept(order: str, policy: Metadata) -> None:
    block = kept(photograph(order), policy)
    top, exposure = tags(block), tags(block, IFD.Exif)
    assert (top[Base.Make], top[Base.Model], top[Base.XResolution]) == ("Maker", "X100", 300)
    assert top[Base.DateTime] == "2026:01:05 10:00:00"
    assert exposure[Base.DateTimeOriginal] == "2026:01:05 09:59:00"
    assert (exposure[Base.ExposureTime], exposure[Base.ISOSpeedRatings]) == (1 / 250, 200)
    assert exposure[Base.LensModel] == "23 mm"


def test_position_captions_serial_numbers_and_makers_notes_are_kept_on_request_only() -> None:
    everything, without = kept(photograph(), Metadata.ALL), kept(photograph(), Metadata.NO_LOCATION)
    assert without is not None
    assert tags(everything, IFD.GPSInfo)[GPS.GPSLatitude] == (48, 51, 30)
    assert tags(everything, IFD.GPSInfo)[GPS.GPSLongitudeRef] == "E"
    assert tags(everything)[Base.ImageDescription] == "At home"
    assert tags(everything, IFD.Exif)[Base.BodySerialNumber] == "12345"
    assert tags(everything, IFD.Exif)[Base.MakerNote] == b"serial 12345"
    assert IFD.GPSInfo not in tags(without)
    assert not any(trace in without for trace in (b"At home", b"12345", struct.pack(">6I", 48, 1, 51, 1, 30, 1)))


@pytest.mark.parametrize("policy", [Metadata.NO_LOCATION, Metadata.ALL])
def test_what_is_untrue_of_the_result_or_shows_the_background_is_never_kept(policy: Metadata) -> None:
    block = kept(photograph(), policy)
    assert block is not None
    assert Base.Orientation not in tags(block)
    assert tags(block, IFD.IFD1) == {}
    exposure = tags(block, IFD.Exif)
    assert not exposure.keys() & {Base.ExifImageWidth, Base.ExifImageHeight}
    assert exposure[Base.ColorSpace] == 1
    assert not any(trace in block for trace in (THUMBNAIL, b"xmpmeta", b"Paris"))


def test_values_are_copied_to_the_bit() -> None:
    block = kept(photograph(), Metadata.NO_LOCATION)
    assert block is not None
    assert "François Müller\0".encode() in block
    bias = struct.pack(">HHI", Base.ExposureBiasValue, SIGNED_RATIONAL, 1)
    (at,) = struct.unpack_from(">I", block, block.index(bias) + len(bias))
    assert struct.unpack_from(">ii", block, at) == (1, 3)


def test_nothing_is_kept_where_there_is_nothing_or_nothing_is_asked_for() -> None:
    turned = ORDERS[">"] + struct.pack(">I", 8) + directory(">", [(Base.Orientation, SHORT, 1, b"\0\6")], 8)
    assert kept(None, Metadata.ALL) is None
    assert kept(turned, Metadata.ALL) is None
    assert kept(photograph(), Metadata.NONE) is None


@pytest.mark.parametrize("order", ORDERS)
@pytest.mark.parametrize("type_, format_", [(1, "B"), (SHORT, "H"), (LONG, "I"), (UNDEFINED, "B"), (9, "i")])
@pytest.mark.parametrize("value", [0, 1, 6, 8])
def test_the_orientation_may_have_any_type_of_integer(order: str, type_: int, format_: str, value: int) -> None:
    entry = (Base.Orientation, type_, 1, struct.pack(order + format_, value).ljust(4, b"\0"))
    block = ORDERS[order] + struct.pack(order + "I", 8) + directory(order, [(Base.Make, 2, 4, b"own\0"), entry], 8)
    assert orientation(block) == (value or None)
    assert orientation(block[: -len(b"\0\0\0\0")]) == (value or None), "what follows the tag does not matter"


def test_no_orientation_is_none() -> None:
    assert orientation(block_of((Base.Make, 2, 4, b"own\0"))) is None
    assert orientation(photograph()) == 6


@pytest.mark.parametrize(
    "entry",
    [
        (Base.Orientation, SHORT, 1, b"\0\x09\0\0"),
        (Base.Orientation, 2, 2, b"6\0\0\0"),
        (Base.Orientation, SHORT, 0, b"\0\6\0\0"),
        (Base.Orientation, RATIONAL, 1, b"\0\0\0\x08"),
        (Base.Orientation, 9, 1, b"\xff\xff\xff\xff"),
    ],
)
def test_an_orientation_that_does_not_exist_is_refused(entry: Entry) -> None:
    with pytest.raises(DamagedExifError):
        orientation(block_of(entry))


def block_of(*entries: Entry) -> bytes:
    return ORDERS[">"] + struct.pack(">I", 8) + directory(">", list(entries), 8)


HOSTILE = {
    "empty": b"",
    "no header": b"neither II nor MM",
    "header only": ORDERS[">"],
    "a directory far away": ORDERS[">"] + b"\xff\xff\xff\xff",
    "more entries than bytes": ORDERS[">"] + struct.pack(">IH", 8, 65535),
    "a value far away": block_of((Base.Make, 2, 100, b"\xff\xff\xff\xf0")),
    "a value of 4 GB": block_of((Base.Make, 2, 0xFFFFFFFF, b"\0\0\0\x08")),
    "a value of 32 GB": block_of((Base.XResolution, RATIONAL, 0xFFFFFFFF, b"\0\0\0\x08")),
    "a pointer of no bytes": block_of((IFD.Exif, LONG, 0, bytes(4))),
    "a pointer of 4 GB": block_of((IFD.Exif, UNDEFINED, 0xFFFFFFFF, b"\0\0\0\x08")),
    "a directory below, far away": block_of((IFD.Exif, LONG, 1, b"\xff\xff\xff\xff")),
    "more than 64 kB": block_of((Base.Artist, 2, MAX_BYTES, b"a" * MAX_BYTES)),
}


@pytest.mark.parametrize("block", HOSTILE.values(), ids=HOSTILE.keys())
def test_what_cannot_be_read_is_refused(block: bytes) -> None:
    with pytest.raises(DamagedExifError):
        kept(block, Metadata.ALL)
    with contextlib.suppress(DamagedExifError):
        assert orientation(block) is None


def test_directories_that_point_at_themselves_end() -> None:
    itself = b"\0\0\0\x08"
    block = block_of((Base.Make, 2, 4, b"own\0"), (IFD.Exif, LONG, 1, itself), (IFD.GPSInfo, LONG, 1, itself))
    assert tags(kept(block, Metadata.ALL))[Base.Make] == "own"


def test_many_values_in_the_same_bytes_cannot_fill_the_memory() -> None:
    exposure = [(0xC000 + i, UNDEFINED, 60_000, struct.pack(">I", 8)) for i in range(4000)]
    block = block_of((IFD.Exif, LONG, 1, struct.pack(">I", 26))) + directory(">", exposure, 26)
    block += bytes(60_000 - len(block))
    tracemalloc.start()
    with pytest.raises(DamagedExifError):
        kept(block, Metadata.ALL)
    _, peak_bytes = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert peak_bytes < 1_000_000


@settings(max_examples=80)
@given(
    order=st.sampled_from(list(ORDERS)),
    damage=st.lists(st.tuples(st.integers(0, 2000), st.binary(min_size=1, max_size=4)), max_size=5),
    end=st.none() | st.integers(0, 2000),
    policy=st.sampled_from(Metadata),
)
def test_damaged_data_end_in_a_sound_block_or_are_refused(
    order: str, damage: list[tuple[int, bytes]], end: int | None, policy: Metadata
) -> None:
    data = bytearray(photograph(order))
    for at, content in damage:
        data[at % len(data) : at % len(data) + len(content)] = content
    try:
        block = kept(bytes(data[:end]), policy)
    except DamagedExifError:
        return
    if block is not None:
        assert len(block) <= MAX_BYTES
        assert kept(block, policy) == block
        assert kept(block, Metadata.ALL) == block
        assert policy is Metadata.ALL or IFD.GPSInfo not in tags(block)


@given(st.binary(max_size=200), st.sampled_from(list(ORDERS.values())))
def test_any_bytes_end_in_a_block_or_are_refused(data: bytes, header: bytes) -> None:
    for block in (data, header + b"\0\0\0\x08" + data, header + b"\x08\0\0\0" + data):
        with contextlib.suppress(DamagedExifError):
            kept(block, Metadata.ALL)
