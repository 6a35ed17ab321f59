import subprocess
import sys

from PIL import Image, JpegImagePlugin, TiffImagePlugin

from core import limits
from core.image import guards
from tests.conftest import ROOT

PATCHES = """
from PIL import Image, JpegImagePlugin, TiffImagePlugin
def patched():
    return (
        Image.MAX_IMAGE_PIXELS,
        id(TiffImagePlugin.ImageFileDirectory_v2._load_dispatch),
        id(JpegImagePlugin.MARKER[0xFFE1]),
    )
before = patched()
import core.pipeline
assert patched() == before
"""


def test_importing_core_leaves_pillow_unpatched() -> None:
    subprocess.run([sys.executable, "-c", PATCHES], cwd=ROOT, check=True)


def test_installing_twice_is_installing_once() -> None:
    guards.install()
    loaders = TiffImagePlugin.ImageFileDirectory_v2._load_dispatch
    marker = JpegImagePlugin.MARKER[0xFFE1]
    guards.install()
    assert Image.MAX_IMAGE_PIXELS == limits.MAX_PIXELS
    assert TiffImagePlugin.ImageFileDirectory_v2._load_dispatch is loaders
    assert JpegImagePlugin.MARKER[0xFFE1] == marker
