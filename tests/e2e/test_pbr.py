"""The command line, run on the stack PBR_STACK, or else on an embedded cloud that it starts."""

import io
import json
import re
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from core.segmentation.registry import BUNDLED
from tests.conftest import disc
from tests.e2e.conftest import ON_AWS, Pbr

pytestmark = pytest.mark.slow  # each command is a process, and pbr starts its own cloud


@pytest.fixture(scope="module")
def processed(pbr: Pbr, tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, str]:
    """One good and one bad file, processed with options; the directory of the results, and the standard error."""
    folder = tmp_path_factory.mktemp("photos")
    (folder / "good.png").write_bytes(disc(seed=50))
    (folder / "bad.jpg").write_text("not an image")
    files = [str(folder / "good.png"), str(folder / "bad.jpg")]
    done = pbr("process", *files, "--format", "webp", "--crop", "-o", str(folder / "out"), status=1)
    return folder / "out", done.stderr.decode()


def test_a_photo_is_processed_with_the_requested_options(processed: tuple[Path, str]) -> None:
    folder, _ = processed
    picture = Image.open(folder / "good.png.webp")
    assert (picture.format, picture.mode) == ("WEBP", "RGBA")
    assert all(140 < side < 170 for side in picture.size), "cropped to the disc"
    sidecar = json.loads((folder / "good.png.webp.json").read_text())
    assert sidecar["options"]["crop"] is True and (ON_AWS or sidecar["model"]["name"] == BUNDLED)


def test_a_bad_file_is_reported_with_a_remedy_and_leaves_no_output(processed: tuple[Path, str]) -> None:
    folder, output = processed
    assert "image.format" in output and "Traceback" not in output
    assert sorted(path.name for path in folder.iterdir()) == ["good.png.webp", "good.png.webp.json"]


@pytest.mark.skipif(ON_AWS, reason="a deployed stack has its own default model")
def test_without_downloads_a_hint_but_no_warning_is_printed(processed: tuple[Path, str]) -> None:
    _, output = processed
    assert output.count("pbr models fetch") == 1 and "no network weights" not in output


def test_standard_input_is_processed_to_standard_output(pbr: Pbr, processed: tuple[Path, str]) -> None:
    done = pbr("process", "-", "--mask-only", "--model", "classical", stdin=disc(seed=51))
    mask = np.asarray(Image.open(io.BytesIO(done.stdout)))
    assert mask.shape == (240, 320)
    assert mask[120, 160] == 255 and mask[5, 5] == 0


def test_history_and_fetch_find_an_execution(pbr: Pbr, processed: tuple[Path, str]) -> None:
    listed = pbr("history").stdout.decode()
    assert "good.png" in listed and "UnsupportedFormatError" in listed
    folder, _ = processed
    name = json.loads((folder / "good.png.webp.json").read_text())["execution"]["name"]
    fetched = folder.parent / "again.webp"
    pbr("fetch", name[:12], "-o", str(fetched))
    assert fetched.read_bytes() == (folder / "good.png.webp").read_bytes()
    table = pbr("history", name).stdout.decode()
    for state in ("Validate", "SegmentOnLambda", "Refine", "Encode", "PublishMetrics"):
        assert state in table
    assert "sha256" in pbr("history", name, "--inputs").stdout.decode()


def test_status_shows_the_buckets_and_the_url_of_the_api(pbr: Pbr, processed: tuple[Path, str]) -> None:
    output = pbr("status").stdout.decode()
    for bucket in ("uploads", "results", "work"):
        assert re.search(rf"^{bucket} +s3://\S+$", output, re.MULTILINE)
    assert re.search(r"^api +https?://\S+$", output, re.MULTILINE)


@pytest.mark.skipif(ON_AWS, reason="the demo brings its own cloud")
def test_the_demo_writes_the_result_its_facts_and_a_comparison(pbr: Pbr, tmp_path: Path) -> None:
    photo = tmp_path / "disc.png"
    photo.write_bytes(disc(seed=52))
    output = pbr("demo", str(photo), "-o", str(tmp_path / "out"), "--events").stdout.decode()
    for name in ("disc.png.png", "disc.png.png.json", "disc.png-before-after.png"):
        assert (tmp_path / "out" / name).stat().st_size > 0
        assert name in output
    assert re.search(r"^ +SegmentOnLambda +\d+\.\d s +ok$", output, re.MULTILINE)
    assert "ExecutionSucceeded" in output and "Quality" in output
