import json
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest
from botocore.exceptions import ClientError
from hypothesis import example, given, settings
from hypothesis import strategies as st

from core.errors import InvalidRequestError
from functions.contracts.object_keys import starts_execution
from functions.runtime.outcomes import Outcomes
from functions.runtime.store import Store
from functions.sweep.executions import MAX_RUNNING, Executions
from functions.sweep.progress import KEY, Progress, begin, resume, save
from functions.sweep.work import BUDGET_S, Sweep
from tests.fakes.uploads_in_memory import MACHINE, StateMachine, VersionedS3

NOW = datetime(2026, 1, 5, 12, tzinfo=UTC)
HOUR = timedelta(hours=1)


class Functions:
    """Lambda, which records what is invoked."""

    def __init__(self) -> None:
        self.invoked: list[dict[str, Any]] = []

    def invoke(self, **request: Any) -> None:
        assert (request["FunctionName"], request["InvocationType"]) == ("reconcile", "Event")
        self.invoked.append(json.loads(request["Payload"])["detail"])


class Stack:
    """The buckets and the state machine, and a clock that moves when the sweep waits."""

    def __init__(self, page_size: int = 1000) -> None:
        self.s3, self.machine, self.functions = VersionedS3(page_size), StateMachine(NOW), Functions()
        self.now, self.seconds, self.slowness = NOW, 0.0, 1

    def upload(self, key: str, age: timedelta = 2 * HOUR) -> str:
        return self.s3.put("uploads", key, self.now - age)

    def finish(self, key: str, version: str, folder: str = "results/", suffix: str = ".png.json") -> None:
        source = {"bucket": "uploads", "key": key, "version_id": version}
        record = {"source": source, "execution": {"id": "a", "name": "n", "started_at": "s"}, "options": {}}
        self.s3.put("results", f"{folder}{key}{suffix}", self.now, record)

    def sleep(self, seconds: float) -> None:
        self.seconds += self.slowness * seconds

    def sweep(self, progress: Progress | None = None, result_days: int = 0) -> tuple[Sweep, bool]:
        store = Store(self.s3)
        executions = Executions(f"{MACHINE}:live", "uploads", "reconcile", self.machine, self.functions)
        sweep = Sweep(
            "uploads",
            "work",
            store,
            Outcomes(store, "results"),
            executions,
            self.now,
            result_days,
            clock=lambda: self.seconds,
            sleep=self.sleep,
        )
        return sweep, sweep.run(progress or resume(store, "work", self.now - HOUR))

    @property
    def progress(self) -> Progress:
        """The pass that the next run works on."""
        return resume(Store(self.s3), "work", self.now - HOUR)

    @property
    def started(self) -> list[str]:
        return [json.loads(one["input"])["source"]["key"] for one in self.machine.started]


@pytest.fixture
def stack() -> Stack:
    return Stack()


def test_an_upload_without_outcome_is_started_once_with_its_version(stack: Stack) -> None:
    version = stack.upload("lost.png")
    for name, suffix in (("a.png", ".png.json"), ("b.png", ".webp.json")):
        stack.finish(name, stack.upload(name), suffix=suffix)
    stack.finish("c.png", stack.upload("c.png"), folder="failed/", suffix=".json")
    sweep, complete = stack.sweep()
    assert complete and dict(sweep.findings) == {"done": 3, "started": 1}
    [execution] = stack.machine.started
    source = {"bucket": "uploads", "key": "lost.png", "version_id": version}
    assert json.loads(execution["input"]) == {"source": source}
    assert execution["name"].startswith("sweep-") and len(execution["name"]) <= 80
    sweep, _ = stack.sweep()
    assert dict(sweep.findings) == {"done": 3, "open": 1} and len(stack.machine.started) == 1


def test_a_lost_upload_is_logged_with_its_execution(stack: Stack, caplog: pytest.LogCaptureFixture) -> None:
    stack.upload("lost.png")
    stack.sweep()
    [line] = [vars(record) for record in caplog.records if record.message == "lost upload"]
    assert (line["key"], line["execution"]) == ("lost.png", stack.machine.started[0]["name"])


