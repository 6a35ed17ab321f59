"""The state of a stack after a run, read through the services' APIs only, as an operator would."""

import hashlib
import io
import json
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from typing import Any

from PIL import Image

from embedded_cloud.cloud import EmbeddedCloud
from functions.contracts.failure_report import source_of
from tests.conftest import client

CLAIMING = {"ClaimWork", "TakeOverClaim"}
KILLED = "The container ended with signal: killed"
"""The log line between the last line of a killed worker and the first of the next."""


@dataclass(frozen=True)
class Found:
    """A result: what its sidecar states, and the stored object. ``size`` is None if the object is not an image."""

    key: str
    version: str | None
    stated_sha256: str
    sha256: str
    size: tuple[int, int] | None
    degraded: bool = False
    hit: bool = False


@dataclass(frozen=True)
class Execution:
    """An execution that was started for an upload.

    Attributes:
        owned: how often it acquired the claim.
        segmented: how often it received a mask.
    """

    arn: str
    status: str
    key: str | None
    version: str | None
    cache_key: str | None
    owned: int
    segmented: int


@dataclass
class Inventory:
    """Everything in the stack.

    Attributes:
        results: of every sidecar.
        strays: objects under ``results/`` that no sidecar names.
        reports: the documents under ``failed/``.
        claims: owner by cache key, of what is IN_PROGRESS.
        work: keys of the work bucket.
        lifecycle: prefixes of the work bucket whose objects expire.
        masks: by cache key, how often a segmentation host logged that it had made the mask.
        retaken: by execution, how often a worker took the job anew from one that was killed.
        waiting: messages in the segmentation queue, visible or not.
        dead: bodies of the messages in dead-letter queues, by queue.
    """

    results: list[Found] = field(default_factory=list)
    strays: list[str] = field(default_factory=list)
    reports: list[Mapping[str, Any]] = field(default_factory=list)
    executions: list[Execution] = field(default_factory=list)
    claims: dict[str, str] = field(default_factory=dict)
    work: list[str] = field(default_factory=list)
    lifecycle: list[str] = field(default_factory=list)
    masks: Counter[str] = field(default_factory=Counter)
    retaken: Counter[str] = field(default_factory=Counter)
    waiting: int = 0
    dead: dict[str, list[str]] = field(default_factory=dict)


def take(cloud: EmbeddedCloud) -> Inventory:
    """Read everything."""
    s3, dynamodb, sqs, sfn, logs = (
        client(service, cloud.endpoint_url, cloud.region)
        for service in ("s3", "dynamodb", "sqs", "stepfunctions", "logs")
    )
    outputs = cloud.outputs
    found = Inventory()

    def document(key: str) -> Any:
        return json.loads(s3.get_object(Bucket=outputs["ResultsBucket"], Key=key)["Body"].read())

    results = set(_keys(s3, outputs["ResultsBucket"], "results/"))
    for key in sorted(results):
        if key.endswith(".json"):
            sidecar = document(key)
            body = s3.get_object(Bucket=outputs["ResultsBucket"], Key=sidecar["result"]["key"])["Body"].read()
            found.results.append(_result(sidecar, body))
            results -= {key, sidecar["result"]["key"]}
    found.strays = sorted(results)
    found.reports = [document(key) for key in _keys(s3, outputs["ResultsBucket"], "failed/")]

    pages = sfn.get_paginator("list_executions").paginate(stateMachineArn=outputs["StateMachineArn"])
    arns = [(execution["executionArn"], execution["status"]) for page in pages for execution in page["executions"]]
    with ThreadPoolExecutor(4) as pool:
        found.executions = list(pool.map(lambda one: _execution(sfn, *one), arns))

    for page in dynamodb.get_paginator("scan").paginate(TableName=outputs["CacheTable"], ConsistentRead=True):
        for item in page["Items"]:
            if item["status"]["S"] == "IN_PROGRESS":
                found.claims[item["cache_key"]["S"]] = item["owner"]["S"]

    found.work = list(_keys(s3, outputs["WorkBucket"], ""))
    rules = s3.get_bucket_lifecycle_configuration(Bucket=outputs["WorkBucket"])["Rules"]
    expiring = [rule for rule in rules if rule["Status"] == "Enabled" and "Expiration" in rule]
    found.lifecycle = [rule.get("Filter", rule)["Prefix"] for rule in expiring]

    cache_keys = {execution.arn.rsplit(":", 1)[1]: execution.cache_key for execution in found.executions}
    lines = list(log_messages(logs, f"/aws/lambda/{cloud.stack_name}-segment"))
    found.masks = Counter(cache_keys.get(job) or job for job, message in lines if message == "stage done")
    found.retaken = retaken(lines)

    found.waiting = waiting(sqs, outputs["QueueUrl"])
    for output, url in outputs.items():
        if output.endswith("DeadLetterQueueUrl"):
            found.dead[output.removesuffix("Url")] = list(_messages(sqs, url))
    return found


