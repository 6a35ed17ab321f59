"""Bulk runs on the deployed stack: children, batches, tolerance, result files and summaries."""

import csv
import io
import json
import time
import uuid
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from typing import Any

import pytest
from PIL import Image

from functions.contracts.bulk import BulkSummary
from functions.contracts.job import Execution
from functions.contracts.outcome import ObjectVersion
from functions.runtime.outcomes import execution_metadata
from tests.conftest import disc, file_of
from tests.integration.deployment import ENDED, Deployed, until
from tests.integration.state_machine.test_reconcile import execution, failed

DRAFT = {"precision_level": "draft", "model": "classical"}
ON_ENDPOINT = {"precision_level": "draft", "segmentation_host": "sagemaker"}
THEIRS = ("shop/Zoë #1 100%.png", "shop/2.png")
"""Keys of images in another bucket."""


class Run:
    """A bulk run that has ended: its status, its summary, and the rows of its table."""

    def __init__(self, stack: Deployed, arn: str, *, timeout_s: float = 100) -> None:
        deadline = time.monotonic() + timeout_s
        while (described := stack.sfn.describe_execution(executionArn=arn))["status"] not in ENDED:
            assert time.monotonic() < deadline, "the run has not ended"
            time.sleep(0.05)
        self.arn, self.name, self.described = arn, arn.rpartition(":")[2], described
        self.status, self.error, self.cause = (described.get(name) for name in ("status", "error", "cause"))
        self._stack = stack

    @property
    def summary(self) -> BulkSummary:
        return BulkSummary.model_validate_json(self._stack.result(f"bulk/{self.name}/summary.json"))

    @property
    def rows(self) -> dict[str, dict[str, str]]:
        text = self._stack.result(f"bulk/{self.name}/items.csv").decode()
        return {row["key"]: row for row in csv.DictReader(io.StringIO(text))}

    @property
    def statuses(self) -> dict[str, str]:
        return {key: row["status"] for key, row in self.rows.items()}

    @property
    def failed(self) -> list[dict[str, Any]]:
        return [json.loads(line) for line in self._stack.result(f"bulk/{self.name}/failed.jsonl").splitlines()]


def run(stack: Deployed, source: dict[str, Any], *, timeout_s: float = 100, **settings: Any) -> Run:
    started = stack.sfn.start_execution(
        stateMachineArn=stack.outputs["BulkMachineArn"],
        name=uuid.uuid4().hex,
        input=json.dumps({"source": source, "options": DRAFT, **settings}),
    )
    return Run(stack, started["executionArn"], timeout_s=timeout_s)


def listed(stack: Deployed, prefix: str) -> dict[str, Any]:
    return {"bucket": stack.outputs["UploadsBucket"], "prefix": prefix}


def manifest(stack: Deployed, name: str, text: str) -> dict[str, Any]:
    key = f"bulk/{uuid.uuid4().hex}/{name}"
    stack.upload(key, text.encode())
    return {"manifest": {"bucket": stack.outputs["UploadsBucket"], "key": key}}


def json_lines(*rows: dict[str, Any]) -> str:
    return "".join(json.dumps(row) + "\n" for row in rows)


def upload(stack: Deployed, prefix: str, seeds: Sequence[int]) -> list[str]:
    keys = [f"{prefix}{seed}.png" for seed in seeds]
    for key, seed in zip(keys, seeds, strict=True):
        stack.upload(key, disc(width=64, height=48, seed=1000 + seed))
    return keys


@contextmanager
def no_executions(stack: Deployed) -> Iterator[None]:
    """Check that no execution of the main state machine starts."""
    machine = {"stateMachineArn": stack.outputs["StateMachineArn"]}
    before = len(stack.sfn.list_executions(**machine)["executions"])
    yield
    assert len(stack.sfn.list_executions(**machine)["executions"]) == before


