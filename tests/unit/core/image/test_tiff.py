"""Every layout, depth, compression and byte order of TIFF, as tifffile with imagecodecs writes and reads it."""

import io
import lzma
import struct
import tracemalloc
from collections.abc import Callable
from dataclasses import dataclass
from itertools import product
from typing import Any

import cv2
import imagecodecs
import numpy as np
import pytest
import tifffile
from PIL import Image

from core import errors
from core.image import light
from core.image.decode import decode
from tests.resilience.hostile.handmade import profile_with

WIDTH, HEIGHT = 50, 37
BLACK = np.zeros((HEIGHT, WIDTH, 3), np.uint8)
LAYOUTS = {"one strip": {"rows": HEIGHT}, "strips": {"rows": 7}, "tiles": {"tile": (16, 32)}}
RAW, LZW, DEFLATE = 1, 5, 8
ENCODERS: dict[int, Callable[..., Any]] = {
    RAW: bytes,
    32773: imagecodecs.packbits_encode,
    LZW: imagecodecs.lzw_encode,
    DEFLATE: imagecodecs.zlib_encode,
    32946: imagecodecs.zlib_encode,
    50000: imagecodecs.zstd_encode,
    34925: lzma.compress,
}
PHOTOMETRIC = {"miniswhite": 0, "minisblack": 1, "rgb": 2, "palette": 3, "separated": 5, "cielab": 8}
EXTRA = {"unspecified": 0, "assocalpha": 1, "unassalpha": 2}


@dataclass(frozen=True)
class Kind:
    """What the samples of a pixel mean."""

    photometric: str
    bits: int = 8
    extra: tuple[str, ...] = ()
    dtype: str | None = None

    @property
    def colors(self) -> int:
        return {"rgb": 3, "separated": 4, "cielab": 3}.get(self.photometric, 1)

    @property
    def samples(self) -> int:
        return self.colors + len(self.extra)

    @property
    def type(self) -> np.dtype:
        return np.dtype(self.dtype or ("u1" if self.bits <= 8 else "u2"))

    @property
    def alpha(self) -> int | None:
        return next((self.colors + at for at, kind in enumerate(self.extra) if kind != "unspecified"), None)


KINDS = [
    *(Kind("minisblack", bits) for bits in (1, 2, 4, 6, 8, 10, 12, 14, 16)),
    *(Kind("miniswhite", bits) for bits in (1, 2, 4, 6, 8, 10, 12, 14, 16)),
    *(Kind("minisblack", bits, (extra,)) for bits in (8, 16) for extra in ("unspecified", "assocalpha", "unassalpha")),
    *(Kind("miniswhite", bits, ("unassalpha",)) for bits in (8, 16)),
    *(Kind(photometric, bits) for photometric in ("rgb", "separated") for bits in (4, 8, 12, 16)),
    *(
        Kind(photometric, bits, extra)
        for photometric in ("rgb", "separated")
        for bits in (8, 16)
        for extra in (("unspecified",), ("assocalpha",), ("unassalpha",), ("unassalpha", "unspecified"))
    ),
    Kind("rgb", 8, ("unspecified", "unassalpha")),
    *(Kind("palette", bits) for bits in (1, 2, 4, 8)),
    Kind("palette", 8, ("unassalpha",)),
    *(Kind("minisblack", bits, (), f"f{bits // 8}") for bits in (16, 32, 64)),
]  # fmt: skip


def samples_of(kind: Kind) -> np.ndarray:
    """Noise on a ramp, height x width x samples; all colors are at most the alpha, as premultiplied ones must be."""
    rng = np.random.default_rng(kind.bits + kind.samples)
    shares = rng.random((HEIGHT, WIDTH, kind.samples)) * np.linspace(0.2, 1, WIDTH)[:, None]
    if kind.alpha is not None:
        shares[:, :, kind.alpha] = np.maximum(shares.max(axis=2), 0.3)
    if kind.type.kind == "f":
        return shares.astype(kind.type)
    return (shares * ((1 << kind.bits) - 1)).round().astype(kind.type)


