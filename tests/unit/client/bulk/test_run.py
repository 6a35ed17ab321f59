import errno
import json
import os
import re
import time
from collections import Counter
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest
from botocore.exceptions import EndpointConnectionError

from client.bulk.cost import cost_usd
from client.bulk.report import write_report
from client.bulk.run import BulkRun, check_engine
from client.bulk.state import Item, RunState
from client.bulk.stored import result_prefixes
from client.errors import BulkRunError, DiskFullError, UsageError
from client.jobs import JobClient
from client.outputs import write
from core.errors import InvalidRequestError
from functions.contracts.prices import express_usage, prices_of
from tests.fakes.bulk_in_memory import BulkCloud, Killed
from tests.fakes.stack_in_memory import Buckets, stack

FILES = {
    "a.jpg": b"a",
    "b.png": b"doubtful b",
    "c.jpg": b"bad c",
    "empty/none.txt": b"no image",
    "x/a.jpg": b"cached a",
    "x/y/d.jpg": b"d",
    "x/y/e.jpg": b"e",
    "z/f.webp": b"f",
}


class Ends:
    def __init__(self) -> None:
        self.items: list[Item] = []
        self.scans: list[tuple[int, dict[str, int], int]] = []

    def ended(self, item: Item, data: tuple[bytes, bytes] | None) -> None:
        self.items.append(item)

    def progressed(self) -> None:
        pass

    def scanned(self, kept: int, changed: Counter[str], replaced: int) -> None:
        self.scans.append((kept, dict(changed), replaced))


class Laptop:
    """A folder with images, a directory for results, and one for the states of runs."""

    def __init__(self, home: Path, files: Mapping[str, bytes] = FILES) -> None:
        self.home, self.photos, self.out = home, home / "photos", home / "out"
        self.photos.mkdir(parents=True)
        for name, data in files.items():
            (self.photos / name).parent.mkdir(parents=True, exist_ok=True)
            (self.photos / name).write_bytes(data)
        self.ends = Ends()

    def start(
        self, cloud: BulkCloud, name: str = "r", save: Any = write, first_s: float = 20.0, **settings: Any
    ) -> RunState:
        given = {
            "folder": str(self.photos),
            "out": str(self.out),
            "options": {},
            "limits": {},
            "include": [],
            "exclude": [],
            "suffix": None,
            "overwrite": False,
            "sheet": False,
            **settings,
        }
        given = {key: value for key, value in given.items() if value != "absent"}
        state = RunState.create(name, given, self.home / "state")
        return self._process(cloud, name, state, save, first_s, resumed=False)

    def resume(self, cloud: BulkCloud, name: str = "r", first_s: float = 20.0) -> RunState:
        return self._process(cloud, name, RunState.open(name, self.home / "state"), write, first_s, resumed=True)

    def _process(
        self, cloud: BulkCloud, name: str, state: RunState, save: Any, first_s: float, *, resumed: bool
    ) -> RunState:
        try:
            self.run = BulkRun(cloud.stack(), name, state, self.ends, save, first_s)
            self.run.process(resumed=resumed)
        except BaseException:
            state.close()
            raise
        return state

    def files(self) -> dict[str, bytes]:
        return {str(path.relative_to(self.out)): path.read_bytes() for path in self.out.rglob("*") if path.is_file()}

    def results(self) -> dict[str, bytes]:
        return {name: data for name, data in self.files().items() if not name.endswith(".json")}


def statuses(state: RunState) -> dict[str, str]:
    return {item.path: item.status for item in state.items()}


DONE = {
    "a.jpg": "done",
    "b.png": "done",
    "c.jpg": "failed",
    "x/a.jpg": "cached",
    "x/y/d.jpg": "done",
    "x/y/e.jpg": "done",
    "z/f.webp": "done",
}
RESULTS = {f"{name}.png": b"cut " + FILES[name] for name, status in DONE.items() if status != "failed"}


def test_results_have_the_folder_structure_of_the_images(tmp_path: Path) -> None:
    laptop = Laptop(tmp_path)
    state = laptop.start(BulkCloud())
    assert laptop.results() == RESULTS
    assert json.loads(laptop.files()["x/y/d.jpg.png.json"])["result"]["key"] == "results/bulk/r/x/y/d.jpg.png"
    assert statuses(state) == DONE
    assert sorted(item.path for item in laptop.ends.items) == sorted(DONE)


def test_the_input_of_the_execution_has_prefix_options_and_limits(tmp_path: Path) -> None:
    cloud = BulkCloud()
    Laptop(tmp_path).start(cloud, options={"format": "webp"}, limits={"max_concurrency": 5})
    source = {"bucket": "uploads", "prefix": "bulk/r/"}
    expected = {"source": source, "options": {"format": "webp"}, "max_concurrency": 5, "batch": 1}
    assert cloud.runs["r"]["input"] == expected