def test_thirty_pictures_below_a_prefix_get_results_and_a_second_run_does_nothing(stack: Deployed) -> None:
    with no_executions(stack), stack.listener() as messages:
        keys = upload(stack, "bulk/thirty/", range(30))
        stack.upload("bulk/thirty/", b"")
        first = run(stack, listed(stack, "bulk/thirty/"), batch=8, max_concurrency=2)
        assert first.status == "SUCCEEDED", first.cause
        summary = first.summary
        assert json.loads(first.described["output"]) == summary.model_dump(mode="json")
        assert (summary.items, summary.done, summary.cached, summary.failed, summary.not_done) == (30, 30, 0, 0, 0)
        assert summary.files.failed is None and summary.error is None and summary.cost.total_usd > 0
        assert first.statuses == dict.fromkeys(keys, "done")
        for key, row in first.rows.items():
            assert row["result_key"] == f"results/{key}.png" and 0 <= float(row["score"]) <= 1
            sidecar = json.loads(stack.result(f"results/{key}.png.json"))
            assert sidecar["execution"]["id"] == first.arn and sidecar["options"]["precision_level"] == "draft"
            assert sidecar["timings_s"].keys() == {"validate", "segment", "refine", "encode"}
        [message] = messages()
        assert json.loads(message["Message"]) == summary.model_dump(mode="json")

        again = run(stack, listed(stack, "bulk/thirty/"), batch=31)
    assert (again.summary.done, again.summary.cached) == (0, 30)
    assert again.summary.item_seconds == 0

    [map_run] = stack.sfn.list_map_runs(executionArn=first.arn)["mapRuns"]
    counts = stack.sfn.describe_map_run(mapRunArn=map_run["mapRunArn"])
    assert counts["status"] == "SUCCEEDED"
    assert counts["itemCounts"]["succeeded"] == 31 and counts["executionCounts"]["succeeded"] == 4


def test_rows_of_a_manifest_have_options_of_their_own_and_failures_make_the_next_manifest(stack: Deployed) -> None:
    good, bad = upload(stack, "bulk/rows/", [100]), "bulk/rows/bad.png"
    version = stack.upload(bad, b"text")
    rows = [
        {"key": good[0], "options": {"format": "webp"}},
        {"key": bad, "version_id": version},
        {"key": "bulk/no.png"},
    ]
    first = run(stack, manifest(stack, "list.jsonl", json_lines(*rows)), batch=2)
    assert first.status == "SUCCEEDED", first.cause
    assert first.statuses == {good[0]: "done", bad: "failed", "bulk/no.png": "failed"}
    assert first.rows[good[0]]["result_key"] == f"results/{good[0]}.webp"
    assert first.summary.errors == {"UnsupportedFormatError": 1, "SourceNotFoundError": 1}
    report = json.loads(stack.result(first.rows[bad]["report_key"]))
    assert report["execution"]["id"] == first.arn and report["source"]["version_id"] == version
    assert {row["key"]: row["options"] for row in first.failed} == {bad: DRAFT, "bulk/no.png": DRAFT}

    upload(stack, "bulk/", [])
    stack.upload("bulk/no.png", disc(width=64, height=48, seed=77))
    failures = {"manifest": {"bucket": stack.outputs["ResultsBucket"], "key": first.summary.files.failed}}
    second = run(stack, failures, options={})
    assert second.statuses == {bad: "failed", "bulk/no.png": "done"}


def test_a_csv_manifest_is_read(stack: Deployed) -> None:
    [key] = upload(stack, "bulk/csv, with comma/", [101])
    text = f'\ufeffkey,options\n"{key}","{{""output"": ""mask""}}"\n'
    ended = run(stack, manifest(stack, "list.CSV", text))
    assert ended.status == "SUCCEEDED", ended.cause
    assert json.loads(stack.result(f"results/{key}.png.json"))["options"]["output"] == "mask"


