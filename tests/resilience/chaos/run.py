"""One chaos run: a flood of uploads to the embedded cloud while things go wrong, and its account.

What is deterministic by the seed: which pictures are uploaded with which options, what strikes whom and how often, and
with that how each upload ends and the bytes of each result. What is not: the order of things, who of those that share a
content computes it, how many jobs a killed worker had in hand, and so how many results Lambda stood in for.
"""

import hashlib
import time
from collections import Counter
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from typing import Any

from core import pipeline
from core.image import decode, encode
from core.options import Options
from core.segmentation import segment
from core.segmentation.sessions import Networks
from embedded_cloud.cloud import EmbeddedCloud
from functions.runtime.weights import ModelSource
from tests.conftest import ROOT, client
from tests.resilience.chaos.account import Discrepancy, Expected, Picture, Struck, discrepancies
from tests.resilience.chaos.inventory import Inventory, said, take, waiting
from tests.resilience.chaos.plan import Content, Plan, Upload, plan
from tests.resilience.chaos.strikes import Strikes

PARAMETERS = {
    "DefaultModel": "classical",
    "WorkerImageUri": "123456789012.dkr.ecr.eu-west-1.amazonaws.com/background-remover:1",
    "WorkerSubnets": "subnet-0a1b2c3d",
    "WorkerSecurityGroups": "sg-0a1b2c3d",
}
# A message whose worker was killed comes back after 120 s, and heartbeats are sent each 30.
WORKER = {"PBR_VISIBILITY_S": "10", "PBR_HEARTBEAT_S": "1"}
RETRY_PACE = 0.01
AT_ONCE = 48
RUBBISH = frozenset({"this is no job"})
QUIET_S = 600.0


@dataclass(frozen=True)
class Run:
    """A run that is over."""

    plan: Plan
    expected: list[Expected]
    found: Inventory
    strikes: Strikes
    discrepancies: list[Discrepancy]
    seconds: float

    @property
    def digest(self) -> str:
        """Return a name of how each upload ended: the same for the same plan, whatever the scheduling."""
        results = [f"{result.key} {result.sha256}" for result in self.found.results]
        reports = [f"{report['source']['key']} {report['error']}" for report in self.found.reports]
        return hashlib.sha256("\n".join(sorted(results + reports)).encode()).hexdigest()[:16]


def run(number: int, faults: float, seed: int) -> Run:
    """Upload ``number`` pictures, strike the share ``faults`` of them, wait until all is quiet, and take stock."""
    started = time.monotonic()
    chaos = plan(number, faults, seed)
    pictures = _without_faults(chaos)
    strikes = Strikes(chaos, seed)
    with EmbeddedCloud(ROOT / "template.yaml", PARAMETERS, retry_pace=RETRY_PACE, faults=strikes) as cloud:
        _hurry_workers(cloud)
        strikes.attach(cloud)
        flood = _Flood(cloud)
        versions = flood.send(chaos.uploads)
        flood.wait_until_quiet(strikes)
        found = take(cloud)
    expected = [
        Expected(
            upload.key,
            versions[upload.key],
            upload.content.cache_key,
            upload.report or pictures[upload.content.cache_key],
            ", ".join(fault.kind for fault in (upload.fault, upload.content.fault) if fault),
        )
        for upload in chaos.uploads
    ]
    wrong = discrepancies(expected, found, _explanations(chaos, strikes))
    return Run(chaos, expected, found, strikes, wrong, time.monotonic() - started)


def _without_faults(chaos: Plan) -> dict[str, Picture]:
    """Make each content's result in this process, as the stages make it one by one."""
    networks = Networks(ModelSource(()), threads=1)
    wanted = {upload.content.cache_key: upload.content for upload in chaos.uploads if upload.report is None}

    def make(content: Content) -> Picture:
        options = Options.parse({**content.options, "model": "classical"})
        picture = decode.decode(content.data)
        mask = _stored(segment.segment(picture.rgb, options.model, networks).mask)
        edge = pipeline.refine_edge(picture, mask, options.precision_level)
        made = pipeline.finish(picture, _stored(edge.alpha), options, None)
        return Picture(hashlib.sha256(made.data).hexdigest(), (made.width, made.height))

    with ThreadPoolExecutor(2) as pool:
        return dict(zip(wanted, pool.map(make, wanted.values()), strict=True))


