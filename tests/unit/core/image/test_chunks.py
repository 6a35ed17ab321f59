"""PNG: every color type, depth, interlacing and transparency against pixels computed from the samples themselves."""

import contextlib
import struct
import tracemalloc
import zlib

import cv2
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image

from core import errors
from core.image import chunks
from core.image.decode import decode
from tests.conftest import file_of
from tests.resilience.hostile.handmade import DISPLAY_P3, PNG_SIGNATURE, cmyk_profile, png, png_around, png_chunk

CHANNELS = {0: 1, 2: 3, 3: 1, 4: 2, 6: 4}
KINDS = [(color_type, bits) for color_type in (0, 3) for bits in (1, 2, 4, 8)] + [
    (color_type, bits) for color_type in (2, 4, 6) for bits in (8, 16)
]
KINDS.append((0, 16))
ADAM7 = [(0, 0, 8, 8), (4, 0, 8, 8), (0, 4, 4, 8), (2, 0, 4, 4), (0, 2, 2, 4), (1, 0, 2, 2), (0, 1, 1, 2)]
WIDTH = HEIGHT = 16
ROWS = (b"\0" + bytes(WIDTH)) * HEIGHT
PIXELS = png_chunk(b"IDAT", zlib.compress(ROWS))


def packed(samples: np.ndarray, bits: int) -> bytes:
    """Rows of H x W x channels as they are stored, each with the filter Up or none."""
    rows, above = [], None
    for row in samples.reshape(len(samples), -1):
        if bits == 16:
            stored = row.astype(">u2").view(np.uint8)
        else:
            ones = np.unpackbits(row.astype(np.uint8)[:, None], axis=1)[:, 8 - bits :]
            stored = np.packbits(ones.reshape(-1))
        rows.append(b"\0" + stored.tobytes() if above is None else b"\2" + (stored - above).tobytes())
        above = stored
    return b"".join(rows)


def stored_png(samples: np.ndarray, bits: int, color_type: int, interlaced: bool, *extra: bytes) -> bytes:
    height, width = samples.shape[:2]
    parts = [samples]
    if interlaced:
        parts = [samples[y::down, x::across] for x, y, across, down in ADAM7]
    body = b"".join(packed(part, bits) for part in parts if part.size)
    header = struct.pack(">IIBBBBB", width, height, bits, color_type, 0, 0, int(interlaced))
    pieces = [png_chunk(b"IHDR", header), *extra, png_chunk(b"IDAT", zlib.compress(body)), png_chunk(b"IEND", b"")]
    return PNG_SIGNATURE + b"".join(pieces)


def expected(samples: np.ndarray, bits: int, color_type: int, palette: np.ndarray, trns: list[int] | None):
    """RGB and alpha of 8 bits, by the definitions of the standard."""
    white = 2**bits - 1
    if color_type == 3:
        rgb = palette[samples[..., 0]]
        alphas = np.full(256, 255)
        alphas[: len(trns or [])] = trns or []
        alpha = alphas[samples[..., 0]]
    else:
        scaled = np.floor(samples * 255 / white + 0.5).astype(int)
        rgb = np.repeat(scaled[..., :1], 3, axis=-1) if color_type in {0, 4} else scaled[..., :3]
        alpha = scaled[..., -1] if color_type in {4, 6} else np.full(samples.shape[:2], 255)
        if trns is not None:
            alpha = np.where((samples == trns).all(axis=-1), 0, 255)
    return rgb, alpha


