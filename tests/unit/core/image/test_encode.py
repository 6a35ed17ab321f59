import io
import struct
import zipfile

import cv2
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image, ImageCms, features
from PIL.ExifTags import IFD, Base
from PIL.TiffImagePlugin import IFDRational

from core import errors
from core.image.decode import decode, decode_plane
from core.image.encode import encode, encode_plane
from core.layout import Box
from core.options import Options

FORMATS = ["png", "webp", "webp_lossless", "avif", "jpeg"]
LOSSLESS = ["png", "webp_lossless"]
HEIGHT, WIDTH = 80, 120
RED = (220, 30, 40)
SIDES = {"webp": 16_383, "webp_lossless": 16_383, "avif": 32_768, "jpeg": 65_500, "zip": 65_500}


def disc() -> np.ndarray:
    """A soft disc with alpha from 0 to 1."""
    y, x = np.mgrid[:HEIGHT, :WIDTH]
    distance = np.hypot(y - HEIGHT / 2, x - WIDTH / 2)
    return np.clip((30 - distance) / 8, 0, 1).astype(np.float32)


def photograph() -> np.ndarray:
    from skimage import data

    return np.asarray(cv2.resize(data.astronaut(), (WIDTH, HEIGHT), interpolation=cv2.INTER_AREA))


def plain(colour: tuple[int, int, int] = RED) -> np.ndarray:
    return np.full((HEIGHT, WIDTH, 3), colour, np.uint8)


def options(**given: object) -> Options:
    return Options.parse(given)


def opened(data: bytes) -> np.ndarray:
    return np.asarray(Image.open(io.BytesIO(data)))


@pytest.mark.parametrize("format_", LOSSLESS)
def test_a_cutout_comes_back_with_its_colour_and_its_alpha(format_):
    rgb, alpha = photograph(), disc()
    encoded = encode(rgb, alpha, options(format=format_))
    picture = decode(encoded.data)
    seen = np.round(alpha * 255) > 0
    assert np.array_equal(picture.rgb[seen], rgb[seen])
    assert np.abs(picture.alpha - alpha).max() <= 0.5 / 255 + 1e-6
    assert (encoded.format, encoded.width, encoded.height) == (format_, WIDTH, HEIGHT)


@pytest.mark.parametrize(("format_", "off_alpha"), [("webp", 0.5), ("avif", 8)])
def test_a_lossy_cutout_comes_near_in_colour_and_alpha(format_, off_alpha):
    encoded = encode(photograph(), disc(), options(format=format_))
    picture = decode(encoded.data)
    assert np.abs(picture.alpha - disc()).max() <= off_alpha / 255 + 1e-6
    assert np.abs(picture.rgb.astype(int) - photograph())[disc() > 0.5].mean() < 6


@pytest.mark.parametrize(
    ("format_", "pillow_name", "content_type"),
    [
        ("png", "PNG", "image/png"),
        ("webp", "WEBP", "image/webp"),
        ("webp_lossless", "WEBP", "image/webp"),
        ("avif", "AVIF", "image/avif"),
        ("jpeg", "JPEG", "image/jpeg"),
    ],
)
@pytest.mark.parametrize("output", ["cutout", "mask"])
def test_the_file_is_what_its_content_type_says(format_, pillow_name, content_type, output):
    encoded = encode(photograph(), disc(), options(format=format_, output=output))
    image = Image.open(io.BytesIO(encoded.data))
    assert (image.format, encoded.content_type) == (pillow_name, content_type)
    assert image.size == (encoded.width, encoded.height) == (WIDTH, HEIGHT)


@pytest.mark.parametrize("format_", FORMATS)
def test_colour_is_tagged_as_srgb(format_):
    data = encode(photograph(), disc(), options(format=format_)).data
    image = Image.open(io.BytesIO(data))
    image.load()  # Pillow checks the chunks' checksums
    if format_ == "png":
        assert image.info["srgb"] == 0
    elif format_ == "avif":
        primaries, transfer = 1, 13  # BT.709 and sRGB: ITU-T H.273, tables 2 and 3
        assert b"colrnclx" + struct.pack(">2H", primaries, transfer) in data
    else:
        profile = ImageCms.ImageCmsProfile(io.BytesIO(image.info["icc_profile"]))
        assert "sRGB" in ImageCms.getProfileDescription(profile)


