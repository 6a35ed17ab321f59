"""The summary of a run, and the images of children that left no output."""

import csv
import io
import json
from typing import Any

import pytest

from core.image.encode import Encoded
from functions.bulk.objects import BulkObjects
from functions.bulk.prepare import MOST_TOLERATED
from functions.bulk.summary import Plan, Summarizer, SummaryConfig
from functions.contracts.bulk import BulkSummary, ItemOutcome, row_of_json
from functions.contracts.job import Execution, RefinedJob
from functions.encode.work import describe
from functions.runtime.store import Store
from tests.conftest import ROOT
from tests.fakes.s3_in_memory import Objects

RUN = Execution(id="arn:run", name="shoes-1", started_at="2026-11-30T10:00:00.000Z")
OTHER = {"id": "arn:other", "name": "other", "started_at": "2026-11-01T10:00:00.000Z"}
JOB = RefinedJob.model_validate_json((ROOT / "events/encode.json").read_text())
ENCODED = Encoded(data=b"png", format="png", content_type="image/png", width=6, height=4, foreground=None)
SIDECAR = describe(JOB, ENCODED, "results", "v1", 0.1).model_dump(mode="json")


class Topic:
    def __init__(self) -> None:
        self.published: list[dict[str, Any]] = []

    def publish(self, **message: Any) -> None:
        self.published.append(message)


class Stack:
    def __init__(self) -> None:
        self.objects, self.topic = Objects(), Topic()
        config = SummaryConfig(
            uploads_bucket="uploads",
            results_bucket="results",
            work_bucket="work",
            topic_arn="arn:topic",
            aws_region="eu-west-1",
            bulk_memory_mb=3008,
        )
        store = Store(self.objects)
        self.summarizer = Summarizer(config, store, BulkObjects(self.objects), topic=self.topic)
        self._children: dict[str, list[dict[str, Any]]] = {"SUCCEEDED": [], "FAILED": [], "PENDING": []}

    def child(self, status: str, keys: list[str], **facts: Any) -> None:
        given = {"Items": [{"Key": key} for key in keys], "BatchInput": {}}
        name = status if status in self._children else "FAILED"
        self._children[name].append({"Status": status, "Input": json.dumps(given), **facts})

    def done(self, *outcomes: ItemOutcome) -> None:
        output = {"items": [one.model_dump() for one in outcomes], "succeeded": 1, "failed": 0}
        self.child("SUCCEEDED", [one.key for one in outcomes], Output=json.dumps(output))

    def sidecar(self, key: str, execution: dict[str, Any], **options: Any) -> None:
        version = self.objects.add("uploads", key, b"image")
        document = {
            **SIDECAR,
            "execution": execution,
            "source": {**SIDECAR["source"], "bucket": "uploads", "key": key, "version_id": version},
            "options": {**SIDECAR["options"], **options},
        }
        self.objects.add("results", f"results/{key}.png.json", json.dumps(document).encode())

    def summarize(self, failed: dict[str, str] | None = None, **values: Any) -> BulkSummary:
        files = {}
        for status, children in self._children.items():
            key = f"bulk/shoes-1/map/uuid/{status}_0.jsonl"
            self.objects.add("work", key, "\n".join(map(json.dumps, children)).encode())
            files[status] = [{"Key": key}]
        manifest = json.dumps({"ResultFiles": files}).encode()
        self.objects.add("work", "bulk/shoes-1/map/uuid/manifest.json", manifest)
        plan = {
            "run": RUN,
            "child": "express",
            "bucket": "uploads",
            "prefix": "bulk/",
            "reader": "listing",
            "options": {},
            "batch": 10,
            "tolerated_failure_percentage": 100,
            "tolerated_failure_count": MOST_TOLERATED,
            "results_prefix": "bulk/shoes-1/map",
        }
        return self.summarizer.summarize(Plan.model_validate({**plan, **values}), failed)

    def rows(self) -> dict[str, dict[str, str]]:
        text = self.objects.data("results", "bulk/shoes-1/items.csv").decode()
        return {row["key"]: row for row in csv.DictReader(io.StringIO(text))}

    def failed(self) -> list[str]:
        lines = self.objects.data("results", "bulk/shoes-1/failed.jsonl").decode().splitlines()
        return [row_of_json(line, number).key for number, line in enumerate(lines, 1)]


@pytest.fixture
def stack() -> Stack:
    return Stack()


def item(key: str, **facts: Any) -> ItemOutcome:
    return ItemOutcome.model_validate({"bucket": "uploads", "key": key, "status": "done", **facts})


def test_only_the_newest_map_run_of_a_run_counts(stack: Stack) -> None:
    stack.objects.add("work", "bulk/shoes-1/map/z/FAILED_0.jsonl", b"not read")
    former = {"ResultFiles": {"FAILED": [{"Key": "bulk/shoes-1/map/z/FAILED_0.jsonl"}]}}
    stack.objects.add("work", "bulk/shoes-1/map/z/manifest.json", json.dumps(former).encode())
    stack.done(item("a.jpg"))
    assert stack.summarize().items == 1