def _stored(plane: Any) -> Any:
    """Return a mask or an alpha as the next stage reads it: with eight bits."""
    return decode.decode_plane(encode.encode_plane(plane))


def _hurry_workers(cloud: EmbeddedCloud) -> None:
    """Deploy the worker with shorter times, lest the run waits minutes for each one that is killed."""
    ecs = client("ecs", cloud.endpoint_url, cloud.region)
    [cluster] = ecs.list_clusters()["clusterArns"]
    [service] = ecs.list_services(cluster=cluster)["serviceArns"]
    [name] = ecs.list_task_definitions()["taskDefinitionArns"]
    former = ecs.describe_task_definition(taskDefinition=name)["taskDefinition"]
    [container] = former["containerDefinitions"]
    container["environment"] += [{"name": name, "value": value} for name, value in WORKER.items()]
    container.setdefault("memory", 1024)  # moto forgets that of the task
    hurried = ecs.register_task_definition(family=former["family"], containerDefinitions=[container])
    definition = hurried["taskDefinition"]["taskDefinitionArn"]
    ecs.update_service(cluster=cluster, service=service, taskDefinition=definition)


class _Flood:
    """Uploads to a cloud, and what is still to be done for them."""

    def __init__(self, cloud: EmbeddedCloud) -> None:
        self._outputs, self._settling = cloud.outputs, f"/aws/lambda/{cloud.stack_name}-reconcile"
        self._s3, self._sqs, self._sfn, self._logs = (
            client(service, cloud.endpoint_url, cloud.region) for service in ("s3", "sqs", "stepfunctions", "logs")
        )

    def send(self, uploads: Sequence[Upload]) -> dict[str, str]:
        """Upload as fast as the executions are few enough for one process to hold; return the versions by key."""
        for body in RUBBISH:
            self._sqs.send_message(QueueUrl=self._outputs["QueueUrl"], MessageBody=body)
        versions = {}
        for upload in uploads:
            while len(versions) % 8 == 0 and self._running() > AT_ONCE:
                time.sleep(0.5)
            versions[upload.key] = self._s3.put_object(
                Bucket=self._outputs["UploadsBucket"],
                Key=upload.key,
                Body=upload.content.data,
                Metadata=upload.metadata,
            )["VersionId"]
        return versions

    def wait_until_quiet(self, strikes: Strikes) -> None:
        """Wait until no execution runs or is to be settled, and no message waits; the account tells what still does."""
        deadline = time.monotonic() + QUIET_S
        quiet = 0
        while quiet < 3 and time.monotonic() < deadline:  # what an event starts begins a moment later
            time.sleep(0.5)
            left = waiting(self._sqs, self._outputs["QueueUrl"])
            busy = left or strikes.pending or self._running() or self._unsettled()
            quiet = 0 if busy else quiet + 1

    def _running(self) -> int:
        return len(list(self._with_status("RUNNING")))

    def _unsettled(self) -> set[str]:
        """Return which executions ended badly and were not looked at yet by the function that settles them."""
        settled = {job for job, message in said(self._logs, self._settling) if message == "stage done"}
        return {name for status in ("FAILED", "ABORTED", "TIMED_OUT") for name in self._with_status(status)} - settled

    def _with_status(self, status: str) -> Iterator[str]:
        machine = {"stateMachineArn": self._outputs["StateMachineArn"], "statusFilter": status}
        for page in self._sfn.get_paginator("list_executions").paginate(**machine):
            for execution in page["executions"]:
                yield execution["name"]


def _explanations(chaos: Plan, strikes: Strikes) -> Struck:
    cache_keys = {upload.stem: upload.content.cache_key for upload in chaos.uploads}
    masks: Counter[str] = Counter()
    for (subject, fault), times in strikes.struck.items():
        if fault.where == "Segment" and fault.ending:
            masks[cache_keys.get(subject, subject)] += times
    return Struck(masks, RUBBISH, chaos.certain - strikes.struck.keys())
