"""Unmodified clients of remove.bg, except for the address they call."""

import base64
import functools
import io
import json
import os
import shutil
import subprocess
import threading
from collections.abc import Callable, Iterator
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import httpx
import pytest
import removebg.removebg as package
import requests
from PIL import Image

from embedded_cloud.cloud import EmbeddedCloud
from functions.contracts.api_key import ApiKey
from tests.conftest import ROOT, disc
from tests.integration.api.conftest import ended

pytestmark = pytest.mark.slow  # tests/unit/functions/api covers the routes that they call


IMAGE = disc(seed=62)
HERE = Path(__file__).parent


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("photos")
    (folder / "cup.png").write_bytes(IMAGE)
    return folder


@pytest.fixture(scope="module")
def url(folder: Path) -> Iterator[str]:
    """URL of the image."""
    handler = functools.partial(SimpleHTTPRequestHandler, directory=folder)
    with ThreadingHTTPServer(("127.0.0.1", 0), handler) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        yield f"http://127.0.0.1:{server.server_port}/cup.png"
        server.shutdown()


@pytest.fixture(scope="module", autouse=True)
def warm(api: httpx.Client, url: str) -> None:
    """Start the functions: the first job may exceed a client's timeout."""
    ended(api, api.post("/jobs", json={"image_url": url}).headers["Location"], timeout_s=60)


def alpha_of(image: Image.Image) -> tuple[int, int]:
    extrema = image.getchannel("A").getextrema()
    return extrema


# ---- removebg, from PyPI


@pytest.fixture
def address(cloud: EmbeddedCloud, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(package, "API_ENDPOINT", f"{cloud.outputs['ApiUrl']}/v1.0/removebg")


@pytest.fixture
def removebg(address: None, key: ApiKey, folder: Path) -> package.RemoveBg:
    return package.RemoveBg(key.reveal(), str(folder / "errors.log"))


def test_pypi_package_processes_a_file(removebg: package.RemoveBg, folder: Path) -> None:
    removebg.remove_background_from_img_file(str(folder / "cup.png"))
    with Image.open(folder / "cup.png_no_bg.png") as cut:
        assert (cut.format, cut.size, alpha_of(cut)) == ("PNG", (320, 240), (0, 255))


def test_pypi_package_processes_base64(removebg: package.RemoveBg, folder: Path) -> None:
    removebg.remove_background_from_base64_img(
        base64.b64encode(IMAGE), size="4k", new_file_name=str(folder / "blue"), bg_color="0000ff"
    )
    with Image.open(folder / "blue") as cut:
        red, _, blue = cut.getpixel((1, 1))  # type: ignore[misc]
        assert (cut.format, cut.size) == ("JPEG", (320, 240)), "nothing in it is transparent"
        assert red < 5 and blue > 250


def test_pypi_package_processes_a_url(removebg: package.RemoveBg, folder: Path, url: str) -> None:
    removebg.remove_background_from_img_url(url, new_file_name=str(folder / "fetched.png"))
    with Image.open(folder / "fetched.png") as cut:
        assert alpha_of(cut) == (0, 255)


def test_pypi_package_gets_the_error_of_an_invalid_key(address: None, folder: Path) -> None:
    removebg = package.RemoveBg("pbr_nobody_nothing", str(folder / "errors.log"))
    with pytest.raises(requests.HTTPError) as refused:
        removebg.remove_background_from_img_file(str(folder / "cup.png"))
    assert refused.value.response.status_code == 403
    assert refused.value.response.json()["errors"][0]["code"] == "auth_failed"


# ---- remove.bg, from npm

Call = Callable[..., dict[str, Any]]


@pytest.fixture
def call(cloud: EmbeddedCloud, key: ApiKey) -> Call:
    """Call a function of the package with options."""
    node = shutil.which("node")
    if node is None:
        pytest.skip("Node.js is not installed")
    if not (ROOT / "node_modules/remove.bg").exists():
        pytest.skip("the npm package remove.bg is not installed: make node_modules/.ready")

    def run(name: str, **options: Any) -> dict[str, Any]:
        ran = subprocess.run(
            [node, "--require", HERE / "removebg_address.cjs", HERE / "call_removebg.cjs", name],
            input=json.dumps({"apiKey": key.reveal(), **options}),
            env={**os.environ, "REMOVEBG_ADDRESS": cloud.outputs["ApiUrl"]},
            capture_output=True,
            check=True,
            text=True,
            timeout=60,
        )
        return json.loads(ran.stdout)

    return run


def test_npm_package_processes_a_file(call: Call, folder: Path) -> None:
    output = folder / "cropped.png"
    options = {"crop": True, "crop_margin": "10px 20px", "size": "full", "type": "product"}
    result = call("removeBackgroundFromImageFile", path=str(folder / "cup.png"), outputFile=str(output), **options)
    with Image.open(output) as cut:
        assert alpha_of(cut) == (0, 255)
        assert cut.width < 320 and cut.height < 240
        described = {name: result["result"][name] for name in ("resultWidth", "resultHeight", "detectedType")}
        assert described == {"resultWidth": str(cut.width), "resultHeight": str(cut.height), "detectedType": "other"}
    assert result["result"]["creditsCharged"] == "1"
    assert int(result["result"]["rateLimitRemaining"]) < int(result["result"]["rateLimit"])


def test_npm_package_processes_base64(call: Call) -> None:
    options = {"scale": "50%", "position": "0% 100%", "roi": "10% 10% 90% 90%", "channels": "alpha"}
    text = base64.b64encode(IMAGE).decode()
    result = call("removeBackgroundFromImageBase64", base64img=text, **options)["result"]
    mask = Image.open(io.BytesIO(base64.b64decode(result["base64img"])))
    left, top, right, bottom = mask.point(lambda value: 255 * (value > 127)).getbbox()  # type: ignore[misc]
    assert (mask.mode, mask.size) == ("L", (320, 240))
    assert left < 3 and bottom > 237
    assert max((right - left) / 320, (bottom - top) / 240) == pytest.approx(0.5, abs=0.02)


def test_npm_package_processes_a_url(call: Call, url: str) -> None:
    result = call("removeBackgroundFromImageUrl", url=url, bg_image_url=url)["result"]
    assert Image.open(io.BytesIO(base64.b64decode(result["base64img"]))).format == "JPEG"


@pytest.mark.parametrize(
    ("options", "code"),
    [
        ({"add_shadow": True}, "invalid_add_shadow"),
        ({"roi": "0px 0px 9999px 100px"}, "roi_exceeds_bounds"),
        ({"apiKey": "pbr_nobody_nothing"}, "auth_failed"),
    ],
)
def test_npm_package_gets_error_codes(call: Call, folder: Path, options: dict[str, Any], code: str) -> None:
    [error] = call("removeBackgroundFromImageFile", path=str(folder / "cup.png"), **options)["errors"]
    assert error["code"] == code
    assert set(error) == {"title", "code", "detail"}