def palette_of(kind: Kind) -> np.ndarray:
    return (np.random.default_rng(1).integers(0, 256, (3, 1 << kind.bits)) * 257).astype(np.uint16)


def packed(kind: Kind, block: np.ndarray, order: str, predictor: int) -> bytes:
    """A strip or tile before its compression."""
    if kind.bits not in (8, 16, 32, 64):
        bits = np.unpackbits(block.astype(">u2").view(np.uint8).reshape(len(block), -1, 2), axis=2)[:, :, -kind.bits :]
        return np.packbits(bits.reshape(len(block), -1), axis=1).tobytes()
    if predictor == 2:
        block = np.diff(block, axis=1, prepend=np.zeros_like(block[:, :1]))
    if predictor == 3:
        return imagecodecs.floatpred_encode(block[:, :, 0].astype(order + kind.type.str[1:]), axis=-1).tobytes()
    return block.astype(order + kind.type.str[1:]).tobytes()


def directory(order: str, big: bool, tags: dict[int, tuple[int, list[Any]]], start: int, following: bool) -> bytes:
    """A directory with its values behind it; the next one, if any, follows at once."""
    number, head = ("Q", "Q") if big else ("I", "H")
    widest = struct.calcsize(order + number)
    entries, values = b"", b""
    values_at = start + struct.calcsize(order + head + number) + len(tags) * (4 + 2 * widest)
    for tag, (kind, numbers) in sorted(tags.items()):
        count = len(numbers)
        if kind == 5:
            numbers = [part for number in numbers for part in (round(number * 10_000), 10_000)]
        one = struct.pack(
            f"{order}{len(numbers)}{'B' if kind in (1, 2) else 'H' if kind == 3 else 'IQ'[big]}", *numbers
        )
        if len(one) > widest:
            one, values = struct.pack(order + number, values_at + len(values)), values + one
        kind = 16 if big and kind == 4 else kind
        entries += struct.pack(f"{order}HH{number}{widest}s", tag, kind, count, one)
    after = values_at + len(values) if following else 0
    return struct.pack(order + head, len(tags)) + entries + struct.pack(order + number, after) + values


def written(
    kind: Kind,
    samples: np.ndarray,
    order: str = "<",
    *,
    planar: bool = False,
    compression: int = 1,
    predictor: int = 1,
    fill_order: int = 1,
    rows: int = HEIGHT,
    tile: tuple[int, int] | None = None,
    big: bool = False,
    tags: dict[int, tuple[int, list[Any]]] | None = None,
) -> bytes:
    """A TIFF of one page, with further tags or other values of those that it has; an empty list omits one."""
    height, width = tile or (rows, WIDTH)
    parts = []
    for plane in np.split(samples, kind.samples, axis=2) if planar else [samples]:
        for top, left in product(range(0, HEIGHT, height), range(0, WIDTH, width)):
            block = plane[top : top + height, left : left + width]
            if tile:
                block = np.pad(block, [(0, height - block.shape[0]), (0, width - block.shape[1]), (0, 0)])
            part = ENCODERS[compression](packed(kind, block, order, predictor))
            parts.append(imagecodecs.bitorder_encode(part) if fill_order == 2 else part)
    offsets = (np.cumsum([0, *map(len, parts)]) + (16 if big else 8)).tolist()
    end = offsets.pop()
    all_tags = {
        256: (4, [WIDTH]),
        257: (4, [HEIGHT]),
        258: (3, [kind.bits] * kind.samples),
        259: (3, [compression]),
        262: (3, [PHOTOMETRIC[kind.photometric]]),
        266: (3, [fill_order]),
        324 if tile else 273: (4, offsets),
        277: (3, [kind.samples]),
        325 if tile else 279: (4, [len(part) for part in parts]),
        284: (3, [1 + planar]),
        317: (3, [predictor]),
        338: (3, [EXTRA[one] for one in kind.extra]),
        339: (3, [3 if kind.type.kind == "f" else 1] * kind.samples),
    }
    all_tags |= {322: (4, [width]), 323: (4, [height])} if tile else {278: (4, [height])}
    if kind.photometric == "palette":
        all_tags[320] = (3, palette_of(kind).ravel().tolist())
    all_tags = {tag: value for tag, value in (all_tags | (tags or {})).items() if value[1]}
    header = struct.pack(order + ("2sHHHQ" if big else "2sHI"), *header_of(order, big), end)
    return header + b"".join(parts) + directory(order, big, all_tags, end, following=False)


