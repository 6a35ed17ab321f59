"""What is stored of a source, with S3 and DynamoDB of moto and a fake Step Functions."""

import json
from collections.abc import Iterator
from dataclasses import replace
from datetime import UTC, datetime
from types import SimpleNamespace
from typing import Any

import boto3
import pytest
from botocore.exceptions import ClientError, EndpointConnectionError
from moto import mock_aws

from core.options import Options
from functions.contracts import review
from functions.contracts.errors import StorageDeniedError, StorageUnavailableError
from functions.contracts.masks import mask_key
from functions.contracts.object_keys import failure_key, old_sidecar_key, result_key, sidecar_key
from functions.runtime.erasure import Erasure, Places, Traces
from tests.conftest import ROOT
from tests.fakes.api_in_memory import ENVIRONMENT, MACHINE_ARN, StepFunctions, client, create_storage, execution_arn

PLACES = Places(
    uploads_bucket="uploads",
    results_bucket="results",
    work_bucket="work",
    cache_table="cache",
    state_machine_arn=MACHINE_ARN,
    jobs_table="jobs",
    reviews_table="reviews",
)
TABLES = {"cache": "cache_key", "reviews": "review_id", "jobs": "job_id"}
DOCUMENT = json.loads((ROOT / "events/metrics.json").read_text())["state"]["done"]["document"]
OPTIONS = json.loads((ROOT / "events/metrics.json").read_text())["state"]["options"]
CUP = "photos/cup.jpg"


class Stored:
    """A stack with sources, and what the pipeline makes of them."""

    def __init__(self) -> None:
        self.s3, self.dynamodb = client("s3"), client("dynamodb")
        self.stepfunctions = StepFunctions(self.s3)
        create_storage(self.s3, self.dynamodb, TABLES)
        self.erasure = self.erasure_with(self.s3)

    def erasure_with(self, s3: Any, places: Places = PLACES) -> Erasure:
        return Erasure(places, s3=s3, dynamodb=self.dynamodb, stepfunctions=self.stepfunctions)

    def put(self, bucket: str, key: str, body: Any = b"data") -> None:
        body = body if isinstance(body, bytes) else json.dumps(body).encode()
        self.s3.put_object(Bucket=bucket, Key=key, Body=body)

    def result(
        self, key: str, cut_out: str = "c1", *, extension: str = "png", bucket: str = "uploads"
    ) -> dict[str, Any]:
        """Store a source and a doubtful result with everything that belongs to it, and return its sidecar."""
        name = key if bucket == "uploads" else f"s3/{bucket}/{key}"
        result = result_key(name, extension)
        document: dict[str, Any] = json.loads(json.dumps({**DOCUMENT, "options": OPTIONS, "image": {}}))
        document["execution"] = {"id": execution_arn(f"of-{cut_out}"), "name": f"of-{cut_out}", "started_at": ""}
        document["source"] |= {"bucket": bucket, "key": key, "sha256": "0" * 64}
        document["model"]["weights_sha256"] = "1" * 64
        document["result"] = {"bucket": "results", "key": result, "version_id": None}
        document["cache"], document["quality"]["review"] = {"key": cut_out, "hit": False}, True
        if bucket == "uploads":
            self.put("uploads", key)
        self.put("results", result)
        self.put("results", sidecar_key(result), document)
        self.intermediates(cut_out)
        self.put("work", f"cache/{cut_out}.{extension}")
        entry = {"cache_key": cut_out, "status": "DONE", "owner": document["execution"]["id"]}
        entry["document"] = json.dumps(document)
        self.dynamodb.put_item(TableName="cache", Item={name: {"S": value} for name, value in entry.items()})
        if review.is_doubtful(document):
            self.dynamodb.update_item(TableName="reviews", **review.opening(document, datetime.now(UTC)))
        return document

    def intermediates(self, cut_out: str) -> None:
        self.put("work", f"work/{cut_out}/mask.png")
        self.put("work", f"work/{cut_out}/alpha.png")

    def execution(self, name: str, key: str, status: str, cut_out: str | None) -> None:
        self.stepfunctions.inputs[name] = {"source": {"bucket": "uploads", "key": key}}
        self.stepfunctions.statuses[name] = status
        self.stepfunctions.validated[name] = {"cache_key": cut_out} if cut_out else None

    def job(self, name: str, key: str) -> None:
        self.dynamodb.put_item(TableName="jobs", Item={"job_id": {"S": name}, "source_key": {"S": key}})

    def forget(self, *keys: str, folder: str | None = None) -> list[Traces]:
        found = self.erasure.find(keys, [folder] if folder else [])
        for traces in found:
            self.erasure.erase(traces)
        return found

    def everything(self) -> list[str]:
        """Return the keys of all versions, delete markers and items."""
        found = []
        for bucket in ("uploads", "results", "work"):
            page = self.s3.list_object_versions(Bucket=bucket)
            entries = (*page.get("Versions", []), *page.get("DeleteMarkers", []))
            found += [f"{bucket}/{one['Key']}" for one in entries]
        for table, key in TABLES.items():
            found += [f"{table}/{item[key]['S']}" for item in self.dynamodb.scan(TableName=table)["Items"]]
        return sorted(found)


