"""Shared by all tests: paths, generated images, and clients of embedded clouds."""

import functools
import io
import threading
from pathlib import Path
from typing import Any

import boto3
import numpy as np
import pillow_heif
import pytest
from botocore.config import Config
from hypothesis import settings
from PIL import Image
from xdist.scheduler import LoadScopeScheduling

settings.register_profile("untimed", deadline=None)  # the time that an example takes depends on the machine
settings.load_profile("untimed")

pillow_heif.register_heif_opener()  # makes HEIC files; core then registers pi-heif, which only reads them, in its place

ROOT = Path(__file__).parent.parent
SHARE_A_CLOUD = (
    "tests/integration/state_machine",
    "tests/integration/api",
    "tests/integration/embedded_cloud/services",
)
"""Folders whose tests share one embedded cloud. In the folders below, the tests of a file do."""
START_CLOUDS = ("tests/browser", "tests/integration", "tests/e2e", "tests/resilience/faults", "tests/resilience/claims")

_one_client_at_a_time = threading.Lock()  # creating clients from one session is not thread-safe


class CloudScheduling(LoadScopeScheduling):
    """Runs the tests that share an embedded cloud in one process, and distributes all others one by one."""

    def _split_scope(self, nodeid: str) -> str:
        path = nodeid.partition("::")[0]
        if not path.startswith(START_CLOUDS):
            return nodeid
        return next((folder for folder in SHARE_A_CLOUD if path.startswith(folder)), path)


def pytest_xdist_make_scheduler(config: pytest.Config, log: Any) -> CloudScheduling | None:
    """Replace ``--dist loadgroup``, which pytest-xdist 3.8 does not do with pytest 9.2."""
    return CloudScheduling(config, log) if config.getvalue("dist") == "loadgroup" else None


@pytest.fixture(scope="session")
def disc_png() -> bytes:
    """A 320 x 240 image of one centered subject: an orange disc on a blue gradient, lightly textured."""
    return disc()


def client(service: str, endpoint_url: str, region: str) -> Any:
    """Return a boto3 client for a service of an embedded cloud."""
    with _one_client_at_a_time:
        return _session(region).client(service, endpoint_url=endpoint_url, config=Config(inject_host_prefix=False))


@functools.cache
def _session(region: str) -> Any:
    """Return a session to share: each one reads the models of its services anew."""
    return boto3.session.Session("local", "local", region_name=region)


def disc(*, width: int = 320, height: int = 240, seed: int = 7) -> bytes:
    """Draw the disc as a PNG file. Another ``seed`` gives other bytes with the same subject."""
    y, x = np.mgrid[0:height, 0:width].astype(np.float32)
    shade = (x / width)[..., None]
    background = np.array([40, 70, 120]) * (1 - shade) + np.array([70, 110, 170]) * shade
    inside = (np.hypot(x - width / 2, y - height / 2) < height / 3.2)[..., None]
    grain = np.random.default_rng(seed).normal(0, 4, (height, width, 3))
    rgb = np.where(inside, np.array([235, 140, 40]), background) + grain
    return file_of(Image.fromarray(rgb.clip(0, 255).astype(np.uint8)), "PNG")


def file_of(picture: Image.Image, pillow_name: str, **parameters: Any) -> bytes:
    """Encode the image in the format that Pillow calls ``pillow_name``."""
    buffer = io.BytesIO()
    picture.save(buffer, pillow_name, **parameters)
    return buffer.getvalue()