def header_of(order: str, big: bool) -> tuple[Any, ...]:
    mark = {"<": b"II", ">": b"MM"}[order]
    return (mark, 43, 8, 0) if big else (mark, 42)


def expected(kind: Kind, samples: np.ndarray) -> tuple[np.ndarray, np.ndarray | None]:
    """The colors, height x width x 3, and the alpha, height x width, both 0 to 255."""
    white = 1.0 if kind.type.kind == "f" else (1 << kind.bits) - 1
    shares = samples.astype(np.float64) / white
    colors, alpha = shares[:, :, : kind.colors], None if kind.alpha is None else shares[:, :, kind.alpha]
    if "assocalpha" in kind.extra:
        colors = colors / alpha[:, :, None]
    if kind.photometric == "palette":
        colors = palette_of(kind).T[samples[:, :, 0]] / 65535
    elif kind.photometric == "miniswhite":
        colors = 1 - colors
    elif kind.photometric == "separated":
        colors = (1 - colors[:, :, :3]) * (1 - colors[:, :, 3:])
    rgb = np.broadcast_to(colors * 255, (HEIGHT, WIDTH, 3))
    return rgb, None if alpha is None else alpha * 255


def check(kind: Kind, data: bytes, levels: float = 1.01) -> None:
    """Compare the file with what the second decoder reads."""
    with tifffile.TiffFile(io.BytesIO(data)) as file:
        samples = file.pages[0].asarray()
        planar = file.pages[0].planarconfig == 2
    samples = np.moveaxis(samples, 0, -1) if planar and kind.samples > 1 else samples.reshape(HEIGHT, WIDTH, -1)
    rgb, alpha = expected(kind, samples.astype(kind.type))
    picture = decode(data)
    assert np.abs(picture.rgb - rgb).max() <= (levels if kind.photometric != "separated" else 1.6)  # 8 bits of ink
    assert (picture.alpha is None) == (alpha is None)
    if picture.alpha is not None and alpha is not None:
        assert np.abs(picture.alpha * 255 - alpha).max() <= levels
    assert any("extra channel" in warning for warning in picture.warnings) == ("unspecified" in kind.extra)


def name_of(kind: Kind) -> str:
    return "-".join([kind.photometric, str(kind.type), str(kind.bits), *kind.extra])


@pytest.mark.parametrize("kind", KINDS, ids=name_of)
@pytest.mark.slow
def test_every_layout_compression_and_byte_order_is_read_as_a_second_decoder_reads_it(kind):
    samples = samples_of(kind)
    predictors = [1, 3] if kind.type.kind == "f" else [1, 2] if kind.bits in (8, 16) else [1]
    for order, planar, layout, compression, predictor, fill_order in product(
        "<>", [False, True], LAYOUTS.values(), ENCODERS, predictors, [1, 2]
    ):
        if (planar and kind.samples == 1) or (predictor > 1 and compression in (RAW, 32773)):
            continue
        if fill_order == 2 and order == ">":  # the two do not interact
            continue
        options = {"planar": planar, "compression": compression, "predictor": predictor, "fill_order": fill_order}
        check(kind, written(kind, samples, order, **options, **layout))


@pytest.mark.parametrize("kind", KINDS, ids=name_of)
def test_two_layouts_of_every_kind_of_sample_are_read(kind):
    samples = samples_of(kind)
    check(kind, written(kind, samples, ">", planar=kind.samples > 1, rows=7))
    check(kind, written(kind, samples, "<", compression=LZW, tile=(16, 32)))


