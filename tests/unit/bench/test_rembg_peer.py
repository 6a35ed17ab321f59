import io

import numpy as np
import pytest
from PIL import Image

from bench import rembg_peer
from tests.fakes import scenes


@pytest.fixture(scope="module")
def scene():
    return scenes.disc(60, 80)


@pytest.fixture
def mask(scene):
    return scenes.network_mask(scene.alpha, 40)


def test_the_given_mask_is_the_alpha(scene, mask):
    removal = rembg_peer.remove(scene.rgb, mask)
    assert np.abs(removal.output[..., 3] / 255 - scene.alpha).mean() < 0.02
    assert removal.alpha is removal.foreground is removal.swallowed is None


def test_decontaminate_is_no_matting(scene, mask):
    removal = rembg_peer.remove(scene.rgb, mask, decontaminate=True)
    assert removal.output.shape == (60, 80, 4)
    assert removal.alpha is removal.foreground is None


def test_a_file_becomes_a_file_and_the_parts_of_matting_are_timed(scene, mask):
    file = io.BytesIO()
    Image.fromarray(scene.rgb).save(file, "JPEG")
    removal = rembg_peer.prepare(file.getvalue(), mask, alpha_matting=True)()
    with Image.open(io.BytesIO(removal.output)) as picture:
        assert (picture.format, picture.mode, picture.size) == ("PNG", "RGBA", (80, 60))
    assert removal.alpha.wall > 0
    assert removal.foreground.wall > 0
    assert removal.swallowed is None


def test_an_error_that_rembg_swallows_is_told(scene, mask):
    removal = rembg_peer.remove(scene.rgb, np.zeros_like(mask), alpha_matting=True)
    assert "did not contain foreground" in removal.swallowed
    assert removal.alpha is None