def test_batches_grow_with_the_number_of_images(tmp_path: Path) -> None:
    for count, batch in ((1, 1), (36, 3), (130, 10)):
        cloud = BulkCloud(step=100)
        Laptop(tmp_path / str(count), {f"{number}.jpg": b"a" for number in range(count)}).start(cloud)
        assert cloud.runs["r"]["input"]["batch"] == batch


@pytest.mark.parametrize("memory", ["0", "4096"])
def test_the_cost_so_far_is_that_of_the_summary_for_the_same_images(memory: str) -> None:
    stack = BulkCloud().stack()
    stack.parameters.update({"BulkMemory": memory, "SegmentMemory": "4096"})  # type: ignore[attr-defined]
    counts = Counter(done=90, cached=10, failed=5, found=1000)
    _, prices = prices_of(stack.region)
    usage = express_usage(105, 10, 10, 60.0, 4096)
    parts = usage.orchestration_usd(prices), usage.compute_usd(prices), usage.requests_usd(prices)
    assert cost_usd(stack, counts, 60.0) == pytest.approx(sum(parts))
    stack.parameters["SageMakerMode"] = "async"  # of an endpoint that is not the default host
    assert cost_usd(stack, counts, 60.0) == pytest.approx(sum(parts))
    for host in ("ecs", "sagemaker"):
        stack.parameters["SegmentationHost"] = host
        assert cost_usd(stack, counts, 60.0) > 10 * usage.orchestration_usd(prices)


def test_a_failed_image_has_the_facts_of_its_report(tmp_path: Path) -> None:
    state = Laptop(tmp_path).start(BulkCloud())
    [failed] = state.items("failed")
    assert (failed.error, failed.message, failed.remedy) == ("CorruptImageError", "It is damaged", "Save it again.")


def test_results_are_written_before_the_run_ends(tmp_path: Path) -> None:
    cloud, laptop = BulkCloud(step=1), Laptop(tmp_path)
    written: list[tuple[str, str]] = []

    def save(files: Mapping[Path, bytes]) -> None:
        write(files)
        written.extend((path.name, cloud.runs["r"]["status"]) for path in files)

    laptop.start(cloud, save=save)
    assert written[0] == ("a.jpg.png", "RUNNING")


def test_the_time_to_fetch_results_does_not_delay_the_next_look(tmp_path: Path) -> None:
    laptop = Laptop(tmp_path)

    def slow(files: Mapping[Path, bytes]) -> None:
        time.sleep(0.2)
        write(files)

    started = time.monotonic()
    laptop.start(BulkCloud(step=1), save=slow)
    assert time.monotonic() - started < 0.2 * len(RESULTS) * 2.5


def test_a_second_run_keeps_results_that_are_not_older_than_their_images(tmp_path: Path) -> None:
    cloud, laptop = BulkCloud(), Laptop(tmp_path)
    laptop.start(cloud)
    (laptop.photos / "a.jpg").write_bytes(b"new")
    state = laptop.start(cloud, "second")
    assert cloud.keys("uploads", "bulk/second/") == ["bulk/second/a.jpg", "bulk/second/c.jpg"]
    assert laptop.results() == {**RESULTS, "a.jpg.png": b"cut new"}
    assert state.counts()["kept"] == 5


def test_results_that_were_made_with_other_options_are_replaced(tmp_path: Path) -> None:
    cloud, laptop = BulkCloud(), Laptop(tmp_path, {"a.jpg": b"a", "b.jpg": b"b"})
    laptop.start(cloud)
    assert laptop.start(cloud, "same", options={"preset": None}).counts()["kept"] == 2
    assert laptop.start(cloud, "second", options={"crop": True, "quality": "80"}).counts()["kept"] == 0
    assert laptop.ends.scans == [(0, {}, 0), (2, {}, 0), (0, {"crop": 2, "quality": 2}, 2)]
    sidecar = json.loads((laptop.out / "a.jpg.png.json").read_text())
    assert sidecar["options"]["crop"] is True


def test_a_result_that_was_edited_is_kept_with_other_options(tmp_path: Path) -> None:
    cloud, laptop = BulkCloud(), Laptop(tmp_path, {"a.jpg": b"a"})
    laptop.start(cloud)
    (laptop.out / "a.jpg.png").write_bytes(b"retouched by hand")
    assert laptop.start(cloud, "second", options={"crop": True}).counts()["kept"] == 1
    assert laptop.results() == {"a.jpg.png": b"retouched by hand"}


