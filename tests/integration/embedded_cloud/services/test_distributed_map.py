"""Distributed Map on the embedded cloud: readers, batches, tolerance, result files, Map Runs."""

import json
import uuid
from typing import Any

import pytest
from botocore.exceptions import ClientError

from embedded_cloud.cloud import EmbeddedCloud
from tests.integration.embedded_cloud.services.testbed import Machines, client

BUCKET = "map-runs"


@pytest.fixture(scope="module", autouse=True)
def bucket(cloud: EmbeddedCloud) -> Any:
    s3 = client(cloud, "s3")
    s3.create_bucket(Bucket=BUCKET, CreateBucketConfiguration={"LocationConstraint": cloud.region})
    return s3


def distributed(*, ends_with: str, **state: Any) -> dict[str, Any]:
    """Return a Distributed Map state with a child that fails unless this path is 1."""
    choice = {"Variable": ends_with, "NumericEquals": 1, "Next": "Yes"}
    states = {
        "One?": {"Type": "Choice", "Choices": [choice], "Default": "No"},
        "Yes": {"Type": "Pass", "Result": "yes", "End": True},
        "No": {"Type": "Fail", "Error": "NotOne", "Cause": "another number"},
    }
    config = {"Mode": "DISTRIBUTED", "ExecutionType": "EXPRESS"}
    processor = {"ProcessorConfig": config, "StartAt": "One?", "States": states}
    return {"Type": "Map", "ItemProcessor": processor, "End": True, **state}


def reading_lines(numbers: list[int], bucket: Any, **more: Any) -> dict[str, Any]:
    """Return a state that reads numbers from JSON Lines in batches of two, and writes result files."""
    prefix = uuid.uuid4().hex
    lines = "".join(json.dumps({"n": number}) + "\n" for number in numbers)
    bucket.put_object(Bucket=BUCKET, Key=f"{prefix}/items.jsonl", Body=lines.encode())
    state = distributed(
        ends_with="$.first.n",
        ItemReader={
            "Resource": "arn:aws:states:::s3:getObject",
            "ReaderConfig": {"InputType": "JSONL"},
            "Parameters": {"Bucket": BUCKET, "Key": f"{prefix}/items.jsonl"},
        },
        ItemBatcher={"MaxItemsPerBatchPath": "$.batch", "BatchInput": {"shared.$": "$.shared"}},
        MaxConcurrency=1,
        ResultWriter={
            "Resource": "arn:aws:states:::s3:putObject",
            "Parameters": {"Bucket": BUCKET, "Prefix": f"{prefix}/results"},
            "WriterConfig": {"Transformation": "NONE", "OutputType": "JSONL"},
        },
        **more,
    )
    first = {"Type": "Pass", "Parameters": {"first.$": "States.ArrayGetItem($.Items, 0)"}, "Next": "One?"}
    state["ItemProcessor"]["StartAt"] = "First"
    state["ItemProcessor"]["States"]["First"] = first
    return state


GIVEN = {"batch": 2, "shared": "yes"}


def files_of(bucket: Any, key: str) -> dict[str, list[dict[str, Any]]]:
    """Return the children in the result files of a manifest, by name of the file."""
    manifest = json.loads(bucket.get_object(Bucket=BUCKET, Key=key)["Body"].read())
    found = {}
    for status, files in manifest["ResultFiles"].items():
        bodies = [bucket.get_object(Bucket=BUCKET, Key=file["Key"])["Body"].read() for file in files]
        found[status] = [json.loads(line) for body in bodies for line in body.splitlines()]
    return found


def test_batches_of_lines_run_as_express_children_and_their_results_are_files(machines: Machines, bucket: Any) -> None:
    ended = machines.run({"Map": reading_lines([1, 2, 3, 4, 1], bucket, ToleratedFailurePercentage=50)}, GIVEN)
    assert ended["status"] == "SUCCEEDED", ended
    output = json.loads(ended["output"])
    files = files_of(bucket, output["ResultWriterDetails"]["Key"])
    inputs = [json.loads(child["Input"]) for child in files["SUCCEEDED"]]
    assert inputs == [
        {"BatchInput": {"shared": "yes"}, "Items": [{"n": 1}, {"n": 2}]},
        {"BatchInput": {"shared": "yes"}, "Items": [{"n": 1}]},
    ]
    assert [json.loads(child["Output"]) for child in files["SUCCEEDED"]] == ["yes", "yes"]
    [failed] = files["FAILED"]
    assert (failed["Status"], failed["Error"], failed["Cause"]) == ("FAILED", "NotOne", "another number")
    assert files["PENDING"] == []

    run = machines.api.describe_map_run(mapRunArn=output["MapRunArn"])
    assert run["status"] == "SUCCEEDED" and run["toleratedFailurePercentage"] == 50
    counts = {name: run["itemCounts"][name] for name in ("total", "succeeded", "failed", "pending", "running")}
    assert counts == {"total": 5, "succeeded": 3, "failed": 2, "pending": 0, "running": 0}
    assert run["executionCounts"]["total"] == 3
    [listed] = machines.api.list_map_runs(executionArn=ended["executionArn"])["mapRuns"]
    assert listed["mapRunArn"] == output["MapRunArn"]


