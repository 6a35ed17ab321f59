import json
from typing import Any

import pytest

from client.errors import JobFailedError, JobTimeoutError, ResultNotFoundError
from client.jobs import JobClient, StoppedWaitingError, Upload
from core.errors import FileTooLargeError, InvalidOptionsError, SourceNotFoundError
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


@pytest.mark.parametrize("key", ["backgrounds/größe 😀.png", f"backgrounds/{'é' * 500}.png", "=?UTF-8?B?YQ==?="])
def test_validate_reads_a_background_key_of_any_characters(key: str) -> None:
    buckets = Buckets()
    JobClient(stack(buckets=buckets)).upload("photo.jpg", b"data", {"background_key": key})
    [put] = buckets.puts
    assert put["Metadata"]["pbr-background-key"].isascii()
    assert options_in(put["Metadata"]) == {"background_key": key}


def test_validate_reads_the_options_of_an_upload() -> None:
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


def test_uploads_have_unique_keys_that_end_with_the_name() -> None:
    jobs = JobClient(stack())
    keys = {jobs.upload("photo.jpg", b"").key for _ in range(10)}
    assert len(keys) == 10 and all(key.startswith("cli/") and key.endswith("/photo.jpg") for key in keys)


def test_an_upload_has_a_key_in_the_given_folder() -> None:
    assert JobClient(stack()).upload("a.jpg", b"", folder="web/abc/").key.startswith("web/abc/2")


def test_an_upload_is_copied_with_other_options() -> None:
    buckets = Buckets()
    jobs = JobClient(stack(buckets=buckets))
    first = jobs.upload("grün.jpg", b"data", {"crop": True}, folder="web/abc/")
    second = jobs.upload_again(first, {"format": "webp"})
    assert second.key != first.key
    assert [key.split("/")[0::3] for key in (first.key, second.key)] == [["web", "grün.jpg"]] * 2
    assert second.key.startswith("web/abc/")
    put = buckets.puts[-1]
    assert (put["Key"], put["Body"], put["ContentType"], put["Metadata"]) == (
        second.key,
        b"data",
        "image/jpeg",
        {"pbr-format": "webp"},
    )


def test_an_upload_that_was_deleted_cannot_be_copied() -> None:
    with pytest.raises(SourceNotFoundError) as failure:
        JobClient(stack()).upload_again(Upload("web/abc/1/a.jpg", "v1", NOW))
    assert failure.value.value == "web/abc/1/a.jpg"


@pytest.mark.parametrize("options", [{"format": "tiff"}, {"crop_margin": 2}, {"colour": "red"}])
def test_invalid_options_are_not_uploaded(options: dict[str, Any]) -> None:
    buckets = Buckets()
    with pytest.raises(InvalidOptionsError):
        JobClient(stack(buckets=buckets)).upload("a.jpg", b"", options)
    assert not buckets.puts


def test_files_that_are_too_large_are_not_uploaded() -> None:
    buckets = Buckets()
    with pytest.raises(FileTooLargeError):
        JobClient(stack(buckets=buckets)).upload("a.jpg", bytes(MAX_BYTES + 1))
    assert not buckets.puts


def test_backgrounds_are_uploaded_under_backgrounds() -> None:
    buckets = Buckets()
    jobs = JobClient(stack(buckets=buckets))
    key = jobs.upload_background("beach.jpg", b"data")
    assert key.startswith("backgrounds/") and buckets.objects["uploads", key] == b"data"
    assert jobs.upload_background("copy.jpg", b"data") == key != jobs.upload_background("beach.jpg", b"other")


def test_execution_of_finds_the_object_version() -> None:
    executions = Executions()
    executions.add("other-bucket", uploaded("a", "2", "elsewhere"), after_s=1)
    executions.add("other-version", uploaded("a", "1"))
    executions.add("no-image", {"source": "s3://uploads/a"}, after_s=2)
    wanted = executions.add("wanted", uploaded("a", "2"))
    assert JobClient(stack(executions)).execution_of(Upload("a", "2", NOW)) == wanted


def test_uploads_share_one_scan() -> None:
    executions = Executions()
    arns = [executions.add(str(number), uploaded(f"{number}.jpg", "v")) for number in range(20)]
    jobs = JobClient(stack(executions))
    assert [jobs.execution_of(Upload(f"{number}.jpg", "v", NOW)) for number in range(20)] == arns
    assert sorted(executions.described) == sorted(arns)


def test_executions_before_the_upload_are_not_described() -> None:
    executions = Executions()
    for number in range(50):
        executions.add(f"old{number}", uploaded("a", "1"), after_s=-60)
    wanted = executions.add("new", uploaded("a", "1"), after_s=-1)
    assert JobClient(stack(executions)).execution_of(Upload("a", "1", NOW)) == wanted
    assert executions.described == [wanted]