def test_results_of_another_default_model_are_replaced(tmp_path: Path) -> None:
    cloud, laptop = BulkCloud(), Laptop(tmp_path, {"a.jpg": b"a"})
    laptop.start(cloud)
    cloud.default_model = "birefnet-general"
    assert laptop.start(cloud, "second").counts()["kept"] == 0
    assert laptop.start(cloud, "third").counts()["kept"] == 1
    assert laptop.ends.scans[1:] == [(0, {"model": 1}, 1), (1, {}, 0)]


def test_results_are_replaced_if_the_background_is_newer_or_another_one(tmp_path: Path) -> None:
    cloud, laptop, image = BulkCloud(), Laptop(tmp_path, {"a.jpg": b"a"}), tmp_path / "background.jpg"
    image.touch()

    def kept(content: bytes, run: str) -> int:
        key = JobClient(stack(buckets=Buckets())).upload_background(image.name, content)
        return laptop.start(cloud, run, options={"background_key": key}, background_image=str(image)).counts()["kept"]

    assert [kept(b"oak", "1"), kept(b"oak", "2"), kept(b"pine", "3")] == [0, 1, 0]
    os.utime(image, (time.time() + 60,) * 2)
    assert kept(b"pine", "4") == 0


def test_a_kept_result_is_reported_with_its_quality(tmp_path: Path) -> None:
    cloud, laptop = BulkCloud(), Laptop(tmp_path, {"b.png": b"doubtful b"})
    laptop.start(cloud)
    laptop.start(cloud, "second")
    done, kept = laptop.ends.items
    assert (kept.status, kept.result) == ("kept", done.result)
    assert (kept.score, kept.review, kept.reasons) == (done.score, True, "fragmented")


def test_overwrite_processes_all_images_again(tmp_path: Path) -> None:
    cloud, laptop = BulkCloud(), Laptop(tmp_path)
    laptop.start(cloud)
    state = laptop.start(cloud, "second", overwrite=True)
    assert state.counts()["kept"] == 0 and len(cloud.keys("uploads", "bulk/second/")) == len(DONE)


def test_a_file_that_cannot_be_read_does_not_stop_the_others(tmp_path: Path) -> None:
    laptop = Laptop(tmp_path)
    (laptop.photos / "loop.jpg").symlink_to("loop.jpg")
    (laptop.photos / "huge.jpg").touch()
    os.truncate(laptop.photos / "huge.jpg", 101 * 2**20)
    state = laptop.start(BulkCloud())
    assert statuses(state) == {**DONE, "loop.jpg": "failed", "huge.jpg": "failed"}
    assert laptop.results() == RESULTS
    errors = {item.path: item.message for item in state.items("failed")}
    assert "symbolic links" in str(errors["loop.jpg"]) and "100 MiB" in str(errors["huge.jpg"])


def test_a_folder_without_images_starts_no_execution(tmp_path: Path) -> None:
    cloud = BulkCloud()
    state = Laptop(tmp_path, {"a.txt": b""}).start(cloud)
    assert state.counts().total() == 0 and cloud.calls.total() == 0


def crash(laptop: Laptop, cloud: BulkCloud, call: int) -> bool:
    """Start a run that is killed at a call to the cloud; return whether it was killed."""
    cloud.kill_at = call
    try:
        laptop.start(cloud)
    except Killed:
        return True
    finally:
        cloud.kill_at = None
    return False


@pytest.mark.slow
def test_a_run_that_is_killed_at_any_call_ends_as_an_uninterrupted_one(tmp_path: Path) -> None:
    call, killed = 0, True
    while killed:
        call += 1
        laptop, cloud = Laptop(tmp_path / str(call)), BulkCloud(step=2)
        killed = crash(laptop, cloud, call)
        if not killed:
            break
        state = laptop.resume(cloud)
        assert laptop.results() == RESULTS, call
        assert statuses(state) == DONE, call
        assert len(laptop.files()) == 2 * len(RESULTS), call
        assert list(cloud.runs) == ["r"], call
        state.close()
    assert call > 30


def test_a_run_that_is_killed_while_it_writes_leaves_nothing_half_written(tmp_path: Path) -> None:
    for number in range(6):
        laptop, cloud, written = Laptop(tmp_path / str(number)), BulkCloud(), [0]

        def save(files: Mapping[Path, bytes], last: int = number, count: list[int] = written) -> None:
            if count[0] == last:
                raise Killed
            count[0] += 1
            write(files)

        with pytest.raises(Killed):
            laptop.start(cloud, save=save)
        assert laptop.results().items() <= RESULTS.items()
        laptop.resume(cloud).close()
        assert laptop.results() == RESULTS


