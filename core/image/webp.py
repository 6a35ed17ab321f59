"""Repair a WebP whose container is damaged outside the pixels.

Source: RFC 9649, section 2.
"""

import struct
from typing import Final

_FILE_HEADER_BYTES: Final = 12
_PIXELS: Final = {b"VP8 ", b"VP8L", b"ANMF"}
_METADATA_FLAGS: Final = {b"ICCP": 0x20, b"EXIF": 0x08, b"XMP ": 0x04}
_KNOWN: Final = {b"VP8X", b"ALPH", b"ANIM"} | _PIXELS | _METADATA_FLAGS.keys()
_MAX_CHUNKS: Final = 10_000


def repaired(data: bytes) -> bytes | None:
    """Return a WebP without the chunks behind its pixels that are cut short, or None if its sizes are right."""
    stated = 8 + int.from_bytes(data[4:8], "little")
    chunks = _whole_chunks(data)
    ends = [end for _, _, end in chunks]
    if stated in ends or stated + 1 in ends or not _PIXELS & {name for name, _, _ in chunks}:
        return None  # if there are no whole pixels, the decoder reports it
    body = bytearray(data[_FILE_HEADER_BYTES : min(ends[-1], len(data))])
    body += bytes(len(body) % 2)
    if body[:4] == b"VP8X":
        for name, flag in _METADATA_FLAGS.items():
            if name not in {found for found, _, _ in chunks}:
                body[8] &= ~flag
    return b"RIFF" + struct.pack("<I", len(body) + 4) + b"WEBP" + bytes(body)


def _whole_chunks(data: bytes) -> list[tuple[bytes, int, int]]:
    """Return name, start and end, with its padding, of each chunk up to one that is cut short or of no known name."""
    chunks: list[tuple[bytes, int, int]] = []
    at = _FILE_HEADER_BYTES
    while at + 8 <= len(data) and len(chunks) < _MAX_CHUNKS:
        name, size = struct.unpack_from("<4sI", data, at)
        if name not in _KNOWN or at + 8 + size > len(data):
            break
        end = at + 8 + size + size % 2
        chunks.append((name, at, end))
        at = end
    return chunks
