"""Load test: upload at a fixed rate and measure latency, throughput, and cost.

The test is open-loop: uploads do not wait for earlier results. Arrivals follow a Poisson process; equal seeds give
equal arrivals. Usage: ``make load``, which starts an embedded cloud or loads a deployed stack.

The embedded cloud has no autoscaling. With HOST=ecs, :mod:`bench.autoscaling` replaces CloudWatch and Application Auto
Scaling: it sets the desired count of the service, with one second for each minute on AWS.
"""

import argparse
import contextlib
import json
import re
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import asdict, dataclass, field
from itertools import takewhile
from pathlib import Path
from threading import Event, Thread
from typing import Any, Final

import boto3
import cv2
import numpy as np
from botocore.config import Config
from skimage import data as photographs

from bench.autoscaling import Autoscaler, Decision, Policies
from bench.embedded import ROOT, CpuTime, EmbeddedProcess, embedded_process
from bench.load_report import PACE, Baseline, Load, Run, Sample, chart, report
from bench.measure import Case, Cost, measure
from bench.pictures import grained
from client.commands import up
from client.history import events_of
from client.jobs import JobClient, Upload
from client.stack import Stack
from core.options import Host, Options
from core.pipeline import remove_background
from core.segmentation.registry import CLASSICAL
from core.segmentation.sessions import Networks
from embedded_cloud.cloud import EmbeddedCloud
from functions.contracts.failure_report import source_of
from functions.contracts.object_keys import failure_key
from functions.runtime.weights import ModelSource

OUT: Final = Path("out/load")
_UPLOAD_THREADS: Final = 64
_WARM_UP_THREADS: Final = 8
_BASELINE_RUNS: Final = 5
_SAMPLES_PER_PERIOD: Final = 5
_AWS_SAMPLE_S: Final = 10.0
_CLOCK_TOLERANCE_S: Final = 5.0  # tolerance between the local clock and that of Step Functions
_TIMEOUT_S: Final = 1800.0
_COUNT: Final = re.compile(r"\d+")
_SCALE_IN_WAIT_S: Final = 40.0  # time to observe scale-in after the load


@dataclass(frozen=True)
class Arrival:
    """An upload with its planned and its actual time, in seconds since the start of the load."""

    due_s: float
    sent_s: float
    upload: Upload


def main() -> None:
    """Run the load, print the tables, and write them, a chart, and all figures to ``out/load``."""
    parser = argparse.ArgumentParser(prog="python -m bench.load", description=__doc__)
    parser.add_argument("--rate", type=float, default=0.5, help="Uploads per second, e.g. 0.5.")
    parser.add_argument("--seconds", type=float, default=60.0, help="Duration of the load in seconds, e.g. 60.")
    parser.add_argument("--host", choices=["lambda", "ecs"], default="lambda", help="Service that runs segmentation.")
    parser.add_argument("--megapixels", type=float, default=2.0, help="Size of the picture, e.g. 2.")
    parser.add_argument("--seed", type=int, default=1, help="Seed of the arrival times.")
    parser.add_argument("--stack", help="Name of a deployed stack. Default: start an embedded cloud.")
    parser.add_argument("--region", help="Region of the deployed stack.")
    arguments = parser.parse_args()
    picture = photograph(arguments.megapixels)
    cost = measure_pipeline(picture)
    options = {"segmentation_host": arguments.host}
    plan = arrivals(arguments.rate, arguments.seconds, arguments.seed)
    with contextlib.ExitStack() as opened:
        cloud = None
        if arguments.stack is None:
            parameters = up.stack_parameters(
                up.choose_model(CLASSICAL), Host(arguments.host), all_hosts=arguments.host == "ecs"
            )
            cloud = opened.enter_context(embedded_process(parameters))
        target = Target.connect(cloud, arguments.stack, arguments.region)
        baseline = warm_up(target, picture, options)
        load = observe(target, picture, options, plan, baseline, cost, arguments)
    OUT.mkdir(parents=True, exist_ok=True)
    text = report(load)
    print(text)
    path = OUT / f"{load.host}.json"
    path.write_text(json.dumps(asdict(load), indent=1) + "\n")
    path.with_suffix(".md").write_text(text + "\n")
    chart(load).savefig(path.with_suffix(".png"))
    print(f"\nFigures, tables and chart: {path.with_suffix('')}.json, .md, .png")