class SlowCloud(BulkCloud):
    """A cloud to which some uploads take until an execution has ended, or longer."""

    def __init__(self, step: int = 3, *, ends_first: int = 1) -> None:
        super().__init__(step)
        self.ends_first, self.failing = ends_first, False

    def put_object(self, **request: Any) -> dict[str, Any]:
        if request["Key"].startswith("bulk/r/x/"):
            deadline = time.monotonic() + 5
            while self._ended() < self.ends_first and not self._is_killed() and time.monotonic() < deadline:
                time.sleep(0.002)
            if self.failing:
                raise EndpointConnectionError(endpoint_url="https://s3")
        return super().put_object(**request)

    def _is_killed(self) -> bool:
        return self.kill_at is not None and self.calls.total() >= self.kill_at

    def _ended(self) -> int:
        return sum(run["status"] != "RUNNING" for run in list(self.runs.values()))


def test_what_is_uploaded_is_processed_before_long_uploads_end(tmp_path: Path) -> None:
    cloud, laptop = SlowCloud(), Laptop(tmp_path)
    state = laptop.start(cloud, first_s=0)
    assert laptop.results() == RESULTS and statuses(state) == DONE
    assert len(cloud.runs) >= 2
    keys = [key for run in cloud.runs.values() for _, key in run["rows"]]
    assert sorted(keys) == sorted(f"bulk/r/{name}" for name in DONE), "each image is processed once"
    assert all("manifest" in run["input"]["source"] for run in cloud.runs.values())
    assert state.load("costs") == dict.fromkeys(cloud.runs, 0.01)
    assert {item.path: item.message for item in state.items("failed")} == {"c.jpg": "It is damaged"}


def test_an_upload_that_fails_while_an_execution_runs_ends_the_process(tmp_path: Path) -> None:
    cloud, laptop = SlowCloud(step=1), Laptop(tmp_path)
    cloud.failing = True
    with pytest.raises(EndpointConnectionError):
        laptop.start(cloud, first_s=0)
    assert laptop.results().items() <= RESULTS.items() and laptop.results()
    cloud.failing = False
    assert statuses(laptop.resume(cloud)) == DONE and laptop.results() == RESULTS


def test_a_run_of_several_executions_that_is_killed_at_any_call_is_continued(tmp_path: Path) -> None:
    call, killed = 0, True
    while killed:
        call += 3
        laptop, cloud = Laptop(tmp_path / str(call)), SlowCloud(step=2)
        cloud.kill_at = call
        try:
            laptop.start(cloud, first_s=0)
        except Killed:
            cloud.kill_at, cloud.ends_first = None, 0
            laptop.resume(cloud, first_s=0).close()
        else:
            killed = False
        assert laptop.results() == RESULTS, call
        assert len(laptop.files()) == 2 * len(RESULTS), call
    assert call > 30


def test_uploads_that_are_there_are_not_repeated(tmp_path: Path) -> None:
    laptop, cloud = Laptop(tmp_path), BulkCloud()
    crash(laptop, cloud, 5)
    there = {key: len(cloud.versions["uploads", key]) for key in cloud.keys("uploads")}
    laptop.resume(cloud)
    assert there and all(len(cloud.versions["uploads", key]) == count for key, count in there.items())


def test_a_full_disk_ends_the_process_and_the_run_can_be_resumed(tmp_path: Path) -> None:
    laptop, cloud = Laptop(tmp_path), BulkCloud()

    def full(files: Mapping[Path, bytes]) -> None:
        if len(laptop.results()) >= 2:
            raise OSError(errno.ENOSPC, "No space left on device")
        write(files)

    with pytest.raises(DiskFullError, match="--resume r"):
        laptop.start(cloud, save=full)
    assert laptop.results().items() <= RESULTS.items()
    assert statuses(laptop.resume(cloud)) == DONE
    assert laptop.results() == RESULTS


def test_a_resumption_of_an_ended_run_repeats_what_failed(tmp_path: Path) -> None:
    laptop, cloud = Laptop(tmp_path), BulkCloud()
    laptop.start(cloud).close()
    (laptop.photos / "c.jpg").write_bytes(b"repaired")
    state = laptop.resume(cloud)
    assert statuses(state) == {**DONE, "c.jpg": "done"}
    assert laptop.results() == {**RESULTS, "c.jpg.png": b"cut repaired"}
    assert list(cloud.runs) == ["r", "r-2"]


def test_a_resumption_of_a_complete_run_does_nothing(tmp_path: Path) -> None:
    laptop, cloud = Laptop(tmp_path, {"a.jpg": b"a"}), BulkCloud()
    laptop.start(cloud).close()
    state = laptop.resume(cloud)
    assert statuses(state) == {"a.jpg": "done"} and list(cloud.runs) == ["r"]


def test_a_repeated_failure_is_reported_again(tmp_path: Path) -> None:
    laptop, cloud = Laptop(tmp_path), BulkCloud()
    laptop.start(cloud).close()
    state = laptop.resume(cloud)
    assert statuses(state) == DONE
    assert [item.message for item in state.items("failed")] == ["It is damaged"]


