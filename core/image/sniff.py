"""Detect an image's format from its first bytes; file names and declared types are ignored."""

from typing import Final

from core.errors import AnimatedImageError, UnsupportedFormatError

_SIGNATURES: Final = (
    (b"\xff\xd8\xff", "jpeg"),
    (b"\x89PNG\r\n\x1a\n", "png"),
    (b"II*\0", "tiff"),
    (b"MM\0*", "tiff"),
    (b"II+\0", "tiff"),
    (b"MM\0+", "tiff"),
    (b"GIF87a", "gif"),
    (b"GIF89a", "gif"),
    (b"BM", "bmp"),
)

_FOREIGN_SIGNATURES: Final = (
    (b"%PDF", "a PDF document"),
    (b"8BPS", "a Photoshop document"),
    (b"\0\0\1\0", "a Windows icon"),
    (b"PK\3\4", "a ZIP archive or an office document"),
    (b"\xff\x0a", "a JPEG XL image"),
    (b"\0\0\0\x0cJXL ", "a JPEG XL image"),
    (b"\0\0\0\x0cjP  ", "a JPEG 2000 image"),
    (b"\xff\x4f\xff\x51", "a JPEG 2000 image"),
    (b"<svg", "an SVG drawing"),
    (b"<?xml", "an XML document or an SVG drawing"),
    (b"<!doctype html", "a web page"),
    (b"<html", "a web page"),
)

_AVIF_BRANDS: Final = {b"avif", b"avis"}
_HEIC_BRANDS: Final = {b"heic", b"heix", b"heim", b"heis"}
_HEIC_SEQUENCE_BRANDS: Final = {b"hevc", b"hevx", b"hevm", b"hevs", b"msf1"}


def sniff(data: bytes) -> str:
    """Return the format: ``jpeg``, ``png``, ``webp``, ``tiff``, ``bmp``, ``gif``, ``heic`` or ``avif``.

    Raises:
        UnsupportedFormatError: the content has another format.
        AnimatedImageError: the content is a HEIC sequence.
    """
    for signature, name in _SIGNATURES:
        if data.startswith(signature):
            return name
    if data[:4] == b"RIFF" and data[8:12] == b"WEBP":
        return "webp"
    if data[4:8] == b"ftyp":
        box = data[8 : min(int.from_bytes(data[:4], "big"), 256)]
        brands = {box[i : i + 4] for i in range(0, len(box), 4) if i != 4}  # the second word is a version
        if box[:4] in _HEIC_SEQUENCE_BRANDS:
            raise animated()
        if brands & _AVIF_BRANDS:
            return "avif"
        if brands & _HEIC_BRANDS:
            return "heic"
    found = _describe(data)
    raise UnsupportedFormatError(
        f"The content is {found}, not an image in a supported format",
        field="image.format",
        value=found,
        remedy="Save it as JPEG, PNG, WebP, TIFF, BMP, GIF, HEIC or AVIF.",
    )


def animated() -> AnimatedImageError:
    """Return the error for a file of several frames or pages."""
    return AnimatedImageError(
        "The file holds several frames or pages",
        field="image.frames",
        value="more than 1",
        remedy="Save the frame or page that you need as an image of its own.",
    )


def _describe(data: bytes) -> str:
    """Describe unsupported content, as far as its first bytes show."""
    head = data[:512].removeprefix(b"\xef\xbb\xbf").lstrip()
    for signature, name in _FOREIGN_SIGNATURES:
        if data.startswith(signature) or head.lower().startswith(signature):
            return name
    if data[4:8] == b"ftyp":
        return "an ISO media file, such as a video"
    return "text" if head.isascii() and b"\0" not in head else "of an unknown kind"