@pytest.mark.parametrize(
    ("name", "text", "error", "field"),
    [
        ("list.jsonl", json_lines({"key": "a"}) + "{", "InvalidRequestError", "manifest line 2"),
        ("list.csv", "key,size\na,3\n", "InvalidRequestError", "manifest line 2"),
        ("list.csv", "name\na\n", "InvalidRequestError", "manifest line 1"),
        ("list.txt", "a", "InvalidRequestError", "source.manifest.key"),
        ("list.jsonl", "", "InvalidRequestError", "source"),
        ("list.jsonl", json_lines({"key": "a", "options": {"crops": 1}}), "InvalidOptionsError", "options.crops"),
        ("list.jsonl", json_lines({"key": "a", "bucket": "another"}), "InvalidRequestError", "bucket"),
    ],
    ids=["json", "column", "header", "extension", "empty", "option", "bucket"],
)
@pytest.mark.slow
def test_an_invalid_manifest_fails_before_any_image(
    stack: Deployed, name: str, text: str, error: str, field: str
) -> None:
    ended = run(stack, manifest(stack, name, text))
    assert (ended.status, ended.error) == ("FAILED", error)
    assert json.loads(json.loads(str(ended.cause))["errorMessage"])["field"] == field


def test_a_run_stops_when_too_many_images_fail_and_its_summary_says_what_is_missing(stack: Deployed) -> None:
    for number in range(6):
        stack.upload(f"bulk/broken/{number}.png", b"text")
    ended = run(stack, listed(stack, "bulk/broken/"), batch=1, max_concurrency=1, tolerated_failure_percentage=20)
    assert (ended.status, ended.error) == ("FAILED", "ToleranceExceededError")
    summary = ended.summary
    assert (summary.status, summary.items, summary.failed, summary.not_done) == ("FAILED", 6, 2, 4)
    assert summary.error and "6 of 6 images" in summary.error.message and summary.files.summary in str(ended.cause)
    assert len(ended.failed) == 6
    assert ended.rows["bulk/broken/0.png"]["report_key"] == "failed/bulk/broken/0.png.json"


@pytest.mark.slow
def test_failures_within_the_tolerance_are_in_the_summary_of_a_run_that_succeeds(stack: Deployed) -> None:
    upload(stack, "bulk/some/", range(200, 203))
    stack.upload("bulk/some/bad.png", b"text")
    ended = run(stack, listed(stack, "bulk/some/"), tolerated_failure_count=1)
    assert ended.status == "SUCCEEDED" and ended.summary.failed == 1
    ended = run(stack, listed(stack, "bulk/some/"), tolerated_failure_count=0)
    assert (ended.status, ended.error) == ("FAILED", "ToleranceExceededError")
    assert (ended.summary.cached, ended.summary.failed) == (3, 1)


@pytest.mark.slow
def test_the_images_of_a_batch_that_crashes_the_function_get_reports(stack: Deployed) -> None:
    keys = upload(stack, "bulk/crash/", range(300, 305))
    poison = keys[2]
    rows = [{"key": key} for key in keys]
    stack.crashes.of.add(("Bulk", poison))
    try:
        ended = run(stack, manifest(stack, "list.jsonl", json_lines(*rows)), batch=3)
    finally:
        stack.crashes.of.discard(("Bulk", poison))
    assert ended.statuses == {**dict.fromkeys(keys[:3], "failed"), **dict.fromkeys(keys[3:], "done")}
    assert ended.rows[poison]["error"] == "Runtime.ExitError"
    report = json.loads(stack.result(ended.rows[poison]["report_key"]))
    assert report["stage"] == "Bulk" and report["execution"]["id"] == ended.arn


