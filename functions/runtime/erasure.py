"""Erase what is stored of a source: its versions, its results, all that was derived from it, and records about it.

Keys of derived objects contain a cache key, which only sidecars and execution histories connect with the source. So
these are read first, and sidecars are deleted last: an erasure that was interrupted can be repeated.
"""

import json
from collections import defaultdict
from collections.abc import Iterable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime, timedelta
from itertools import takewhile
from os.path import commonprefix
from typing import TYPE_CHECKING, Any, Final, Literal

from pydantic import ValidationError

from core.errors import SourceNotFoundError
from core.options import Options
from functions.contracts.failure_report import json_object, source_of
from functions.contracts.masks import MASKS, mask_key
from functions.contracts.object_keys import (
    EXTENSIONS,
    FAILURES,
    RESULTS,
    background_key,
    failure_key,
    old_sidecar_key,
    result_key,
    sidecar_key,
    source_folder,
)
from functions.contracts.review import API_FOLDER
from functions.runtime.outcomes import DELETED
from functions.runtime.store import Deletable, Store

if TYPE_CHECKING:
    from mypy_boto3_dynamodb import DynamoDBClient
    from mypy_boto3_s3 import S3Client
    from mypy_boto3_stepfunctions import SFNClient

_THREADS: Final = 8
_MAX_EVENTS: Final = 1000
_INTERMEDIATES_KEPT: Final = timedelta(days=3)  # the lifecycle rule deletes them after two days, at midnight UTC


@dataclass(frozen=True)
class Places:
    """Where a stack stores what is erased.

    Attributes:
        uploads_bucket, results_bucket, work_bucket: buckets.
        cache_table: table of cache entries and claims.
        state_machine_arn: the main state machine.
        jobs_table, reviews_table: tables that :meth:`Erasure.find` reads.
    """

    uploads_bucket: str
    results_bucket: str
    work_bucket: str
    cache_table: str
    state_machine_arn: str
    jobs_table: str = ""
    reviews_table: str = ""


@dataclass(frozen=True)
class Traces:
    """What is stored of a source.

    Attributes:
        key: object key of the source.
        executions: ARNs of its executions, as far as they are known.
        running: ARNs of those that are running.
        sources: versions of the source, and of the background of an API upload.
        results: versions of results, sidecars and failure reports.
        cut_outs: cache keys.
        entries: those of cache entries that have a sidecar of the source.
        derived: masks, alphas and cached results.
        reviews: IDs of the reviews that show the source.
        names: IDs of reviews that show another source with the same content; each with the element of the set ``names``
            that is this source.
        jobs: IDs of its API jobs.
    """

    key: str
    executions: frozenset[str] = frozenset()
    running: tuple[str, ...] = ()
    sources: tuple[Deletable, ...] = ()
    results: tuple[Deletable, ...] = ()
    cut_outs: frozenset[str] = frozenset()
    entries: frozenset[str] = frozenset()
    derived: tuple[Deletable, ...] = ()
    reviews: tuple[str, ...] = ()
    names: Mapping[str, str] = field(default_factory=dict)
    jobs: tuple[str, ...] = ()

    @property
    def objects(self) -> tuple[Deletable, ...]:
        """Everything in the buckets."""
        return (*self.sources, *self.results, *self.derived)

    @property
    def is_empty(self) -> bool:
        """Whether nothing is stored of the source."""
        return not (self.objects or self.entries or self.running or self.reviews or self.names or self.jobs)


