"""What all layers share: the repository's files, pictures made on the spot, clients of local clouds."""

import io
from pathlib import Path
from typing import Any

import boto3
import numpy as np
import pytest
from hypothesis import settings
from PIL import Image

settings.register_profile("untimed", deadline=None)  # an example's time tells of the machine, not of the code
settings.load_profile("untimed")

ROOT = Path(__file__).parent.parent


@pytest.fixture(scope="session")
def disc_png() -> bytes:
    """A 320 x 240 picture of one centred subject: an orange disc on a blue gradient, lightly textured."""
    return disc()


def client(service: str, endpoint_url: str, region: str) -> Any:
    """Return boto3's client of a service of a cloud on this machine."""
    session: Any = boto3.session.Session("local", "local", region_name=region)
    return session.client(service, endpoint_url=endpoint_url)


def disc(*, width: int = 320, height: int = 240, seed: int = 7) -> bytes:
    """Draw the disc; another ``seed`` is another content with the same subject."""
    y, x = np.mgrid[0:height, 0:width].astype(np.float32)
    shade = (x / width)[..., None]
    background = np.array([40, 70, 120]) * (1 - shade) + np.array([70, 110, 170]) * shade
    inside = (np.hypot(x - width / 2, y - height / 2) < height / 3.2)[..., None]
    grain = np.random.default_rng(seed).normal(0, 4, (height, width, 3))
    rgb = np.where(inside, np.array([235, 140, 40]), background) + grain
    return file_of(Image.fromarray(rgb.clip(0, 255).astype(np.uint8)), "PNG")


def file_of(picture: Image.Image, pillow_name: str, **parameters: Any) -> bytes:
    """Return the picture as a file."""
    buffer = io.BytesIO()
    picture.save(buffer, pillow_name, **parameters)
    return buffer.getvalue()