def test_no_cell_of_items_csv_is_a_formula(stack: Stack) -> None:
    stack.done(item("=1+1.jpg", score=0.5), item("-a.jpg", status="failed", error="E", message="+1", remedy="Do."))
    stack.summarize()
    rows = stack.rows()
    assert set(rows) == {"'=1+1.jpg", "'-a.jpg"} and rows["'-a.jpg"]["message"] == "'+1"
    assert stack.failed() == ["-a.jpg"]


def test_a_summary_counts_and_publishes(stack: Stack) -> None:
    stack.done(item("a", seconds=2, review=True), item("b", status="cached", review=False))
    stack.done(item('c "d", e', status="failed", error="CorruptImageError", message="No, not\nat all", remedy="Do."))
    stack.done(
        item("f", status="failed", error="CorruptImageError"), item("g", status="not_done", options={"quality": 3})
    )
    summary = stack.summarize()
    assert (summary.items, summary.done, summary.cached, summary.failed, summary.not_done) == (5, 1, 1, 2, 1)
    assert (summary.review, summary.errors, summary.item_seconds) == (1, {"CorruptImageError": 2}, 2.0)
    assert summary.status == "SUCCEEDED" and summary.error is None
    assert stack.rows()['c "d", e']["message"] == "No, not\nat all"
    assert stack.failed() == ['c "d", e', "f", "g"]
    [message] = stack.topic.published
    assert message["Subject"] == "Bulk run succeeded: 2 of 5 done, shoes-1"
    assert BulkSummary.model_validate_json(message["Message"]) == summary
    assert stack.objects.json("results", "bulk/shoes-1/summary.json") == summary.model_dump(mode="json")


def test_a_crashed_child_s_images_are_looked_up(stack: Stack) -> None:
    stack.sidecar("own.png", RUN.model_dump())
    stack.sidecar("earlier.png", OTHER)
    stack.sidecar("other-options.png", OTHER, quality=7)
    stack.objects.add("uploads", "none.png", b"image")
    cause = json.dumps({"errorType": "Runtime.ExitError", "errorMessage": "exit status 137"})
    keys = ["own.png", "earlier.png", "other-options.png", "none.png", "folder/"]
    stack.child("FAILED", keys, Error="Runtime.ExitError", Cause=cause)
    summary = stack.summarize(options={"quality": SIDECAR["options"]["quality"]})
    assert {key: row["status"] for key, row in stack.rows().items()} == {
        "own.png": "done",
        "earlier.png": "cached",
        "other-options.png": "failed",
        "none.png": "failed",
    }
    assert summary.errors == {"Runtime.ExitError": 2}
    report = stack.objects.json("results", "failed/none.png.json")
    assert (report["stage"], report["error"], report["execution"]) == ("Bulk", "Runtime.ExitError", RUN.model_dump())


def test_an_earlier_result_does_not_count_for_a_run_that_overwrites(stack: Stack) -> None:
    stack.sidecar("own.png", RUN.model_dump())
    stack.sidecar("earlier.png", OTHER)
    stack.child("FAILED", ["own.png", "earlier.png"], Error="Runtime.ExitError", Cause="{}")
    stack.summarize(overwrite=True)
    assert {key: row["status"] for key, row in stack.rows().items()} == {"own.png": "done", "earlier.png": "failed"}


def test_the_report_of_a_batch_in_which_all_images_failed_is_read(stack: Stack) -> None:
    facts = {
        "error": "EmptyImageError",
        "message": "The file is empty",
        "field": "image",
        "value": 0,
        "remedy": "Redo.",
    }
    for key, execution in (("a.png", RUN.model_dump()), ("b.png", OTHER)):
        source = {"bucket": "uploads", "key": key, "version_id": None}
        report = {"status": "FAILED", "stage": "Validate", **facts, "options": {}, "execution": execution}
        stack.objects.add("results", f"failed/{key}.json", json.dumps({**report, "source": source}).encode())
    stack.child("FAILED", ["a.png", "b.png"], Error="BatchFailedError", Cause="No image has a result.")
    stack.summarize()
    errors = {key: row["error"] for key, row in stack.rows().items()}
    assert errors == {"a.png": "EmptyImageError", "b.png": "BatchFailedError"}, "the second report is an earlier run's"


@pytest.mark.parametrize("status", ["PENDING", "ABORTED"])
def test_images_that_were_not_attempted_are_not_done(stack: Stack, status: str) -> None:
    stack.done(item("a.png"))
    stack.child(status, ["b.png", "c.png"])
    failed = {"Error": "States.ExceedToleratedFailureThreshold", "Cause": "too many"}
    summary = stack.summarize(failed, tolerated_failure_percentage=50)
    assert (summary.done, summary.not_done, summary.status) == (1, 2, "FAILED")
    assert summary.error and summary.error.error == "ToleranceExceededError"
    assert stack.failed() == ["b.png", "c.png"]


