import json
import os
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from PIL import Image

from client.batch import Outcome, fetch_all, process_all
from client.commands.console import error_text
from client.errors import ExecutionRunningError, JobFailedError, JobTimeoutError
from client.history import StageEvent, named
from client.jobs import JobClient, Result, Upload
from client.outputs import Destination, ImageFile
from tests.conftest import disc
from tests.fakes.stack_in_memory import NOW, Buckets, Executions, History, stack, uploaded


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
        self.ends: list[str] = []

    def stage(self, label: str, event: StageEvent) -> None:
        self.stages.append(label)

    def ended(self, outcome: Outcome) -> None:
        self.ends.append(outcome.label)


def files(folder: Path, *names: str) -> list[Path]:
    """Write a file for each name, the first one of 1 byte, the second of 2 bytes, and so on."""
    for number, name in enumerate(names):
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_bytes(b"x" * (number + 1))
    return [folder / name for name in names]


def run(paths: list[Path], out: Path) -> tuple[list[Outcome], Listener]:
    heard = Listener()
    return process_all(Pipeline(), ImageFile.of(paths), {}, Destination.parse(f"{out}/"), heard, 1.0), heard


def written(outcomes: list[Outcome]) -> list[Path]:
    return [outcome.saved.path for outcome in outcomes if outcome.saved]


def test_results_and_sidecars_are_named_after_the_images(tmp_path: Path) -> None:
    ended, heard = run(files(tmp_path, "a.jpg", "b.png"), tmp_path / "out")
    assert written(ended) == [tmp_path / "out/a.jpg.webp", tmp_path / "out/b.png.webp"]
    assert (tmp_path / "out/a.jpg.webp").read_bytes() == b"x"
    assert json.loads((tmp_path / "out/b.png.webp.json").read_text()) == {"result": {"key": "results/x.webp"}}
    assert sorted(heard.ends) == sorted(heard.stages) == ["a.jpg", "b.png"]


def test_a_failed_image_does_not_stop_the_others(tmp_path: Path) -> None:
    ended, heard = run([*files(tmp_path, "broken.jpg", "b.png"), tmp_path / "missing.jpg"], tmp_path / "out")
    assert [path.name for path in written(ended)] == ["b.png.webp"]
    assert [type(outcome.error) for outcome in ended] == [JobTimeoutError, type(None), FileNotFoundError]
    assert sorted(heard.ends) == ["b.png", "broken.jpg", "missing.jpg"]


def test_an_outcome_names_the_execution_even_if_it_failed(tmp_path: Path) -> None:
    ended, _ = run([*files(tmp_path, "broken.jpg", "b.png"), tmp_path / "missing.jpg"], tmp_path / "out")
    assert [outcome.execution for outcome in ended] == ["broken.jpg1", "b.png2", None]


def test_names_that_are_not_utf_8_can_be_printed(tmp_path: Path) -> None:
    paths = files(tmp_path, os.fsdecode(b"\xff.jpg"))
    good, missing = run([*paths, tmp_path / os.fsdecode(b"\xfe.jpg")], tmp_path / "out")[0]
    assert good.saved and f"{good.label} {good.input} {good.saved.path}".encode()
    assert json.dumps(missing.to_json(), ensure_ascii=False).encode()
    assert error_text(missing.error or ValueError()).encode()


def test_images_with_the_same_name_have_separate_results(tmp_path: Path) -> None:
    ended, _ = run(files(tmp_path, "x/a.jpg", "y/a.jpg", "a.png"), tmp_path / "out")
    assert [outcome.label for outcome in ended] == ["x/a.jpg", "y/a.jpg", "a.png"]
    assert [path.name for path in written(ended)] == ["x-a.jpg.webp", "y-a.jpg.webp", "a.png.webp"]
    assert [path.read_bytes() for path in written(ended)] == [b"x", b"xx", b"xxx"]


def test_a_comparison_is_written_beside_its_result(tmp_path: Path) -> None:
    (tmp_path / "a.png").write_bytes(disc())
    images, destination = ImageFile.of([tmp_path / "a.png"]), Destination.parse(f"{tmp_path}/out/")
    [outcome] = process_all(Pipeline(), images, {}, destination, Listener(), 1.0, compare=True)
    assert outcome.comparison == tmp_path / "out/a.png-before-after.png"
    assert Image.open(outcome.comparison).width == 2 * Image.open(tmp_path / "a.png").width + 8