@pytest.mark.parametrize("planar", [False, True])
@pytest.mark.parametrize("layout", LAYOUTS)
@pytest.mark.parametrize("order", ["<", ">"])
def test_every_layout_of_16_bit_rgb_with_a_predictor_is_read(order, layout, planar):
    kind = Kind("rgb", 16, ("unassalpha",))
    options = {"planar": planar, "compression": DEFLATE, "predictor": 2}
    check(kind, written(kind, samples_of(kind), order, **options, **LAYOUTS[layout]))


@pytest.mark.parametrize("order", ["<", ">"])
def test_a_tiff_with_64_bit_offsets_is_read(order):
    for kind, compression in ((Kind("rgb", 16), RAW), (Kind("separated", 8, ("unassalpha",)), LZW)):
        check(kind, written(kind, samples_of(kind), order, planar=True, compression=compression, rows=7, big=True))


def page_chain(order: str, *subfile_types: int, old: bool = False) -> bytes:
    """Gray pages of 8 bits, the first one black, the second one of level 40, and so on."""
    pixels = b"".join(bytes([40 * page]) * (WIDTH * HEIGHT) for page in range(len(subfile_types)))
    data = struct.pack(order + "2sHI", *header_of(order, False), 8 + len(pixels)) + pixels
    for page, subfile_type in enumerate(subfile_types):
        size = WIDTH * HEIGHT
        tags = {254: (4, [subfile_type])} if not old else {255: (3, [subfile_type])}
        tags |= {256: (4, [WIDTH]), 257: (4, [HEIGHT]), 258: (3, [8]), 259: (3, [1]), 262: (3, [1])}
        tags |= {273: (4, [8 + page * size]), 277: (3, [1]), 278: (4, [HEIGHT]), 279: (4, [size])}
        data += directory(order, False, tags, len(data), following=page + 1 < len(subfile_types))
    return data


@pytest.mark.parametrize("order", ["<", ">"])
@pytest.mark.parametrize(("subfile_types", "main"), [((0, 1), 0), ((1, 0), 1), ((0, 1, 4, 5), 0), ((1, 5, 2), 2)])
def test_the_page_that_is_neither_a_reduced_version_nor_a_mask_is_read(order, subfile_types, main):
    assert decode(page_chain(order, *subfile_types)).rgb[0, 0].tolist() == [40 * main] * 3


def test_the_older_tag_for_reduced_versions_counts_too():
    assert decode(page_chain("<", 2, 1, old=True)).rgb[0, 0, 0] == 40


def test_two_pages_of_their_own_and_only_reduced_versions_are_refused():
    with pytest.raises(errors.AnimatedImageError):
        decode(page_chain("<", 0, 1, 2))
    with pytest.raises(errors.UnsupportedFormatError, match="raw"):
        decode(page_chain("<", 1, 1))


def test_a_long_chain_of_pages_is_refused():
    with pytest.raises(errors.CorruptImageError, match="more than 64 pages"):
        decode(long_chain(65))


def long_chain(pages: int) -> bytes:
    """Directories of one tag each, reduced versions."""
    data = struct.pack("<2sHI", b"II", 42, 8)
    for _ in range(pages):
        data += directory("<", False, {254: (4, [1])}, len(data), following=True)
    return data


def test_damage_behind_the_main_page_does_not_cost_the_picture():
    data = page_chain("<", 0, 1)
    assert decode(data[:-60]).rgb[0, 0, 0] == 0