def test_an_execution_that_was_stopped_is_repeated(tmp_path: Path) -> None:
    laptop, cloud = Laptop(tmp_path), BulkCloud(step=1)
    crash(laptop, cloud, 20)
    cloud.stop("r")
    assert statuses(laptop.resume(cloud)) == DONE
    assert list(cloud.runs) == ["r", "r-2"] and laptop.results() == RESULTS


def test_an_execution_that_is_stopped_meanwhile_leaves_images_that_are_not_done(tmp_path: Path) -> None:
    laptop, cloud = Laptop(tmp_path), BulkCloud(step=1)

    class Stops(Ends):
        def ended(self, item: Item, data: tuple[bytes, bytes] | None) -> None:
            cloud.stop("r")

    laptop.ends = Stops()
    state = laptop.start(cloud)
    assert set(statuses(state).values()) == {"done", "not_done"}
    assert laptop.run.error is not None and laptop.run.error["error"] == "ExecutionAborted"
    state.close()
    assert statuses(laptop.resume(cloud)) == DONE


def test_a_run_continues_on_a_new_embedded_cloud(tmp_path: Path) -> None:
    laptop, cloud = Laptop(tmp_path), BulkCloud(step=1)
    crash(laptop, cloud, 25)
    state = laptop.resume(BulkCloud())
    assert statuses(state) == DONE and laptop.results() == RESULTS


def test_an_input_that_is_rejected_fails_the_run(tmp_path: Path) -> None:
    cloud = BulkCloud()
    error = InvalidRequestError("The stack may not read this bucket", field="source.bucket", value="b", remedy="No.")
    cloud.prepare = lambda _input: {"error": "InvalidRequestError", "cause": json.dumps(error.facts())}
    with pytest.raises(BulkRunError, match=r"The stack may not read this bucket \(source.bucket: 'b'\)"):
        Laptop(tmp_path).start(cloud)


def test_finding_an_image_does_not_read_all(tmp_path: Path) -> None:
    state = RunState.create("r", {}, tmp_path)
    statements = list[str]()
    state._database.set_trace_callback(statements.append)
    assert state.find("a") is None and state.find("a", "pictures") is None
    plans = [state._do(f"EXPLAIN QUERY PLAN {one}")[0][-1] for one in statements[:2]]
    assert plans == ["SEARCH item USING INDEX item_key (bucket=? AND key=?)"] * 2


def test_a_run_has_one_process_at_a_time(tmp_path: Path) -> None:
    state = RunState.create("r", {}, tmp_path)
    with pytest.raises(BulkRunError, match="Another process"):
        RunState.open("r", tmp_path)
    state.close()
    RunState.open("r", tmp_path).close()


@pytest.mark.parametrize("name", ["nosuch", "../r", ""])
def test_an_unknown_run_names_the_known_ones(tmp_path: Path, name: str) -> None:
    RunState.create("r", {}, tmp_path).close()
    with pytest.raises(UsageError, match=r"Use one of r\."):
        RunState.open(name, tmp_path)


def stored(cloud: BulkCloud, tmp_path: Path, source: dict[str, Any], **settings: Any) -> tuple[Laptop, RunState]:
    laptop = Laptop(tmp_path, {})
    return laptop, laptop.start(cloud, folder="absent", source=source, **settings)


def test_images_in_a_bucket_are_processed_and_fetched(tmp_path: Path) -> None:
    cloud = BulkCloud()
    for key, data in {"shop/a.jpg": b"a", "shop/x/../b.jpg": b"b", "shop/c.jpg": b"bad", "other.jpg": b""}.items():
        cloud._put("pictures", key, data)
    laptop, state = stored(cloud, tmp_path, {"bucket": "pictures", "prefix": "shop/"})
    assert laptop.results() == {"a.jpg.png": b"cut a", "x/b.jpg.png": b"cut b"}
    assert statuses(state) == {"a.jpg": "done", "x/../b.jpg": "done", "c.jpg": "failed"}


def test_objects_whose_names_are_equal_as_paths_have_separate_results(tmp_path: Path) -> None:
    cloud, contents = BulkCloud(), {"a.jpg": b"1", "/a.jpg": b"2", "x/../a.jpg": b"3", "x/a.jpg": b"4"}
    for name, data in contents.items():
        cloud._put("pictures", f"shop/{name}", data)
    laptop, state = stored(cloud, tmp_path, {"bucket": "pictures", "prefix": "shop/"})
    assert sorted(laptop.results().values()) == [b"cut 1", b"cut 2", b"cut 3", b"cut 4"]
    for item in state.items():
        assert Path(item.result or "").read_bytes() == b"cut " + contents[item.path]