# Target of the load


@dataclass(frozen=True)
class Target:
    """The stack under load; ``service`` has the names of its ECS cluster and service, if any."""

    stack: Stack
    client: Callable[[str], Any]
    service: Mapping[str, str] | None
    cloud: EmbeddedProcess | None

    @classmethod
    def connect(cls, cloud: EmbeddedProcess | None, name: str | None, region: str | None) -> "Target":
        """Connect to the embedded cloud's stack, or to a deployed stack by name."""
        key = "local" if cloud else None
        session = boto3.session.Session(key, key, region_name=cloud.region if cloud else region)
        config = Config(retries={"mode": "standard", "total_max_attempts": 8}, max_pool_connections=2 * _UPLOAD_THREADS)
        endpoint_url = cloud.endpoint_url if cloud else None

        def client(service: str) -> Any:
            return session.client(service, endpoint_url=endpoint_url, config=config)  # type: ignore[call-overload]

        stack_name = name or EmbeddedCloud.stack_name
        stack = Stack.connect(stack_name, region=session.region_name, endpoint_url=endpoint_url, client=client)
        service = None
        if "WorkerServiceName" in stack.outputs:
            service = {"cluster": stack.outputs["WorkerClusterName"], "service": stack.outputs["WorkerServiceName"]}
        return cls(stack, client, service, cloud)

    def workers(self) -> int:
        """Return the number of running workers."""
        if self.service is None:
            return 0
        ecs, cluster, service = self.client("ecs"), self.service["cluster"], self.service["service"]
        [found] = ecs.describe_services(cluster=cluster, services=[service])["services"]
        return int(found["runningCount"])

    def scale(self, desired: int) -> None:
        """Set the desired count of workers."""
        if self.service is not None:
            self.client("ecs").update_service(**self.service, desiredCount=desired)

    def executions(self) -> Iterator[Mapping[str, Any]]:
        """Yield the state machine's executions, newest first."""
        pages = self.stack.stepfunctions.get_paginator("list_executions").paginate(
            stateMachineArn=self.stack.outputs["StateMachineArn"]
        )
        return (execution for page in pages for execution in page["executions"])


# Uploads


def photograph(megapixels: float) -> bytes:
    """Return a photograph of the given size as JPEG."""
    rgb = photographs.coffee()
    factor = float(np.sqrt(megapixels * 1e6 / (rgb.shape[0] * rgb.shape[1])))
    larger = np.asarray(cv2.resize(rgb, None, fx=factor, fy=factor, interpolation=cv2.INTER_CUBIC), np.uint8)
    bgr = cv2.cvtColor(grained(larger, 2.0), cv2.COLOR_RGB2BGR)
    return cv2.imencode(".jpg", bgr, [cv2.IMWRITE_JPEG_QUALITY, 92])[1].tobytes()


def with_comment(jpeg: bytes, number: int) -> bytes:
    """Add a JPEG comment, so that equal pictures have different bytes and miss the cache."""
    text = f"{number}".encode()
    return jpeg[:2] + b"\xff\xfe" + (len(text) + 2).to_bytes(2, "big") + text + jpeg[2:]


def arrivals(rate: float, seconds: float, seed: int) -> list[float]:
    """Return the times of a Poisson process, in seconds since the start."""
    gaps = np.random.default_rng(seed).exponential(1 / rate, size=int(3 * rate * seconds) + 50)
    due = np.cumsum(gaps)
    return [float(moment) for moment in due[due < seconds]]


def measure_pipeline(picture: bytes) -> Cost:
    """Measure core.pipeline in one process."""
    outcome = measure({"pipeline": Case(_removing, (picture,))})["pipeline"]
    if not isinstance(outcome, Cost):
        raise RuntimeError(outcome.reason)
    return outcome


