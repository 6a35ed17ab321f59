import io
import zipfile

import cv2
import numpy as np
import pytest
from PIL import Image
from PIL.ExifTags import GPS, IFD, Base

from core.errors import UnknownForegroundError
from core.options import Metadata, Options, OutputFormat
from core.pipeline import Cutout, remove_background
from core.segmentation.registry import CLASSICAL
from core.segmentation.sessions import Networks
from core.types import Precision
from tests.conftest import file_of
from tests.fakes.tiny_networks import Directory, without_weights


def cut_out(picture: bytes, **options: object) -> Cutout:
    return remove_background(picture, Options(model=CLASSICAL, **options), networks=without_weights())


def pixels(cutout: Cutout) -> np.ndarray:
    return np.asarray(Image.open(io.BytesIO(cutout.encoded.data))).astype(int)


def test_all_stages_in_one_process_cut_the_subject_out(disc_png: bytes) -> None:
    cutout = cut_out(disc_png)
    rgba = pixels(cutout)
    assert rgba.shape == (240, 320, 4)
    assert rgba[120, 160, 3] == 255 and not rgba[:10].any()
    assert np.abs(rgba[120, 160, :3] - (235, 140, 40)).max() < 30
    assert cutout.segmentation.model == CLASSICAL
    assert cutout.timings_s.keys() == {"decode", "segment", "refine", "encode"}


def test_what_was_transparent_before_stays_transparent(disc_png: bytes) -> None:
    picture = Image.open(io.BytesIO(disc_png))
    half = Image.new("L", picture.size, 255)
    half.paste(0, (0, 0, 320, 120))
    picture.putalpha(half)
    alpha = pixels(cut_out(file_of(picture, "PNG")))[..., 3]
    assert not alpha[:120].any()
    assert alpha[150, 160] == 255


def logo(color: tuple[int, int, int]) -> Image.Image:
    """A disc of one color with a soft edge on transparency; the hidden pixels are purple."""
    alpha = np.zeros((240, 320), np.uint8)
    cv2.circle(alpha, (160, 120), 60, 255, -1)
    alpha = np.asarray(cv2.GaussianBlur(alpha, (0, 0), 3), np.uint8)
    rgb = np.where(alpha[..., None] > 0, np.uint8(color), np.uint8((90, 0, 90)))
    return Image.fromarray(np.dstack([rgb, alpha]))


@pytest.mark.parametrize("color", [(255, 255, 255), (250, 245, 240), (0, 0, 0), (128, 128, 128), (200, 20, 20)])
def test_a_logo_on_transparency_keeps_its_colors_and_its_alpha(color: tuple[int, int, int]) -> None:
    picture = logo(color)
    rgba = pixels(cut_out(file_of(picture, "PNG")))
    alpha = np.asarray(picture)[..., 3].astype(int)
    assert np.abs(rgba[..., 3] - alpha)[alpha > 200].max() <= 2
    assert (rgba[..., 3] <= alpha).all()
    assert (rgba[rgba[..., 3] > 0][:, :3] == color).all()
    assert not rgba[rgba[..., 3] == 0].any(), "hidden colors are in no result"


def test_on_a_blurred_background_the_subject_stays_sharp_and_leaves_no_color(disc_png: bytes) -> None:
    blurred = pixels(cut_out(disc_png, background_blur="2%"))
    rgba = pixels(cut_out(disc_png))
    photo = np.asarray(Image.open(io.BytesIO(disc_png)).convert("RGB")).astype(int)
    opaque, hidden = rgba[..., 3] == 255, rgba[..., 3] == 0
    assert blurred.shape == (240, 320, 3)
    assert np.abs(blurred - photo)[opaque].max() <= 1
    assert np.abs(blurred - photo)[hidden].max() < 25, "grain, and nothing of the orange subject"


def test_what_is_transparent_is_white_in_a_blurred_background() -> None:
    rgb = pixels(cut_out(file_of(logo((200, 20, 20)), "PNG"), background_blur="2%", format="jpeg", quality=100))
    assert rgb[:20].min() > 250, "the hidden pixels are purple"
    assert np.abs(rgb[120, 160] - (200, 20, 20)).max() < 6


class Blind(Networks):
    """Networks that see no subject."""

    def predict(self, name: str, pixels: np.ndarray) -> np.ndarray:
        return np.zeros((len(pixels), *pixels.shape[2:]), np.float32)