def _keys(s3: Any, bucket: str, prefix: str) -> Iterator[str]:
    for page in s3.get_paginator("list_objects_v2").paginate(Bucket=bucket, Prefix=prefix):
        for entry in page.get("Contents", []):
            yield entry["Key"]


def _result(sidecar: Mapping[str, Any], body: bytes) -> Found:
    try:
        picture = Image.open(io.BytesIO(body))
        picture.load()
        size = picture.size
    except OSError:
        size = None
    return Found(
        key=sidecar["source"]["key"],
        version=sidecar["source"]["version_id"],
        stated_sha256=sidecar["image"]["sha256"],
        sha256=hashlib.sha256(body).hexdigest(),
        size=size,
        degraded=sidecar["degraded"],
        hit=sidecar["cache"]["hit"],
    )


def _execution(sfn: Any, arn: str, status: str) -> Execution:
    source, cache_key, owned, segmented = source_of({}), None, 0, 0
    for page in sfn.get_paginator("get_execution_history").paginate(
        executionArn=arn, PaginationConfig={"PageSize": 1000}
    ):
        for event in page["events"]:
            if started := event.get("executionStartedEventDetails"):
                source = source_of(json.loads(started["input"]))
            exited = event.get("stateExitedEventDetails", {})
            name, output = exited.get("name", ""), json.loads(exited.get("output", "{}"))
            if name == "Validate":
                cache_key = output.get("cache_key")
            elif name in CLAIMING:
                owned += "claim" in output
            elif name in ("SegmentOnEcs", "SegmentOnLambda"):
                segmented += name not in output.get("failed", {}) and name not in output.get("fallback", {})
    return Execution(arn, status, source["key"], source["version_id"], cache_key, owned, segmented)


def retaken(lines: Iterable[tuple[str, str]]) -> Counter[str]:
    """Count, by job, how often a worker took it again after another was killed while working on it."""
    again, in_hand, lost = Counter[str](), set[str](), set[str]()
    for job, message in lines:
        if message.startswith(KILLED):
            lost |= in_hand
            in_hand.clear()
        elif message == "job received":
            again[job] += job in lost
            lost.discard(job)
            in_hand.add(job)
    return again


def log_messages(logs: Any, group: str) -> Iterator[tuple[str, str]]:
    """Yield the job ID (empty if there is none) and the message of each log line."""
    for page in logs.get_paginator("describe_log_streams").paginate(logGroupName=group):
        for stream in page["logStreams"]:
            yield from _lines(logs, group, stream["logStreamName"])


def _lines(logs: Any, group: str, stream: str) -> Iterator[tuple[str, str]]:
    token: dict[str, str] = {}
    while True:
        page = logs.get_log_events(logGroupName=group, logStreamName=stream, startFromHead=True, **token)
        for event in page["events"]:
            text = event["message"]
            line = json.loads(text) if text.startswith("{") else {"message": text}
            yield line.get("job_id", ""), line.get("message", "")
        if not page["events"] or page["nextForwardToken"] == token.get("nextToken"):
            return
        token = {"nextToken": page["nextForwardToken"]}


def waiting(sqs: Any, queue_url: str) -> int:
    """Count the messages of a queue, visible or not."""
    names = ["ApproximateNumberOfMessages", "ApproximateNumberOfMessagesNotVisible"]
    counts = sqs.get_queue_attributes(QueueUrl=queue_url, AttributeNames=names)["Attributes"]
    return sum(int(counts[name]) for name in names)


def _messages(sqs: Any, url: str) -> Iterator[str]:
    while messages := sqs.receive_message(QueueUrl=url, MaxNumberOfMessages=10).get("Messages"):
        for message in messages:
            yield message["Body"]