def test_a_pass_looks_at_uploads_between_the_last_one_and_an_hour_ago(stack: Stack) -> None:
    for key, age in (("old", 26 * HOUR), ("in", 24 * HOUR), ("young", HOUR / 2)):
        stack.upload(key, age)
    stack.sweep()
    assert stack.started == ["in"]
    stack.finish("in", "v0001")
    stack.sweep()
    assert stack.progress.since == NOW - HOUR
    stack.now += HOUR
    stack.sweep()
    assert stack.started == ["in", "young"]


def test_the_next_pass_looks_again_at_uploads_that_were_open(stack: Stack) -> None:
    stack.upload("b", 5 * HOUR)
    stack.upload("a", 3 * HOUR)
    stack.finish("c", stack.upload("c", 9 * HOUR))
    stack.sweep()
    assert stack.progress.since == NOW - 5 * HOUR
    stack.finish("b", "v0000")
    stack.sweep()
    assert stack.progress.since == NOW - 3 * HOUR


def test_prefixes_that_start_no_execution_are_skipped_without_listing_them() -> None:
    stack = Stack(page_size=2)
    for number in range(20):
        stack.upload(f"api/{number:02}.png")
    for key in ("api.png", "backgrounds/a.png", "bulk/a.png", "folder/", "folder_$folder$", "b.png", "zoo/api/a.png"):
        stack.upload(key)
    _, complete = stack.sweep()
    assert complete and stack.started == ["api.png", "b.png", "zoo/api/a.png"]
    assert stack.s3.listed["uploads"] < 10  # 14 pages in all


def test_only_the_newest_version_counts_and_only_its_own_result(stack: Stack) -> None:
    stack.finish("replaced.png", stack.upload("replaced.png", 3 * HOUR))
    stack.upload("twice.png", 3 * HOUR)
    newest = [stack.upload("replaced.png"), stack.upload("twice.png")]
    stack.upload("deleted.png")
    stack.s3.delete("uploads", "deleted.png", NOW - HOUR)
    stack.sweep()
    assert [json.loads(one["input"])["source"]["version_id"] for one in stack.machine.started] == newest


@pytest.mark.parametrize(("folder", "suffix"), [("results/", ".png.json"), ("failed/", ".json")])
def test_an_upload_whose_outcome_was_deleted_is_not_processed_again(stack: Stack, folder: str, suffix: str) -> None:
    stack.finish("a.png", stack.upload("a.png"), folder, suffix)
    stack.s3.delete("results", f"{folder}a.png{suffix}", NOW - HOUR)
    stack.upload("b.png")
    stack.s3.delete("results", f"{folder}b.png{suffix}", NOW - 3 * HOUR)  # of an earlier upload
    stack.upload("b.png.png")
    sweep, _ = stack.sweep()
    assert stack.started == ["b.png", "b.png.png"] and sweep.findings["done"] == 1


def test_uploads_whose_outcome_expired_are_not_processed_again(stack: Stack) -> None:
    days = timedelta(days=1)
    for key, age in (("marked.png", 30 * days), ("forgotten.png", 38 * days), ("lost.png", 30 * days)):
        stack.upload(key, age)
    stack.finish("marked.png", "v0000")
    stack.s3.delete("results", "results/marked.png.png.json", NOW - 22 * days)
    sweep, _ = stack.sweep(Progress(since=NOW - 90 * days, until=NOW), result_days=7)
    assert stack.started == ["lost.png"]
    assert dict(sweep.findings) == {"done": 1, "started": 1}


def test_expired_uploads_are_not_processed_again(stack: Stack) -> None:
    stack.upload("expired.png", timedelta(days=8))
    stack.s3.delete("uploads", "expired.png", NOW - HOUR)
    stack.sweep(Progress(since=NOW - timedelta(days=90), until=NOW))
    assert stack.started == []


