import re
from pathlib import Path
from typing import Any

import pytest

from client.bulk.source import Source
from client.errors import UsageError
from client.stack import Stack
from tests.fakes.bulk_in_memory import BulkCloud


def deployed(cloud: BulkCloud | None = None, **parameters: str) -> Stack:
    made = (cloud or BulkCloud()).stack()
    made.parameters.update(parameters)  # type: ignore[attr-defined]
    return made


@pytest.mark.parametrize(
    ("address", "expected"),
    [
        ("s3://uploads", {"bucket": "uploads", "prefix": ""}),
        ("s3://uploads/shoes/", {"bucket": "uploads", "prefix": "shoes/"}),
        ("s3://uploads/list.CSV", {"manifest": {"bucket": "uploads", "key": "list.CSV"}}),
        ("s3://uploads/i/manifest.json", {"inventory": {"bucket": "uploads", "key": "i/manifest.json"}}),
    ],
)
def test_addresses_are_prefixes_manifests_or_inventories(address: str, expected: dict[str, Any]) -> None:
    source, stack = Source.parse(address), deployed()
    source.check(stack)
    assert source.request(stack, "r") == expected


def test_a_bucket_that_the_stack_may_not_read_is_named_with_the_parameter() -> None:
    source = Source.parse("s3://theirs/shoes/")
    with pytest.raises(UsageError, match=r"may not read this bucket .*BulkSourceBuckets.*another account"):
        source.check(deployed(BulkSourceBuckets="ours, others"))
    source.check(deployed(BulkSourceBuckets="ours, theirs"))


def test_the_results_bucket_has_failure_lists_but_no_images_of_a_run() -> None:
    Source.parse("s3://results/bulk/shoes-1/failed.jsonl").check(deployed())
    with pytest.raises(UsageError, match="may not read this bucket"):
        Source.parse("s3://results/results/").check(deployed())


def test_a_local_manifest_is_uploaded(tmp_path: Path) -> None:
    cloud = BulkCloud()
    (tmp_path / "list.jsonl").write_text('{"key": "a.jpg"}\n\n{"key": "b.jpg"}\n')
    source = Source.parse(str(tmp_path / "list.jsonl"))
    source.check(deployed(cloud))
    key = "bulk/r/manifest.jsonl"
    assert source.request(deployed(cloud), "r") == {"manifest": {"bucket": "uploads", "key": key}}
    assert cloud.data("uploads", key) == (tmp_path / "list.jsonl").read_bytes()


@pytest.mark.parametrize(
    ("name", "text", "says"),
    [
        ("a.jsonl", '{"key": "a.jpg"}\n\n{"kye": "b.jpg"}\n', "Line 3 of the manifest"),
        ("a.jsonl", '{"key": "a.jpg"}\nnonsense\n', "Line 2 .* not JSON"),
        ("a.csv", "key,options\na.jpg,\nb.jpg,crop\n", "Line 3 .* options is not a JSON object"),
        ("a.csv", 'key\na.jpg\n"b', "Line 3 of the manifest"),
        ("a.csv", "file\na.jpg\n", "no column named key"),
        ("a.csv", "key\n", "names no image"),
        ("a.jsonl", "", "names no image"),
        ("a.csv", "key,bucket\na.jpg,theirs\n", "may not read this bucket .*line 2"),
        ("a.csv", b"key\n\xff.jpg\n", "not UTF-8"),
    ],
)
def test_an_invalid_manifest_names_the_line(tmp_path: Path, name: str, text: str | bytes, says: str) -> None:
    (tmp_path / name).write_bytes(text if isinstance(text, bytes) else text.encode())
    with pytest.raises(UsageError, match=says):
        Source.parse(str(tmp_path / name)).check(deployed())


@pytest.mark.parametrize("text", ["s3://uploads/My Shoes (new)/", "/"])
def test_the_name_of_a_run_is_that_of_an_execution_and_unique(text: str) -> None:
    source = Source.parse(text)
    assert re.fullmatch(r"(my-shoes-new|run)-\d{8}-\d{6}-[0-9a-f]{4}", source.new_run())
    assert source.new_run() != source.new_run()