@pytest.fixture
def stored(monkeypatch: pytest.MonkeyPatch) -> Iterator[Stored]:
    for name, value in ENVIRONMENT.items():
        monkeypatch.setenv(name, value)
    with mock_aws():
        yield Stored()


def test_everything_of_a_source_is_deleted_and_nothing_of_others(stored: Stored) -> None:
    for other in (f"{CUP}.png", "photos/cup", "photos/cup.jpg2", "photos/CUP.jpg"):
        stored.result(other, f"of-{other}")
    others = stored.everything()

    document = stored.result(CUP, "c1")
    stored.result(CUP, "c2", extension="webp")
    stored.s3.delete_object(Bucket="uploads", Key=CUP)
    stored.result(CUP, "c3")
    stored.s3.delete_object(Bucket="results", Key=result_key(CUP, "png"))
    stored.put("results", failure_key(CUP, ""), {"execution": {"id": execution_arn("gone")}})
    stored.put("work", mask_key(document["source"]["sha256"], Options(**OPTIONS), document["model"]["weights_sha256"]))
    stored.job("job-1", CUP)
    [traces] = stored.forget(CUP)
    assert (len(traces.sources), len(traces.results), len(traces.derived), len(traces.reviews)) == (4, 8, 10, 3)
    assert stored.everything() == others
    assert stored.forget(CUP)[0].is_empty


@pytest.mark.parametrize("key", ["tenants/acme/käse +&%<1>.jpg", "x" * 1024, "ü" * 512, "s p a c e/~'\".png"])
def test_keys_can_have_any_character_and_length(stored: Stored, key: str) -> None:
    stored.result(key)
    stored.forget(key)
    assert stored.everything() == []


def test_a_folder_has_sources_that_no_longer_exist(stored: Stored) -> None:
    stored.result("tenants/acme2/a.jpg", "kept")
    others = stored.everything()
    for key in ("tenants/acme/a.jpg", "tenants/acme/gone.jpg", f"tenants/acme/{'x' * 1000}"):
        stored.result(key, key[:20])
    for key in ("tenants/acme/gone.jpg", f"tenants/acme/{'x' * 1000}"):
        version = stored.s3.head_object(Bucket="uploads", Key=key)["VersionId"]
        stored.s3.delete_object(Bucket="uploads", Key=key, VersionId=version)
    stored.put("results", failure_key("tenants/acme/failed.jpg", ""), {"execution": {"id": "arn"}})
    stored.job("job-1", "tenants/acme/of-a-job.jpg")
    stored.forget(folder="tenants/acme/")
    assert stored.everything() == others


def test_intermediate_objects_of_a_failed_execution_are_deleted(stored: Stored) -> None:
    stored.execution("failed", CUP, "FAILED", "c1")
    stored.put("results", failure_key(CUP, ""), {"execution": {"id": execution_arn("failed")}})
    stored.intermediates("c1")
    stored.forget(CUP)
    assert stored.everything() == []


