import io
import zipfile
from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from PIL.ExifTags import GPS, IFD, Base

from core.models import CLASSICAL, ModelSource
from core.networks import Networks
from core.options import Metadata, Options, OutputFormat
from core.pipeline import Cutout, remove_background
from tests.conftest import file_of


def cut_out(picture: bytes, **options: object) -> Cutout:
    networks = Networks(ModelSource((Path("nowhere"),)))
    return remove_background(picture, Options(model=CLASSICAL, **options), networks=networks)


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


@pytest.mark.parametrize("format_", OutputFormat)
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


def test_the_mask_is_the_alpha_of_the_cut_out(disc_png: bytes) -> None:
    np.testing.assert_array_equal(pixels(cut_out(disc_png, output="mask")), pixels(cut_out(disc_png))[..., 3])
