"""The input of a run: defaults, sources, and errors that name a field or a line."""

import gzip
import json
import re
from typing import Any

import pytest

from core.errors import InvalidOptionsError, InvalidRequestError, SourceNotFoundError
from functions.bulk.objects import BulkObjects
from functions.bulk.prepare import MOST_TOLERATED, PrepareConfig, Preparer
from functions.contracts.bulk import BulkRequest
from functions.contracts.job import Execution
from tests.conftest import ROOT
from tests.fakes.s3_in_memory import Objects

RUN = Execution(id="arn:run", name="shoes-1", started_at="now")
LISTED = {"bucket": "uploads", "prefix": "bulk/"}
CARD = '{"card": {"canvas": "64x48"}}'


class Stack:
    def __init__(self, **values: Any) -> None:
        given = {
            "uploads_bucket": "uploads",
            "results_bucket": "results",
            "work_bucket": "work",
            "bulk_source_buckets": ("theirs",),
            "bulk_concurrency": 7,
            "segmentation_host": "lambda",
        }
        self.objects = Objects()
        tags = {"arn:model": [{"Key": "team", "Value": "photo"}]}
        self.preparer = Preparer(PrepareConfig(**{**given, **values}), BulkObjects(self.objects), tags.__getitem__)

    def prepare(self, source: dict[str, Any], **settings: Any) -> dict[str, Any]:
        return self.preparer.prepare(BulkRequest.model_validate({"source": source, **settings}), RUN)

    def rows(self) -> list[dict[str, Any]]:
        return [json.loads(line) for line in self.objects.data("work", "bulk/shoes-1/rows.jsonl").splitlines()]


def test_a_run_gets_the_defaults_of_the_stack() -> None:
    assert Stack().prepare(LISTED) == {
        "run": RUN.model_dump(),
        "reader": "listing",
        "child": "express",
        "engine": "host",
        "bucket": "uploads",
        "prefix": "bulk/",
        "rows_key": "bulk/shoes-1/rows.jsonl",
        "options": {},
        "pbr_presets": "",
        "max_concurrency": 7,
        "tolerated_failure_percentage": 100.0,
        "tolerated_failure_count": MOST_TOLERATED,
        "batch": 10,
        "overwrite": False,
        "results_prefix": "bulk/shoes-1/map",
    }


def test_the_sample_events_of_prepare_and_summarize_are_of_one_run() -> None:
    event = json.loads((ROOT / "events/bulk_prepare.json").read_text())
    run = Execution.model_validate(event["execution"])
    plan = Stack().preparer.prepare(BulkRequest.model_validate(event["input"]), run)
    assert plan == json.loads((ROOT / "events/bulk_summary.json").read_text())["plan"]


def test_presets_of_the_stack_are_known_and_reach_the_batches() -> None:
    stack = Stack(pbr_presets=CARD)
    assert stack.prepare(LISTED, options={"preset": "card"})["pbr_presets"] == CARD
    with pytest.raises(InvalidOptionsError) as caught:
        stack.prepare(LISTED, options={"preset": "cart"})
    assert "card" in caught.value.remedy


def test_overwrite_reaches_express_children_and_is_rejected_for_standard_ones() -> None:
    assert Stack().prepare(LISTED, overwrite=True)["overwrite"] is True
    with pytest.raises(InvalidRequestError) as caught:
        Stack(segmentation_host="ecs").prepare(LISTED, overwrite=True)
    assert caught.value.field == "overwrite" and '"express"' in caught.value.remedy


def test_limits_of_zero_are_kept() -> None:
    plan = Stack().prepare(LISTED, tolerated_failure_percentage=0, tolerated_failure_count=0)
    assert (plan["tolerated_failure_percentage"], plan["tolerated_failure_count"]) == (0, 0)


@pytest.mark.parametrize(
    ("values", "child"),
    [
        ({"segmentation_host": "lambda"}, "express"),
        ({"segmentation_host": "sagemaker"}, "express"),
        ({"segmentation_host": "sagemaker", "sagemaker_mode": "async"}, "standard"),
        ({"segmentation_host": "ecs"}, "standard"),
    ],
)
def test_the_host_of_the_stack_decides_about_the_kind_of_children(values: dict[str, str], child: str) -> None:
    assert Stack(**values).prepare(LISTED)["child"] == child
    assert Stack(**values).prepare(LISTED, child="express")["child"] == "express"