@pytest.mark.parametrize(
    ("kind", "options", "found"),
    [
        (Kind("rgb", 32, (), "u4"), {}, "integers of 32 bits"),
        (Kind("rgb", 32, (), "f4"), {}, "floating-point numbers of 32 bits, 3 per pixel"),
        (Kind("rgb"), {"tags": {339: (3, [2, 2, 2])}}, "signed"),
        (Kind("rgb"), {"tags": {258: (3, [5, 6, 5])}}, "different types"),
        (Kind("separated"), {"tags": {332: (3, [2])}}, "inks other than CMYK"),
        (Kind("separated"), {"tags": {336: (3, [9, 9])}}, "DotRange"),
        (Kind("minisblack"), {"tags": {262: (3, [32803])}}, "raw data of a camera"),
        (Kind("minisblack"), {"tags": {262: (3, [4])}}, "a transparency mask"),
        (Kind("minisblack"), {"tags": {259: (3, [34712])}}, "compression 34712"),
        (Kind("miniswhite", 8, ("assocalpha",)), {}, "premultiplied"),
        (Kind("minisblack", 4), {"compression": LZW, "tags": {317: (3, [2])}}, "predictor 2"),
        (Kind("minisblack", 8), {"compression": LZW, "tags": {317: (3, [3])}}, "predictor 3"),
        (Kind("rgb"), {"tags": {259: (3, [4])}}, "compression 4"),
    ],
)
def test_what_has_no_defined_colors_is_refused_by_name(kind, options, found):
    samples = np.zeros((HEIGHT, WIDTH, kind.samples), kind.type)
    with pytest.raises(errors.UnsupportedFormatError, match=found) as caught:
        decode(written(kind, samples, **options))
    assert caught.value.field == "image.format"


@pytest.mark.parametrize("type_", [1, 3, 4])
@pytest.mark.parametrize("photometric", [2, 6])
def test_the_orientation_may_have_any_type_of_integer(photometric, type_):
    kind = Kind("rgb")
    tags = {262: (3, [photometric]), 530: (3, [1, 1])}
    upright = decode(written(kind, samples_of(kind), ">", tags=tags)).rgb
    turned = decode(written(kind, samples_of(kind), ">", tags=tags | {274: (type_, [6])}))
    assert np.array_equal(turned.rgb, np.rot90(upright, -1))
    assert (turned.info.width, turned.info.height) == (HEIGHT, WIDTH)


@pytest.mark.parametrize("stored", [9, 300])
def test_an_orientation_that_does_not_exist_is_a_warning(stored):
    kind = Kind("rgb")
    picture = decode(written(kind, samples_of(kind), tags={274: (3, [stored])}))
    assert np.array_equal(picture.rgb, samples_of(kind))
    assert any("orientation" in warning for warning in picture.warnings)


@pytest.mark.parametrize("name", ["minisblack", "rgb"])
def test_without_a_meaning_samples_are_taken_as_libtiff_takes_them(name):
    kind = Kind(name)
    assert np.array_equal(decode(written(kind, samples_of(kind), tags={262: (3, [])})).rgb - samples_of(kind), BLACK)
    with pytest.raises(errors.UnsupportedFormatError, match="no declared PhotometricInterpretation"):
        decode(written(Kind("separated"), samples_of(Kind("separated")), tags={262: (3, [])}))


@pytest.mark.parametrize("bits", [8, 16])
@pytest.mark.parametrize("dots", [(0, 1), (0.06, 0.92), (1, 0)])
def test_inks_are_stored_in_their_dot_range(dots, bits):
    kind, white = Kind("separated", bits), (1 << bits) - 1
    first, last = (round(dot * white) for dot in dots)
    samples = samples_of(kind)
    inks = np.clip((samples.astype(float) - first) / (last - first), 0, 1)
    rgb = decode(written(kind, samples, ">", tags={336: (3, [first, last])})).rgb
    assert np.abs(rgb - 255 * (1 - inks[..., :3]) * (1 - inks[..., 3:])).max() <= 1.6


def test_a_fourth_sample_of_rgb_without_a_kind_is_alpha():
    kind = Kind("rgb", 16, ("unassalpha",))
    samples = samples_of(kind)
    assert decode(written(kind, samples, tags={338: (3, [])})).alpha is not None


def test_the_16_levels_of_a_palette_of_8_bits_are_taken_as_8_bits():
    kind = Kind("palette", 4)
    colors = palette_of(kind) >> 8
    samples = samples_of(kind)
    picture = decode(written(kind, samples, tags={320: (3, colors.ravel().tolist())}))
    assert np.array_equal(picture.rgb, colors.T[samples[:, :, 0]])