def check(color_type: int, bits: int, interlaced: bool, transparent: bool, width: int, height: int, seed: int) -> None:
    rng = np.random.default_rng(seed)
    samples = rng.integers(0, 2**bits, (height, width, CHANNELS[color_type]))
    palette = rng.integers(0, 256, (2 ** min(bits, 8), 3))
    extra, trns = [], None
    if color_type == 3:
        extra.append(png_chunk(b"PLTE", palette.astype(np.uint8).tobytes()))
    if transparent and color_type == 3:
        trns = rng.integers(0, 256, rng.integers(1, len(palette) + 1)).tolist()
        extra.append(png_chunk(b"tRNS", bytes(trns)))
    elif transparent and color_type in {0, 2}:
        trns = samples[0, 0].tolist()
        if bits == 16:  # neighbors that 8 bits cannot tell from it
            samples[1] = samples[0, 0] ^ 1
        samples[2, ::2] = trns
        extra.append(png_chunk(b"tRNS", np.array(trns, ">u2").tobytes()))
    picture = decode(stored_png(samples, bits, color_type, interlaced, *extra))
    rgb, alpha = expected(samples, bits, color_type, palette, trns)
    assert np.array_equal(picture.rgb, np.where(alpha[..., None] == 0, picture.backdrop, rgb))
    found = np.full((height, width), 255) if picture.alpha is None else np.rint(picture.alpha * 255)
    assert np.array_equal(found, alpha)
    assert picture.warnings == ()


@pytest.mark.parametrize("interlaced", [False, True])
@pytest.mark.parametrize("transparent", [False, True])
@pytest.mark.parametrize("color_type, bits", KINDS)
def test_every_kind_of_png_has_the_pixels_that_the_standard_defines(color_type, bits, interlaced, transparent):
    check(color_type, bits, interlaced, transparent, 37, 29, bits)


@pytest.mark.slow
@settings(max_examples=600)
@given(
    kind=st.sampled_from(KINDS),
    interlaced=st.booleans(),
    transparent=st.booleans(),
    width=st.integers(16, 70),
    height=st.integers(16, 40),
    seed=st.integers(0, 2**32 - 1),
)
def test_png_of_any_size_has_the_pixels_that_the_standard_defines(kind, interlaced, transparent, width, height, seed):
    check(*kind, interlaced, transparent, width, height, seed)


def test_the_bits_of_a_key_above_the_depth_do_not_count():
    samples = np.zeros((16, 16, 1), int)
    picture = decode(stored_png(samples, 4, 0, False, png_chunk(b"tRNS", b"\xff\xf0")))
    assert picture.alpha is not None
    assert picture.alpha.max() == 0


def damaged(chunk: bytes) -> bytes:
    return chunk[:-1] + bytes((chunk[-1] ^ 1,))


TEXT, PROFILE = png_chunk(b"tEXt", b"Title\0abc"), png_chunk(b"iCCP", b"p\0\0" + zlib.compress(DISPLAY_P3))
DAMAGE = {
    "checksum of text": (damaged(TEXT), "tEXt"),
    "checksum of a profile": (damaged(PROFILE), "iCCP"),
    "profile not deflated": (png_chunk(b"iCCP", b"p\0\0no deflate"), "iCCP"),
    "profile cut short": (png_chunk(b"iCCP", b"p\0\0" + zlib.compress(DISPLAY_P3)[:-20]), "iCCP"),
    "unknown compression": (png_chunk(b"iCCP", b"p\0\7" + zlib.compress(DISPLAY_P3)), "iCCP"),
    "resolution too short": (png_chunk(b"pHYs", bytes(8)), "pHYs"),
    "gamma too short": (png_chunk(b"gAMA", bytes(3)), "gAMA"),
    "transparency too short": (png_chunk(b"tRNS", b"\0"), "tRNS"),
    "length too small": (struct.pack(">I", 3) + TEXT[4:], "tEXt"),
    "length too large": (struct.pack(">I", 20) + TEXT[4:], "tEXt"),
    "length beyond the file": (struct.pack(">I", 10**9) + TEXT[4:], "tEXt"),
    "name of no letters": (damaged(png_chunk(b"\0\1\2\3", b"abc")), "unknown"),
}