@pytest.mark.parametrize(
    "tolerance", [{}, {"ToleratedFailureCount": 1}, {"ToleratedFailurePercentage": 20}], ids=["none", "count", "share"]
)
def test_a_run_beyond_its_tolerance_fails_and_starts_no_further_children(
    machines: Machines, bucket: Any, tolerance: dict[str, int]
) -> None:
    state = reading_lines([1, 1, 2, 2, 1, 1, 1, 1], bucket, **tolerance)
    ended = machines.run({"Map": state}, GIVEN)
    assert (ended["status"], ended["error"]) == ("FAILED", "States.ExceedToleratedFailureThreshold")
    [run] = machines.api.list_map_runs(executionArn=ended["executionArn"])["mapRuns"]
    assert machines.api.describe_map_run(mapRunArn=run["mapRunArn"])["status"] == "FAILED"
    prefix = state["ResultWriter"]["Parameters"]["Prefix"]
    files = files_of(bucket, f"{prefix}/{run['mapRunArn'].rsplit(':', 1)[1]}/manifest.json")
    assert {name: len(children) for name, children in files.items()} == {"SUCCEEDED": 1, "FAILED": 1, "PENDING": 2}


@pytest.mark.parametrize("percentage", [25, 30])
def test_failures_up_to_the_tolerance_do_not_fail_a_run(machines: Machines, bucket: Any, percentage: int) -> None:
    state = reading_lines([1, 1, 2, 2, 1, 1, 1, 1], bucket, ToleratedFailurePercentage=percentage)
    assert machines.run({"Map": state}, GIVEN)["status"] == "SUCCEEDED"


def test_a_listing_has_an_item_for_each_object(machines: Machines, bucket: Any) -> None:
    for key in ("listed/a b.png", "listed/b.png", "other/c.png"):
        bucket.put_object(Bucket=BUCKET, Key=key, Body=b"1")
    state = distributed(
        ends_with="$.size",
        ItemReader={
            "Resource": "arn:aws:states:::s3:listObjectsV2",
            "Parameters": {"Bucket": BUCKET, "Prefix.$": "$.prefix"},
        },
        ItemSelector={"key.$": "$$.Map.Item.Value.Key", "size.$": "$$.Map.Item.Value.Size"},
    )
    state["ItemProcessor"]["States"]["Yes"] = {"Type": "Succeed", "OutputPath": "$.key"}
    assert machines.output({"Map": state}, {"prefix": "listed/"}) == ["listed/a b.png", "listed/b.png"]


def test_a_reader_s_error_has_its_name(machines: Machines, bucket: Any) -> None:
    state = reading_lines([1], bucket)
    state["ItemReader"]["Parameters"]["Key"] = "missing"
    ended = machines.run({"Map": state}, GIVEN)
    assert (ended["status"], ended["error"]) == ("FAILED", "States.ItemReaderFailed")


def test_a_stopped_run_starts_no_further_children(machines: Machines) -> None:
    state = distributed(ends_with="$", MaxConcurrency=1)
    state["ItemProcessor"] |= {"StartAt": "Wait"}
    state["ItemProcessor"]["States"] = {"Wait": {"Type": "Wait", "Seconds": 5, "End": True}}
    arn = machines.api.start_execution(stateMachineArn=machines.create({"Map": state}), input="[1, 1, 1, 1]")[
        "executionArn"
    ]
    machines.api.stop_execution(executionArn=arn)
    assert machines.api.describe_execution(executionArn=arn)["status"] == "ABORTED"


def test_a_field_that_is_not_supported_is_named(machines: Machines) -> None:
    state = distributed(ends_with="$", ItemsPath="$.items")
    with pytest.raises(ClientError, match="ItemsPath"):
        machines.create({"Map": state})


def test_a_batch_ends_before_its_input_is_too_large(machines: Machines, bucket: Any) -> None:
    state = reading_lines([1] * 5, bucket)
    state["ItemBatcher"]["MaxInputBytesPerBatch"] = 55  # two items and the shared input
    arn = machines.start(machines.create({"Map": state}), {"batch": 4, "shared": "s"})
    assert machines.end(arn)["status"] == "SUCCEEDED"
    [map_run] = machines.api.list_map_runs(executionArn=arn)["mapRuns"]
    counts = machines.api.describe_map_run(mapRunArn=map_run["mapRunArn"])
    assert (counts["itemCounts"]["succeeded"], counts["executionCounts"]["succeeded"]) == (5, 3)