def test_16_bit_lab_has_the_colors_of_8_bit_lab():
    eight = Kind("cielab")
    stored = np.zeros((HEIGHT, WIDTH, 3), np.int8)
    stored[..., 0] = 100
    stored[..., 1] = np.linspace(-60, 60, WIDTH)
    stored[..., 2] = np.linspace(-60, 60, HEIGHT)[:, None]
    sixteen = stored.astype(np.int16) * 256
    sixteen[..., 0] = 100 * 257
    narrow = decode(written(eight, stored.view(np.uint8), planar=True))
    wide = decode(written(Kind("cielab", 16), sixteen.view(np.uint16), ">", compression=LZW))
    assert np.array_equal(narrow.rgb, wide.rgb)
    assert np.ptp(narrow.rgb.reshape(-1, 3), axis=0).min() > 50


@pytest.mark.parametrize("compression", ENCODERS)
def test_strips_that_end_early_are_corrupt(compression):
    kind = Kind("rgb", 16)
    samples = np.random.default_rng(0).integers(0, 65536, (HEIGHT, WIDTH, 3)).astype(np.uint16)
    short = {273: (4, [9000])} if compression == RAW else {279: (4, [100])}
    with pytest.raises(errors.CorruptImageError):
        decode(written(kind, samples, compression=compression, tags=short))


@pytest.mark.parametrize(
    "tags",
    [
        {323: (4, [1 << 20])},
        {322: (4, [1 << 31])},
        {322: (4, [0])},
        {324: (4, [8])},
        {325: (4, [])},
        {256: (4, [])},
    ],
)
def test_tags_without_sense_are_corrupt(tags):
    kind = Kind("rgb")
    with pytest.raises(errors.CorruptImageError):
        decode(written(kind, samples_of(kind), tile=(16, 16), compression=LZW, tags=tags))


def smooth(channels: int) -> np.ndarray:
    """96 x 64 pixels without detail, which JPEG keeps: red, green, blue, and an alpha."""
    across, down = np.meshgrid(np.linspace(30, 220, 96), np.linspace(30, 220, 64))
    colors = np.dstack([across, down, (across + down) / 2, np.full_like(across, 140)])
    return colors[:, :, :channels].astype(np.uint8)


def ycbcr(rgb: np.ndarray) -> np.ndarray:
    return cv2.cvtColor(rgb, cv2.COLOR_RGB2YCrCb)[..., [0, 2, 1]]


LOSSY = {
    "gray": (smooth(1)[..., 0], {"photometric": "minisblack"}),
    "white is zero": (255 - smooth(1)[..., 0], {"photometric": "miniswhite"}),
    "gray and alpha": (smooth(4)[..., [0, 3]], {"photometric": "minisblack", "extrasamples": ["unassalpha"]}),
    "rgb": (smooth(3), {"photometric": "rgb"}),
    "rgb and alpha": (smooth(4), {"photometric": "rgb", "extrasamples": ["unassalpha"]}),
    "cmyk": (np.dstack([255 - smooth(3), np.zeros((64, 96), np.uint8)]), {"photometric": "separated"}),
    "ycbcr": (ycbcr(smooth(3)), {"photometric": "ycbcr"}),
}