@pytest.mark.parametrize("chunk, name", DAMAGE.values(), ids=DAMAGE.keys())
@pytest.mark.parametrize("place", ["before", "after"])
def test_damage_outside_the_pixels_is_said_and_does_not_cost_the_picture(chunk, name, place):
    around = (chunk, PIXELS) if place == "before" else (PIXELS, chunk)
    picture = decode(png_around(WIDTH, HEIGHT, 8, 0, *around))
    assert picture.rgb.shape == (HEIGHT, WIDTH, 3)
    ignored_anyway = place == "after" and name in {"iCCP", "tRNS"} and chunk == png_chunk(name.encode(), chunk[8:-4])
    assert ignored_anyway or picture.warnings == (f"Damaged chunks of the PNG were ignored: {name}.",)


def test_a_missing_end_is_said_and_does_not_cost_the_picture():
    whole = png_around(WIDTH, HEIGHT, 8, 0, PIXELS)
    for end in (-12, -9, -4):
        assert decode(whole[:end]).rgb.shape == (HEIGHT, WIDTH, 3)
    assert decode(whole[:-12]).warnings == ("The file ends without its end marker.",)


@pytest.mark.parametrize("bits", [8, 16])
def test_damaged_pixels_are_corrupt(bits):
    rows = (b"\0" + bytes(WIDTH * bits // 8)) * HEIGHT
    whole = png_chunk(b"IDAT", zlib.compress(rows))
    for chunk in (damaged(whole), whole[:-6], png_chunk(b"IDAT", zlib.compress(rows[:100])), png_chunk(b"IDAT", b"no")):
        with pytest.raises(errors.CorruptImageError):
            decode(png_around(WIDTH, HEIGHT, bits, 0, chunk))
    with pytest.raises(errors.CorruptImageError):
        decode(png_around(WIDTH, HEIGHT, 8, 3, damaged(png_chunk(b"PLTE", bytes(768))), PIXELS))


@pytest.mark.parametrize("interlaced", [False, True])
@pytest.mark.parametrize("color_type, bits", KINDS)
@pytest.mark.parametrize("height", [24, 25])
def test_missing_rows_are_corrupt_and_black_ones_are_not(color_type, bits, interlaced, height):
    palette = [png_chunk(b"PLTE", bytes(3 * 2**bits))] if color_type == 3 else []
    black = np.zeros((height, 19, CHANNELS[color_type]), int)
    whole = stored_png(black, bits, color_type, interlaced, *palette)
    assert decode(whole).rgb.shape == (height, 19, 3)
    at = whole.index(b"IDAT") + 4
    rows = zlib.decompress(whole[at:-16])
    for cut in (1, 10, len(rows) // 2):
        data = whole[: at - 8] + png_chunk(b"IDAT", zlib.compress(rows[:-cut])) + png_chunk(b"IEND", b"")
        with pytest.raises(errors.CorruptImageError):
            decode(data)


def test_a_flood_of_damaged_chunks_is_corrupt():
    with pytest.raises(errors.CorruptImageError, match="more than 1000 damaged chunks"):
        decode(png_around(WIDTH, HEIGHT, 8, 0, damaged(TEXT) * 1001, PIXELS))


def test_the_search_after_wrong_lengths_ends():
    wrong = struct.pack(">I", 10**9) + TEXT[4:] + b"IDAT" * 8
    with pytest.raises(errors.CorruptImageError, match="wrong length"):
        decode(png_around(WIDTH, HEIGHT, 8, 0, wrong, PIXELS))


@pytest.mark.slow
def test_compressed_metadata_cannot_fill_the_memory():
    bomb = zlib.compress(bytes(200_000_000), 9)
    texts = [png_chunk(b"zTXt", b"Comment\0\0" + bomb), png_chunk(b"iTXt", b"XML:com.adobe.xmp\0\1\0\0\0" + bomb)]
    for chunk in (*texts, png_chunk(b"zTXt", b"Raw profile type exif\0\0" + bomb), png_chunk(b"iCCP", b"p\0\0" + bomb)):
        data = png(WIDTH, HEIGHT, 8, 0, ROWS, chunk)
        tracemalloc.start()
        picture = decode(data)
        _, peak_bytes = tracemalloc.get_traced_memory()
        tracemalloc.stop()
        assert peak_bytes < 20_000_000
        assert picture.rgb.shape == (HEIGHT, WIDTH, 3)


def test_a_profile_of_megabytes_is_read():
    large = bytearray(DISPLAY_P3 + np.random.default_rng(0).bytes(2_000_000))
    large[:4] = struct.pack(">I", len(large))
    rgb = Image.new("RGB", (WIDTH, HEIGHT), (150, 120, 120))
    rows = b"".join(b"\0" + row.tobytes() for row in np.asarray(rgb))
    picture = decode(png(WIDTH, HEIGHT, 8, 2, rows, png_chunk(b"iCCP", b"p\0\0" + zlib.compress(bytes(large)))))
    assert np.abs(picture.rgb[0, 0].astype(int) - (156, 119, 119)).max() <= 1
    assert picture.warnings == ()


TURNED = b"MM\0*\0\0\0\x08\0\1\1\x12\0\3\0\0\0\1\0\6\0\0\0\0\0\0"
IN_HEX = b"\nexif\n%8d\n" % len(TURNED) + TURNED.hex().encode() + b"\n"
TEXTS = {
    "tEXt": png_chunk(b"tEXt", b"Raw profile type exif\0" + IN_HEX),
    "zTXt": png_chunk(b"zTXt", b"Raw profile type APP1\0\0" + zlib.compress(IN_HEX)),
    "eXIf": png_chunk(b"eXIf", TURNED),
}


@pytest.mark.parametrize("chunk", TEXTS.values(), ids=TEXTS.keys())
@pytest.mark.parametrize("after", [False, True])
def test_exif_data_turn_the_picture_wherever_they_are(chunk, after):
    pixels = png_chunk(b"IDAT", zlib.compress((b"\0" + bytes(WIDTH)) * 32))
    picture = decode(png_around(WIDTH, 32, 8, 0, *((pixels, chunk) if after else (chunk, pixels))))
    assert picture.rgb.shape == (WIDTH, 32, 3)


P3, SRGB = png_chunk(b"cICP", b"\x0c\x0d\0\1"), png_chunk(b"sRGB", b"\0")
LINEAR = png_chunk(b"gAMA", struct.pack(">I", 100_000))
ICC = png_chunk(b"iCCP", b"p\0\0" + zlib.compress(DISPLAY_P3))
SWAPPED = png_chunk(b"iCCP", b"p\0\0" + zlib.compress(cmyk_profile()))
STORED, AS_P3, AS_LINEAR = (150, 120, 120), (156, 119, 119), (201, 181, 181)


@pytest.mark.parametrize("bits", [8, 16])
@pytest.mark.parametrize(
    "order, color, warned",
    [
        ((P3, LINEAR), AS_P3, False),
        ((SRGB, P3, LINEAR), AS_P3, False),
        ((png_chunk(b"cICP", b"\1\x0d\0\1"), ICC), STORED, False),
        ((ICC, SRGB, LINEAR), AS_P3, False),
        ((SRGB, LINEAR), STORED, False),
        ((LINEAR,), AS_LINEAR, False),
        ((png_chunk(b"cICP", b"\x0c\x0d\1\1"), LINEAR), AS_LINEAR, True),
        ((png_chunk(b"cICP", b"\x63\x0d\0\1"), ICC), AS_P3, True),
        ((png_chunk(b"cICP", b"\x0c\x63\0\1"), SRGB), STORED, True),
        ((png_chunk(b"gAMA", bytes(4)),), STORED, True),
        ((png_chunk(b"cHRM", bytes(32)),), STORED, True),
        ((damaged(ICC), LINEAR), AS_LINEAR, True),
        ((SWAPPED, SRGB), STORED, True),
        ((png_chunk(b"gAMA", struct.pack(">I", 45455)),), STORED, False),
    ],
)
def test_color_is_taken_from_the_chunk_that_takes_precedence(bits, order, color, warned):
    samples = np.tile(np.array(STORED) * (257 if bits == 16 else 1), (16, 16, 1))
    picture = decode(stored_png(samples, bits, 2, False, *order))
    assert np.abs(picture.rgb[8, 8].astype(int) - color).max() <= 1
    assert bool(picture.warnings) == warned


def test_16_bits_of_a_linear_profile_keep_all_levels():
    ramp = np.tile(np.arange(65536).reshape(256, 256, 1), (1, 1, 3))
    assert len(np.unique(decode(stored_png(ramp, 16, 2, False, LINEAR)).rgb)) == 256


@pytest.mark.slow
def test_a_large_deep_picture_is_whole():
    pixels = np.repeat(np.random.default_rng(0).integers(1, 65536, (2501, 1, 4), np.uint16), 2000, axis=1)
    ok, encoded = cv2.imencode(".png", pixels, [cv2.IMWRITE_PNG_COMPRESSION, 1])
    assert ok
    picture = decode(encoded.tobytes())
    assert picture.alpha is not None
    visible = picture.alpha > 0
    assert np.array_equal(picture.rgb[visible], np.floor(pixels[..., 2::-1][visible] / 257 + 0.5))
    assert np.array_equal(np.rint(picture.alpha * 255), np.floor(pixels[..., 3] / 257 + 0.5))


def test_one_frame_of_an_animation_is_read_and_several_are_refused():
    frame = png_chunk(b"fcTL", struct.pack(">5I2H2B", 0, WIDTH, HEIGHT, 0, 0, 1, 1, 0, 0))
    one = png_chunk(b"acTL", struct.pack(">2I", 1, 0))
    assert decode(png_around(WIDTH, HEIGHT, 8, 0, one, frame, PIXELS)).info.format == "png"
    with pytest.raises(errors.AnimatedImageError):
        decode(png_around(WIDTH, HEIGHT, 8, 0, png_chunk(b"acTL", struct.pack(">2I", 2, 0)), frame, PIXELS))


@given(
    damage=st.lists(st.tuples(st.integers(8, 10_000), st.binary(min_size=1, max_size=4)), min_size=1, max_size=4),
    end=st.none() | st.integers(0, 10_000),
)
@settings(max_examples=60)
def test_damaged_files_are_read_or_refused_with_a_typed_error(damage, end):
    extra = [ICC, P3, TEXT, png_chunk(b"tRNS", bytes(6)), png_chunk(b"eXIf", TURNED), LINEAR]
    data = bytearray(stored_png(np.zeros((16, 16, 3), int), 16, 2, False, *extra))
    for at, content in damage:
        start = 8 + at % (len(data) - 8)
        data[start : start + len(content)] = content
    with contextlib.suppress(errors.BackgroundRemoverError):
        decode(bytes(data[:end]))


@pytest.mark.parametrize(("more_bytes", "is_read"), [(1000, True), (2_000_000, False)])
def test_pixels_of_16_bits_end_with_the_image(more_bytes, is_read):
    data = png(WIDTH, HEIGHT, 16, 0, (b"\0" + bytes(2 * WIDTH)) * HEIGHT + bytes(more_bytes))
    with (
        contextlib.nullcontext() if is_read else pytest.raises(errors.CorruptImageError, match="more data than pixels")
    ):
        decode(data)


def test_the_decoder_gets_the_pixels_alone():
    kept = chunks.read(png(WIDTH, HEIGHT, 8, 0, ROWS, TEXT, ICC, LINEAR)).data
    assert kept == png(WIDTH, HEIGHT, 8, 0, ROWS)
    assert chunks.read(file_of(Image.new("P", (32, 32)), "PNG", transparency=0)).info["transparency"] == b"\0"