def test_an_upload_with_a_running_execution_is_left_open(stack: Stack) -> None:
    version = stack.upload("waits.png")
    detail = {"bucket": {"name": "uploads"}, "object": {"key": "waits.png", "version-id": version}}
    stack.machine.add("of-the-event", {"detail": detail})
    stack.machine.add("foreign", {"source": {"bucket": "uploads", "key": "lost.png", "version_id": "other"}})
    stack.upload("lost.png")
    sweep, _ = stack.sweep()
    assert stack.started == ["lost.png"] and sweep.findings["open"] == 1


def test_with_too_many_running_executions_only_old_uploads_are_started(stack: Stack) -> None:
    stack.upload("waits.png", 14 * HOUR)
    stack.upload("lost.png", 16 * HOUR)
    for number in range(MAX_RUNNING + 1):
        stack.machine.add(str(number), {})
    sweep, _ = stack.sweep()
    assert stack.started == ["lost.png"] and sweep.findings["open"] == 1
    assert stack.progress.since == NOW - 16 * HOUR


@pytest.mark.parametrize(
    ("status", "ended", "finding"),
    [
        ("ABORTED", 2 * HOUR, "reconciled"),
        ("FAILED", 2 * HOUR, "reconciled"),
        ("FAILED", HOUR / 2, "open"),
        ("SUCCEEDED", 2 * HOUR, "done"),  # its result was deleted
    ],
)
def test_an_execution_that_ended_without_outcome_is_reported(
    stack: Stack, status: str, ended: timedelta, finding: str
) -> None:
    stack.upload("a.png", 4 * HOUR)
    stack.sweep()
    [execution] = stack.machine.started
    execution |= {"status": status, "stopDate": NOW - ended}
    sweep, _ = stack.sweep()
    assert dict(sweep.findings) == {finding: 1} and len(stack.machine.started) == 1
    assert [one["executionArn"] for one in stack.functions.invoked] == (
        [execution["executionArn"]] if finding == "reconciled" else []
    )
    sweep, _ = stack.sweep()
    assert sweep.findings["reconciled"] == 0


def test_a_run_stops_in_time_and_the_next_one_continues() -> None:
    stack = Stack(page_size=7)
    stack.slowness = 100  # ten seconds for each upload
    keys = [f"{number:02}.png" for number in range(80)]
    for key in keys:
        stack.upload(key)
    _, complete = stack.sweep(Progress(since=NOW - 3 * HOUR, until=NOW - HOUR))
    assert not complete and BUDGET_S <= stack.seconds < BUDGET_S + 20
    assert stack.started == keys[:72] and stack.progress.after == keys[71]
    stack.seconds = 0
    _, complete = stack.sweep()
    assert complete and stack.started == keys
    assert stack.progress.since == NOW - 2 * HOUR


# Keys before, in and after the prefixes that are skipped
KEYS = st.builds(
    str.__add__,
    st.sampled_from(["", "api", "api/", "api/\U0010ffff", "api0", "backgrounds/", "bulk/", "bulk/\U0010ffff", "zoo/"]),
    st.text(st.sampled_from("a/~\U0010ffff"), max_size=2),
).filter(bool)


@example({"api/a"}, 1)
@example({"a", "bulk/a"}, 1)
@example({"a", "api/\U0010ffff", "api/\U0010ffffa", "backgrounds/a", "b"}, 2)
@settings(max_examples=50)
@given(st.sets(KEYS, max_size=12), st.integers(1, 4))
def test_each_upload_that_starts_an_execution_is_looked_at_once(keys: set[str], page_size: int) -> None:
    stack = Stack(page_size)
    for key in keys:
        stack.upload(key)
    stack.s3.max_pages = 10 * len(keys) + 10
    _, complete = stack.sweep()
    assert complete and stack.started == sorted(key for key in keys if starts_execution(key))


