"""``pbr bulk`` and ``pbr watch``, killed in the middle, on the stack PBR_STACK, or else on an embedded cloud."""

import csv
import json
import re
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import pytest

from tests.conftest import ROOT, disc
from tests.e2e.conftest import ON_AWS, Pbr

pytestmark = pytest.mark.slow

COUNT = 30


@pytest.fixture(scope="module")
def photos(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with 30 images and a damaged one."""
    folder = tmp_path_factory.mktemp("photos")
    for number in range(COUNT):
        path = folder / f"{number % 3}/{number:02}.png"
        path.parent.mkdir(exist_ok=True)
        path.write_bytes(disc(width=160, height=120, seed=900 + number))
    (folder / "broken.jpg").write_bytes(b"\xff\xd8\xff")
    return folder


@pytest.fixture(scope="module")
def uninterrupted(pbr: Pbr, photos: Path, tmp_path_factory: pytest.TempPathFactory) -> dict[str, bytes]:
    """The results of a run that was not interrupted."""
    out = tmp_path_factory.mktemp("uninterrupted")
    pbr("bulk", str(photos), "-o", str(out / "out"), "--report", str(out / "report.csv"), status=1)
    rows = list(csv.DictReader((out / "report.csv").open()))
    assert [row["file"] for row in rows if row["status"] == "failed"] == ["broken.jpg"]
    assert len(rows) == COUNT + 1 and (out / "report.html").read_text().count("<img") == 2 * COUNT
    return results(out / "out")


def results(folder: Path) -> dict[str, bytes]:
    return {str(path.relative_to(folder)): path.read_bytes() for path in folder.rglob("*.png")}


def killed(pbr: Pbr, log: Path, is_time: Callable[[], bool], kind: signal.Signals, *arguments: str) -> None:
    """Run a command, end it with a signal when it is time, and write its standard error to ``log``."""
    command = [sys.executable, "-m", "client.cli", *arguments]
    with log.open("w") as errors, subprocess.Popen(command, cwd=ROOT, env=pbr.environment, stderr=errors) as process:
        deadline = time.monotonic() + 120
        while not is_time() and process.poll() is None and time.monotonic() < deadline:
            time.sleep(0.02)
        process.send_signal(kind)


@pytest.mark.parametrize(
    ("kind", "count"), [(signal.SIGKILL, 0), (signal.SIGKILL, COUNT // 2), (signal.SIGINT, 1)], ids=str
)
def test_an_interrupted_run_is_continued(
    pbr: Pbr, photos: Path, uninterrupted: dict[str, bytes], tmp_path: Path, kind: signal.Signals, count: int
) -> None:
    out, log = tmp_path / "out", tmp_path / "log"

    def is_time() -> bool:
        return len(results(out)) >= count and "--resume" in log.read_text()

    # The margin has no effect on a result that is not cropped, but on its cache key.
    arguments = ("bulk", str(photos), "-o", str(out), "--crop-margin", f"{count + kind}px")
    killed(pbr, log, is_time, kind, *arguments)
    assert len(results(out)) < COUNT, "it ended before it was killed"
    found = re.search(r"--resume (\S+)", log.read_text())
    assert found
    pbr("bulk", "--resume", found[1], status=1)
    assert results(out) == uninterrupted
    assert not list(out.rglob(".pbr-*"))


def test_a_watched_folder_survives_a_restart(pbr: Pbr, tmp_path: Path) -> None:
    inbox, out = tmp_path / "inbox", tmp_path / "out"
    inbox.mkdir()
    arguments = ("watch", str(inbox), "-o", str(out), "--settle", "0.2", "--interval", "0.1")
    for number in range(6):
        (inbox / f"{number}.png").write_bytes(disc(width=160, height=120, seed=950 + number))
    killed(pbr, tmp_path / "log", lambda: (inbox / "done").exists(), signal.SIGKILL, *arguments)
    killed(pbr, tmp_path / "log", lambda: not list(inbox.glob("*.png")), signal.SIGINT, *arguments)
    assert sorted(path.name for path in (inbox / "done").iterdir()) == [f"{number}.png" for number in range(6)]
    assert sorted(results(out)) == [f"{number}.png.png" for number in range(6)]


def test_images_in_s3_are_downloaded_and_a_prefix_without_images_fails(pbr: Pbr, photos: Path, tmp_path: Path) -> None:
    pbr("bulk", str(photos), "-o", str(tmp_path / "first"), "--include", "0/*", "--format", "webp")
    uploads = pbr("env", "--json").stdout
    bucket = json.loads(uploads)["PBR_UPLOADS"]
    manifest = tmp_path / "list.csv"
    keys = sorted(json.loads(path.read_bytes())["source"]["key"] for path in (tmp_path / "first").rglob("*.json"))
    manifest.write_text("key,options\n" + "".join(f'{key},"{{""quality"": 77}}"\n' for key in keys))
    done = pbr("bulk", str(manifest), "-o", str(tmp_path / "second"), "--json")
    lines = [json.loads(line) for line in done.stdout.splitlines()]
    assert sorted(line["input"] for line in lines) == [f"s3://{bucket}/{key}" for key in keys]
    assert all(Path(line["result"]).exists() and line["status"] == "done" for line in lines)
    failed = pbr("bulk", f"s3://{bucket}/bulk/none/", status=1)
    assert b"There is no image below" in failed.stderr


@pytest.mark.skipif(ON_AWS, reason="the stack may have no SageMaker model")
def test_a_transform_job_makes_the_masks_of_a_folder_once(pbr: Pbr, tmp_path: Path) -> None:
    folder, first, second = (tmp_path / name for name in ("photos", "first", "second"))
    folder.mkdir()
    for number in range(2):
        (folder / f"{number}.png").write_bytes(disc(width=160, height=120, seed=970 + number))
    arguments = ("bulk", str(folder), "--engine", "batch-transform", "-o")
    pbr(*arguments, str(first))
    sidecars = [json.loads(path.read_bytes()) for path in first.rglob("*.json")]
    assert [(one["model"]["host"], one["degraded"]) for one in sidecars] == [("sagemaker", False)] * 2
    again = pbr(*arguments, str(second))
    assert b"0 done, 2 cached" in again.stderr
    assert results(second) == results(first)
