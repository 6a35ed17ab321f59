import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from client.batch import ImageFile, SavedResult, process_all
from client.errors import JobTimeoutError
from client.history import StageEvent
from client.jobs import Result, Upload
from tests.fakes.stack_in_memory import NOW


class Pipeline:
    """A job client whose results are the uploads. Images named ``broken`` time out."""

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


class Listener:
    def __init__(self) -> None:
        self.stages: list[str] = []
        self.done: list[str] = []
        self.errors: dict[str, Exception] = {}

    def stage(self, name: str, event: StageEvent) -> None:
        self.stages.append(name)

    def saved(self, name: str, result: SavedResult) -> None:
        self.done.append(name)

    def failed(self, name: str, error: Exception) -> None:
        self.errors[name] = error


def files(folder: Path, *names: str) -> list[ImageFile]:
    images = []
    for number, name in enumerate(names):
        path = folder / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(b"x" * (number + 1))
        images.append(ImageFile(path))
    return images


def run(images: list[ImageFile], out: Path) -> tuple[list[SavedResult], Listener]:
    heard = Listener()
    return process_all(Pipeline(), images, {}, out, heard, 1.0), heard


def test_results_and_sidecars_are_named_after_the_images(tmp_path: Path) -> None:
    saved, heard = run(files(tmp_path, "a.jpg", "b.png"), tmp_path / "out")
    assert [result.path for result in saved] == [tmp_path / "out/a.jpg.webp", tmp_path / "out/b.png.webp"]
    assert (tmp_path / "out/a.jpg.webp").read_bytes() == b"x"
    assert json.loads((tmp_path / "out/b.png.webp.json").read_text()) == {"result": {"key": "results/x.webp"}}
    assert sorted(heard.done) == sorted(heard.stages) == ["a.jpg", "b.png"]


def test_a_failed_image_does_not_stop_the_others(tmp_path: Path) -> None:
    images = [*files(tmp_path, "broken.jpg", "b.png"), ImageFile(tmp_path / "missing.jpg")]
    saved, heard = run(images, tmp_path / "out")
    assert [result.path.name for result in saved] == ["b.png.webp"]
    assert isinstance(heard.errors["broken.jpg"], JobTimeoutError)
    assert isinstance(heard.errors["missing.jpg"], FileNotFoundError)


def test_images_with_the_same_name_have_separate_results(tmp_path: Path) -> None:
    saved, _ = run(files(tmp_path, "x/a.jpg", "y/a.jpg", "a.png"), tmp_path / "out")
    assert [result.path.name for result in saved] == ["a.jpg.webp", "a-2.jpg.webp", "a.png.webp"]
    assert [result.path.read_bytes() for result in saved] == [b"x", b"xx", b"xxx"]


def test_later_runs_keep_the_results_of_other_sources(tmp_path: Path) -> None:
    images = files(tmp_path, "a.jpg", "a.png")
    for image in images:
        run([image], tmp_path / "out")
    written = [f"{image.name}.webp{end}" for image in images for end in ("", ".json")]
    assert sorted(path.name for path in (tmp_path / "out").iterdir()) == written


def test_results_never_overwrite_inputs(tmp_path: Path) -> None:
    images = files(tmp_path, "a.jpg", "a.jpg.webp")
    saved, _ = run(images, tmp_path)
    assert [result.path.name for result in saved] == ["a-2.jpg.webp", "a.jpg.webp.webp"]
    assert images[1].path.read_bytes() == b"xx"