@pytest.mark.parametrize("bucket", ["uploads", "results", "work"])
def test_a_cached_result_is_found_without_its_result_and_its_entry_without_the_object(
    stored: Stored, bucket: str
) -> None:
    stored.result(f"api/caller/{CUP}")
    stored.s3.delete_objects(
        Bucket=bucket,
        Delete={
            "Objects": [
                {"Key": one["Key"], "VersionId": one["VersionId"]}
                for one in stored.s3.list_object_versions(Bucket=bucket)["Versions"]
            ]
        },
    )
    [traces] = stored.forget(folder="api/caller/")
    assert (traces.is_empty, stored.everything()) == (False, [])


def test_running_executions_are_stopped_and_what_they_write_later_is_found(stored: Stored) -> None:
    stored.put("uploads", CUP)
    stored.execution("running", CUP, "RUNNING", "c1")
    stored.execution("of-another", "photos/other.jpg", "RUNNING", "c2")
    claim = {"cache_key": {"S": "c1"}, "status": {"S": "IN_PROGRESS"}, "owner": {"S": execution_arn("running")}}
    stored.dynamodb.put_item(TableName="cache", Item=claim)
    [traces] = stored.forget(CUP)
    assert (stored.stepfunctions.stopped, stored.everything()) == (["running"], [])
    assert traces.running == (execution_arn("running"),)

    stored.stepfunctions.statuses["running"] = "ABORTED"
    stored.intermediates("c1")
    [traces] = stored.forget(CUP)
    assert (traces.running, stored.everything()) == ((), [])


def claim(stored: Stored, cut_out: str, owner: str) -> None:
    """Let an execution take over the claim, which keeps the sidecar in the entry."""
    stored.dynamodb.update_item(
        TableName="cache",
        Key={"cache_key": {"S": cut_out}},
        UpdateExpression="SET #status = :status, #owner = :owner",
        ExpressionAttributeNames={"#status": "status", "#owner": "owner"},
        ExpressionAttributeValues={":status": {"S": "IN_PROGRESS"}, ":owner": {"S": execution_arn(owner)}},
    )


def test_a_cut_out_that_another_source_computes_is_kept_until_its_execution_ends(stored: Stored) -> None:
    stored.result(CUP)
    stored.execution("of-another", "photos/other.jpg", "RUNNING", "c1")
    claim(stored, "c1", "of-another")
    sidecar = sidecar_key(result_key(CUP, "png"))
    kept = stored.erasure.erase(stored.erasure.find([CUP])[0])
    work = ["work/cache/c1.png", "work/work/c1/alpha.png", "work/work/c1/mask.png"]
    assert (kept, stored.everything()) == (["c1"], ["cache/c1", f"results/{sidecar}", *work])

    stored.stepfunctions.statuses["of-another"] = "FAILED"
    stored.forget(CUP)
    assert stored.everything() == []


def test_the_claim_of_an_execution_that_no_longer_exists_is_deleted(stored: Stored) -> None:
    stored.result(CUP)
    claim(stored, "c1", "expired")
    stored.forget(CUP)
    assert stored.everything() == []


@pytest.mark.parametrize(("forgotten", "names"), [("photos/b.jpg", ["photos/a.jpg"]), ("photos/a.jpg", None)])
def test_a_review_is_deleted_if_it_shows_the_source(stored: Stored, forgotten: str, names: list[str] | None) -> None:
    stored.result("photos/a.jpg")
    stored.result("photos/b.jpg")
    stored.forget(forgotten)
    found = stored.dynamodb.scan(TableName="reviews")["Items"]
    assert [[json.loads(name)[1] for name in item["names"]["SS"]] for item in found] == ([names] if names else [])


def test_two_sources_of_one_review_are_forgotten_together(stored: Stored) -> None:
    stored.result("photos/a.jpg")
    stored.result("photos/b.jpg")
    stored.forget("photos/a.jpg", "photos/b.jpg")
    assert stored.everything() == []