def test_rows_have_all_fields_and_the_options_of_the_run() -> None:
    stack = Stack()
    text = (
        '{"key": "a.png", "options": {"format": "webp"}}\n\n{"key": "b.png", "bucket": "theirs", "version_id": "v"}\n'
    )
    stack.objects.add("uploads", "list.jsonl", text.encode())
    options = {"quality": 50, "format": "png"}
    plan = stack.prepare({"manifest": {"bucket": "uploads", "key": "list.jsonl"}}, options=options)
    assert (plan["reader"], plan["options"]) == ("rows", {})
    assert stack.rows() == [
        {"bucket": "uploads", "key": "a.png", "version_id": None, "options": {"quality": 50, "format": "webp"}},
        {"bucket": "theirs", "key": "b.png", "version_id": "v", "options": options},
    ]


def inventory(stack: Stack, **more: Any) -> dict[str, Any]:
    schema = "Bucket, Key, VersionId, IsLatest, IsDeleteMarker, Size"
    lines = [
        '"theirs","%C3%A9t%C3%A9/a+b.png","v1","true","false","10"',
        '"theirs","old.png","v2","false","false","10"',
        '"theirs","gone.png","v3","true","true",""',
        '"theirs","folder/","v4","true","false","0"',
    ]
    packed = gzip.compress("\n".join(lines).encode())
    stack.objects.add("theirs", "inventory/data/1.csv.gz", packed)
    stack.objects.add("theirs", "inventory/data/2.csv.gz", gzip.compress(b'"theirs","c%2Bd.png","","true","false","1"'))
    files = [{"key": f"inventory/data/{number}.csv.gz"} for number in (1, 2)]
    manifest = {"sourceBucket": "theirs", "fileFormat": "CSV", "fileSchema": schema, "files": files, **more}
    stack.objects.add("theirs", "inventory/manifest.json", json.dumps(manifest).encode())
    return {"inventory": {"bucket": "theirs", "key": "inventory/manifest.json"}}


def test_an_inventory_becomes_the_rows_of_its_current_objects() -> None:
    stack = Stack()
    stack.prepare(inventory(stack))
    assert [(row["bucket"], row["key"], row["version_id"]) for row in stack.rows()] == [
        ("theirs", "été/a b.png", "v1"),
        ("theirs", "c+d.png", None),
    ]


def test_only_inventories_in_csv_are_read() -> None:
    stack = Stack()
    with pytest.raises(InvalidRequestError) as caught:
        stack.prepare(inventory(stack, fileFormat="ORC"))
    assert caught.value.value == "ORC"
    stack.objects.add("theirs", "other.json", b"[]")
    with pytest.raises(InvalidRequestError, match="not the manifest"):
        stack.prepare({"inventory": {"bucket": "theirs", "key": "other.json"}})


@pytest.mark.parametrize(
    ("source", "settings", "field"),
    [
        ({"bucket": "others", "prefix": ""}, {}, "source.bucket"),
        ({"bucket": "theirs", "prefix": ""}, {"child": "standard"}, "source.bucket"),
        ({"manifest": {"bucket": "others", "key": "a.csv"}}, {}, "source.manifest.bucket"),
        ({"manifest": {"bucket": "results", "key": "results/a.csv"}}, {}, "source.manifest.bucket"),
        (LISTED, {"options": {"segmentation_host": "ecs"}}, "options.segmentation_host"),
    ],
)
def test_what_a_stack_cannot_honor_is_refused(source: Any, settings: dict[str, Any], field: str) -> None:
    with pytest.raises(InvalidRequestError) as caught:
        Stack().prepare(source, **settings)
    assert caught.value.field == field


def test_the_failure_list_of_a_run_is_read_from_the_results_bucket() -> None:
    stack = Stack()
    stack.objects.add("results", "bulk/earlier/failed.jsonl", b'{"key": "a.png"}')
    stack.prepare({"manifest": {"bucket": "results", "key": "bulk/earlier/failed.jsonl"}})
    assert [row["key"] for row in stack.rows()] == ["a.png"]


def test_a_missing_manifest_is_named() -> None:
    with pytest.raises(SourceNotFoundError) as caught:
        Stack().prepare({"manifest": {"bucket": "uploads", "key": "a.csv"}})
    assert (caught.value.field, caught.value.value) == ("source.manifest.key", "s3://uploads/a.csv")