def test_images_of_a_child_that_never_started_are_not_looked_up(stack: Stack) -> None:
    stack.done(item("a.png"))
    stack.sidecar("b.png", {**RUN.model_dump(), "id": "earlier"})
    stack.child("PENDING", ["b.png"])
    summary = stack.summarize()
    assert (summary.cached, summary.not_done) == (0, 1)


def test_another_failure_of_the_map_run_fails_the_run(stack: Stack) -> None:
    summary = stack.summarize({"Error": "States.ItemReaderFailed", "Cause": "Access Denied"})
    assert summary.error and summary.error.error == "States.ItemReaderFailed"
    assert "Access Denied" in summary.error.message


def test_a_bucket_that_cannot_be_listed_is_named_with_a_remedy(stack: Stack) -> None:
    denied = {"Error": "States.ItemReaderFailed", "Cause": "AccessDenied: ListObjectsV2"}
    error = stack.summarize(denied).error
    assert error and error.message == "The images of the run cannot be listed: AccessDenied: ListObjectsV2"
    assert "bucket policy" in error.remedy


def test_the_sample_event_is_summarized(stack: Stack) -> None:
    event = json.loads((ROOT / "events/bulk_summary.json").read_text())
    summary = stack.summarizer.summarize(Plan.model_validate(event["plan"]), event["failed"])
    assert summary.run == "photos-1" and summary.error and summary.error.error == "States.Timeout"


def test_a_run_without_images_fails(stack: Stack) -> None:
    summary = stack.summarize()
    assert summary.error and summary.error.error == "NoItemsError" and "s3://uploads/bulk/" in summary.error.message


def test_a_subject_is_printable_and_short(stack: Stack) -> None:
    stack.done(item("a.png"))
    stack.summarize(run={**RUN.model_dump(), "name": "é" + "x" * 90})
    [message] = stack.topic.published
    assert len(message["Subject"]) <= 100 and message["Subject"].isascii()


JOB_NAME = "pbr-bulk-1f-0"
STATE = {"job_name": JOB_NAME, "resources": {"InstanceType": "ml.g4dn.xlarge"}, "found": {"InstanceCount": 2}}
STARTED = {"TransformJobName": JOB_NAME, "TransformStartTime": "2026-11-30T10:05:00+00:00"}


@pytest.mark.parametrize("ended", ["2026-11-30T11:05:00.500000+00:00", 1796036700500, 1796036700.5])
def test_the_time_of_a_transform_job_is_billed_for_each_instance(stack: Stack, ended: Any) -> None:
    stack.done(item("a.jpg", seconds=1.0), item("b.jpg", degraded=True))
    job = {**STARTED, "TransformJobStatus": "Completed", "FailureReason": "", "TransformEndTime": ended}
    summary = stack.summarize(engine="batch-transform", transform={**STATE, "job": job})
    assert summary.transform is not None
    assert (summary.transform.job, summary.transform.status, summary.transform.reason) == (JOB_NAME, "Completed", None)
    assert summary.transform.seconds == 3600.5
    assert summary.cost.transform_usd == pytest.approx(2 * 0.821 * 3600.5 / 3600, abs=1e-4)
    assert summary.cost.total_usd > summary.cost.transform_usd
    assert (summary.degraded, summary.engine) == (1, "batch-transform")


@pytest.mark.parametrize(
    ("failed", "status", "reason"),
    [
        (
            {
                "Error": "States.TaskFailed",
                "Cause": json.dumps({**STARTED, "TransformJobStatus": "Failed", "FailureReason": "CapacityError"}),
            },
            "Failed",
            "CapacityError",
        ),
        ({"Error": "States.TaskFailed", "Cause": "no JSON"}, "Failed", None),
        ({"Error": "States.Timeout"}, "TimedOut", None),
    ],
)
def test_a_failed_transform_job_is_reported(
    stack: Stack, failed: dict[str, str], status: str, reason: str | None
) -> None:
    stack.done(item("a.jpg", degraded=True))
    summary = stack.summarize(engine="batch-transform", transform={**STATE, "failed": failed})
    assert summary.status == "SUCCEEDED" and summary.transform is not None
    assert (summary.transform.status, summary.transform.reason, summary.transform.seconds) == (status, reason, 0.0)


def test_a_run_whose_masks_exist_has_no_transform_job(stack: Stack) -> None:
    stack.done(item("a.jpg", status="cached"))
    state = {**STATE, "found": {"InstanceCount": 0}}
    assert stack.summarize(engine="batch-transform", transform=state).transform is None