@pytest.mark.parametrize("order", ["<", ">"])
@pytest.mark.parametrize("planar", [False, True])
@pytest.mark.parametrize("name", LOSSY)
def test_jpeg_compression_is_read_right_or_refused(name, planar, order):
    pixels, options = LOSSY[name]
    if (planar and pixels.ndim == 2) or (name == "rgb and alpha" and not planar):
        pytest.skip("tifffile does not write this")
    if pixels.ndim == 3:
        options = options | {"planarconfig": "separate" if planar else "contig"}
    for layout in ({"rowsperstrip": 16}, {"tile": (32, 32)}):
        file = io.BytesIO()
        stored = np.moveaxis(pixels, 2, 0) if planar else pixels
        options |= {"compression": "jpeg", "compressionargs": {"level": 95}, "byteorder": order}
        tifffile.imwrite(file, stored, metadata=None, **options, **layout)
        if planar and name == "gray and alpha":  # Pillow reads noise
            with pytest.raises(errors.UnsupportedFormatError, match="separate planes"):
                decode(file.getvalue())
            continue
        picture = decode(file.getvalue())
        rgb = smooth(3) if pixels.ndim == 3 and pixels.shape[2] > 2 else np.repeat(smooth(1), 3, axis=2)
        assert np.abs(picture.rgb.astype(int) - rgb).max() <= 8
        assert (picture.alpha is None) == ("alpha" not in name)
        if picture.alpha is not None:
            assert np.abs(picture.alpha * 255 - 140).max() <= 3


def test_jpeg_that_pillow_does_not_know_is_refused_by_name():
    for kind in (Kind("separated", 8, ("unassalpha",)), Kind("miniswhite", 8, ("unassalpha",)), Kind("cielab")):
        with pytest.raises(errors.UnsupportedFormatError, match="compression 7"):
            decode(written(kind, samples_of(kind), tags={259: (3, [7])}))


@pytest.mark.parametrize("compression", ["group3", "group4", "tiff_ccitt"])
@pytest.mark.parametrize("white", [False, True])
def test_fax_compressions_are_read(compression, white):
    bits = np.random.default_rng(0).random((HEIGHT, WIDTH)) < 0.3
    file = io.BytesIO()
    photometric = {"tiffinfo": {262: 0}} if white else {}
    Image.fromarray(bits).save(file, "TIFF", compression=compression, **photometric)
    assert np.array_equal(decode(file.getvalue()).rgb[..., 0] > 0, bits)


