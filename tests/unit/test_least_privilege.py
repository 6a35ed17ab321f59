from pathlib import Path

import pytest

from tests.least_privilege import EXEMPT, Grant, recorded, stale, unused

READ = Grant("EncodeFunctionRole", "s3:GetObject", "arn:aws:s3:::${WorkBucket}/work/*")
CACHED = Grant("EncodeFunctionRole", "s3:GetObject", "arn:aws:s3:::${WorkBucket}/cache/*")
TRACES = Grant("RemoveBackgroundRole", "xray:PutTraceSegments", "*")


def test_an_action_is_unused_on_each_resource_that_no_call_used_it_on() -> None:
    assert unused({READ, CACHED}, {CACHED}) == [READ]


def test_what_only_aws_uses_is_exempt() -> None:
    assert unused({READ, TRACES}, {READ}) == []
    assert unused({TRACES._replace(action="sqs:SendMessage")}, set()) != []


def test_an_exemption_is_stale_if_no_unused_grant_needs_it() -> None:
    traces = next(item for item in EXEMPT if item.covers(TRACES))
    assert traces not in stale({TRACES}, set())
    assert traces in stale({TRACES}, {TRACES})
    assert traces in stale({READ}, set())


def test_records_of_all_clouds_count(tmp_path: Path) -> None:
    (tmp_path / "1.jsonl").write_text('["A", "s3:GetObject", "*"]\n["A", "s3:PutObject", "*"]\n')
    (tmp_path / "2.jsonl").write_text('["A", "s3:GetObject", "*"]\n')
    assert recorded(tmp_path) == {Grant("A", "s3:GetObject", "*"), Grant("A", "s3:PutObject", "*")}


def test_missing_records_are_an_error(tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError, match="Run make test-all first"):
        recorded(tmp_path)