@pytest.mark.slow
def test_a_result_that_a_failed_image_left_is_deleted(stack: Deployed) -> None:
    key, name, machine = "bulk/blank/1.png", uuid.uuid4().hex, stack.outputs["BulkMachineArn"]
    stack.upload(key, file_of(Image.new("RGB", (80, 80), "white"), "PNG"))
    maker = Execution(id=f"{machine.replace(':stateMachine:', ':execution:')}:{name}", name=name, started_at="any")
    left = {"Bucket": stack.outputs["ResultsBucket"], "Key": f"results/{key}.png"}
    stack.s3.put_object(**left, Body=b"half", Metadata=execution_metadata(maker))
    given = json.dumps({"source": listed(stack, "bulk/blank/"), "options": DRAFT})
    started = stack.sfn.start_execution(stateMachineArn=machine, name=name, input=given)
    assert Run(stack, started["executionArn"]).rows[key]["error"] == "UnknownForegroundError"
    assert "Versions" not in stack.s3.list_object_versions(Bucket=left["Bucket"], Prefix=left["Key"])


@pytest.fixture(scope="module")
def theirs(stack: Deployed) -> str:
    """Another bucket, without versioning, with two images."""
    stack.s3.create_bucket(Bucket="theirs", CreateBucketConfiguration={"LocationConstraint": "eu-west-1"})
    for seed, key in enumerate(THEIRS):
        stack.s3.put_object(Bucket="theirs", Key=key, Body=disc(width=64, height=48, seed=800 + seed))
    return "theirs"


@pytest.mark.slow
def test_images_in_another_bucket_get_results_of_their_own(stack: Deployed, theirs: str) -> None:
    ended = run(stack, {"bucket": theirs, "prefix": "shop/"}, options=ON_ENDPOINT)
    assert ended.status == "SUCCEEDED" and ended.statuses == dict.fromkeys(THEIRS, "done")
    for key in THEIRS:
        assert ended.rows[key]["result_key"] == f"results/s3/theirs/{key}.png"
        sidecar = json.loads(stack.result(f"results/s3/theirs/{key}.png.json"))
        assert (sidecar["source"]["version_id"], sidecar["model"]["host"]) == (None, "sagemaker")


@pytest.mark.slow
def test_a_batch_from_another_bucket_that_crashes_the_function_keeps_results_and_no_reports(
    stack: Deployed, theirs: str
) -> None:
    key, row = THEIRS[1], {"bucket": theirs, "key": THEIRS[1]}
    assert run(stack, manifest(stack, "list.jsonl", json_lines(row))).status == "SUCCEEDED"
    stale = failed(ObjectVersion(bucket=theirs, key=key, version_id=None), execution("earlier"))
    report = {"Bucket": stack.outputs["ResultsBucket"], "Key": f"failed/s3/theirs/{key}.json"}
    stack.s3.put_object(**report, Body=stale.model_dump_json().encode())
    stack.crashes.of.add(("Bulk", key))
    try:
        ended = run(stack, manifest(stack, "list.jsonl", json_lines({**row, "options": {"output": "mask"}})))
    finally:
        stack.crashes.of.discard(("Bulk", key))
    assert (ended.statuses, ended.rows[key]["error"]) == ({key: "failed"}, "Runtime.ExitError")
    assert stack.result(f"results/s3/theirs/{key}.png")
    assert "Versions" not in stack.s3.list_object_versions(Bucket=report["Bucket"], Prefix=report["Key"])


@pytest.mark.slow
def test_versions_and_missing_objects_of_another_bucket(stack: Deployed, theirs: str) -> None:
    stack.s3.put_bucket_versioning(Bucket=theirs, VersioningConfiguration={"Status": "Enabled"})
    key, missing = "versions/1.png", "versions/2.png"
    image = disc(width=64, height=48, seed=810)
    version = stack.s3.put_object(Bucket=theirs, Key=key, Body=image)["VersionId"]
    rows = {"bucket": theirs, "key": key, "version_id": version}, {"bucket": theirs, "key": missing}
    stack.s3.put_object(Bucket=theirs, Key="list.jsonl", Body=json_lines(*rows).encode())
    ended = run(stack, {"manifest": {"bucket": theirs, "key": "list.jsonl"}}, options=ON_ENDPOINT)
    assert (ended.statuses, ended.rows[missing]["error"]) == ({key: "done", missing: "failed"}, "SourceNotFoundError")
    sidecar = json.loads(stack.result(f"results/s3/theirs/{key}.png.json"))
    assert (sidecar["source"]["version_id"], sidecar["model"]["host"]) == (version, "sagemaker")
    for bucket in (theirs, stack.outputs["ResultsBucket"]):
        absent = run(stack, {"manifest": {"bucket": bucket, "key": "bulk/none.jsonl"}})
        assert (absent.status, absent.error) == ("FAILED", "SourceNotFoundError")