def _removing(picture: bytes) -> Callable[[], None]:
    networks = Networks(ModelSource(()), threads=1)

    def call() -> None:
        remove_background(picture, Options(model=CLASSICAL), networks=networks)

    call()
    return call


# The load


def warm_up(target: Target, picture: bytes, options: Mapping[str, Any]) -> Baseline:
    """Start all processes, then measure a few pictures one at a time."""
    jobs = JobClient(target.stack)

    def one(number: int) -> str:
        arn = jobs.execution_of(jobs.upload("warm-up.jpg", with_comment(picture, -number), options))
        for _ in jobs.follow(arn):
            pass
        return arn

    with ThreadPoolExecutor(_WARM_UP_THREADS) as pool:
        list(pool.map(one, range(1, _WARM_UP_THREADS + 1)))
    arns = [one(_WARM_UP_THREADS + 1 + number) for number in range(_BASELINE_RUNS)]
    found = [target.stack.stepfunctions.describe_execution(executionArn=arn) for arn in arns]
    timings = [json.loads(execution["output"])["timings_s"] for execution in found]
    history = events_of(target.stack, arns[-1], with_data=False)
    return Baseline(
        execution_s=float(np.median([(f["stopDate"] - f["startDate"]).total_seconds() for f in found])),
        timings_s={name: float(np.median([each[name] for each in timings])) for name in timings[0]},
        states=sum(event["type"].endswith("StateEntered") for event in history),
    )


@dataclass
class _QueueSampler:
    """Sample the queue and, on the embedded cloud, scale the workers."""

    target: Target
    origin: float
    scaler: Autoscaler | None
    samples: list[Sample] = field(default_factory=list)
    over: Event = field(default_factory=Event)

    def run(self) -> None:
        pause_s = 60.0 / PACE / _SAMPLES_PER_PERIOD if self.target.cloud else _AWS_SAMPLE_S
        with ThreadPoolExecutor(1) as scaling:  # stopping a worker blocks until it has drained
            while not self.over.wait(pause_s):
                waiting, held = self.target.stack.messages("QueueUrl")
                sample = Sample(time.time() - self.origin, waiting, held, self.target.workers())
                self.samples.append(sample)
                if self.scaler and (
                    decision := self.scaler.sample(
                        PACE * sample.at_s,
                        waiting=waiting,
                        held=held,
                        running=sample.workers,
                        taken=held,  # approximation: messages in flight were received
                    )
                ):
                    scaling.submit(self.target.scale, decision.after)


def observe(
    target: Target,
    picture: bytes,
    options: Mapping[str, Any],
    plan: Sequence[float],
    baseline: Baseline,
    one_process: Cost,
    arguments: argparse.Namespace,
) -> Load:
    """Upload as planned and wait until all executions have ended."""
    scaler = None
    if target.cloud and target.service:
        policies = Policies.read(ROOT / "template.yaml")
        target.scale(policies.minimum)
        scaler = Autoscaler(policies, policies.minimum)
    jobs, before = JobClient(target.stack), target.cloud.cpu_time() if target.cloud else None
    origin = time.time()
    sampler = _QueueSampler(target, origin, scaler)
    thread = Thread(target=sampler.run)
    thread.start()

    def put(number: int, due_s: float) -> Arrival:
        sent_s = time.time() - origin
        return Arrival(due_s, sent_s, jobs.upload(f"load-{number}.jpg", with_comment(picture, number), options))

    try:
        with ThreadPoolExecutor(_UPLOAD_THREADS) as pool:
            pending = []
            for number, due_s in enumerate(plan):
                time.sleep(max(0.0, origin + due_s - time.time()))
                pending.append(pool.submit(put, number, due_s))
            arrived = [future.result() for future in pending]
        runs = wait_for_runs(target, arrived, origin)
        after = target.cloud.cpu_time() if target.cloud else None
        rest_until = time.time() + _SCALE_IN_WAIT_S
        while scaler and scaler.desired > policies.minimum and time.time() < rest_until:
            time.sleep(1.0)
    finally:
        sampler.over.set()
        thread.join()
    return Load(
        rate=arguments.rate,
        seconds=arguments.seconds,
        host=arguments.host,
        megapixels=arguments.megapixels,
        seed=arguments.seed,
        baseline=baseline,
        one_process=one_process,
        runs=runs,
        samples=sampler.samples,
        decisions=scaler.decisions if scaler else aws_decisions(target, origin),
        cpu=CpuTime(after.cloud - before.cloud, after.stages - before.stages) if before and after else None,
        reports=count_reports(target, arrived),
    )


