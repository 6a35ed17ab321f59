import json
from typing import Any

import pytest

from client.errors import JobFailedError, JobTimeoutError
from client.jobs import JobClient, Upload
from core.errors import FileTooLargeError, InvalidOptionsError
from core.limits import MAX_BYTES
from core.options import Options, OutputFormat
from functions.validate.upload import options_in
from tests.fakes.stack_in_memory import NOW, Buckets, Executions, History, stack, uploaded

REPORT = {
    "stage": "Validate",
    "error": "EmptyImageError",
    "message": "The file is empty",
    "field": "source.bytes",
    "value": 0,
    "remedy": "Send another.",
}


def test_options_ride_on_the_upload_as_validate_reads_them() -> None:
    buckets = Buckets()
    given = {"crop": True, "crop_margin": 0.25, "format": OutputFormat.WEBP, "background_color": "#00ff00"}
    upload = JobClient(stack(buckets=buckets)).upload("photo.jpg", b"data", given)
    [put] = buckets.puts
    assert Options.parse(options_in(put["Metadata"])) == Options.parse(given)
    assert (put["Bucket"], put["Key"], put["Body"], put["ContentType"]) == (
        "uploads",
        upload.key,
        b"data",
        "image/jpeg",
    )
    assert upload.version_id == "v1" and upload.at == NOW


def test_uploads_of_the_same_name_do_not_clash_and_keep_it() -> None:
    jobs = JobClient(stack())
    keys = {jobs.upload("photo.jpg", b"").key for _ in range(10)}
    assert len(keys) == 10 and all(key.startswith("cli/") and key.endswith("/photo.jpg") for key in keys)


@pytest.mark.parametrize("options", [{"format": "tiff"}, {"crop_margin": 2}, {"colour": "red"}])
def test_a_wrong_option_is_told_before_anything_is_uploaded(options: dict[str, Any]) -> None:
    buckets = Buckets()
    with pytest.raises(InvalidOptionsError):
        JobClient(stack(buckets=buckets)).upload("a.jpg", b"", options)
    assert not buckets.puts


def test_too_large_a_file_is_told_before_it_is_uploaded() -> None:
    buckets = Buckets()
    with pytest.raises(FileTooLargeError):
        JobClient(stack(buckets=buckets)).upload("a.jpg", bytes(MAX_BYTES + 1))
    assert not buckets.puts


def test_a_background_is_put_where_no_execution_starts() -> None:
    buckets = Buckets()
    key = JobClient(stack(buckets=buckets)).upload_background("beach.jpg", b"data")
    assert key.startswith("backgrounds/") and buckets.objects["uploads", key] == b"data"


def test_the_execution_of_exactly_that_version_is_found() -> None:
    executions = Executions()
    executions.add("other-bucket", uploaded("a", "2", "elsewhere"), after_s=1)
    executions.add("other-version", uploaded("a", "1"))
    executions.add("no-picture", {"source": "s3://uploads/a"}, after_s=2)
    wanted = executions.add("wanted", uploaded("a", "2"))
    assert JobClient(stack(executions)).execution_of(Upload("a", "2", NOW)) == wanted


def test_many_uploads_share_one_scan_that_describes_each_execution_once() -> None:
    executions = Executions()
    arns = [executions.add(str(number), uploaded(f"{number}.jpg", "v")) for number in range(20)]
    jobs = JobClient(stack(executions))
    assert [jobs.execution_of(Upload(f"{number}.jpg", "v", NOW)) for number in range(20)] == arns
    assert sorted(executions.described) == sorted(arns)


def test_what_started_long_before_the_upload_is_not_looked_at() -> None:
    executions = Executions()
    for number in range(50):
        executions.add(f"old{number}", uploaded("a", "1"), after_s=-60)
    wanted = executions.add("new", uploaded("a", "1"), after_s=-1)
    assert JobClient(stack(executions)).execution_of(Upload("a", "1", NOW)) == wanted
    assert executions.described == [wanted]


