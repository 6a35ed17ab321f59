import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from client.batch import Delivery, Picture, process_all
from client.compare import before_and_after
from client.errors import JobTimeoutError
from client.history import StageEvent
from client.jobs import Result, Upload
from tests.conftest import file_of
from tests.fakes.stack_in_memory import NOW


class Pipeline:
    """Jobs whose results are their uploads; what is named ``broken`` never ends."""

    def __init__(self) -> None:
        self.data: dict[str, bytes] = {}

    def upload(self, name: str, data: bytes, options: Any = None) -> Upload:
        key = f"{name}{len(data)}"
        self.data[key] = data
        return Upload(key, None, NOW)

    def execution_of(self, upload: Upload) -> str:
        return upload.key

    def follow(self, execution_arn: str, *, timeout_s: float) -> Iterator[StageEvent]:
        if "broken" in execution_arn:
            raise JobTimeoutError("It hangs", field="f", value="v", remedy="Wait.")
        yield StageEvent("Validate", "finished", 0.1)

    def result(self, execution_arn: str) -> Result:
        return Result(self.data[execution_arn], {"result": {"key": "results/x.webp"}})


class Told:
    def __init__(self) -> None:
        self.stages: list[str] = []
        self.done: list[str] = []
        self.errors: dict[str, Exception] = {}

    def stage(self, name: str, event: StageEvent) -> None:
        self.stages.append(name)

    def delivered(self, name: str, delivery: Delivery) -> None:
        self.done.append(name)

    def failed(self, name: str, error: Exception) -> None:
        self.errors[name] = error


def files(folder: Path, *names: str) -> list[Picture]:
    pictures = []
    for number, name in enumerate(names):
        path = folder / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(b"x" * (number + 1))
        pictures.append(Picture(path))
    return pictures


def run(pictures: list[Picture], out: Path) -> tuple[list[Delivery], Told]:
    told = Told()
    return process_all(Pipeline(), pictures, {}, out, told, 1.0), told  # type: ignore[arg-type]


def test_every_picture_gets_a_result_and_a_sidecar_named_after_it(tmp_path: Path) -> None:
    delivered, told = run(files(tmp_path, "a.jpg", "b.png"), tmp_path / "out")
    assert [delivery.path for delivery in delivered] == [tmp_path / "out/a.webp", tmp_path / "out/b.webp"]
    assert (tmp_path / "out/a.webp").read_bytes() == b"x"
    assert json.loads((tmp_path / "out/b.json").read_text()) == {"result": {"key": "results/x.webp"}}
    assert sorted(told.done) == sorted(told.stages) == ["a.jpg", "b.png"]


def test_a_picture_that_fails_or_cannot_be_read_stops_no_other(tmp_path: Path) -> None:
    pictures = [*files(tmp_path, "broken.jpg", "b.png"), Picture(tmp_path / "missing.jpg")]
    delivered, told = run(pictures, tmp_path / "out")
    assert [delivery.path.name for delivery in delivered] == ["b.webp"]
    assert isinstance(told.errors["broken.jpg"], JobTimeoutError)
    assert isinstance(told.errors["missing.jpg"], FileNotFoundError)


def test_pictures_of_the_same_name_have_results_of_their_own(tmp_path: Path) -> None:
    delivered, _ = run(files(tmp_path, "x/a.jpg", "y/a.jpg", "a.png"), tmp_path / "out")
    assert [delivery.path.name for delivery in delivered] == ["a.webp", "a-2.webp", "a-3.webp"]
    assert [delivery.path.read_bytes() for delivery in delivered] == [b"x", b"xx", b"xxx"]


def test_no_picture_is_overwritten_by_its_result(tmp_path: Path) -> None:
    pictures = files(tmp_path, "a.webp", "b.webp")
    delivered, _ = run(pictures, tmp_path)
    assert [delivery.path.name for delivery in delivered] == ["a-2.webp", "b-2.webp"]
    assert pictures[1].path.read_bytes() == b"xx"


def png(pixels: np.ndarray[Any, Any]) -> bytes:
    return file_of(Image.fromarray(pixels), "PNG")


@pytest.mark.parametrize(("width", "height"), [(60, 40), (3000, 900)])
def test_before_and_after_stand_side_by_side_on_squares(tmp_path: Path, width: int, height: int) -> None:
    original = np.full((height, width, 3), (200, 30, 30), np.uint8)
    cut = np.zeros((height, width, 4), np.uint8)
    cut[:, : width // 2] = (30, 200, 30, 255)
    before_and_after(png(original), png(cut), tmp_path / "sheet.png")
    sheet = np.asarray(Image.open(tmp_path / "sheet.png").convert("RGB")).astype(int)
    half = sheet.shape[1] // 2
    assert sheet.shape[1] <= 1600 and (sheet.shape[1] > 1500) == (width > 1500)
    assert sheet.shape[0] == pytest.approx(height * (half - 4) / width, abs=1)
    assert np.ptp(sheet[:, : half - 8], axis=(0, 1)).max() == 0 and tuple(sheet[0, 0]) == (200, 30, 30)
    assert tuple(sheet[sheet.shape[0] // 2, half + half // 5]) == (30, 200, 30)
    board = sheet[:, half + half // 2 + 12 :]
    assert set(np.unique(board)) == {204, 255}, "what is transparent shows both squares"
