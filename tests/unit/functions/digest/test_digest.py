from dataclasses import replace
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest

from functions.contracts.failure_report import FailureReport
from functions.contracts.job import Execution
from functions.contracts.outcome import ObjectVersion
from functions.digest import reports
from functions.digest.alarms import active
from functions.digest.message import MAX_BYTES, Digest
from functions.digest.reports import Failures, read
from functions.digest.window import KEY, last_end, save
from functions.runtime.store import Store
from tests.fakes.uploads_in_memory import VersionedS3

UNTIL = datetime(2026, 1, 5, 6, tzinfo=UTC)
SINCE = UNTIL - timedelta(days=1)


def report(key: str, error: str = "CorruptImageError", **facts: Any) -> dict[str, Any]:
    execution = Execution(id="arn", name="6f3a", started_at="2026")
    given = {"message": "The file ends early", "remedy": "Upload it again.", **facts}
    source = ObjectVersion(bucket="uploads", key=key, version_id="1")
    base: dict[str, Any] = {"status": "FAILED", "stage": "Validate", "field": None, "value": None, "options": {}}
    return FailureReport(error=error, execution=execution, source=source, **base, **given).model_dump()


class Bucket:
    """The results bucket."""

    def __init__(self) -> None:
        self.s3 = VersionedS3()

    def fail(self, key: str, age: timedelta = timedelta(hours=2), **facts: Any) -> None:
        self.s3.put("results", f"failed/{key}.json", UNTIL - age, report(key, **facts))

    def read(self, **given: Any) -> Failures:
        return read(Store(self.s3), "results", SINCE, UNTIL, **given)


def digest(failures: Failures, **facts: Any) -> Digest:
    given: dict[str, Any] = {"lost_uploads": 0, "reviews": 0, "more_reviews": False, "alarms": (), **facts}
    place = " --stack pbr --region eu-west-1"
    return Digest("pbr", place, "eu-west-1", "results", SINCE, UNTIL, failures, **given)


NONE = Failures((), 0, True)


def test_failures_are_grouped_by_error_with_reason_remedy_and_examples() -> None:
    bucket = Bucket()
    for number in range(8):
        bucket.fail(f"photos/{number}.jpg")
    bucket.fail("note.txt", error="UnsupportedFormatError", message="No image", remedy="Upload a PNG.")
    written = digest(bucket.read())
    assert written.subject == "pbr: 9 images failed"
    lines = written.text.splitlines()
    assert lines[0] == "Stack pbr, from 2026-01-04 06:00 to 2026-01-05 06:00 UTC"
    first = lines.index("8 x CorruptImageError")
    assert lines[first + 1 : first + 3] == ["  Why: The file ends early", "  What to do: Upload it again."]
    assert [line for line in lines if line.startswith("  - photos/")] == [f"  - photos/{n}.jpg" for n in range(5)]
    assert lines[first + 8] == "  - and 3 more"
    assert first < lines.index("1 x UnsupportedFormatError") and "  What to do: Upload a PNG." in lines
    assert "  pbr redrive --failed --since 48h --stack pbr --region eu-west-1" in lines
    assert "  pbr history --status failed --since 48h --stack pbr --region eu-west-1" in lines
    assert any(line.startswith("--since 48h includes them until 2026-01-06 06:00 UTC.") for line in lines)


def test_only_reports_of_the_window_count() -> None:
    bucket = Bucket()
    for key, age in (("old", 25), ("first", 24), ("last", 1), ("young", 0)):
        bucket.fail(key, timedelta(hours=age))
    bucket.fail("deleted")
    bucket.s3.delete("results", "failed/deleted.json", UNTIL)
    bucket.s3.put("results", "results/a.png", UNTIL - timedelta(hours=1), b"")
    failures = bucket.read()
    [group] = failures.groups
    assert failures.count == 2
    assert group.count == 2 and sorted(group.examples) == ["first", "last"]


def test_reports_that_are_not_valid_count_as_unread() -> None:
    bucket = Bucket()
    bucket.fail("a.jpg")
    for name in ("foreign", "newer"):
        bucket.s3.put("results", f"failed/{name}.json", UNTIL - timedelta(hours=1), b'{"status": "FAILED"}')
    failures = bucket.read()
    assert (failures.count, failures.unread) == (3, 2)
    assert "2 images more, whose reports were not read." in digest(failures).text
    assert digest(failures).subject == "pbr: 3 images failed"