def test_images_of_a_bucket_that_are_not_done_end_as_such(tmp_path: Path) -> None:
    class Tolerant(BulkCloud):
        def _image(self, name: str, bucket: str, key: str) -> dict[str, Any]:
            return {"bucket": bucket, "key": key, "status": "not_done"}

    cloud, ends = Tolerant(), Ends()
    cloud._put("pictures", "shop/a.jpg", b"a")
    laptop = Laptop(tmp_path, {})
    laptop.ends = ends
    laptop.start(cloud, folder="absent", source={"bucket": "pictures", "prefix": "shop/"})
    assert [(item.path, item.status, item.error) for item in ends.items] == [("a.jpg", "not_done", "NotDoneError")]


@pytest.mark.parametrize(
    "source", [{"bucket": "pictures", "prefix": "shop/"}, {"manifest": {"bucket": "uploads", "key": "list.jsonl"}}]
)
def test_results_of_images_in_s3_are_written_once_and_before_the_run_ends(
    tmp_path: Path, source: dict[str, Any]
) -> None:
    cloud, written = BulkCloud(step=1), list[tuple[str, str]]()
    keys = [f"shop/{name}.jpg" for name in "abc"]
    for key in keys:
        cloud._put("pictures", key, key.encode())
    rows = [json.dumps({"bucket": "pictures", "key": key}) for key in keys]
    cloud._put("uploads", "list.jsonl", "\n".join(rows).encode())

    def save(files: Mapping[Path, bytes]) -> None:
        write(files)
        written.extend((path.name, cloud.runs["r"]["status"]) for path in files if path.suffix == ".png")

    laptop = Laptop(tmp_path, {})
    state = laptop.start(cloud, save=save, folder="absent", source=source)
    assert sorted(name for name, _ in written) == ["a.jpg.png", "b.jpg.png", "c.jpg.png"]
    assert written[0] == ("a.jpg.png", "RUNNING")
    assert [item.status for item in state.items()] == ["done"] * 3 and len(laptop.ends.items) == 3


def test_an_object_that_changed_during_the_run_is_fetched_again(tmp_path: Path) -> None:
    cloud, laptop = BulkCloud(step=1), Laptop(tmp_path, {})
    for name in "ab":
        cloud._put("pictures", f"shop/{name}.jpg", name.encode())

    class Replaces(Ends):
        def ended(self, item: Item, data: tuple[bytes | None, bytes] | None) -> None:
            if item.path == "a.jpg" and item.version_id == "1":
                cloud._put("pictures", "shop/a.jpg", b"new")
                cloud.runs["r"]["waiting"].append(("pictures", "shop/a.jpg"))

    laptop.ends = Replaces()
    laptop.start(cloud, folder="absent", source={"bucket": "pictures", "prefix": "shop/"})
    assert laptop.results() == {"a.jpg.png": b"cut new", "b.jpg.png": b"cut b"}


def test_objects_whose_names_differ_only_in_case_have_separate_results(tmp_path: Path) -> None:
    cloud, contents = BulkCloud(step=1), {"a.jpg": b"1", "A.jpg": b"2", "b.jpg": b"3", "a.JPG": b"4"}
    for name, data in contents.items():
        cloud._put("pictures", name, data)
    laptop, state = stored(cloud, tmp_path, {"bucket": "pictures", "prefix": ""})
    names = sorted(laptop.results())
    assert [re.sub("-[0-9a-f]{8}", "-hash", name) for name in names] == [
        "A-hash.jpg.png",
        "a-hash.JPG.png",
        "a-hash.jpg.png",
        "b.jpg.png",
    ]
    assert sorted(laptop.files()) == sorted([*names, *(f"{name}.json" for name in names)])
    for item in state.items():
        assert Path(item.result or "").read_bytes() == b"cut " + contents[item.path]


@pytest.mark.parametrize(
    ("key", "data", "expected"),
    [
        ("l.jsonl", b'{"key": "x/a"}\n\n{"key": "x/b", "bucket": "theirs"}\n{"key": "x/ab"}',
         ["results/x/a", "results/s3/theirs/x/b"]),
        ("l.csv", b"\xef\xbb\xbfkey,options\nx/a,\nx/b,", ["results/x/"]),
        ("l.csv", b"name\na", []),
        ("l.jsonl", b"{", []),
        ("absent.csv", b"", []),
    ],
)  # fmt: skip
def test_results_of_a_manifest_are_below_the_common_prefixes_of_its_keys(
    key: str, data: bytes, expected: list[str]
) -> None:
    cloud = BulkCloud()
    cloud._put("uploads", key.removeprefix("absent"), data)
    assert result_prefixes(cloud.stack(), {"manifest": {"bucket": "uploads", "key": key}}) == expected