@pytest.mark.parametrize(
    ("text", "line"),
    [
        (b"key\na\n\xff\n", 3),
        (b'key\n"a"b\n', 2),
        (b"key,options\na,{\n", 2),
        (b"key\na,b\n", 2),
        (b'key\na\n\n"b\nc\nd\n', 4),
        (b'key\na\r\n"b\nc"\nd\n"e"\nf,g\n', 7),
        (b'key,options\na,\nb,"{\n""crop"": yes}"\nc,\n', 3),
    ],
    ids=["encoding", "quote", "options", "cells", "open quote", "after several lines", "several lines"],
)
def test_a_bad_line_is_named_and_nothing_is_written(text: bytes, line: int) -> None:
    stack = Stack()
    stack.objects.add("uploads", "list.csv", text)
    with pytest.raises(InvalidRequestError, match=rf"^Line {line} of the manifest"):
        stack.prepare({"manifest": {"bucket": "uploads", "key": "list.csv"}})
    assert stack.objects.keys("work") == []


TRANSFORM = {
    "transform_model_name": "model",
    "transform_model_arn": "arn:model",
    "transform_instance_type": "ml.c6i.2xlarge",
    "transform_instances": 2,
}
ENGINE = {"engine": "batch-transform"}


def test_a_transform_job_gets_the_rows_of_a_prefix_and_its_settings() -> None:
    stack = Stack(**TRANSFORM, segmentation_host="ecs")
    for key in ("bulk/a.jpg", "bulk/folder/", "bulk/folder/b.jpg", "other/c.jpg"):
        stack.objects.add("uploads", key, b"image")
    plan = stack.prepare(LISTED, **ENGINE, options={"format": "webp"})
    assert (plan["reader"], plan["child"], plan["engine"], plan["options"]) == ("rows", "express", ENGINE["engine"], {})
    assert [(row["key"], row["options"]) for row in stack.rows()] == [
        ("bulk/a.jpg", {"format": "webp"}),
        ("bulk/folder/b.jpg", {"format": "webp"}),
    ]
    transform = plan["transform"]
    assert re.fullmatch(r"pbr-bulk-[0-9a-f]{16}", transform["job_name"])
    assert (transform["model_name"], transform["instances"]) == ("model", 2)
    assert transform["tags"] == [{"Key": "team", "Value": "photo"}], "those of the model"
    assert transform["requests_uri"] == "s3://work/" + transform["requests_prefix"]
    assert transform["requests_prefix"] == "bulk/shoes-1/transform/requests/"
    assert transform["responses_uri"] == "s3://work/bulk/shoes-1/transform/responses/"
    assert transform["resources"] == {"InstanceType": "ml.c6i.2xlarge"}
    assert transform["environment"] == {"PBR_DEVICE": "cpu"}


def test_a_transform_job_on_a_gpu_gets_the_driver_that_the_image_needs() -> None:
    stack = Stack(**{**TRANSFORM, "transform_instance_type": "ml.g4dn.xlarge"})
    stack.objects.add("uploads", "bulk/a.jpg", b"image")
    transform = stack.prepare(LISTED, **ENGINE, instances=3)["transform"]
    assert transform["resources"] == {
        "InstanceType": "ml.g4dn.xlarge",
        "TransformAmiVersion": "al2-ami-sagemaker-batch-gpu-535",
    }
    assert (transform["environment"], transform["instances"]) == ({"PBR_DEVICE": "cuda"}, 3)


@pytest.mark.parametrize(
    ("values", "settings", "field"),
    [
        ({}, {}, "engine"),
        (TRANSFORM, {"child": "standard"}, "child"),
        (TRANSFORM, {"options": {"segmentation_host": "lambda"}}, "options.segmentation_host"),
        (TRANSFORM, {"options": {"segmentation_host": "ecs"}}, "options.segmentation_host"),
        (TRANSFORM, {}, "source"),
    ],
)
def test_a_transform_that_is_impossible_is_refused(
    values: dict[str, Any], settings: dict[str, Any], field: str
) -> None:
    with pytest.raises(InvalidRequestError) as caught:
        Stack(**values).prepare(LISTED, **ENGINE, **settings)
    assert caught.value.field == field