def test_a_source_in_another_bucket_has_the_name_of_its_results(stored: Stored) -> None:
    stored.result("2024/cup.jpg", bucket="theirs")
    stored.forget("s3/theirs/2024/cup.jpg")
    assert stored.everything() == []


def result_of_version_0_2(stored: Stored, key: str, cut_out: str) -> None:
    """Store a result and a sidecar whose names have no extension of the source, which does not exist any more."""
    sidecar = old_sidecar_key(key)
    result = sidecar.removesuffix("json") + "png"
    version = stored.s3.put_object(Bucket="results", Key=result, Body=b"data")["VersionId"]
    document = {"execution": {"id": execution_arn(f"of-{cut_out}")}, "source": {"bucket": "uploads", "key": key}}
    document |= {"result": {"key": result, "version_id": version}, "cache": {"key": cut_out}}
    stored.put("results", sidecar, document)
    stored.intermediates(cut_out)
    stored.put("work", f"cache/{cut_out}.png")


def test_sources_of_version_0_2_with_one_result_key_are_told_apart(stored: Stored) -> None:
    result_of_version_0_2(stored, "photos/a.png", "kept")
    others = stored.everything()
    result_of_version_0_2(stored, "photos/a.jpg", "c1")
    stored.forget("photos/a.jpg")
    assert stored.everything() == others
    left = json.loads(stored.s3.get_object(Bucket="results", Key="results/photos/a.json")["Body"].read())
    assert left["source"]["key"] == "photos/a.png"


@pytest.mark.parametrize("other", ["photos/cup.jpg", "photos/cup.png.jpg", "photos/cup.json.jpg"])
def test_results_of_version_0_2_with_the_names_of_a_source_are_kept(stored: Stored, other: str) -> None:
    result_of_version_0_2(stored, other, "of-other")
    others = stored.everything()
    stored.put("uploads", "photos/cup")
    stored.put("results", result_key("photos/cup", "png"))
    stored.forget("photos/cup")
    assert stored.everything() == others


@pytest.mark.parametrize("key", ["photos/cup.jpg", "photos/cup.png.jpg", "photos/cup.jpg.png", "photos/.png"])
def test_a_folder_has_results_of_version_0_2_without_their_sources(stored: Stored, key: str) -> None:
    result_of_version_0_2(stored, key, "c1")
    [traces] = stored.forget(folder="photos/")
    assert (traces.key, stored.everything()) == (key, [])


def test_a_folder_has_a_result_whose_source_key_is_too_long_for_its_name(stored: Stored) -> None:
    key = f"photos/{'x' * 1010}"
    document = {"source": {"bucket": "uploads", "key": key}, "cache": {"key": "c1"}, "execution": {"id": "arn"}}
    stored.put("results", sidecar_key(result_key(key, "png")), document)
    stored.intermediates("c1")
    [traces] = stored.forget(folder="photos/")
    assert (traces.key, stored.everything()) == (key, [])


@pytest.mark.parametrize("foreign", [b"\xff", {}, {"execution": "x"}, {"source": 3, "cache": {"key": 1}}])
def test_a_json_file_that_is_no_sidecar_belongs_to_the_source_with_its_name(stored: Stored, foreign: Any) -> None:
    stored.put("results", sidecar_key(result_key(CUP, "png")), foreign)
    stored.put("results", failure_key(CUP, ""), foreign)
    stored.forget(folder="photos/")
    assert stored.everything() == []


def test_a_failure_report_that_names_another_source_is_kept(stored: Stored) -> None:
    stored.put("results", failure_key(None, "e1"), {"source": {"bucket": "uploads", "key": CUP}})
    stored.forget("executions/e1")
    assert stored.everything() == ["results/failed/executions/e1.json"]