def test_results_of_an_inventory_are_below_its_bucket() -> None:
    cloud = BulkCloud()
    cloud._put("lists", "manifest.json", b'{"sourceBucket": "theirs"}')
    source = {"inventory": {"bucket": "lists", "key": "manifest.json"}}
    assert result_prefixes(cloud.stack(), source) == ["results/s3/theirs/"]


def test_overwrite_computes_results_of_a_bucket_again(tmp_path: Path) -> None:
    cloud = BulkCloud()
    cloud._put("pictures", "shop/a.jpg", b"a")
    stored(cloud, tmp_path, {"bucket": "pictures", "prefix": "shop/"}, overwrite=True)
    assert cloud.runs["r"]["input"]["overwrite"] is True


def test_images_in_a_bucket_stay_there_without_out(tmp_path: Path) -> None:
    cloud = BulkCloud()
    cloud._put("pictures", "shop/a.jpg", b"a")
    laptop, state = stored(cloud, tmp_path, {"bucket": "pictures", "prefix": "shop/"}, out=None)
    assert laptop.out.exists() is False
    [item] = state.items()
    assert (item.status, item.result) == ("done", "s3://results/results/s3/pictures/shop/a.jpg.png")


@pytest.mark.parametrize("key", ["=1+1.jpg", "'=1+1.jpg"])
def test_keys_that_look_like_formulas_are_read_unchanged(tmp_path: Path, key: str) -> None:
    cloud = BulkCloud()
    cloud._put("pictures", key, b"a")
    _, state = stored(cloud, tmp_path, {"bucket": "pictures", "prefix": ""}, out=None)
    [item] = state.items()
    assert item.result == f"s3://results/results/s3/pictures/{key}.png"


def test_the_counts_of_a_bucket_are_those_of_the_map_run_until_its_end(tmp_path: Path) -> None:
    cloud, seen = BulkCloud(step=1), list[Counter[str]]()
    for name in "abc":
        cloud._put("pictures", f"shop/{name}.jpg", name.encode())
    settings = {"source": {"bucket": "pictures", "prefix": "shop/"}, "out": None, "options": {}, "limits": {}}
    state = RunState.create("r", {**settings, "suffix": None, "overwrite": False, "sheet": False}, tmp_path)

    class Looks(Ends):
        def progressed(self) -> None:
            seen.append(run.counts())

    run = BulkRun(cloud.stack(), "r", state, Looks())
    run.process(resumed=False)
    assert seen[0] == Counter(done=1, failed=0, uploaded=2)
    assert run.counts()["done"] == 3


def test_a_run_of_a_bucket_that_is_stopped_after_its_first_results_fails(tmp_path: Path) -> None:
    cloud, laptop = BulkCloud(step=1), Laptop(tmp_path, {})
    for name in "abc":
        cloud._put("pictures", f"shop/{name}.jpg", name.encode())

    class Stops(Ends):
        def ended(self, item: Item, data: tuple[bytes | None, bytes] | None) -> None:
            cloud.stop("r")

    laptop.ends = Stops()
    source = {"bucket": "pictures", "prefix": "shop/"}
    laptop.start(cloud, folder="absent", source=source).close()
    assert laptop.run.error is not None and laptop.run.error["message"] == "The execution was stopped"
    assert set(statuses(laptop.resume(cloud)).values()) == {"done"} and len(laptop.results()) == 3


def test_results_of_a_bucket_that_were_fetched_are_kept(tmp_path: Path) -> None:
    cloud, source = BulkCloud(), {"bucket": "pictures", "prefix": "shop/"}
    for name in ("a", "b", "bad"):
        cloud._put("pictures", f"shop/{name}.jpg", b"cached " + name.encode() if name != "bad" else b"bad")
    laptop, state = stored(cloud, tmp_path, source)
    state.close()
    cloud._put("pictures", "shop/bad.jpg", b"repaired")
    before = (laptop.out / "a.jpg.png").stat().st_mtime_ns
    assert statuses(laptop.resume(cloud)) == {"a.jpg": "cached", "b.jpg": "cached", "bad.jpg": "done"}
    assert (laptop.out / "a.jpg.png").stat().st_mtime_ns == before


def test_images_of_several_buckets_are_separate(tmp_path: Path) -> None:
    cloud = BulkCloud()
    for bucket in ("uploads", "pictures"):
        cloud._put(bucket, "a.jpg", bucket.encode())
    cloud._put("uploads", "list.jsonl", b'{"key": "a.jpg"}\n{"key": "a.jpg", "bucket": "pictures"}')
    _, state = stored(cloud, tmp_path, {"manifest": {"bucket": "uploads", "key": "list.jsonl"}})
    assert statuses(state) == {"a.jpg": "done", "pictures/a.jpg": "done"}


