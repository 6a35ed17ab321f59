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


def test_alpha_equals_the_given_mask(scene, mask):
    removal = rembg_peer.remove(scene.rgb, mask)
    assert np.abs(removal.output[..., 3] / 255 - scene.alpha).mean() < 0.02
    assert removal.alpha is removal.foreground is removal.swallowed is None


def test_decontaminate_runs_without_alpha_matting(scene, mask):
    removal = rembg_peer.remove(scene.rgb, mask, decontaminate=True)
    assert removal.output.shape == (60, 80, 4)
    assert removal.alpha is removal.foreground is None


def test_file_input_gives_a_png_and_both_steps_of_the_matting_are_timed(scene, mask):
    file = io.BytesIO()
    Image.fromarray(scene.rgb).save(file, "JPEG")
    removal = rembg_peer.prepare(file.getvalue(), mask, alpha_matting=True)()
    with Image.open(io.BytesIO(removal.output)) as picture:
        assert (picture.format, picture.mode, picture.size) == ("PNG", "RGBA", (80, 60))
    assert removal.alpha.wall > 0
    assert removal.foreground.wall > 0
    assert removal.swallowed is None


def test_error_that_rembg_catches_is_reported(scene, mask):
    removal = rembg_peer.remove(scene.rgb, np.zeros_like(mask), alpha_matting=True)
    assert "did not contain foreground" in removal.swallowed
    assert removal.alpha is None