def wait_for_runs(target: Target, arrived: Sequence[Arrival], origin: float) -> list[Run]:
    """Wait for the executions and return the outcome of each upload."""
    wanted = {(arrival.upload.key, arrival.upload.version_id): arrival for arrival in arrived}
    described: dict[str, Mapping[str, Any]] = {}
    deadline = time.time() + _TIMEOUT_S
    runs: dict[tuple[str, str | None], Run] = {}
    stepfunctions = target.stack.stepfunctions
    while len(runs) < len(wanted) and time.time() < deadline:
        time.sleep(target.stack.poll_s)
        listed = list(
            takewhile(lambda entry: entry["startDate"].timestamp() > origin - _CLOCK_TOLERANCE_S, target.executions())
        )
        fresh = [entry for entry in listed if entry["status"] != "RUNNING" and entry["executionArn"] not in described]
        if not fresh and len(listed) < len(wanted) and all(entry["status"] != "RUNNING" for entry in listed):
            # Some uploads have started no execution yet: wait one more minute.
            deadline = min(deadline, time.time() + 60.0)
        with ThreadPoolExecutor(4) as pool:
            arns = [entry["executionArn"] for entry in fresh]
            for found in pool.map(lambda arn: stepfunctions.describe_execution(executionArn=arn), arns):
                described[found["executionArn"]] = found
                source = source_of(json.loads(found["input"]))
                identity = source["key"], source["version_id"]
                if identity in wanted:
                    runs[identity] = _run(wanted[identity], found, origin)
    return [runs.get(identity, _unfinished(arrival)) for identity, arrival in wanted.items()]


def _run(arrival: Arrival, found: Mapping[str, Any], origin: float) -> Run:
    output = json.loads(found.get("output") or "{}")
    return Run(
        due_s=arrival.due_s,
        sent_s=arrival.sent_s,
        started_s=found["startDate"].timestamp() - origin,
        stopped_s=found["stopDate"].timestamp() - origin,
        status=found["status"],
        error=found.get("error", ""),
        timings_s=output.get("timings_s", {}),
    )


def _unfinished(arrival: Arrival) -> Run:
    return Run(arrival.due_s, arrival.sent_s, None, None, "NOT STARTED OR STILL RUNNING", "", {})


def count_reports(target: Target, arrived: Sequence[Arrival]) -> int:
    """Return how many uploads have a failure report."""
    pages = target.stack.s3.get_paginator("list_objects_v2").paginate(
        Bucket=target.stack.outputs["ResultsBucket"], Prefix="failed/cli/"
    )
    reported = {entry["Key"] for page in pages for entry in page.get("Contents", [])}
    return sum(failure_key(arrival.upload.key, "") in reported for arrival in arrived)


def aws_decisions(target: Target, origin: float) -> list[Decision]:
    """Return the activities of Application Auto Scaling on the worker service since ``origin``."""
    if target.service is None:
        return []
    resource = f"service/{target.service['cluster']}/{target.service['service'].rsplit('/', 1)[-1]}"
    activities = target.client("application-autoscaling").describe_scaling_activities(
        ServiceNamespace="ecs", ResourceId=resource
    )["ScalingActivities"]
    return [
        Decision(at_s, None, int(_COUNT.findall(activity["Description"])[-1]), activity["Cause"])
        for activity in reversed(activities)
        if (at_s := activity["StartTime"].timestamp() - origin) > 0
    ]


if __name__ == "__main__":
    main()