def test_a_run_of_a_bucket_that_is_killed_at_any_call_ends_as_an_uninterrupted_one(tmp_path: Path) -> None:
    for call in range(1, 40):
        cloud, home = BulkCloud(step=1), tmp_path / str(call)
        for name in "abc":
            cloud._put("pictures", f"shop/{name}.jpg", name.encode())
        laptop = Laptop(home, {})
        cloud.kill_at = call
        try:
            laptop.start(cloud, folder="absent", source={"bucket": "pictures", "prefix": "shop/"})
        except Killed:
            cloud.kill_at = None
            state = laptop.resume(cloud)
            assert set(statuses(state).values()) == {"done"} and list(cloud.runs) == ["r"]
        else:
            assert call > 10
            break
        assert laptop.results() == {f"{name}.jpg.png": b"cut " + name.encode() for name in "abc"}


def test_the_report_has_a_row_for_each_image(tmp_path: Path) -> None:
    laptop = Laptop(tmp_path)
    write_report(laptop.start(BulkCloud()), tmp_path / "report.csv")
    rows = (tmp_path / "report.csv").read_text().splitlines()
    assert rows[0] == "file,status,result,score,review,reasons,seconds,error,message,remedy"
    assert rows[2].startswith(f"b.png,done,{laptop.out}/b.png.png,") and ",True,fragmented,0.75," in rows[2]
    assert rows[3] == "c.jpg,failed,,,,,,CorruptImageError,It is damaged,Save it again."
    assert len(rows) == 1 + len(DONE)


def test_no_cell_of_the_report_is_a_formula(tmp_path: Path) -> None:
    laptop = Laptop(tmp_path, {"=1+1.jpg": b"a"})
    write_report(laptop.start(BulkCloud()), tmp_path / "report.csv")
    assert (tmp_path / "report.csv").read_text().splitlines()[1].startswith("'=1+1.jpg,done,")


def test_requests_for_masks_are_not_counted_as_images(tmp_path: Path) -> None:
    cloud = BulkCloud(step=0)
    cloud.put_object(Bucket="uploads", Key="shop/a.jpg", Body=b"a")
    source = {"bucket": "uploads", "prefix": "shop/"}
    settings = {"source": source, "limits": {"engine": "batch-transform"}}
    counts: list[Counter[str]] = []

    class Looks(Ends):
        def progressed(self) -> None:
            counts.append(run.counts())
            cloud.step = 1

    given = {"out": None, "options": {}, "suffix": None, "overwrite": False, "sheet": False, **settings}
    state = RunState.create("r", given, tmp_path / "state")
    run = BulkRun(cloud.stack(), "r", state, Looks())
    run.process(resumed=False)
    state.close()
    assert cloud.runs["r"]["input"]["engine"] == "batch-transform"
    assert counts[0] == Counter(done=1, failed=0, uploaded=2)


def test_a_transform_job_waits_for_all_uploads_and_its_failure_is_a_warning(tmp_path: Path) -> None:
    class Transforms(BulkCloud):
        def put_object(self, **request: Any) -> dict[str, Any]:
            time.sleep(0.02)
            return super().put_object(**request)

        def _summarize(self, name: str, run: dict[str, Any]) -> None:
            super()._summarize(name, run)
            summary = json.loads(self.data("results", f"bulk/{name}/summary.json"))
            transform = {"job": "pbr-bulk-1f", "status": "Failed", "reason": "CapacityError"}
            summary |= {"degraded": 3, "transform": transform}
            self._put("results", f"bulk/{name}/summary.json", json.dumps(summary).encode())

    cloud, laptop = Transforms(), Laptop(tmp_path)
    settings = {"folder": str(laptop.photos), "out": str(laptop.out), "limits": {"engine": "batch-transform"}}
    given: dict[str, Any] = {"options": {}, "suffix": None, "overwrite": False, "sheet": False}
    given |= {"include": [], "exclude": []}
    state = RunState.create("r", {**given, **settings}, tmp_path / "state")
    run = BulkRun(cloud.stack(), "r", state, laptop.ends, first_s=0)
    run.process(resumed=False)
    state.close()
    assert list(cloud.runs) == ["r"] and "prefix" in cloud.runs["r"]["input"]["source"]
    assert run.warnings == [
        "Transform job pbr-bulk-1f failed: CapacityError",
        "3 segmented on Lambda because the requested host failed",
    ]


def test_an_engine_without_a_model_is_refused_before_the_upload() -> None:
    stack = BulkCloud().stack()
    check_engine(None, stack)
    with pytest.raises(UsageError) as caught:
        check_engine("batch-transform", stack)
    assert (caught.value.field, "SageMakerMode=transform" in caught.value.remedy) == ("--engine", True)
    stack.outputs["SageMakerModelName"] = "model"
    check_engine("batch-transform", stack)
