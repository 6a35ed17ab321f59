"""Damage to files, by seed: of bits and bytes, and of the structure that a parser goes by."""

import random
import struct
import zlib
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Final

from tests.resilience.hostile.handmade import PNG_SIGNATURE, jpeg_segments

_NUMBERS: Final = (0, 1, 2, 3, 4, 7, 8, 9, 15, 16, 17, 32, 255, 256, 4096, 16_384, 65_500, 65_535)
_MORE_NUMBERS: Final = (2**16, 2**20, 2**24, 2**27, 2**31 - 1, 2**31, 2**32 - 16, 2**32 - 1)
_HEAD_BYTES: Final = 200
"""Half of all damage goes there, where most of the structure is."""


@dataclass(frozen=True)
class Mutant:
    """A damaged file, and how it was made."""

    description: str
    data: bytes


def mutant(seeds: Mapping[str, bytes], seed: int, index: int) -> Mutant:
    """Make one file; the same of the same seeds, seed and index."""
    rng = random.Random(f"{seed}:{index}")
    names = sorted(seeds)
    name = names[index % len(names)]
    data, steps = seeds[name], [name]
    for _ in range(rng.choice((1, 1, 1, 2, 3, 5))):
        damage = rng.choice(_DAMAGES)
        data = damage(rng, data, seeds)
        steps.append(damage.__name__)
    if data.startswith(PNG_SIGNATURE) and rng.random() < 0.8:  # else none would get past its checksums
        data = _sealed(data)
    return Mutant(", ".join(steps), data)


def _place(rng: random.Random, data: bytes) -> int:
    return rng.randrange(max(1, min(len(data), _HEAD_BYTES) if rng.random() < 0.5 else len(data)))


def flip_bits(rng: random.Random, data: bytes, _: object) -> bytes:
    damaged = bytearray(data or b"\0")
    for _bit in range(rng.choice((1, 2, 8, 40))):
        damaged[_place(rng, damaged)] ^= 1 << rng.randrange(8)
    return bytes(damaged)


def set_number(rng: random.Random, data: bytes, _: object) -> bytes:
    width = rng.choice((1, 2, 2, 4, 4, 8))
    number = rng.choice(_NUMBERS if width < 4 else _NUMBERS + _MORE_NUMBERS) % 256**width
    at = _place(rng, data)
    return data[:at] + number.to_bytes(width, rng.choice(("big", "little"))) + data[at + width :]


def insert_bytes(rng: random.Random, data: bytes, _: object) -> bytes:
    at = _place(rng, data)
    return data[:at] + rng.choice((rng.randbytes(rng.randrange(1, 40)), bytes(rng.randrange(1, 4000)))) + data[at:]


def delete_bytes(rng: random.Random, data: bytes, _: object) -> bytes:
    at = _place(rng, data)
    return data[:at] + data[at + rng.choice((1, 2, 4, 30, 400)) :]


def repeat_bytes(rng: random.Random, data: bytes, _: object) -> bytes:
    at = _place(rng, data)
    return data[:at] + data[at : at + rng.choice((1, 4, 12, 64, 500))] * rng.choice((2, 3, 20)) + data[at:]


def cut_short(rng: random.Random, data: bytes, _: object) -> bytes:
    return data[: _place(rng, data)]


def splice(rng: random.Random, data: bytes, seeds: Mapping[str, bytes]) -> bytes:
    other = seeds[rng.choice(sorted(seeds))]
    return data[: _place(rng, data)] + other[_place(rng, other) :]


def move_parts(rng: random.Random, data: bytes, seeds: Mapping[str, bytes]) -> bytes:
    """Swap, repeat, drop or borrow whole chunks, segments or boxes."""
    head, *parts = _parts(data)
    if not parts:
        return flip_bits(rng, data, seeds)
    one, other = rng.randrange(len(parts)), rng.randrange(len(parts))
    match rng.randrange(4):
        case 0:
            parts[one], parts[other] = parts[other], parts[one]
        case 1:
            parts[one] *= rng.choice((2, 3, 50, 400))
        case 2:
            del parts[one]
        case _:
            parts.insert(one, rng.choice(_parts(seeds[rng.choice(sorted(seeds))])))
    return b"".join([head, *parts])