def test_waiting_for_an_execution_times_out() -> None:
    with pytest.raises(JobTimeoutError, match="EventBridge"):
        JobClient(stack()).execution_of(Upload("a", "1", NOW), timeout_s=0.01)


def test_follow_yields_stage_events_until_the_end() -> None:
    executions = Executions()
    arn = executions.add("one", {})
    whole = History().task("Validate").task("Refine").add("ExecutionSucceeded").events
    executions.histories[arn] = [whole[:4], whole[:4], whole[:8], whole]
    events = [(event.stage, event.kind) for event in JobClient(stack(executions)).follow(arn)]
    assert events == [("Validate", "started"), ("Validate", "finished"), ("Refine", "started"), ("Refine", "finished")]


def test_following_an_execution_times_out() -> None:
    executions = Executions()
    arn = executions.add("one", {})
    executions.histories[arn] = [History().enter("Validate").events]
    with pytest.raises(JobTimeoutError, match="still running"):
        list(JobClient(stack(executions)).follow(arn, timeout_s=0.01))


def test_a_caller_can_stop_waiting() -> None:
    executions = Executions()
    arn = executions.add("one", {})
    executions.histories[arn] = [History().enter("Validate").events]
    jobs, answers = JobClient(stack(executions)), iter([False, False, True, False, False, True])
    with pytest.raises(StoppedWaitingError):
        jobs.execution_of(Upload("a", "1", NOW), timeout_s=5, stopped=lambda: next(answers))
    with pytest.raises(StoppedWaitingError):
        list(jobs.follow(arn, timeout_s=5, stopped=lambda: next(answers)))


@pytest.mark.parametrize("version_id", [None, "v1"])
def test_a_result_has_the_file_and_the_sidecar(version_id: str | None) -> None:
    executions, buckets = Executions(), Buckets()
    sidecar = {"result": {"bucket": "results", "key": "results/a.jpg.png", "version_id": version_id}}
    arn = executions.add("one", uploaded("a.jpg", "1"), status="SUCCEEDED", output=json.dumps(sidecar))
    place = ("results", "results/a.jpg.png", *([version_id] if version_id else []))
    buckets.objects[place] = b"png"
    result = JobClient(stack(executions, buckets)).result(arn)
    assert (result.data, result.sidecar) == (b"png", sidecar)


def test_a_result_that_was_deleted_is_a_clear_error() -> None:
    executions = Executions()
    sidecar = {"result": {"bucket": "results", "key": "results/a.jpg.png", "version_id": "v1"}}
    arn = executions.add("one", uploaded("a.jpg", "1"), status="SUCCEEDED", output=json.dumps(sidecar))
    with pytest.raises(ResultNotFoundError, match="no longer exists"):
        JobClient(stack(executions)).result(arn)


def test_result_waits_for_a_lagging_description() -> None:
    class Lagging(Executions):
        def describe_execution(self, **request: Any) -> dict[str, Any]:
            found = super().describe_execution(**request)
            return found if len(self.described) > 2 else {**found, "status": "RUNNING"}

    executions = Lagging()
    arn = executions.add("one", uploaded("a.jpg", "1"), status="ABORTED")
    with pytest.raises(JobFailedError) as caught:
        JobClient(stack(executions)).result(arn)
    assert caught.value.report.error == "ABORTED"


def test_a_failure_has_the_content_of_its_report() -> None:
    executions, buckets = Executions(), Buckets()
    arn = executions.add("one", uploaded("a.jpg", "1"), status="FAILED", error="x", cause="y")
    buckets.objects["results", "failed/a.jpg.json"] = json.dumps({**REPORT, "execution": {"id": arn}}).encode()
    with pytest.raises(JobFailedError) as caught:
        JobClient(stack(executions, buckets)).result(arn)
    report = caught.value.report
    assert {name: getattr(report, name) for name in REPORT} == REPORT
    assert report.key == "failed/a.jpg.json"


def test_the_report_of_another_execution_is_ignored() -> None:
    executions, buckets = Executions(), Buckets()
    arn = executions.add("one", uploaded("a.jpg", "1"), status="TIMED_OUT")
    buckets.objects["results", "failed/a.jpg.json"] = json.dumps({**REPORT, "execution": {"id": "other"}}).encode()
    with pytest.raises(JobFailedError) as caught:
        JobClient(stack(executions, buckets)).result(arn)
    assert (caught.value.report.error, caught.value.report.key) == ("TIMED_OUT", None)


def test_a_failure_without_a_report_has_error_and_cause() -> None:
    executions = Executions()
    arn = executions.add("one", uploaded("a.jpg", "1"), status="FAILED", error="E", cause="long " * 1000)
    with pytest.raises(JobFailedError) as caught:
        JobClient(stack(executions)).result(arn)
    assert caught.value.report.error == "E"
    assert len(caught.value.report.message) < 400 and "pbr history one" in caught.value.report.remedy