def test_the_folder_of_an_api_caller_has_backgrounds_whose_sources_are_gone(stored: Stored) -> None:
    stored.put("uploads", "backgrounds/api/k1/u1/a.png")
    stored.put("uploads", "backgrounds/api/k2/u1/a.png")
    stored.forget(folder="api/k1/")
    assert stored.everything() == ["uploads/backgrounds/api/k2/u1/a.png"]


class DeniesReads:
    """An S3 client that may not read some objects, e.g. because their KMS key is disabled."""

    def __init__(self, s3: Any, word: str) -> None:
        self._s3, self._word = s3, word

    def __getattr__(self, name: str) -> Any:
        return getattr(self._s3, name)

    def get_object(self, **request: Any) -> Any:
        if self._word in request["Key"]:
            error: Any = {"Error": {"Code": "AccessDenied"}, "ResponseMetadata": {"HTTPStatusCode": 403}}
            raise ClientError(error, "GetObject")
        return self._s3.get_object(**request)


def test_a_sidecar_that_cannot_be_read_keeps_its_source_and_no_others(stored: Stored) -> None:
    stored.result("photos/b.jpg", "kept")
    kept = stored.everything()
    stored.result("photos/a.jpg", "c1")
    stored.result("photos/c.jpg", "c2")
    erasure = stored.erasure_with(DeniesReads(stored.s3, "photos/b.jpg"))
    first, unreadable, last = erasure.find([], ["photos/"])
    erasure.erase(first)
    erasure.erase(last)
    with pytest.raises(StorageDeniedError, match="Grant s3:GetObject and s3:GetObjectVersion"):
        erasure.erase(unreadable)
    assert (unreadable.is_empty, stored.everything()) == (False, kept)


def test_a_review_that_another_source_opened_after_the_search_is_kept(stored: Stored) -> None:
    stored.result("photos/a.jpg")
    [before] = stored.erasure.find(["photos/a.jpg"])
    stored.dynamodb.delete_item(TableName="reviews", Key={"review_id": {"S": "c1"}})
    stored.result("photos/b.jpg")
    stored.erasure.erase(before)
    [item] = stored.dynamodb.scan(TableName="reviews")["Items"]
    assert item["source_key"]["S"] == "photos/b.jpg"


def test_a_review_can_have_no_names(stored: Stored) -> None:
    stored.result(CUP)
    stored.dynamodb.update_item(
        TableName="reviews",
        Key={"review_id": {"S": "c1"}},
        UpdateExpression="REMOVE #n",
        ExpressionAttributeNames={"#n": "names"},
    )
    stored.forget(CUP)
    assert stored.everything() == []


class DeniesDeletions:
    """An S3 client that may not delete objects of a bucket."""

    def __init__(self, s3: Any, bucket: str) -> None:
        self._s3, self._bucket = s3, bucket

    def __getattr__(self, name: str) -> Any:
        return getattr(self._s3, name)

    def delete_objects(self, **request: Any) -> Any:
        if request["Bucket"] == self._bucket:
            key = request["Delete"]["Objects"][0]["Key"]
            return {"Errors": [{"Key": key, "Code": "AccessDenied", "Message": "Access Denied"}]}
        return self._s3.delete_objects(**request)


@pytest.mark.parametrize("bucket", ["uploads", "work", "results"])
def test_an_interrupted_erasure_can_be_repeated(stored: Stored, bucket: str) -> None:
    stored.result(CUP)
    interrupted = stored.erasure_with(DeniesDeletions(stored.s3, bucket))
    with pytest.raises(StorageDeniedError, match="s3:DeleteObjectVersion"):
        interrupted.erase(interrupted.find([CUP])[0])
    assert f"results/{sidecar_key(result_key(CUP, 'png'))}" in stored.everything()
    stored.forget(CUP)
    assert stored.everything() == []


REPLICATED = replace(PLACES, replica_bucket="replica")