@pytest.mark.slow
def test_a_bucket_that_cannot_be_listed_is_an_error_with_a_remedy(stack: Deployed) -> None:
    ended = run(stack, {"bucket": "absent", "prefix": ""})
    assert (ended.status, ended.error) == ("FAILED", "States.ItemReaderFailed")
    assert "cannot be listed: NoSuchBucket" in str(ended.cause) and "bucket policy" in str(ended.cause)


@pytest.mark.slow
def test_an_empty_prefix_is_an_error(stack: Deployed) -> None:
    ended = run(stack, listed(stack, "bulk/nothing-here/"))
    assert (ended.status, ended.error) == ("FAILED", "NoItemsError")
    assert "bulk/nothing-here/" in str(ended.cause)


@pytest.mark.slow
def test_standard_children_start_the_main_state_machine(stack: Deployed) -> None:
    keys = upload(stack, "bulk/standard/", [400, 401])
    stack.upload("bulk/standard/bad.png", b"text")
    options = {"precision_level": "draft", "segmentation_host": "ecs"}
    ended = run(stack, listed(stack, "bulk/standard/"), child="standard", options=options)
    assert ended.status == "SUCCEEDED", ended.cause
    assert ended.statuses == {**dict.fromkeys(keys, "done"), "bulk/standard/bad.png": "failed"}
    assert ended.rows["bulk/standard/bad.png"]["error"] == "UnsupportedFormatError"
    sidecar = json.loads(stack.result(f"results/{keys[0]}.png.json"))
    assert sidecar["model"]["host"] == "ecs" and ":execution:" in sidecar["execution"]["id"]
    rows = [{"key": key, "options": {"output": "mask"}} for key in keys]
    again = run(stack, manifest(stack, "list.jsonl", json_lines(*rows)), child="standard", options=options)
    assert again.statuses == dict.fromkeys(keys, "done")


@pytest.mark.slow
def test_the_endpoint_segments_in_express_children(stack: Deployed) -> None:
    [key] = upload(stack, "bulk/endpoint/", [500])
    options = {"precision_level": "draft", "segmentation_host": "sagemaker"}
    ended = run(stack, listed(stack, "bulk/endpoint/"), options=options)
    assert ended.status == "SUCCEEDED", ended.cause
    sidecar = json.loads(stack.result(f"results/{key}.png.json"))
    assert sidecar["model"]["host"] == "sagemaker" and sidecar["degraded"] is False