class Erasure:
    """Finds and deletes what a stack stores of sources.

    Args:
        places: the stack's buckets, tables and state machine.
        s3, dynamodb, stepfunctions: the AWS clients.
    """

    def __init__(
        self, places: Places, *, s3: "S3Client", dynamodb: "DynamoDBClient", stepfunctions: "SFNClient"
    ) -> None:
        self._places, self._store = places, Store(s3)
        self._dynamodb, self._stepfunctions = dynamodb, stepfunctions

    def find(self, keys: Iterable[str], folders: Iterable[str] = ()) -> list[Traces]:
        """Return what is stored of sources, in the order of their keys. Sources need not exist any more.

        This describes all running executions and those stopped lately, and reads the tables of cache entries, jobs and
        reviews completely: none of them can be searched by object key.

        Args:
            keys: keys of sources; ``s3/<bucket>/<key>`` for one in another bucket, which itself is never deleted.
            folders: prefixes of the keys of further sources.
        """
        keys, folders = set(keys), tuple(folders)
        running, aborted, jobs, reviews = (defaultdict[str, list[str]](list) for _ in range(4))
        names, cached = defaultdict[str, dict[str, str]](dict), defaultdict[str, list[dict[str, Any]]](list)

        def is_wanted(key: str) -> bool:
            return key in keys or key.startswith(folders)

        for arn, key in self._executions("RUNNING"):
            running[key].append(arn)
        for arn, key in self._executions("ABORTED"):
            aborted[key].append(arn)
        for item in self._scan(self._places.cache_table, "document"):
            sidecar = json_object(item["document"]["S"]) if "document" in item else {}  # a claim has none
            if sidecar and is_wanted(key := self._key_of(sidecar["source"])):
                cached[key].append(sidecar)
        for item in self._scan(self._places.jobs_table, "job_id", "source_key"):
            if "source_key" in item and is_wanted(key := item["source_key"]["S"]):  # a note of unfinished jobs has none
                jobs[key].append(item["job_id"]["S"])
        for item in self._scan(self._places.reviews_table, "review_id", "facts", "names"):
            review, shown = item["review_id"]["S"], self._key_of(json_object(item["facts"]["S"])["source"])
            reviews[shown].append(review)
            for name in item["names"]["SS"]:
                bucket, key = json.loads(name)
                if (other := self._key_of({"bucket": bucket, "key": key})) != shown:
                    names[other][review] = name
        found = keys | {key for key in (*running, *aborted, *cached, *jobs, *reviews, *names) if is_wanted(key)}
        found |= {key for folder in folders for key in self._keys_in(folder)}

        def traces(key: str) -> Traces:
            executions = (*map(self._execution_arn, jobs[key]), *aborted[key], *running[key])
            of_source = self.of_source(key, executions, tuple(running[key]), cached[key])
            return replace(of_source, jobs=tuple(jobs[key]), reviews=tuple(reviews[key]), names=names[key])

        with ThreadPoolExecutor(_THREADS) as pool:
            return list(pool.map(traces, sorted(found)))

    def of_source(
        self,
        key: str,
        executions: Iterable[str] = (),
        running: tuple[str, ...] = (),
        sidecars: Sequence[dict[str, Any]] = (),
    ) -> Traces:
        """Return what is stored of a source, apart from records in tables.

        Args:
            key: its object key.
            executions: ARNs of its executions, besides those that results and failure reports name.
            running: ARNs of those that are running.
            sidecars: sidecars of it in cache entries.
        """
        uploads, is_api_upload = self._places.uploads_bucket, key.startswith(API_FOLDER)
        sources = [*self._versions(uploads, key)]
        if is_api_upload:
            sources += self._versions(uploads, background_key(key))
        results = [*self._results(key)]
        documents = [*sidecars, *self._documents(results)]
        executions = {*executions, *(document["execution"]["id"] for document in documents)}
        unfinished = executions - {document["execution"]["id"] for document in documents if "cache" in document}
        cut_outs = {document["cache"]["key"] for document in documents if "cache" in document}
        cut_outs |= self._cut_outs_of(unfinished)
        masks = set() if is_api_upload else {mask for document in documents for mask in _masks(document)}
        return Traces(
            key,
            executions=frozenset(executions),
            running=running,
            sources=tuple(sources),
            results=tuple(results),
            cut_outs=frozenset(cut_outs),
            entries=frozenset(sidecar["cache"]["key"] for sidecar in sidecars),
            derived=(*self._derived(cut_outs), *(one for mask in masks for one in self._in_work_bucket(mask))),
        )

    def of_executions(self, key: str, executions: Iterable[str], running: tuple[str, ...] = ()) -> Traces:
        """Return what executions derived from a source, without the source and its results.

        Args:
            key: object key of the source.
            executions: their ARNs.
            running: ARNs of those that are running.
        """
        executions = frozenset(executions)
        cut_outs = self._cut_outs_of(executions)
        derived = tuple(self._derived(cut_outs))
        return Traces(key, executions=executions, running=running, cut_outs=cut_outs, derived=derived)

    def erase(self, traces: Traces) -> None:
        """Stop running executions, and delete everything.

        A stage that runs when its execution is stopped may still write its output, and a cut-out that an execution of
        another source computes at this time is kept.

        Raises:
            StorageDeniedError, StorageUnavailableError: S3 denies access, or is unavailable.
            ClientError, BotoCoreError: likewise for DynamoDB and Step Functions.
        """
        for arn in traces.running:
            self._stepfunctions.stop_execution(
                executionArn=arn, error=DELETED, cause="The job or its source was deleted"
            )
        self._store.delete_permanently(traces.sources)  # first: the sweep starts a source without outcome
        for cut_out in traces.cut_outs:
            self._erase_cut_out(cut_out, traces.executions)
        self._store.delete_permanently([one for one in traces.derived if one.key.startswith(MASKS)])
        for review in traces.reviews:
            self._dynamodb.delete_item(TableName=self._places.reviews_table, Key={"review_id": {"S": review}})
        for review, name in traces.names.items():
            with suppress(self._dynamodb.exceptions.ConditionalCheckFailedException):  # the review was deleted
                self._dynamodb.update_item(
                    TableName=self._places.reviews_table,
                    Key={"review_id": {"S": review}},
                    UpdateExpression="DELETE #names :names",
                    ConditionExpression="attribute_exists(review_id)",
                    ExpressionAttributeNames={"#names": "names"},
                    ExpressionAttributeValues={":names": {"SS": [name]}},
                )
        for job in traces.jobs:
            self._dynamodb.delete_item(TableName=self._places.jobs_table, Key={"job_id": {"S": job}})
        self._store.delete_permanently(traces.results)

    def _erase_cut_out(self, cache_key: str, executions: frozenset[str]) -> None:
        """Delete a cache entry with its mask, its alpha and its result, unless another execution computes them anew.

        The entry is deleted last. Executions that find it without its result take over the claim, and only then write
        objects, which are no longer deleted here.

        Args:
            cache_key: the cache key.
            executions: ARNs of executions that are not running; their claims are deleted.
        """
        table, key = self._places.cache_table, {"cache_key": {"S": cache_key}}
        item = self._dynamodb.get_item(TableName=table, Key=key, ConsistentRead=True).get("Item")
        if item and item["status"]["S"] != "DONE" and item["owner"]["S"] not in executions:
            return
        self._store.delete_permanently([*self._derived([cache_key])])
        if item:
            with suppress(self._dynamodb.exceptions.ConditionalCheckFailedException):  # there is a new claim
                self._dynamodb.delete_item(
                    TableName=table,
                    Key=key,
                    ConditionExpression="#status = :status AND #owner = :owner",
                    ExpressionAttributeNames={"#status": "status", "#owner": "owner"},
                    ExpressionAttributeValues={":status": item["status"], ":owner": item["owner"]},
                )

    def _executions(self, status: Literal["RUNNING", "ABORTED"]) -> Iterator[tuple[str, str]]:
        """Yield the ARN of each execution with a status, and the key of its source.

        Aborted ones have no result, and those that :meth:`erase` stopped have no failure report either. They are left
        out once their intermediate objects have expired.
        """
        pages = self._stepfunctions.get_paginator("list_executions").paginate(
            stateMachineArn=self._places.state_machine_arn, statusFilter=status
        )
        oldest = datetime.now(UTC) - _INTERMEDIATES_KEPT
        for one in (one for page in pages for one in page["executions"] if one.get("stopDate", oldest) >= oldest):
            described = self._stepfunctions.describe_execution(executionArn=one["executionArn"])
            source = source_of(json_object(described.get("input", "")))
            if described["status"] == status and source["bucket"] and source["key"]:
                yield one["executionArn"], self._key_of(source)

    def _scan(self, table: str, *attributes: str) -> Iterator[Mapping[str, Any]]:
        names = {f"#{name}": name for name in attributes}
        for page in self._dynamodb.get_paginator("scan").paginate(
            TableName=table,
            ProjectionExpression=", ".join(names),
            ExpressionAttributeNames=names,
            ConsistentRead=True,
        ):
            yield from page["Items"]

    def _keys_in(self, folder: str) -> Iterator[str]:
        """Yield the keys of all sources in a folder that are stored or have results or failure reports."""
        for one in self._store.versions(self._places.uploads_bucket, folder):
            yield one.key
        for prefix, ends in ((RESULTS, EXTENSIONS), (FAILURES, ("json",))):
            for one in self._store.versions(self._places.results_bucket, prefix + folder):
                name, _, end = one.key.removeprefix(prefix).rpartition(".")
                if prefix == RESULTS and end == "json":
                    name, _, end = name.rpartition(".")
                if end in ends:
                    yield name

    def _results(self, key: str) -> Iterator[Deletable]:
        """Yield the versions of all results, sidecars and failure reports of a source."""
        bucket = self._places.results_bucket
        results = [result_key(key, extension) for extension in EXTENSIONS]
        names, prefix = {*results, *map(sidecar_key, results)}, commonprefix(results)  # noqa: RUF071  not of path components
        yield from (one for one in self._store.versions(bucket, prefix) if one.key in names)
        yield from self._versions(bucket, failure_key(key, ""))
        for sidecar in self._versions(bucket, old_sidecar_key(key)):
            for document in self._documents([sidecar]):
                if document["source"]["key"] == key:
                    yield sidecar
                    result, version = document["result"]["key"], document["result"]["version_id"]
                    yield from (one for one in self._versions(bucket, result) if version in (None, one.version_id))

    def _versions(self, bucket: str, key: str) -> Iterator[Deletable]:
        """Yield the versions of one object. In a listing, it comes before the others that start with its key."""
        return takewhile(lambda one: one.key == key, self._store.versions(bucket, key))

    def _derived(self, cut_outs: Iterable[str]) -> Iterator[Deletable]:
        """Yield the masks, alphas and results in the work bucket."""
        for cut_out in cut_outs:
            yield from self._in_work_bucket(f"work/{cut_out}/")
            yield from self._in_work_bucket(f"cache/{cut_out}.")

    def _in_work_bucket(self, prefix: str) -> Iterator[Deletable]:
        return self._store.objects(self._places.work_bucket, prefix)

    def _documents(self, results: Iterable[Deletable]) -> Iterator[dict[str, Any]]:
        """Yield the sidecars and failure reports among results."""
        for one in results:
            if one.key.endswith(".json") and not one.is_marker:
                with suppress(SourceNotFoundError):  # it was deleted meanwhile
                    file = self._store.fetch(one.bucket, one.key, version_id=one.version_id)
                    document = json_object(file.data.decode(errors="replace"))
                    if "execution" in document:
                        yield document

    def _cut_outs_of(self, executions: Iterable[str]) -> frozenset[str]:
        """Return the cache keys of executions, unless Validate has not succeeded, or the history has expired."""
        own = (arn for arn in executions if arn.startswith(self._execution_arn("")))  # others are bulk runs
        return frozenset(cut_out for arn in own if (cut_out := self._cut_out_of(arn)))

    def _cut_out_of(self, execution_arn: str) -> str | None:
        try:
            history = self._stepfunctions.get_execution_history(executionArn=execution_arn, maxResults=_MAX_EVENTS)
        except self._stepfunctions.exceptions.ExecutionDoesNotExist:
            return None
        exits = (event.get("stateExitedEventDetails", {}) for event in history["events"])
        output = next((details["output"] for details in exits if details.get("name") == "Validate"), "")
        cut_out: str | None = json_object(output).get("cache_key")  # Validate's Catch has none
        return cut_out

    def _execution_arn(self, name: str) -> str:
        return f"{self._places.state_machine_arn.replace(':stateMachine:', ':execution:')}:{name}"

    def _key_of(self, source: Mapping[str, Any]) -> str:
        """Return the name from which the keys of a source's results derive."""
        return f"{source_folder(source['bucket'], self._places.uploads_bucket)}{source['key']}"


def _masks(document: Mapping[str, Any]) -> Iterator[str]:
    """Yield the key of the mask that a transform job may have made for a result, unless a custom model made it."""
    with suppress(KeyError, ValidationError):  # a failure report, or options of another version
        options = Options.model_validate(document["options"])
        yield mask_key(document["source"]["sha256"], options, document["model"]["weights_sha256"])