@pytest.mark.parametrize("order", ["<", ">"])
@pytest.mark.parametrize("compression", [RAW, LZW, DEFLATE])
def test_subsampled_chroma_is_read(order, compression):
    """Blocks of 2 x 2 pixels share their chroma: four of Y, then Cb and Cr."""
    height, width = 36, 48
    colors = np.random.default_rng(0).integers(60, 200, (height // 2, width // 2, 3)).astype(np.uint8)
    y, cb, cr = np.moveaxis(ycbcr(colors), 2, 0)
    blocks = np.stack([y, y, y, y, cb, cr], axis=2)
    size = {256: (4, [width]), 257: (4, [height]), 278: (4, [height])}
    part = ENCODERS[compression](blocks.tobytes())
    start = 8 + len(part)
    tags = size | {258: (3, [8] * 3), 259: (3, [compression]), 262: (3, [6]), 273: (4, [8]), 277: (3, [3])}
    tags |= {279: (4, [len(part)]), 530: (3, [2, 2])}
    header = struct.pack(order + "2sHI", *header_of(order, False), start)
    picture = decode(header + part + directory(order, False, tags, start, following=False))
    assert np.abs(picture.rgb[::2, ::2].astype(int) - colors).max() <= 3


@pytest.mark.parametrize("layout", [{}, {"rowsperstrip": 700}, {"tile": (1024, 1024)}])
@pytest.mark.parametrize("planar", [False, True])
def test_a_large_picture_is_whole(layout, planar):
    rng = np.random.default_rng(0)
    pixels = np.repeat(rng.integers(0, 256, (1100, 1, 3), np.uint8), 2100, axis=1)
    pixels[:, 1050:] ^= 255
    for compression in (None, "lzw"):
        file = io.BytesIO()
        planes = np.moveaxis(pixels, 2, 0) if planar else pixels
        config = {"planarconfig": "separate" if planar else "contig", "compression": compression}
        tifffile.imwrite(file, planes, photometric="rgb", metadata=None, **config, **layout)
        assert np.array_equal(decode(file.getvalue()).rgb, pixels)


def test_strips_that_all_name_the_whole_file_take_no_more_memory():
    kind, count = Kind("minisblack"), 4000
    padding = bytes(1 << 20)
    tags = {257: (4, [count]), 278: (4, [1]), 273: (4, [8] * count), 279: (4, [1 << 20] * count)}
    file = written(kind, samples_of(kind), compression=LZW, tags=tags) + padding
    tracemalloc.start()
    picture = decode(file)
    _, peak_bytes = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert np.array_equal(picture.rgb[0], picture.rgb[-1]) and picture.info.height == count
    assert peak_bytes < 20_000_000


P3 = (0.3127, 0.3290, 0.68, 0.32, 0.265, 0.69, 0.15, 0.06)


def table(exponent: float, bits: int) -> list[int]:
    return (np.linspace(0, 1, 1 << bits) ** exponent * 65535).round().astype(int).tolist()


@pytest.mark.parametrize("bits", [8, 16])
@pytest.mark.parametrize("planar", [False, True])
@pytest.mark.parametrize(("exponent", "chromaticities"), [(1, None), (1.8, P3), (None, P3)])
def test_colors_that_a_tiff_declares_without_a_profile_are_converted(exponent, chromaticities, planar, bits):
    kind, tags = Kind("rgb", bits), {}
    if chromaticities:
        tags |= {318: (5, chromaticities[:2]), 319: (5, chromaticities[2:])}
    if exponent:
        tags |= {301: (3, table(exponent, bits) * (1 + 2 * planar))}
    samples = samples_of(kind)
    expected = light.to_srgb(samples, light.of_gamma(exponent and 1 / exponent, chromaticities))
    picture = decode(written(kind, samples, planar=planar, tags=tags))
    assert np.abs(picture.rgb.astype(int) - expected).max() <= 1
    profile = {34675: (1, list(profile_with()))}
    assert np.array_equal(
        decode(written(kind, samples, tags=tags | profile)).rgb, decode(written(kind, samples, tags=profile)).rgb
    )


def test_gray_has_a_transfer_function_too():
    kind = Kind("minisblack", 12)
    samples = samples_of(kind)
    linear = 65535 * (samples[..., 0] / 4095)
    picture = decode(written(kind, samples, tags={301: (3, table(1, 12))}))
    expected = light.to_srgb(linear.round().astype(np.uint16), light.Light((light.Curve(exponent=1.0),)))
    assert np.abs(picture.rgb.astype(int) - expected).max() <= 1


@pytest.mark.parametrize(
    "tags",
    [{301: (3, [0] * 255)}, {319: (5, [0.5] * 6)}, {319: (5, [0.3] * 5)}, {319: (5, [0.3])}, {301: (2, list(b"text"))}],
)
def test_a_damaged_description_of_colors_is_a_warning(tags):
    kind = Kind("rgb")
    picture = decode(written(kind, samples_of(kind), tags=tags))
    assert np.array_equal(picture.rgb, samples_of(kind))
    assert any("color description" in warning for warning in picture.warnings)


def test_a_profile_that_is_not_bytes_is_a_warning():
    kind = Kind("rgb")
    picture = decode(written(kind, samples_of(kind), tags={34675: (3, [1, 2, 3])}))
    assert np.array_equal(picture.rgb, samples_of(kind))
    assert any("color profile" in warning for warning in picture.warnings)


def test_16_bit_colors_keep_their_precision_up_to_a_linear_profile():
    linear = b"curv" + bytes(8)
    profile = profile_with(rTRC=linear, gTRC=linear, bTRC=linear)
    levels = np.linspace(0, 65535, HEIGHT * WIDTH).round().astype(np.uint16)
    ramp = levels.reshape(HEIGHT, WIDTH, 1).repeat(3, axis=2)
    tags = {34675: (1, list(profile))}
    green = decode(written(Kind("rgb", 16), ramp, ">", planar=True, compression=LZW, rows=7, tags=tags)).rgb[..., 1]
    light = ramp[..., 1] / 65535
    expected = 255 * np.where(light <= 0.0031308, light * 12.92, 1.055 * light ** (1 / 2.4) - 0.055)
    assert np.abs(green - expected).max() <= 1.01
