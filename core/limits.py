"""Limits of accepted files, checked before any pixel is decoded."""

from typing import Final

from core.errors import FileTooLargeError, TooManyPixelsError

MAX_BYTES: Final = 100 * 1024 * 1024
"""Largest file. S3 returns the size ahead of the bytes, so a larger file is rejected unread."""

MAX_PIXELS: Final = 100_000_000
"""Largest image: 100 MP decode to 300 MB of RGB."""

MAX_KEY_BYTES: Final = 1024
"""Longest object key that S3 accepts, as UTF-8."""

MAX_PROFILE_TAGS: Final = 100
"""Most tags of a color profile. LittleCMS rejects profiles with more."""

MAX_READS: Final = 1_000_000
"""Most reads of a file by a parser. 100 MiB of GIF, in blocks of 256 bytes, take 820,000."""

MAX_RUNS_BYTES: Final = 32 * 1024 * 1024
"""Largest run-length encoded BMP. Pillow decodes runs one by one: a million of two bytes each in 0.9 s."""

MAX_SCANS: Final = 100
"""Most scans of a JPEG. Encoders write about ten."""

MAX_TAG_BYTES: Final = 4 * 1024 * 1024
"""Longest list of numbers in a TIFF or EXIF tag: a million offsets, more than any image within the limits has."""

MIN_SIDE_PX: Final = 16
"""Shortest side. Below it there is no edge to refine."""


def check_bytes(size_bytes: int) -> None:
    """Check a file's size.

    Raises:
        FileTooLargeError: it is larger than ``MAX_BYTES``.
    """
    if size_bytes > MAX_BYTES:
        raise FileTooLargeError(
            f"The file is larger than {MAX_BYTES // 2**20} MiB",
            field="source.bytes",
            value=size_bytes,
            remedy="Scale the image down, or save it with more compression.",
        )


def too_many_pixels(value: str) -> TooManyPixelsError:
    """Return the error for an image of more than ``MAX_PIXELS``; ``value`` is its size."""
    return TooManyPixelsError(
        f"The image has more than {MAX_PIXELS} pixels",
        field="image.pixels",
        value=value,
        remedy="Scale it down before the upload.",
    )