@pytest.fixture
def replicated(stored: Stored) -> Stored:
    """A stack whose results are replicated. Neither moto nor this fixture replicates: see :func:`replicate`."""
    elsewhere = boto3.client("s3", region_name="us-west-2")
    elsewhere.create_bucket(Bucket="replica", CreateBucketConfiguration={"LocationConstraint": "us-west-2"})
    stored.s3.put_bucket_versioning(Bucket="replica", VersioningConfiguration={"Status": "Enabled"})
    stored.erasure = stored.erasure_with(stored.s3, REPLICATED)
    return stored


def replicate(stored: Stored) -> None:
    """Copy results and sidecars to the replica, as S3 does. Unlike with S3, the copies have other version IDs."""
    for one in stored.s3.list_object_versions(Bucket="results", Prefix="results/").get("Versions", []):
        version = stored.s3.get_object(Bucket="results", Key=one["Key"], VersionId=one["VersionId"])
        stored.s3.put_object(Bucket="replica", Key=one["Key"], Body=version["Body"].read())


def replicas(stored: Stored) -> list[str]:
    page = stored.s3.list_object_versions(Bucket="replica")
    return sorted(one["Key"] for one in (*page.get("Versions", []), *page.get("DeleteMarkers", [])))


@pytest.mark.parametrize("folder", [None, "photos/"])
def test_replicas_of_results_are_deleted_and_those_of_others_are_not(replicated: Stored, folder: str | None) -> None:
    replicated.result("other/cup.jpg", "kept")
    replicate(replicated)
    others = replicas(replicated)
    replicated.result(CUP)
    replicate(replicated)
    replicated.s3.delete_object(Bucket="replica", Key=result_key(CUP, "png"))  # adds a delete marker
    [found] = replicated.forget(*([] if folder else [CUP]), folder=folder)
    assert {one.key for one in found.results if one.bucket == "replica"} == {
        result_key(CUP, "png"),
        sidecar_key(result_key(CUP, "png")),
    }
    assert sorted(set(replicas(replicated))) == others


@pytest.mark.parametrize("folder", [None, "photos/"])
def test_replicas_are_found_when_nothing_else_is_stored(replicated: Stored, folder: str | None) -> None:
    replicated.result(CUP)
    replicate(replicated)
    replicated.erasure = replicated.erasure_with(replicated.s3)
    replicated.forget(CUP)
    assert (replicated.everything(), len(replicas(replicated))) == ([], 2)
    replicated.erasure = replicated.erasure_with(replicated.s3, REPLICATED)
    replicated.forget(*([] if folder else [CUP]), folder=folder)
    assert replicas(replicated) == []


def test_an_erasure_that_the_replica_denies_can_be_repeated(replicated: Stored) -> None:
    replicated.result(CUP)
    replicate(replicated)
    denied = replicated.erasure_with(DeniesDeletions(replicated.s3, "replica"), REPLICATED)
    with pytest.raises(StorageDeniedError, match="s3://replica/results/photos/cup"):
        denied.erase(denied.find([CUP])[0])
    replicated.forget(CUP)
    assert (replicated.everything(), replicas(replicated)) == ([], [])


def test_nothing_is_deleted_while_the_replica_cannot_be_listed(replicated: Stored) -> None:
    replicated.result(CUP)
    before = replicated.everything()
    unreachable = replicated.erasure_with(Unreachable(replicated.s3, "replica"), REPLICATED)
    [found] = unreachable.find([CUP])
    with pytest.raises(StorageUnavailableError, match="s3://replica/"):
        unreachable.erase(found)
    assert replicated.everything() == before


class Unreachable:
    """An S3 client for which the Region of a bucket is unavailable."""

    def __init__(self, s3: Any, bucket: str) -> None:
        self._s3, self._bucket = s3, bucket

    def __getattr__(self, name: str) -> Any:
        return getattr(self._s3, name)

    def get_paginator(self, operation: str) -> Any:
        pages = self._s3.get_paginator(operation)

        def paginate(**request: Any) -> Any:
            if request["Bucket"] == self._bucket:
                raise EndpointConnectionError(endpoint_url="https://s3.us-west-2.amazonaws.com")
            return pages.paginate(**request)

        return SimpleNamespace(paginate=paginate)