@pytest.mark.parametrize("format_", ["png", "webp", "webp_lossless", "avif"])
def test_nothing_of_what_was_removed_is_left_in_the_file(format_):
    hidden = np.round(disc() * 255) == 0
    one, other = photograph(), photograph()
    other[hidden] = 255 - other[hidden]
    files = [encode(rgb, disc(), options(format=format_)).data for rgb in (one, other)]
    assert files[0] == files[1]


@pytest.mark.parametrize("colour", [(0, 0, 0), (255, 255, 255), (10, 200, 90)])
@pytest.mark.parametrize("format_", LOSSLESS)
def test_a_cutout_shows_no_fringe_on_any_background(format_, colour):
    """Of a plain subject only mixtures of its colour and the background may be seen."""
    rgba = Image.open(io.BytesIO(encode(plain(), disc(), options(format=format_)).data))
    behind = Image.new("RGBA", rgba.size, colour)
    seen = np.asarray(Image.alpha_composite(behind, rgba).convert("RGB"), np.float32)
    expected = disc()[..., None] * np.float32(RED) + (1 - disc()[..., None]) * np.float32(colour)
    assert np.abs(seen - expected).max() <= 2


@pytest.mark.parametrize("format_", LOSSLESS)
def test_a_background_colour_gives_what_a_browser_shows(format_):
    encoded = encode(plain(), disc(), options(format=format_, background_color="#0AC85a"))
    rgb = opened(encoded.data)
    expected = disc()[..., None] * np.float32(RED) + (1 - disc()[..., None]) * np.float32((10, 200, 90))
    assert rgb.shape == (HEIGHT, WIDTH, 3)
    assert np.abs(rgb - expected).max() <= 1