def lie_about_length(rng: random.Random, data: bytes, seeds: Mapping[str, bytes]) -> bytes:
    """Change what a chunk, a segment or a box says of its length."""
    head, *parts = _parts(data)
    if not parts:
        return set_number(rng, data, seeds)
    i = rng.randrange(len(parts))
    part, width, at = parts[i], 2 if head == b"\xff\xd8" else 4, 2 if head == b"\xff\xd8" else 0
    if head.startswith(b"RIFF"):
        at = 4
    order = "little" if head.startswith(b"RIFF") else "big"
    length = int.from_bytes(part[at : at + width], order)
    length = (
        rng.choice((length + 1, length - 1, length * 2, 0, 2 ** (8 * width) - 1, 2 ** (8 * width - 1))) % 256**width
    )
    parts[i] = part[:at] + length.to_bytes(width, order) + part[at + width :]
    return b"".join([head, *parts])


def edit_directory(rng: random.Random, data: bytes, seeds: Mapping[str, bytes]) -> bytes:
    """Change tag, type, count or value of an entry of a TIFF's or an EXIF block's first directory."""
    starts = [at for at in (data.find(b"II*\0"), data.find(b"MM\0*")) if at >= 0]
    if not starts:
        return set_number(rng, data, seeds)
    order = "<" if data[starts[0]] == ord("I") else ">"
    try:
        (first,) = struct.unpack_from(order + "I", data, starts[0] + 4)
        (entries,) = struct.unpack_from(order + "H", data, starts[0] + first)
        entry_at = starts[0] + first + 2 + 12 * rng.randrange(max(1, entries))
        entry = list(struct.unpack_from(order + "HHII", data, entry_at))
    except struct.error:
        return set_number(rng, data, seeds)
    field = rng.randrange(4)
    entry[field] = (
        rng.choice((256, 257, 258, 259, 262, 273, 277, 278, 279, 284, 317, 322, 323, 324, 325, 338, 339)),
        rng.randrange(20),
        rng.choice(_NUMBERS + _MORE_NUMBERS),
        rng.choice(_NUMBERS + _MORE_NUMBERS + (6, 7, 32_773, 34_712, 50_000)),
    )[field]
    return data[:entry_at] + struct.pack(order + "HHII", *entry) + data[entry_at + 12 :]


_DAMAGES: Final[tuple[Callable[[random.Random, bytes, Mapping[str, bytes]], bytes], ...]] = (
    flip_bits,
    set_number,
    set_number,
    insert_bytes,
    delete_bytes,
    repeat_bytes,
    cut_short,
    splice,
    move_parts,
    move_parts,
    lie_about_length,
    edit_directory,
    edit_directory,
)


def _parts(data: bytes) -> list[bytes]:
    """The file's head, and its chunks, segments or boxes, as far as they can be told; joined they are the file."""
    if data.startswith(b"\xff\xd8"):
        return jpeg_segments(data)
    if data.startswith(PNG_SIGNATURE):
        return [PNG_SIGNATURE, *_sized(data, 8, lambda at: 12 + int.from_bytes(data[at : at + 4], "big"))]
    if data.startswith(b"RIFF"):
        return [data[:12], *_sized(data, 12, lambda at: 8 + (int.from_bytes(data[at + 4 : at + 8], "little") + 1 & ~1))]
    if data[4:8] == b"ftyp":
        return [b"", *_sized(data, 0, lambda at: max(8, int.from_bytes(data[at : at + 4], "big")))]
    return [data]


def _sized(data: bytes, at: int, size: Callable[[int], int]) -> list[bytes]:
    parts = []
    while at < len(data):
        end = at + size(at)
        parts.append(data[at:end])
        at = end
    return parts


def _sealed(data: bytes) -> bytes:
    """A PNG with every checksum made good."""
    head, *chunks = _parts(data)
    sealed = [
        chunk[:-4] + struct.pack(">I", zlib.crc32(chunk[4:-4])) if len(chunk) >= 12 else chunk for chunk in chunks
    ]
    return b"".join([head, *sealed])