def test_a_pass_of_an_operator_includes_the_pass_in_progress() -> None:
    stack = Stack(page_size=7)
    stack.slowness = 100  # ten seconds for each upload
    keys = [f"{number:02}.png" for number in range(80)]
    for key in keys:
        stack.upload(key, 20 * HOUR)
    _, complete = stack.sweep(Progress(since=NOW - 21 * HOUR, until=NOW - HOUR))
    assert not complete
    stack.seconds = stack.slowness = 0
    progress = begin(Store(stack.s3), "work", NOW - 2 * HOUR, NOW)
    assert (progress.since, progress.until, progress.after) == (NOW - 21 * HOUR, NOW, "")
    _, complete = stack.sweep(progress)
    assert complete and stack.started == keys


def test_a_pass_of_an_operator_begins_at_the_requested_time_and_leaves_no_gap(stack: Stack) -> None:
    stack.upload("old.png", 50 * HOUR)
    stack.sweep()
    store = Store(stack.s3)
    progress = begin(store, "work", NOW - 60 * HOUR, NOW - 2 * HOUR)
    assert (progress.since, progress.until) == (NOW - 60 * HOUR, NOW - HOUR)  # the pass before ended an hour ago
    stack.sweep(progress)
    assert stack.started == ["old.png"]
    with pytest.raises(InvalidRequestError) as refused:
        begin(store, "work", NOW, NOW)
    assert refused.value.field == "since" and NOW.isoformat() in refused.value.remedy


def lost_uploads(printed: str) -> list[float]:
    """Return the values of the metric in what was printed."""
    return [json.loads(line)["LostUploads"][0] for line in printed.splitlines() if "LostUploads" in line]


def test_a_run_that_crashes_has_counted_what_it_started(stack: Stack, capsys: pytest.CaptureFixture[str]) -> None:
    for key in ("a.png", "b.png"):
        stack.upload(key)
    stack.machine.most_starts = 1
    with pytest.raises(ClientError):
        stack.sweep()
    assert lost_uploads(capsys.readouterr().out) == [1]
    stack.machine.most_starts = 2
    stack.sweep()
    assert lost_uploads(capsys.readouterr().out) == [1, 0]
    stack.sweep()
    assert lost_uploads(capsys.readouterr().out) == [0]


def test_multipart_uploads_are_looked_at_again_once_they_must_be_complete(stack: Stack) -> None:
    stack.s3.multipart |= {"quick.png", "slow.png"}
    stack.upload("quick.png")
    stack.sweep()
    assert stack.started == ["quick.png"]
    stack.finish("quick.png", "v0000")
    stack.now += 47 * HOUR
    for key in ("slow.png", "in-one-part.png"):  # S3 dates them by their creation, before the last pass
        stack.upload(key, 47.5 * HOUR)
    save(Store(stack.s3), "work", Progress(since=NOW, until=stack.now - HOUR), complete=True)
    for _ in range(4):
        stack.sweep()
        stack.now += HOUR
    assert stack.started == ["quick.png", "slow.png"]


def test_an_execution_that_another_run_started_is_left_open(stack: Stack) -> None:
    stack.upload("a.png")
    stack.sweep()
    [execution] = stack.machine.started
    execution |= {"status": "FAILED", "stopDate": NOW}
    stack.machine.is_hidden = True  # it was started after this run had looked for it
    save(Store(stack.s3), "work", Progress(since=NOW - 3 * HOUR, until=NOW - HOUR), complete=False)
    sweep, complete = stack.sweep()
    assert complete and dict(sweep.findings) == {"open": 1}
    assert stack.progress.since == NOW - 2 * HOUR


@pytest.mark.parametrize("stored", [b"", b"{}", b'{"complete": true, "progress": {"since": "2026-01-05T00:00:00"}}'])
def test_after_a_corrupt_progress_the_last_day_is_looked_at(
    stack: Stack, stored: bytes, caplog: pytest.LogCaptureFixture
) -> None:
    stack.s3.put("work", KEY, NOW, stored)
    stack.upload("a.png", 24 * HOUR)
    _, complete = stack.sweep()
    assert complete and stack.started == ["a.png"] and stack.progress.until == NOW - HOUR
    [line] = [vars(record) for record in caplog.records if record.message == "invalid progress"]
    assert line["object"] == f"s3://work/{KEY}"