def test_of_10_000_failures_the_newest_are_read_and_all_are_counted(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(reports, "MAX_REPORTS", 100)
    bucket = Bucket()
    data = report("a.jpg")
    newest = [(UNTIL - timedelta(seconds=number + 1), f"failed/{number:05}.json") for number in range(10_000)]
    bucket.s3.versions += [("results", key, "v", at, b"unread") for at, key in newest[100:]]
    for at, key in newest[:100]:
        bucket.s3.put("results", key, at, data)
    bucket.s3.page_size = 20_000
    failures = bucket.read()
    assert (failures.count, failures.unread, failures.groups[0].count) == (10_000, 9_900, 100)
    assert "9,900 images more, whose reports were not read." in digest(failures).text


def test_a_listing_that_takes_too_long_is_stopped_and_said_to_be_incomplete() -> None:
    bucket = Bucket()
    for number in range(10):
        bucket.fail(str(number))
    bucket.s3.page_size = 2
    times = iter(range(0, 10_000, 300))
    failures = bucket.read(clock=lambda: float(next(times)))
    assert failures.count == 4 and not failures.complete
    assert "There may be more" in digest(failures).text


def test_the_message_fits_into_sns_whatever_the_keys_are() -> None:
    bucket = Bucket()
    for number in range(60):
        for copy in range(5):
            key, text = f"{number}-{copy}-" + "\U0001f600" * 240, "\U0001f600" * 1000
            bucket.fail(key, error=f"Error{number}" + "\U0001f600" * 300, message=text, remedy=text)
    written = digest(bucket.read())
    assert len(written.text.encode()) <= MAX_BYTES < 256 * 1024
    assert written.text.endswith("ends here.]\n")


def test_keys_are_shown_in_one_line_each() -> None:
    bucket = Bucket()
    bucket.fail("a\nb\r\x00\u202ec.jpg")
    bucket.fail("größe 写真.jpg")
    shown = [line for line in digest(bucket.read()).text.splitlines() if line.startswith("  - ")]
    assert shown == ["  - a\\u000ab\\u000d\\u0000\\u202ec.jpg", "  - größe 写真.jpg"]


@pytest.mark.parametrize("stack", ["pbr", "x" * 128])
def test_the_subject_is_one_that_sns_accepts(stack: str) -> None:
    bucket = Bucket()
    bucket.fail("größe\n.jpg")
    subject = replace(digest(bucket.read(), lost_uploads=12_000), stack=stack).subject
    assert subject.endswith(": 1 image failed, 12,000 uploads lost and started")
    assert len(subject) < 100 and subject.isascii() and subject.isprintable()


def test_only_failures_lost_uploads_and_alarms_need_a_message() -> None:
    assert not digest(NONE, reviews=7).is_needed
    lost = digest(NONE, lost_uploads=2, reviews=1000, more_reviews=True)
    assert lost.is_needed and lost.subject == "pbr: 2 uploads lost and started"
    [command] = [line for line in lost.text.splitlines() if "aws logs" in line]
    assert "--region eu-west-1 --log-group-name /aws/lambda/pbr-sweep " in command
    assert f"--start-time {SINCE.timestamp() * 1000:.0f} " in command
    assert "1000 or more" in lost.text and "redrive" not in lost.text


class Alarms:
    """CloudWatch with the alarms of two stacks, one on each page."""

    def __init__(self, *composites: tuple[str, str]) -> None:
        self.composites = composites
        self.metric_alarms = {
            "pbr-slow": (UNTIL - timedelta(days=40), "ALARM"),
            "pbr-throttled": (UNTIL, "OK"),
            "pbr-dead-letters-uploads": (UNTIL - timedelta(days=50), "ALARM"),
            "pbr-2-slow": (UNTIL, "ALARM"),
        }

    def get_paginator(self, operation: str) -> "Alarms":
        assert operation == "describe_alarms"
        return self

    def paginate(self, **request: Any) -> list[dict[str, Any]]:
        names = request["AlarmNames"]
        assert 0 < len(names) <= 100
        if request["AlarmTypes"] == ["CompositeAlarm"]:
            return [{"CompositeAlarms": [{"AlarmRule": rule}]} for name, rule in self.composites if name in names]
        found = {name: since for name, (since, state) in self.metric_alarms.items() if state == request["StateValue"]}
        return [
            {
                "MetricAlarms": [
                    {
                        "AlarmName": name,
                        "StateUpdatedTimestamp": since,
                        "AlarmDescription": f"Something is wrong. Runbook: https://runbook#{name}",
                    }
                ]
            }
            for name, since in found.items()
            if name in names
        ]


ALARMS = Alarms(
    ("pbr-critical", 'ALARM("pbr-dead-letters-uploads") OR ALARM("pbr-failure-rate")'),
    ("pbr-warning", 'ALARM("pbr-slow") OR ALARM("pbr-throttled")'),
    ("pbr-2-warning", 'ALARM("pbr-2-slow")'),
)


def test_the_alarms_of_the_stack_that_are_in_alarm_are_reported() -> None:
    written = digest(NONE, alarms=active(ALARMS, "pbr"))
    assert written.is_needed and written.subject == "pbr: 2 alarms active"
    lines = written.text.splitlines()
    first = lines.index("  - pbr-dead-letters-uploads, since 2025-11-16 06:00 UTC")
    assert lines[first + 1 : first + 4] == [
        "    https://runbook#pbr-dead-letters-uploads",
        "  - pbr-slow, since 2025-11-26 06:00 UTC",
        "    https://runbook#pbr-slow",
    ]
    assert "throttled" not in written.text and "pbr-2" not in written.text and "redrive" not in written.text


def test_a_stack_without_alarms_reports_none_of_the_account() -> None:
    assert active(ALARMS, "another") == ()


@pytest.mark.parametrize("stored", [b"", b"{}", b'{"until": "2026-01-05T06:00:00"}'])
def test_an_invalid_window_is_logged_and_replaced(stored: bytes, caplog: pytest.LogCaptureFixture) -> None:
    s3 = VersionedS3()
    store = Store(s3)
    assert last_end(store, "work") is None and not caplog.records
    s3.put("work", KEY, UNTIL, stored)
    assert last_end(store, "work") is None
    [line] = [vars(record) for record in caplog.records if record.message == "invalid window"]
    assert line["object"] == f"s3://work/{KEY}"
    save(store, "work", UNTIL)
    assert last_end(store, "work") == UNTIL
