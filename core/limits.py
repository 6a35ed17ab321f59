"""Bounds on what is accepted; they are checked before any pixel is decoded."""

from typing import Final

from core.errors import FileTooLargeError

MAX_BYTES: Final = 100 * 1024 * 1024
"""Largest file. S3 tells the size ahead of the bytes, so a larger one is refused unread."""

MAX_PIXELS: Final = 100_000_000
"""Largest picture: 100 MP decode to 300 MB of RGB."""

MAX_KEY_BYTES: Final = 1000
"""Longest key of an upload, as UTF-8. S3 takes 1,024, and what is named after the upload needs some of them."""

MAX_READS: Final = 1_000_000
"""Most reads that a parser may make of a file. 100 MiB of GIF, which comes in blocks of 256 bytes, take 820,000."""

MAX_RUNS_BYTES: Final = 32 * 1024 * 1024
"""Largest BMP that is compressed to runs. Pillow takes them one by one: a million of two bytes each in 0.9 s."""

MAX_SCANS: Final = 100
"""Most scans of a JPEG. Encoders write about ten."""

MAX_TAG_BYTES: Final = 4 * 1024 * 1024
"""Longest list of numbers in a TIFF's or EXIF tag: a million offsets, as no picture within the limits has."""

MIN_SIDE_PX: Final = 16
"""Shortest side. Below it there is no edge to refine."""


def check_bytes(size_bytes: int) -> None:
    """Refuse a file by its size.

    Raises:
        FileTooLargeError: it has more than ``MAX_BYTES``.
    """
    if size_bytes > MAX_BYTES:
        raise FileTooLargeError(
            f"The file is larger than {MAX_BYTES // 2**20} MiB",
            field="source.bytes",
            value=size_bytes,
            remedy="Scale the picture down, or save it with more compression.",
        )