@pytest.mark.parametrize("roi", [None, "25% 0px 100% 100%"])
@pytest.mark.parametrize("precision_level", Precision)
def test_the_own_alpha_is_the_mask_if_no_subject_is_found_and_it_is_said(
    roi: str | None, precision_level: Precision
) -> None:
    data = file_of(logo((200, 20, 20)), "PNG")
    options = Options(model="u2netp", roi=roi, precision_level=precision_level)
    cutout = remove_background(data, options, networks=Blind(Directory(), threads=1))
    rgba = pixels(cutout)
    alpha = np.array(logo((200, 20, 20)))[..., 3]
    if roi:
        alpha[:, :80] = 0
    assert np.array_equal(rgba[..., 3], alpha)
    assert (rgba[alpha > 0][:, :3] == (200, 20, 20)).all()
    assert any("own transparency" in warning for warning in cutout.warnings)


def test_an_alpha_that_hides_only_corners_is_no_mask() -> None:
    picture = Image.new("RGB", (320, 240), (120, 120, 120))
    alpha = Image.new("L", picture.size, 255)
    alpha.paste(0, (0, 0, 20, 20))
    picture.putalpha(alpha)
    with pytest.raises(UnknownForegroundError):
        remove_background(file_of(picture, "PNG"), Options(model="u2netp"), networks=Blind(Directory(), threads=1))


@pytest.mark.parametrize("format_", [OutputFormat.JPEG, OutputFormat.ZIP])  # test_encode has the others
@pytest.mark.parametrize(
    ("metadata", "maker", "located"),
    [(Metadata.NO_LOCATION, "Maker", False), (Metadata.ALL, "Maker", True), (Metadata.NONE, None, False)],
)
def test_the_result_tells_where_it_was_taken_on_request_only(
    disc_png: bytes, format_: OutputFormat, metadata: Metadata, maker: str | None, located: bool
) -> None:
    exif = Image.Exif()
    exif[Base.Make] = "Maker"
    exif.get_ifd(IFD.GPSInfo)[GPS.GPSLatitudeRef] = "N"
    photo = file_of(Image.open(io.BytesIO(disc_png)).convert("RGB"), "JPEG", quality=95, exif=exif)
    data = cut_out(photo, metadata=metadata, format=format_).encoded.data
    if format_ is OutputFormat.ZIP:
        data = zipfile.ZipFile(io.BytesIO(data)).read("color.jpg")
    result = Image.open(io.BytesIO(data)).getexif()
    assert result.get(Base.Make) == maker
    assert (result.get_ifd(IFD.GPSInfo).get(GPS.GPSLatitudeRef) == "N") is located


def test_what_could_not_be_honoured_is_said(disc_png: bytes) -> None:
    damaged = file_of(Image.open(io.BytesIO(disc_png)), "PNG", exif=b"neither II nor MM")
    assert any("EXIF" in warning for warning in cut_out(damaged).warnings)
    assert cut_out(disc_png).warnings == ()


def two_discs(disc_png: bytes) -> bytes:
    """The disc twice, side by side, with their centres at 160 and 480."""
    once = Image.open(io.BytesIO(disc_png))
    twice = Image.new("RGB", (640, 240))
    twice.paste(once, (0, 0))
    twice.paste(once, (320, 0))
    return file_of(twice, "PNG")


def test_outside_of_the_region_no_subject_is_looked_for_and_nothing_is_kept(disc_png: bytes) -> None:
    data = two_discs(disc_png)
    both, one = pixels(cut_out(data))[..., 3], cut_out(data, roi="50% 0px 100% 240px")
    alpha = pixels(one)[..., 3]
    assert both[120, 160] == both[120, 480] == alpha[120, 480] == 255
    assert not alpha[:, :320].any()
    assert np.array_equal(alpha[:, 320:], pixels(cut_out(disc_png))[..., 3]), "the region is cut out as a picture is"
    assert one.encoded.foreground and one.encoded.foreground.left > 320 + 60


def test_a_subject_is_opaque_up_to_the_border_of_the_region_that_cuts_it(disc_png: bytes) -> None:
    alpha = pixels(cut_out(disc_png, roi="160px 0% 100% 100%"))[..., 3]
    assert (alpha[100:140, 160:200] == 255).all() and not alpha[:, :160].any()


def test_a_region_of_the_whole_picture_makes_the_bytes_of_none(disc_png: bytes) -> None:
    assert cut_out(disc_png, roi="0% 0px 320px 100%").encoded == cut_out(disc_png).encoded


def test_what_was_transparent_in_a_region_stays_so(disc_png: bytes) -> None:
    picture = Image.open(io.BytesIO(disc_png))
    half = Image.new("L", picture.size, 255)
    half.paste(0, (0, 0, 320, 120))
    picture.putalpha(half)
    alpha = pixels(cut_out(file_of(picture, "PNG"), roi="10% 10% 90% 90%"))[..., 3]
    assert not alpha[:120].any() and not alpha[:, :32].any() and alpha[150, 160] == 255


def test_the_mask_is_the_alpha_of_the_cut_out(disc_png: bytes) -> None:
    np.testing.assert_array_equal(pixels(cut_out(disc_png, output="mask")), pixels(cut_out(disc_png))[..., 3])
