from typing import Any

import pytest

from core.errors import InvalidRequestError
from functions.contracts.bulk import (
    BulkRequest,
    ManifestRow,
    over_tolerance,
    row_of_csv,
    row_of_json,
)
from functions.runtime.handler import parse

LISTED = {"bucket": "pictures", "prefix": ""}
FILE = {"bucket": "pictures", "key": "list.csv"}


@pytest.mark.parametrize("source", [LISTED, {"manifest": FILE}, {"inventory": FILE}])
def test_a_run_has_one_of_three_sources(source: dict[str, Any]) -> None:
    assert parse(BulkRequest, {"source": source}).batch is None


@pytest.mark.parametrize(
    ("request_", "field"),
    [
        ({}, "source"),
        ({"source": {}}, "source"),
        ({"source": {"bucket": "pictures"}}, "source"),
        ({"source": {**LISTED, "manifest": FILE}}, "source"),
        ({"source": {"manifest": {"bucket": "pictures"}}}, "source.manifest.key"),
        ({"source": LISTED, "batch": 0}, "batch"),
        ({"source": LISTED, "batch": 101}, "batch"),
        ({"source": LISTED, "max_concurrency": 10_001}, "max_concurrency"),
        ({"source": LISTED, "tolerated_failure_percentage": 100.1}, "tolerated_failure_percentage"),
        ({"source": LISTED, "child": "inline"}, "child"),
        ({"source": LISTED, "concurrency": 3}, "concurrency"),
    ],
)
def test_an_invalid_request_names_the_field(request_: dict[str, Any], field: str) -> None:
    with pytest.raises(InvalidRequestError) as caught:
        parse(BulkRequest, request_)
    assert caught.value.field == field


def test_both_kinds_of_manifests_have_the_same_rows() -> None:
    expected = ManifestRow(key="a b.jpg", version_id="v1", options={"crop": True}, preset="shop")
    line = '{"key": "a b.jpg", "version_id": "v1", "options": {"crop": true}, "preset": "shop"}'
    assert row_of_json(line, 1) == expected
    cells = {"key": "a b.jpg", "bucket": "", "version_id": "v1", "options": '{"crop": true}', "preset": "shop"}
    assert row_of_csv(cells, 2) == expected
    assert expected.requested == {"preset": "shop", "crop": True}


@pytest.mark.parametrize(
    ("line", "why"),
    [
        ("{", "not JSON"),
        ("[]", "ManifestRow"),
        ("{}", "key"),
        ('{"key": ""}', "key"),
        ('{"key": "a", "size": 3}', "size"),
        ('{"key": "a", "options": "crop"}', "options"),
        ('{"key": "\\ud800"}', "key"),
        ('{"key": "' + "a" * 1025 + '"}', "1024 bytes"),
    ],
)
def test_an_invalid_row_is_named_by_its_line(line: str, why: str) -> None:
    with pytest.raises(InvalidRequestError) as caught:
        row_of_json(line, 17)
    assert caught.value.message.startswith("Line 17 of the manifest is invalid") and why in caught.value.message
    assert caught.value.field == "manifest line 17"


def test_options_in_a_cell_are_json() -> None:
    with pytest.raises(InvalidRequestError, match=r"Line 3 .*options is not a JSON object"):
        row_of_csv({"key": "a", "options": "crop=true"}, 3)


@pytest.mark.parametrize(
    ("failed", "total", "percentage", "count", "over"),
    [
        (0, 0, 0.0, 0, False),
        (0, 10, 0.0, 0, False),
        (1, 10, 0.0, None, True),
        (1, 10, 10.0, None, False),
        (2, 10, 10.0, None, True),
        (2, 10, 100.0, 2, False),
        (3, 10, 100.0, 2, True),
        (10, 10, 100.0, None, False),
    ],
)
def test_a_run_fails_beyond_either_limit(
    failed: int, total: int, percentage: float, count: int | None, over: bool
) -> None:
    assert over_tolerance(failed, total, percentage, count) is over
