"""Delete a source's versions, results, derived objects and records.

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

from botocore.exceptions import BotoCoreError, ClientError
from pydantic import ValidationError

from core.errors import BackgroundRemoverError, SourceNotFoundError
from core.options import Options
from functions.contracts.failure_report import json_object, source_of
from functions.contracts.history import execution_arn
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
        replica_bucket: bucket to which S3 replicates results and sidecars; empty without one. S3 does not replicate
            the deletion of versions, so they are found and deleted there, too.
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
    replica_bucket: str = ""

    @property
    def results_buckets(self) -> tuple[str, ...]:
        """The bucket of results, and its replica if there is one."""
        return (self.results_bucket, self.replica_bucket) if self.replica_bucket else (self.results_bucket,)


@dataclass(frozen=True)
class Traces:
    """What is stored of a source.

    Attributes:
        key: object key of the source.
        executions: ARNs of its executions, as far as they are known.
        running: ARNs of those that are running.
        sources: versions of the source, and of the background of an API upload.
        results: versions of results, sidecars and failure reports, also those in the replica.
        cut_outs: cache keys.
        entries: those of cache entries that have a sidecar of the source.
        derived: masks, alphas and cached results.
        reviews: the reviews that show the source: their IDs, and what they show.
        names: IDs of reviews that show another source with the same content; each with the element of the set ``names``
            that is this source.
        jobs: IDs of its API jobs.
        others: names of other sources to which sidecars with a name of this source's belong.
        error: why its objects cannot be found. Nothing of it is deleted then.
    """

    key: str
    executions: frozenset[str] = frozenset()
    running: tuple[str, ...] = ()
    sources: tuple[Deletable, ...] = ()
    results: tuple[Deletable, ...] = ()
    cut_outs: frozenset[str] = frozenset()
    entries: frozenset[str] = frozenset()
    derived: tuple[Deletable, ...] = ()
    reviews: Mapping[str, str] = field(default_factory=dict)
    names: Mapping[str, str] = field(default_factory=dict)
    jobs: tuple[str, ...] = ()
    others: frozenset[str] = frozenset()
    error: Exception | None = None

    @property
    def objects(self) -> tuple[Deletable, ...]:
        """Everything in the buckets."""
        return (*self.sources, *self.results, *self.derived)

    @property
    def is_empty(self) -> bool:
        """Whether nothing is stored of the source."""
        found = (self.objects, self.entries, self.running, self.reviews, self.names, self.jobs, self.error)
        return not any(found)


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

        The result has each of ``keys``, even if nothing is stored of it.

        This describes all running executions and those stopped lately, and reads the tables of cache entries, jobs and
        reviews completely: none of them can be searched by object key.

        Args:
            keys: keys of sources; ``s3/<bucket>/<key>`` for one in another bucket, which itself is never deleted.
            folders: prefixes of the keys of further sources.
        """
        keys, folders = set(keys), tuple(folders)
        running, aborted, jobs = (defaultdict[str, list[str]](list) for _ in range(3))
        reviews, names = (defaultdict[str, dict[str, str]](dict) for _ in range(2))
        cached = defaultdict[str, list[dict[str, Any]]](list)

        def is_wanted(key: str) -> bool:
            return key in keys or key.startswith(folders)

        for arn, key in self._executions("RUNNING"):
            running[key].append(arn)
        for arn, key in self._executions("ABORTED"):
            aborted[key].append(arn)
        for item in self._scan(self._places.cache_table, "document"):
            sidecar = json_object(item["document"]["S"]) if "document" in item else {}  # a claim has none
            if is_wanted(key := self._key_of(sidecar)):
                cached[key].append(sidecar)
        for item in self._scan(self._places.jobs_table, "job_id", "source_key"):
            if "source_key" in item and is_wanted(key := item["source_key"]["S"]):  # a note of unfinished jobs has none
                jobs[key].append(item["job_id"]["S"])
        for item in self._scan(self._places.reviews_table, "review_id", "facts", "names"):
            review, facts = item["review_id"]["S"], item["facts"]["S"]
            reviews[shown := self._key_of(json_object(facts))][review] = facts
            for name in item.get("names", {"SS": []})["SS"]:  # DynamoDB has no empty sets
                bucket, key = json.loads(name)
                if (other := self._key_of({"source": {"bucket": bucket, "key": key}})) != shown:
                    names[other][review] = name
        pending = keys | {key for key in (*running, *aborted, *cached, *jobs, *reviews, *names) if is_wanted(key)}
        pending |= {key for folder in folders for key in self._keys_in(folder)}

        def traces(key: str) -> Traces:
            executions = (*map(self._execution_arn, jobs[key]), *aborted[key], *running[key])
            try:
                of_source = self.of_source(key, executions, tuple(running[key]), cached[key])
            except (BackgroundRemoverError, BotoCoreError, ClientError) as error:
                return Traces(key, error=error)
            return replace(of_source, jobs=tuple(jobs[key]), reviews=reviews[key], names=names[key])

        found: dict[str, Traces] = {}
        with ThreadPoolExecutor(_THREADS) as pool:
            while pending:
                found |= {one.key: one for one in pool.map(traces, pending)}
                pending = {key for one in found.values() for key in one.others if is_wanted(key)} - found.keys()
        return [found[key] for key in sorted(found) if key in keys or not found[key].is_empty]

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
        results, documents, others = list[Deletable](), [*sidecars], set[str]()
        for bucket in self._places.results_buckets:
            stored, own, other = self._results(bucket, key)
            results, documents, others = [*results, *stored], [*documents, *own], others | other
        executions = {*executions, *(_text(document, "execution", "id") for document in documents)} - {""}
        cut_outs = {_text(document, "cache", "key") for document in documents} - {""}
        unfinished = executions - {_text(one, "execution", "id") for one in documents if _text(one, "cache", "key")}
        cut_outs |= self._cut_outs_of(unfinished)
        masks = set() if is_api_upload else {mask for document in documents for mask in _masks(document)}
        return Traces(
            key,
            executions=frozenset(executions),
            running=running,
            sources=tuple(sources),
            results=tuple(results),
            cut_outs=frozenset(cut_outs),
            entries=frozenset(_text(sidecar, "cache", "key") for sidecar in sidecars),
            derived=(*self._derived(cut_outs), *(one for mask in masks for one in self._in_work_bucket(mask))),
            others=frozenset(others),
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

    def erase(self, traces: Traces) -> list[str]:
        """Stop running executions, delete everything, and return the cache keys of cut-outs that are kept.

        A cut-out is kept while an execution of another source computes it. Sidecars and failure reports, which connect
        it with the source, are kept then, too. A stage that runs when its execution is stopped may still write its
        output.

        Raises:
            Exception: the error in ``traces``.
            StorageDeniedError, StorageUnavailableError: S3 denies access, or is unavailable.
            ClientError, BotoCoreError: likewise for DynamoDB and Step Functions.
        """
        if traces.error:
            raise traces.error
        for arn in traces.running:
            self._stepfunctions.stop_execution(
                executionArn=arn, error=DELETED, cause="The job or its source was deleted"
            )
        self._store.delete_permanently(traces.sources)  # first: the sweep starts a source without outcome
        kept = [one for one in traces.cut_outs if not self._erase_cut_out(one, traces.executions)]
        self._store.delete_permanently([one for one in traces.derived if one.key.startswith(MASKS)])
        for review, facts in traces.reviews.items():
            with suppress(self._dynamodb.exceptions.ConditionalCheckFailedException):  # it shows another source now
                self._dynamodb.delete_item(
                    TableName=self._places.reviews_table,
                    Key={"review_id": {"S": review}},
                    ConditionExpression="#facts = :facts",
                    ExpressionAttributeNames={"#facts": "facts"},
                    ExpressionAttributeValues={":facts": {"S": facts}},
                )
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
        self._store.delete_permanently([one for one in traces.results if not (kept and one.key.endswith(".json"))])
        return kept

    def _erase_cut_out(self, cache_key: str, executions: frozenset[str]) -> bool:
        """Delete a cache entry with its mask, its alpha and its result, unless another execution computes them anew.

        Returns whether they are deleted.

        The entry is deleted last. Executions that find it without its result take over the claim, and only then write
        objects, which are no longer deleted here.

        Args:
            cache_key: the cache key.
            executions: ARNs of executions that are not running; their claims are deleted.
        """
        table, key = self._places.cache_table, {"cache_key": {"S": cache_key}}
        item = self._dynamodb.get_item(TableName=table, Key=key, ConsistentRead=True).get("Item")
        owner = item["owner"]["S"] if item and item["status"]["S"] != "DONE" else None
        if owner and owner not in executions and self._is_running(owner):
            return False
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
        return True

    def _is_running(self, execution_arn: str) -> bool:
        with suppress(self._stepfunctions.exceptions.ExecutionDoesNotExist):
            return self._stepfunctions.describe_execution(executionArn=execution_arn)["status"] == "RUNNING"
        return False

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
            key = self._key_of(json_object(described.get("input", "")))
            if described["status"] == status and key:
                yield one["executionArn"], key

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
        """Yield the keys of all sources in a folder that are stored or have results or failure reports.

        Some may not exist: of a result of version 0.2, and of a key that is too long for the name of a result, this
        yields another key. :meth:`_results` finds the right one in the sidecar.
        """
        places = self._places
        for one in self._store.versions(places.uploads_bucket, folder):
            yield one.key
        if folder.startswith(API_FOLDER):
            for one in self._store.versions(places.uploads_bucket, background_key(folder)):
                yield one.key.removeprefix(background_key(""))
        for bucket in places.results_buckets:
            for one in self._store.versions(bucket, RESULTS + folder):
                name = one.key.removeprefix(RESULTS).removesuffix(".json")
                stem, _, extension = name.rpartition(".")
                yield stem if extension in EXTENSIONS else name
        for one in self._store.versions(places.results_bucket, FAILURES + folder):
            yield one.key.removeprefix(FAILURES).removesuffix(".json")

    def _results(self, bucket: str, key: str) -> tuple[list[Deletable], list[dict[str, Any]], set[str]]:
        """Return results, sidecars and failure reports of a source, the content of its JSON files, and other sources.

        In version 0.2, the name of a result had no extension of its source, and can be today's name for another source.
        A sidecar says to which source it and its result belong. What no sidecar names belongs to the source with its
        name.
        """
        results = [result_key(key, extension) for extension in EXTENSIONS]
        names, prefix = {*results, *map(sidecar_key, results), failure_key(key, "")}, commonprefix(results)  # noqa: RUF071  not of path components
        listed = [one for one in self._store.versions(bucket, prefix) if one.key in {*names, f"{prefix}json"}]
        listed += [*self._versions(bucket, failure_key(key, "")), *self._versions(bucket, old_sidecar_key(key))]
        documents, owners = list[dict[str, Any]](), dict[tuple[str, str | None], str]()
        for one in dict.fromkeys(listed):
            if one.key.endswith(".json") and not one.is_marker:
                document = self._document(one)
                owner = self._key_of(document) or (key if one.key in names else "")
                result = _text(document, "result", "key"), _text(document, "result", "version_id") or None
                owners[one.key, one.version_id] = owners[result] = owner
                if owner == key:
                    documents.append(document)
        for name in {name for (name, _), owner in owners.items() if owner == key} - names - {""}:
            listed += self._versions(bucket, name)

        def is_own(one: Deletable) -> bool:
            owner = owners.get((one.key, one.version_id)) or owners.get((one.key, None))
            return owner == key if owner else one.key in names

        return [*filter(is_own, dict.fromkeys(listed))], documents, {*owners.values()} - {key, ""}

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

    def _document(self, one: Deletable) -> dict[str, Any]:
        """Return a sidecar or a failure report; an empty one if it is no JSON object, or was deleted meanwhile."""
        with suppress(SourceNotFoundError):
            data = self._store.fetch(one.bucket, one.key, version_id=one.version_id).data
            return json_object(data.decode(errors="replace"))
        return {}

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
        return execution_arn(self._places.state_machine_arn, name)

    def _key_of(self, document: Mapping[str, Any]) -> str:
        """Return the name from which the keys of a source's results derive; an empty one if the document has no source.

        Args:
            document: a sidecar, a failure report, or the input of an execution.
        """
        source, uploads = source_of(document), self._places.uploads_bucket
        return f"{source_folder(source['bucket'] or uploads, uploads)}{source['key']}" if source["key"] else ""


def _text(document: Mapping[str, Any], part: str, name: str) -> str:
    """Return a text in a part of a document; an empty one if it is missing or is no text."""
    value = found.get(name) if isinstance(found := document.get(part), dict) else None
    return value if isinstance(value, str) else ""


def _masks(document: Mapping[str, Any]) -> Iterator[str]:
    """Yield the key of the mask that a transform job may have made for a result, unless a custom model made it."""
    with suppress(KeyError, TypeError, ValidationError):  # a failure report, or options of another version
        options = Options.model_validate(document["options"])
        yield mask_key(document["source"]["sha256"], options, document["model"]["weights_sha256"])