def test_later_runs_keep_the_results_of_other_sources(tmp_path: Path) -> None:
    images = files(tmp_path, "a.jpg", "a.png")
    for image in images:
        run([image], tmp_path / "out")
    expected = [f"{image.name}.webp{end}" for image in images for end in ("", ".json")]
    assert sorted(path.name for path in (tmp_path / "out").iterdir()) == expected


def test_results_never_overwrite_inputs(tmp_path: Path) -> None:
    images = files(tmp_path, "a.jpg", "a.jpg.webp")
    ended, _ = run(images, tmp_path)
    assert [path.name for path in written(ended)] == ["a-2.jpg.webp", "a.jpg.webp.webp"]
    assert images[1].read_bytes() == b"xx"


def test_a_file_has_exactly_its_name(tmp_path: Path) -> None:
    destination = Destination.parse(str(tmp_path / "new/cut.webp"))
    process_all(Pipeline(), ImageFile.of(files(tmp_path, "a.jpg")), {}, destination, Listener(), 1.0)
    assert sorted(path.name for path in (tmp_path / "new").iterdir()) == ["cut.webp", "cut.webp.json"]


def executed(executions: Executions, buckets: Buckets, name: str, key: str) -> None:
    """Add an execution that has succeeded; its result is its name."""
    result = f"results/{key}.png"
    sidecar = {"result": {"bucket": "results", "key": result, "version_id": name}}
    executions.add(name, uploaded(key, name), status="SUCCEEDED", output=json.dumps(sidecar))
    buckets.objects["results", result, name] = name.encode()


def fetch(tmp_path: Path, executions: Executions, buckets: Buckets, *names: str, **options: Any) -> list[Outcome]:
    deployed = stack(executions, buckets)
    destination = Destination.parse(f"{tmp_path}/")
    return fetch_all(JobClient(deployed), named(deployed, names), destination, Listener(), **options)


def test_fetched_results_have_the_names_of_their_images(tmp_path: Path) -> None:
    executions, buckets = Executions(), Buckets()
    for name, key in (("first", "x/a.jpg"), ("second", "y/a.jpg"), ("third", "b.jpg")):
        executed(executions, buckets, name, key)
    ended = fetch(tmp_path, executions, buckets, "first", "second", "third")
    assert [path.name for path in written(ended)] == ["x-a.jpg.png", "y-a.jpg.png", "b.jpg.png"]
    assert [path.read_text() for path in written(ended)] == ["first", "second", "third"]
    assert (ended[0].input, ended[0].execution) == ("x/a.jpg", "first")


def test_two_executions_of_an_image_have_separate_files(tmp_path: Path) -> None:
    executions, buckets = Executions(), Buckets()
    for name in ("first", "second"):
        executed(executions, buckets, name, "a.jpg")
    assert [path.read_text() for path in written(fetch(tmp_path, executions, buckets, "first", "second"))] == [
        "first",
        "second",
    ]


def test_failed_and_running_executions_are_errors_of_their_own(tmp_path: Path) -> None:
    executions, buckets = Executions(), Buckets()
    executed(executions, buckets, "good", "a.jpg")
    executions.add("bad", {}, status="FAILED", error="InvalidRequestError", cause="no image")
    executions.add("busy", uploaded("b.jpg", "1"))
    good, bad, busy = fetch(tmp_path, executions, buckets, "good", "bad", "busy")
    assert good.saved and isinstance(bad.error, JobFailedError) and bad.label == "bad"
    assert isinstance(busy.error, ExecutionRunningError) and "--wait" in str(busy.error)


def test_wait_fetches_a_running_execution_after_its_end(tmp_path: Path) -> None:
    executions, buckets = Executions(), Buckets()
    executed(executions, buckets, "busy", "a.jpg")
    [arn] = executions.known
    executions.known[arn]["status"] = "RUNNING"

    class Reads(list[Any]):
        """Ends the execution with the second read of its history."""

        def pop(self, index: Any = -1) -> Any:
            executions.end("busy", "SUCCEEDED")
            return super().pop(index)

    whole = History().task("Validate").add("ExecutionSucceeded").events
    executions.histories[arn] = Reads([whole[:3], whole])
    [outcome] = fetch(tmp_path, executions, buckets, "busy", wait_s=10.0)
    assert outcome.saved and outcome.saved.path.read_text() == "busy"
