"""Runs a chaos test: many uploads to the embedded cloud under injected faults, and their account.

Determined by the seed: the images and their options, the faults and how often each occurs, and so the outcome of each
upload and the bytes of each result. Not determined: the order of events, which of several executions with one content
processes it, how many jobs a killed worker held, and so how many results the fallback to Lambda made.
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
from tests.resilience.chaos.account import Discrepancy, Expected, Injected, Picture, discrepancies
from tests.resilience.chaos.injector import FaultInjector
from tests.resilience.chaos.inventory import Inventory, log_messages, take, waiting
from tests.resilience.chaos.plan import Content, Plan, Upload, plan

PARAMETERS = {
    "DefaultModel": "classical",
    "WorkerImageUri": "123456789012.dkr.ecr.eu-west-1.amazonaws.com/background-remover:1",
    "WorkerSubnets": "subnet-0a1b2c3d",
    "WorkerSecurityGroups": "sg-0a1b2c3d",
}
# Shorter than the deployed 120 s and 30 s, so that the jobs of killed workers return soon.
WORKER = {"PBR_VISIBILITY_S": "10", "PBR_HEARTBEAT_S": "1"}
RETRY_PACE = 0.01
AT_ONCE = 48
RUBBISH = frozenset({"this is no job"})
QUIET_S = 600.0


@dataclass(frozen=True)
class Run:
    """A finished run."""

    plan: Plan
    expected: list[Expected]
    found: Inventory
    injector: FaultInjector
    discrepancies: list[Discrepancy]
    seconds: float

    @property
    def digest(self) -> str:
        """Return a digest of all outcomes: the same for the same plan, whatever the scheduling."""
        results = [f"{result.key} {result.sha256}" for result in self.found.results]
        reports = [f"{report['source']['key']} {report['error']}" for report in self.found.reports]
        return hashlib.sha256("\n".join(sorted(results + reports)).encode()).hexdigest()[:16]


def run(number: int, faults: float, seed: int) -> Run:
    """Upload ``number`` images, inject faults into the share ``faults``, wait for all, and take the inventory."""
    started = time.monotonic()
    chaos = plan(number, faults, seed)
    pictures = _without_faults(chaos)
    injector = FaultInjector(chaos, seed)
    with EmbeddedCloud(ROOT / "template.yaml", PARAMETERS, retry_pace=RETRY_PACE, faults=injector) as cloud:
        _hurry_workers(cloud)
        injector.attach(cloud)
        flood = _Flood(cloud)
        versions = flood.send(chaos.uploads)
        flood.wait_until_quiet(injector)
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
    wrong = discrepancies(expected, found, _explanations(chaos, injector))
    return Run(chaos, expected, found, injector, wrong, time.monotonic() - started)


def _without_faults(chaos: Plan) -> dict[str, Picture]:
    """Process each content in this process, stage by stage."""
    networks = Networks(ModelSource(()), threads=1)
    wanted = {upload.content.cache_key: upload.content for upload in chaos.uploads if upload.report is None}

    def make(content: Content) -> Picture:
        made = process(content.data, Options.parse({**content.options, "model": "classical"}), networks)
        return Picture(hashlib.sha256(made.data).hexdigest(), (made.width, made.height))

    with ThreadPoolExecutor(2) as pool:
        return dict(zip(wanted, pool.map(make, wanted.values()), strict=True))


def process(data: bytes, options: Options, networks: Networks) -> encode.Encoded:
    """Process an image as the stages do, in this process."""
    picture = decode.decode(data)
    mask = _stored(segment.segment(picture.rgb, options.model, networks).mask)
    edge = pipeline.refine_edge(picture, mask, options.precision_level)
    return pipeline.finish(picture, _stored(edge.alpha), options, None)


def _stored(plane: Any) -> Any:
    """Return a mask or an alpha as the next stage reads it: with 8 bits."""
    return decode.decode_plane(encode.encode_plane(plane))


def _hurry_workers(cloud: EmbeddedCloud) -> None:
    """Deploy the worker with shorter timeouts, so that the run does not wait minutes for each killed worker."""
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
    """Sends uploads to a cloud, and waits for all that follows."""

    def __init__(self, cloud: EmbeddedCloud) -> None:
        self._outputs, self._reconcile_log = cloud.outputs, f"/aws/lambda/{cloud.stack_name}-reconcile"
        self._s3, self._sqs, self._sfn, self._logs = (
            client(service, cloud.endpoint_url, cloud.region) for service in ("s3", "sqs", "stepfunctions", "logs")
        )

    def send(self, uploads: Sequence[Upload]) -> dict[str, str]:
        """Upload with at most about ``AT_ONCE`` executions running; return the versions by key."""
        for body in RUBBISH:
            self._sqs.send_message(QueueUrl=self._outputs["QueueUrl"], MessageBody=body)
        versions: dict[str, str] = {}
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

    def wait_until_quiet(self, injector: FaultInjector) -> None:
        """Wait until no execution runs or has to be reconciled, and no message waits; the account shows the rest."""
        deadline = time.monotonic() + QUIET_S
        quiet = 0
        while quiet < 3 and time.monotonic() < deadline:  # an event starts its execution a moment later
            time.sleep(0.5)
            left = waiting(self._sqs, self._outputs["QueueUrl"])
            busy = left or injector.pending or self._running() or self._unreconciled()
            quiet = 0 if busy else quiet + 1

    def _running(self) -> int:
        return len(list(self._with_status("RUNNING")))

    def _unreconciled(self) -> set[str]:
        """Return the failed executions that ReconcileFunction has not handled yet."""
        handled = {job for job, message in log_messages(self._logs, self._reconcile_log) if message == "stage done"}
        return {name for status in ("FAILED", "ABORTED", "TIMED_OUT") for name in self._with_status(status)} - handled

    def _with_status(self, status: str) -> Iterator[str]:
        machine = {"stateMachineArn": self._outputs["StateMachineArn"], "statusFilter": status}
        for page in self._sfn.get_paginator("list_executions").paginate(**machine):
            for execution in page["executions"]:
                yield execution["name"]


def _explanations(chaos: Plan, injector: FaultInjector) -> Injected:
    cache_keys = {upload.stem: upload.content.cache_key for upload in chaos.uploads}
    masks: Counter[str] = Counter()
    for (subject, fault), times in injector.injected.items():
        if fault.where == "Segment" and fault.ending:
            masks[cache_keys.get(subject, subject)] += times
    return Injected(masks, RUBBISH, chaos.certain - injector.injected.keys())