@pytest.mark.slow
def test_a_thousand_pictures_of_twenty_contents_are_done_once_per_content(stack: Deployed) -> None:
    files = [disc(width=64, height=48, seed=2000 + number) for number in range(20)]
    with ThreadPoolExecutor(8) as pool:
        list(pool.map(lambda n: stack.upload(f"bulk/thousand/{n:03}.png", files[n // 50]), range(1000)))
    ended = run(stack, listed(stack, "bulk/thousand/"), batch=50, max_concurrency=4, timeout_s=280)
    assert ended.status == "SUCCEEDED", ended.cause
    summary = ended.summary
    assert (summary.items, summary.done, summary.cached) == (1000, 20, 980)
    assert stack.result("results/bulk/thousand/049.png.png") == stack.result("results/bulk/thousand/000.png.png")


def versions(stack: Deployed, prefix: str) -> dict[str, str]:
    """Return the versions of the sidecars of the images below a prefix, by key."""
    found = stack.s3.list_object_versions(Bucket=stack.outputs["ResultsBucket"], Prefix=f"results/{prefix}")
    return {one["Key"]: one["VersionId"] for one in found.get("Versions", []) if one["Key"].endswith(".json")}


@pytest.mark.slow
@pytest.mark.parametrize(("child", "number"), [("express", 12), ("standard", 6)])
def test_a_redrive_continues_a_stopped_run(stack: Deployed, child: str, number: int) -> None:
    prefix = f"bulk/redrive-{child}/"
    keys = upload(stack, prefix, range(700, 700 + number))
    given = {"source": listed(stack, prefix), "options": DRAFT, "child": child, "batch": 1, "max_concurrency": 1}
    machine = stack.outputs["BulkMachineArn"]
    arn = stack.sfn.start_execution(stateMachineArn=machine, input=json.dumps(given))["executionArn"]
    until(lambda: len(versions(stack, prefix)) >= 3)
    stack.sfn.stop_execution(executionArn=arn)
    until(lambda: stack.sfn.list_map_runs(executionArn=arn)["mapRuns"][0].get("stopDate"))
    before = versions(stack, prefix)
    assert 3 <= len(before) < number

    stack.sfn.redrive_execution(executionArn=arn)
    ended = Run(stack, arn)
    assert ended.status == "SUCCEEDED", ended.cause
    summary = ended.summary
    assert (summary.items, summary.done + summary.cached, summary.failed, summary.not_done) == (number, number, 0, 0)
    assert ended.statuses.keys() == set(keys)
    assert versions(stack, prefix).items() >= before.items(), "what was done is not processed again"
    [map_run] = stack.sfn.list_map_runs(executionArn=arn)["mapRuns"]
    described = stack.sfn.describe_map_run(mapRunArn=map_run["mapRunArn"])
    assert (described["status"], described["redriveCount"]) == ("SUCCEEDED", 1)
    assert described["itemCounts"]["succeeded"] == described["itemCounts"]["total"] == number


@pytest.mark.slow
def test_a_redrive_of_a_run_with_too_many_failures_fails_again(stack: Deployed) -> None:
    stack.upload("bulk/again/0.png", b"text")
    ended = run(stack, listed(stack, "bulk/again/"), tolerated_failure_count=0)
    assert (ended.status, ended.error) == ("FAILED", "ToleranceExceededError")
    stack.sfn.redrive_execution(executionArn=ended.arn)
    again = Run(stack, ended.arn)
    assert (again.status, again.error) == ("FAILED", "ToleranceExceededError")
    assert again.summary == ended.summary


@pytest.mark.slow
def test_a_bulk_run_gives_the_result_of_an_upload(stack: Deployed) -> None:
    data, metadata = disc(seed=600), {"pbr-format": "webp", "pbr-crop": "true", "pbr-background-color": "#336699"}
    single = stack.process("parity.png", data, metadata)
    key = {"cache_key": {"S": single.output["cache"]["key"]}}
    stack.dynamodb.delete_item(TableName=stack.outputs["CacheTable"], Key=key)
    stack.upload("bulk/parity/parity.png", data, metadata)
    ended = run(stack, listed(stack, "bulk/parity/"), options={})
    assert ended.statuses == {"bulk/parity/parity.png": "done"}
    assert stack.result("results/bulk/parity/parity.png.webp") == stack.result("results/parity.png.webp")
    sidecar = json.loads(stack.result("results/bulk/parity/parity.png.webp.json"))
    for name in ("options", "image", "model", "quality", "refinement", "cache", "warnings", "degraded", "escalation"):
        assert sidecar[name] == single.output[name]
    again = stack.process("parity-again.png", data, metadata)
    assert again.output["cache"]["hit"] is True, "uploads are served from the entries of bulk runs"