def test_jpeg_stands_on_white_unless_told_otherwise():
    white = opened(encode(plain(), disc(), options(format="jpeg", quality=100)).data)
    black = opened(encode(plain(), disc(), options(format="jpeg", quality=100, background_color="#000000")).data)
    assert white[0, 0].min() >= 253
    assert black[0, 0].max() <= 2
    for rgb in (white, black):
        assert np.abs(rgb[HEIGHT // 2, WIDTH // 2].astype(int) - RED).max() <= 3


def test_on_its_own_background_the_subject_gives_the_photograph_back():
    alpha = disc()[..., None]
    photo = np.round(alpha * np.float32(RED) + (1 - alpha) * np.float32((40, 80, 160))).astype(np.uint8)
    encoded = encode(plain(), disc(), options(), background=plain((40, 80, 160)))
    assert np.abs(opened(encoded.data).astype(int) - photo).max() <= 1


@pytest.mark.parametrize("size", [(40, 60), (400, 40), (40, 400), (160, 240), (1, 1), (81, 120)])
def test_a_background_picture_covers_the_result_with_its_centre(size):
    height, width = size
    background = np.zeros((height, width, 3), np.uint8)
    background[..., 0] = np.linspace(0, 255, height)[:, None]
    background[..., 1] = np.linspace(0, 255, width)[None]
    nothing = np.zeros((HEIGHT, WIDTH), np.float32)
    rgb = opened(encode(plain(), nothing, options(), background=background).data).astype(int)
    assert rgb.shape == (HEIGHT, WIDTH, 3)
    scale = max(HEIGHT / height, WIDTH / width)
    if min(size) > 1:
        assert abs(rgb[..., 0].mean() - 127.5) < 6
        assert abs(rgb[..., 1].mean() - 127.5) < 6
        assert np.ptp(rgb[:, WIDTH // 2, 0]) == pytest.approx(255 * HEIGHT / (height * scale), abs=12)
        assert np.ptp(rgb[HEIGHT // 2, :, 1]) == pytest.approx(255 * WIDTH / (width * scale), abs=12)


@settings(max_examples=60, deadline=None)
@given(
    top=st.integers(0, HEIGHT - 1),
    left=st.integers(0, WIDTH - 1),
    height=st.integers(1, HEIGHT),
    width=st.integers(1, WIDTH),
    margin=st.floats(0, 1),
)
def test_a_crop_holds_the_subject_and_its_margin_and_nothing_else(top, left, height, width, margin):
    alpha = np.full((HEIGHT, WIDTH), 0.01, np.float32)
    subject = alpha[top : top + height, left : left + width]
    subject[...] = 1
    height, width = subject.shape
    room = round(margin * max(height, width))
    encoded = encode(plain(), alpha, options(output="mask", crop=True, crop_margin=margin))
    mask = opened(encoded.data)
    rows, columns = np.nonzero(mask == 255)
    assert (rows.size, rows.min(), columns.min()) == (height * width, min(room, top), min(room, left))
    assert encoded.height == min(top, room) + height + min(HEIGHT - top - height, room)
    assert encoded.width == min(left, room) + width + min(WIDTH - left - width, room)


def test_colour_and_background_are_cropped_with_the_alpha():
    alpha = np.zeros((HEIGHT, WIDTH), np.float32)
    alpha[10:30, 20:60] = 1
    photo = photograph()
    cutout = opened(encode(photo, alpha, options(crop=True)).data)
    assert np.array_equal(cutout[..., :3], photo[10:30, 20:60])
    on_colour = opened(encode(photo, alpha, options(crop=True, crop_margin=0.1, background_color="#00ff00")).data)
    assert np.array_equal(on_colour[4:24, 4:44], photo[10:30, 20:60])
    assert np.array_equal(on_colour[0, 0], (0, 255, 0))


@pytest.mark.parametrize("format_", [*FORMATS, "zip"])
@pytest.mark.parametrize(
    "given",
    [
        {"position": "original", "crop_margin": "10% 20px"},
        {"max_megapixels": HEIGHT * WIDTH / 1e6},
        {"crop": True, "crop_margin": "500px"},
    ],
    ids=["original", "few pixels", "room for all"],
)
def test_a_layout_that_changes_nothing_makes_the_bytes_of_none(format_, given):
    plainly = encode(photograph(), disc(), options(format=format_))
    assert encode(photograph(), disc(), options(format=format_, **given)) == plainly


@pytest.mark.parametrize("output", ["cutout", "mask"])
def test_the_foreground_is_where_the_picture_shows_the_subject_whatever_the_result_shows(output):
    alpha = np.zeros((HEIGHT, WIDTH), np.float32)
    assert encode(plain(), alpha, options(output=output)).foreground is None
    alpha[10:30, 20:60] = 1
    for asked in ({}, {"crop": True}, {"scale": "20%"}, {"max_megapixels": 0.001}):
        assert encode(plain(), alpha, options(output=output, **asked)).foreground == Box(20, 10, 40, 20)


@pytest.mark.parametrize("format_", FORMATS)
def test_a_scaled_subject_lies_where_it_is_asked_for_in_every_format(format_):
    asked = options(format=format_, scale="50%", position="100% 0%", max_megapixels=0.0024, output="mask")
    encoded = encode(photograph(), disc(), asked)
    mask = opened(encoded.data)
    assert (encoded.width, encoded.height) == (60, 40) == mask.shape[1::-1]
    grey = mask if mask.ndim == 2 else mask[..., 1]
    inside = np.zeros((40, 60), bool)
    inside[:20, 40:] = True
    assert grey[10, 50] > 245 and grey[~inside].max() < 12


def test_a_background_covers_the_result_and_is_not_scaled_with_the_subject():
    encoded = encode(plain(), disc(), options(scale="50%", background_color="#0AC85a"))
    rgb = opened(encoded.data)
    assert np.array_equal(rgb[0, 0], (10, 200, 90)) and np.array_equal(rgb[HEIGHT // 2, WIDTH // 2], RED)
    assert np.count_nonzero((rgb == RED).all(axis=2)) < np.count_nonzero(disc() == 1)


@pytest.mark.parametrize(
    ("given", "frame"),
    [
        ({}, (0, 0, HEIGHT, WIDTH)),
        ({"scale": "20%"}, (0, 0, HEIGHT, WIDTH)),
        ({"crop": True, "scale": "20%"}, (10, 20, 30, 60)),
        ({"crop": True, "crop_margin": "10px"}, (0, 10, 40, 70)),
        ({"canvas": "60x40", "scale": "30%"}, (0, 0, HEIGHT, WIDTH)),
        ({"canvas": "40x40", "scale": "20%"}, (0, 20, 80, 100)),
        ({"canvas": "30x20", "crop": True, "scale": "20%"}, (10, 25, 30, 55)),
    ],
    ids=["as it is", "scaled", "cropped and scaled", "cropped", "on a canvas", "on a square", "cropped on a canvas"],
)
def test_a_blurred_background_is_cropped_as_the_image_is_and_covers_the_result(given, frame):
    alpha = np.zeros((HEIGHT, WIDTH), np.float32)
    alpha[10:30, 20:60] = 1
    y, x = np.mgrid[:HEIGHT, :WIDTH].astype(np.uint8)
    behind = np.dstack([x, y, np.zeros_like(x)])  # red and green tell where a pixel was
    rgb = opened(encode(plain((9, 9, 255)), alpha, options(background_blur="2%", **given), background=behind).data)
    top, left, bottom, right = frame
    corners = rgb[[0, 0, -1, -1], [0, -1, 0, -1]].astype(int)
    expected = [(left, top, 0), (right - 1, top, 0), (left, bottom - 1, 0), (right - 1, bottom - 1, 0)]
    assert np.abs(corners - expected).max() <= (right - left) / rgb.shape[1]
    assert (rgb == (9, 9, 255)).all(axis=2).any(), "the subject is in front"


@pytest.mark.parametrize("format_", LOSSLESS)
@pytest.mark.parametrize("opacity", [0, 1, 128, 254])
def test_on_a_translucent_background_what_lies_below_shows_through(format_, opacity):
    encoded = encode(plain(), disc(), options(format=format_, background_color=f"#0ac85a{opacity:02X}"))
    shown = opened(encoded.data).astype(np.float32)
    alpha, share = disc()[..., None], opacity / 255
    covered = alpha + share * (1 - alpha)
    assert shown.shape == (HEIGHT, WIDTH, 4)
    assert np.abs(shown[..., 3:] - 255 * covered).max() <= 0.51
    below = np.float32((240, 240, 20))
    seen = shown[..., :3] * shown[..., 3:] / 255 + below * (1 - shown[..., 3:] / 255)
    behind = share * np.float32((10, 200, 90)) + (1 - share) * below
    assert np.abs(seen - (alpha * np.float32(RED) + (1 - alpha) * behind)).max() <= 2


@pytest.mark.parametrize("format_", FORMATS)
def test_a_background_whose_opacity_is_said_to_be_full_is_opaque(format_):
    said, plainly = (options(format=format_, background_color=colour) for colour in ("#0ac85aff", "#0ac85a"))
    assert encode(photograph(), disc(), said) == encode(photograph(), disc(), plainly)


def unzipped(encoded):
    archive = zipfile.ZipFile(io.BytesIO(encoded.data))
    assert archive.namelist() == ["color.jpg", "alpha.png"] and archive.testzip() is None
    colour, alpha = (Image.open(io.BytesIO(archive.read(name))) for name in archive.namelist())
    assert (colour.format, colour.mode, alpha.format, alpha.mode) == ("JPEG", "RGB", "PNG", "L")
    return np.asarray(colour), np.asarray(alpha)


def test_a_zip_holds_the_colours_and_the_alpha():
    encoded = encode(photograph(), disc(), options(format="zip", quality=100))
    colour, alpha = unzipped(encoded)
    assert (encoded.content_type, encoded.format) == ("application/zip", "zip")
    assert np.abs(alpha / 255 - disc()).max() <= 0.5 / 255 + 1e-6
    assert np.abs(colour[disc() > 0.5].astype(int) - photograph()[disc() > 0.5]).mean() < 2


def test_a_zip_is_the_same_each_time_and_its_files_can_be_read_by_who_unpacks_them():
    encoded = encode(photograph(), disc(), options(format="zip"))
    assert encode(photograph(), disc(), options(format="zip")) == encoded
    for entry in zipfile.ZipFile(io.BytesIO(encoded.data)).infolist():
        assert entry.date_time == (1980, 1, 1, 0, 0, 0) and entry.compress_type == zipfile.ZIP_STORED
        assert entry.external_attr >> 16 == 0o644


@pytest.mark.parametrize("quality", [50, 90])
def test_the_colours_in_a_zip_have_no_dark_edge_and_nothing_of_what_was_removed(quality):
    black = np.where((disc() > 0)[..., None], plain(), np.uint8(0))
    colour, alpha = unzipped(encode(black, disc(), options(format="zip", quality=quality)))
    assert np.abs(colour[alpha > 0].astype(int) - RED).max() <= 4
    one, other = (np.where((disc() > 0)[..., None], plain(), np.uint8(value)) for value in (0, 255))
    assert encode(one, disc(), options(format="zip")) == encode(other, disc(), options(format="zip"))


def test_a_zip_is_laid_out_as_other_results_are():
    encoded = encode(plain(), disc(), options(format="zip", crop=True, max_megapixels=0.0009))
    colour, alpha = unzipped(encoded)
    assert (encoded.width, encoded.height) == (30, 30) == alpha.shape == colour.shape[:2]
    assert np.abs(colour[alpha > 0].astype(int) - RED).max() <= 4


def test_without_crop_the_size_stays():
    alpha = np.zeros((HEIGHT, WIDTH), np.float32)
    alpha[10:30, 20:60] = 1
    encoded = encode(plain(), alpha, options(crop_margin=0.5))
    assert (encoded.width, encoded.height) == (WIDTH, HEIGHT)


@pytest.mark.parametrize("format_", FORMATS)
def test_a_mask_is_the_alpha_as_grey(format_):
    encoded = encode(photograph(), disc(), options(format=format_, output="mask", quality=100))
    picture = decode(encoded.data)
    assert picture.alpha is None
    assert np.ptp(picture.rgb, axis=2).max() == 0 or format_ == "webp"
    tolerance = 1 if format_ in LOSSLESS else 8
    assert np.abs(picture.rgb[..., 1] - 255 * disc()).max() <= tolerance


@pytest.mark.parametrize(("format_", "side"), SIDES.items())
def test_a_side_that_the_format_cannot_hold_is_refused_with_a_way_out(format_, side):
    rgb, alpha = np.zeros((16, side + 1, 3), np.uint8), np.ones((16, side + 1), np.float32)
    with pytest.raises(errors.InvalidOptionsError) as caught:
        encode(rgb, alpha, options(format=format_))
    assert caught.value.field == "options.format"
    assert "png" in caught.value.remedy
    longest = encode(rgb[:, 1:], alpha[:, 1:], options(format=format_))
    assert longest.width == side
    assert (unzipped(longest)[0] if format_ == "zip" else opened(longest.data)).shape[1] == side
    assert encode(rgb, alpha, options(format="png")).width == side + 1


@pytest.mark.slow
def test_webp_holds_a_picture_that_is_all_detail():
    noise = np.random.default_rng(1).integers(0, 256, (1200, 16_000, 3), np.uint8)
    opaque = np.ones(noise.shape[:2], np.float32)
    assert encode(noise, opaque, options(format="webp", background_color="#ffffff")).width == 16_000


def test_what_is_cropped_to_fit_is_not_refused():
    rgb, alpha = np.zeros((16, 16_400, 3), np.uint8), np.zeros((16, 16_400), np.float32)
    alpha[:, 500:600] = 1
    assert encode(rgb, alpha, options(format="webp", crop=True)).width == 100


@pytest.mark.parametrize("format_", ["webp", "avif", "jpeg"])
def test_quality_decides_the_size(format_):
    sizes = [len(encode(photograph(), disc(), options(format=format_, quality=q)).data) for q in (10, 50, 100)]
    assert sizes == sorted(sizes)
    assert sizes[0] < sizes[-1] / 2


@pytest.fixture
def threads():
    """Set OpenCV's number of threads, which is that of the encoders too, and set it back."""
    before = cv2.getNumThreads()
    yield cv2.setNumThreads
    cv2.setNumThreads(before)


@pytest.mark.parametrize("format_", FORMATS)
@pytest.mark.parametrize("output", ["cutout", pytest.param("mask", marks=pytest.mark.slow)])
def test_the_bytes_do_not_depend_on_the_number_of_threads(format_, output, threads):
    rgb = np.tile(photograph(), (8, 6, 1))
    alpha = np.tile(disc(), (8, 6))
    files = []
    for count in (1, 2, 5):
        threads(count)
        files.append(encode(rgb, alpha, options(format=format_, output=output)))
    assert files[0] == files[1] == files[2]


@pytest.mark.parametrize("format_", FORMATS)
@pytest.mark.parametrize("output", ["cutout", "mask"])
def test_the_file_carries_the_exif_data(format_, output):
    tags = Image.Exif()
    tags[Base.Artist] = "A. N. Other"
    tags.get_ifd(IFD.Exif)[Base.ISOSpeedRatings] = 400
    block = tags.tobytes().removeprefix(b"Exif\0\0")
    asked = options(format=format_, output=output)
    image = Image.open(io.BytesIO(encode(photograph(), disc(), asked, exif=block).data))
    image.load()
    found = image.getexif()
    assert found[Base.Artist] == "A. N. Other"
    assert found.get_ifd(IFD.Exif)[Base.ISOSpeedRatings] == 400
    bare = Image.open(io.BytesIO(encode(photograph(), disc(), asked).data))
    assert not bare.getexif()


@pytest.mark.parametrize(
    ("unit", "x", "y", "dpi"),
    [
        (2, IFDRational(300), IFDRational(300), (300, 300)),
        (2, IFDRational(72), IFDRational(144), (72, 144)),
        (3, IFDRational(100), IFDRational(100), (254, 254)),
        (1, IFDRational(1), IFDRational(1), None),
        (2, IFDRational(300, 0), IFDRational(300), None),
        (2, IFDRational(0), IFDRational(0), None),
        (2, IFDRational(4_000_000_000), IFDRational(300), None),
        (2, None, IFDRational(300), None),
    ],
)
@pytest.mark.parametrize("format_", ["png", "jpeg"])
def test_the_resolution_is_said_where_the_format_has_a_place_for_it(format_, unit, x, y, dpi):
    tags = Image.Exif()
    given = {Base.ResolutionUnit: unit, Base.XResolution: x, Base.YResolution: y}
    tags.update({tag: value for tag, value in given.items() if value is not None})
    block = tags.tobytes().removeprefix(b"Exif\0\0")
    data = encode(photograph(), disc(), options(format=format_), exif=block).data
    if format_ == "png":
        found = Image.open(io.BytesIO(data)).info.get("dpi")
    else:
        _, unit_of_density, *density = struct.unpack_from(">HB2H", data, data.index(b"JFIF\0") + 5)
        found = density if unit_of_density else None
    assert found == (dpi and pytest.approx(dpi, abs=0.02))


@pytest.mark.parametrize("format_", FORMATS)
def test_a_resolution_in_words_is_none(format_):
    entries = [(Base.XResolution, b"300\0"), (Base.YResolution, b"300\0"), (Base.ResolutionUnit, b"in\0\0")]
    ascii_ = 2
    table = b"".join(struct.pack("<HHI4s", tag, ascii_, 4, text) for tag, text in entries)
    block = b"II*\0" + struct.pack("<IH", 8, len(entries)) + table + bytes(4)
    image = Image.open(io.BytesIO(encode(photograph(), disc(), options(format=format_), exif=block).data))
    image.load()
    assert image.getexif()[Base.XResolution] == "300"


def test_where_avif_cannot_be_written_another_format_is_named(monkeypatch):
    monkeypatch.setitem(features.modules, "avif", ("PIL._absent", None))
    with pytest.raises(errors.InvalidOptionsError) as caught:
        encode(photograph(), disc(), options(format="avif"))
    assert (caught.value.field, caught.value.value) == ("options.format", "avif")
    assert "webp" in caught.value.remedy


def test_the_profile_holds_no_date_of_making():
    data = encode(photograph(), disc(), options(format="jpeg")).data
    profile = ImageCms.ImageCmsProfile(io.BytesIO(Image.open(io.BytesIO(data)).info["icc_profile"]))
    assert profile.profile.creation_date.year == 2000


def test_every_level_of_a_plane_survives_the_hand_over():
    plane = (np.arange(256, dtype=np.float32) / np.float32(255)).reshape(16, 16)
    assert np.array_equal(decode_plane(encode_plane(plane)), plane)


@settings(max_examples=30, deadline=None)
@given(st.lists(st.floats(0, 1, width=32), min_size=16, max_size=16), st.sampled_from([(4, 4), (1, 16), (16, 1)]))
def test_a_plane_keeps_its_shape_and_is_rounded_to_the_nearest_level(values, shape):
    plane = np.array(values, np.float32).reshape(shape)
    found = decode_plane(encode_plane(plane))
    assert (found.shape, found.dtype) == (shape, np.float32)
    assert np.abs(found - plane).max() <= 0.5 / 255 + 1e-6