def test_an_upload_that_starts_nothing_is_told_in_time() -> None:
    with pytest.raises(JobTimeoutError, match="EventBridge"):
        JobClient(stack()).execution_of(Upload("a", "1", NOW), timeout_s=0.01)


def test_an_execution_is_followed_as_it_goes_until_it_ends() -> None:
    executions = Executions()
    arn = executions.add("one", {})
    whole = History().task("Validate").task("Refine").add("ExecutionSucceeded").events
    executions.histories[arn] = [whole[:4], whole[:4], whole[:8], whole]
    told = [(event.stage, event.kind) for event in JobClient(stack(executions)).follow(arn)]
    assert told == [("Validate", "started"), ("Validate", "finished"), ("Refine", "started"), ("Refine", "finished")]


def test_an_execution_that_does_not_end_is_told_in_time() -> None:
    executions = Executions()
    arn = executions.add("one", {})
    executions.histories[arn] = [History().enter("Validate").events]
    with pytest.raises(JobTimeoutError, match="still running"):
        list(JobClient(stack(executions)).follow(arn, timeout_s=0.01))


@pytest.mark.parametrize("version_id", [None, "v1"])
def test_a_result_is_the_file_and_all_that_is_known_of_it(version_id: str | None) -> None:
    executions, buckets = Executions(), Buckets()
    sidecar = {"result": {"bucket": "results", "key": "results/a.png", "version_id": version_id}}
    arn = executions.add("one", uploaded("a.jpg", "1"), status="SUCCEEDED", output=json.dumps(sidecar))
    place = ("results", "results/a.png", *([version_id] if version_id else []))
    buckets.objects[place] = b"png"
    result = JobClient(stack(executions, buckets)).result(arn)
    assert (result.data, result.sidecar) == (b"png", sidecar)


def test_a_description_that_is_behind_the_history_is_waited_for() -> None:
    class Lagging(Executions):
        def describe_execution(self, **request: Any) -> dict[str, Any]:
            found = super().describe_execution(**request)
            return found if len(self.described) > 2 else {**found, "status": "RUNNING"}

    executions = Lagging()
    arn = executions.add("one", uploaded("a.jpg", "1"), status="ABORTED")
    with pytest.raises(JobFailedError) as caught:
        JobClient(stack(executions)).result(arn)
    assert caught.value.report.error == "ABORTED"


def test_a_failure_is_what_its_report_says() -> None:
    executions, buckets = Executions(), Buckets()
    arn = executions.add("one", uploaded("a.jpg", "1"), status="FAILED", error="x", cause="y")
    buckets.objects["results", "failed/a.jpg.json"] = json.dumps({**REPORT, "execution": {"id": arn}}).encode()
    with pytest.raises(JobFailedError) as caught:
        JobClient(stack(executions, buckets)).result(arn)
    report = caught.value.report
    assert {name: getattr(report, name) for name in REPORT} == REPORT
    assert report.key == "failed/a.jpg.json"


def test_the_report_of_another_execution_on_the_same_key_is_not_taken_for_its_own() -> None:
    executions, buckets = Executions(), Buckets()
    arn = executions.add("one", uploaded("a.jpg", "1"), status="TIMED_OUT")
    buckets.objects["results", "failed/a.jpg.json"] = json.dumps({**REPORT, "execution": {"id": "other"}}).encode()
    with pytest.raises(JobFailedError) as caught:
        JobClient(stack(executions, buckets)).result(arn)
    assert (caught.value.report.error, caught.value.report.key) == ("TIMED_OUT", None)


def test_a_failure_without_a_report_is_told_by_what_step_functions_knows() -> None:
    executions = Executions()
    arn = executions.add("one", uploaded("a.jpg", "1"), status="FAILED", error="E", cause="long " * 1000)
    with pytest.raises(JobFailedError) as caught:
        JobClient(stack(executions)).result(arn)
    assert caught.value.report.error == "E"
    assert len(caught.value.report.message) < 400 and "pbr history one" in caught.value.report.remedy
