"""Measure the functions at several memory sizes, and propose those of the template.

Usage: ``make tune [IMAGE=photo.jpg] [SIZES="1024 4096"]``.

Each function runs as the embedded cloud runs it, in a control group with Lambda's CPU share and memory for the size,
on the events of real executions of a photograph of 2 megapixels. Writes functions/contracts/measured_durations.json,
and from it docs/reference/sizes.md and its chart.

Not included is what AWS adds: calls to S3 take longer there, and a cold start also loads the container image.
"""

import argparse
import json
import os
import statistics
import sys
import time
import uuid
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, Final

import cv2
import numpy as np

from bench import platform_info
from bench.lambda_cgroup import CgroupError, LambdaCgroup, cpu_share, visible_cpus
from bench.load import photograph
from bench.tune_report import figures, write
from client.commands.up import choose_model, stack_parameters
from client.stack import Stack
from core.options import Host
from core.segmentation.registry import BUNDLED
from embedded_cloud.cloud import EmbeddedCloud
from embedded_cloud.processes import base_environment
from embedded_cloud.sandbox import Function, Sandbox
from functions.contracts.durations import FILE, Durations, Measurement, Sample

ROOT: Final = Path(__file__).parent.parent
MEGAPIXELS: Final = 2.0
PRECISION: Final = "high"
SIZES_MB: Final = (512, 1024, 1536, 1769, 2048, 3008)
LARGEST_DEFAULT_MB: Final = 3008
"""Largest memory that Lambda grants a new account."""

TOLERANCE: Final = 1.10
"""Cost of the proposed size relative to the cheapest: what the shorter time may cost."""

CALLS: Final = 5
_READY_POLL_S: Final = 0.002
_INIT_LIMIT_S: Final = 180.0
_TIMEOUT_S: Final = 900
_XRAY: Final = ("AWS_XRAY_DAEMON_ADDRESS", "127.0.0.1:2000")
"""Set on Lambda, and makes functions import the X-Ray SDK. Its datagrams go nowhere."""


@dataclass(frozen=True)
class Subject:
    """A function to measure.

    Attributes:
        smallest_mb: memory that it needs for other inputs than the measured one.
        needs: why.
    """

    smallest_mb: int
    needs: str


_LARGE_IMAGES: Final = "images of 100 megapixels"
SUBJECTS: Final[Mapping[str, Subject]] = {
    "validate": Subject(2048, _LARGE_IMAGES),
    "segment": Subject(3008, "all models but birefnet and bria"),
    "refine": Subject(2048, "JPEGs of 100 megapixels, other images of 92"),
    "encode": Subject(3008, _LARGE_IMAGES),
    "bulk": Subject(3008, "as segment, refine and encode"),
    "metrics": Subject(512, "waits for AWS rather than for its CPU"),
    "failure": Subject(512, "waits for AWS rather than for its CPU"),
}
"""The functions, and the memory that they need whatever the measurement says."""

WAITING: Final = ("metrics", "failure")
"""Functions whose time on AWS is that of AWS calls, which no CPU shortens: the smallest size is the cheapest."""


def main() -> None:
    """Measure, and write all files."""
    parser = argparse.ArgumentParser(prog="python -m bench.tune", description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--image", type=Path, help="Photograph; scaled to 2 megapixels. Default: that of the demo.")
    parser.add_argument("--sizes", type=int, nargs="+", default=SIZES_MB, help="Memory sizes in MB, e.g. 1024 4096.")
    parser.add_argument(
        "--functions",
        nargs="+",
        choices=SUBJECTS,
        default=list(SUBJECTS),
        help="Measure only these, and write no file.",
    )
    parser.add_argument("--calls", type=int, default=CALLS, help="Warm calls per size.")
    arguments = parser.parse_args()
    sizes = possible(sorted(set(arguments.sizes)), os.cpu_count() or 1)
    try:
        with LambdaCgroup(sizes[0]):
            pass
    except CgroupError as error:
        sys.exit(str(error))
    name, jpeg = picture(arguments.image)
    started = os.getloadavg()[0]
    if started > 0.5:
        print(f"Load average {started:.1f}: other processes make the durations longer.", file=sys.stderr)
    functions = dict(measure(name, jpeg, arguments.functions, sizes, arguments.calls))
    decoded = cv2.imdecode(np.frombuffer(jpeg, np.uint8), cv2.IMREAD_COLOR)
    assert decoded is not None  # noqa: S101  this module has encoded it
    durations = Durations(
        date=f"{datetime.now(UTC):%Y-%m-%d}",
        cpu=platform_info.processor(),
        cpus=os.cpu_count() or 1,
        load=round(started, 1),
        command="make tune" + (f" IMAGE={arguments.image.name}" if arguments.image else ""),
        image=name,
        width_px=decoded.shape[1],
        height_px=decoded.shape[0],
        bytes=len(jpeg),
        model=BUNDLED,
        precision=PRECISION,
        calls=arguments.calls,
        functions=functions,
    )
    if set(functions) == set(SUBJECTS):
        FILE.write_text(durations.model_dump_json(indent=1) + "\n")
        write(durations)
    else:
        print(figures(durations))


def possible(sizes_mb: Sequence[int], cpus: int) -> list[int]:
    """Return the sizes whose CPU share this machine has. Prints those that it skips.

    Raises:
        SystemExit: it has none of them.
    """
    fitting = [size for size in sizes_mb if cpu_share(size) <= cpus]
    for size in sizes_mb:
        if size not in fitting:
            print(f"{size:,} MB skipped: {cpu_share(size):.1f} CPUs, this machine has {cpus}", file=sys.stderr)
    return fitting or sys.exit("This machine has too few CPUs for all sizes. Name smaller ones, e.g. SIZES='512 1024'.")


def picture(path: Path | None) -> tuple[str, bytes]:
    """Return the name and the JPEG of a photograph of 2 megapixels.

    Raises:
        SystemExit: the file is no image.
    """
    if path is None:
        return "coffee", photograph(MEGAPIXELS)
    bgr = cv2.imread(str(path), cv2.IMREAD_COLOR)
    if bgr is None:
        sys.exit(f"{path} cannot be read. Name a photograph, e.g. IMAGE=photo.jpg.")
    factor = float(np.sqrt(MEGAPIXELS * 1e6 / (bgr.shape[0] * bgr.shape[1])))
    kind = cv2.INTER_AREA if factor < 1 else cv2.INTER_CUBIC
    scaled = cv2.resize(bgr, None, fx=factor, fy=factor, interpolation=kind)
    return path.stem, cv2.imencode(".jpg", scaled, [cv2.IMWRITE_JPEG_QUALITY, 92])[1].tobytes()


def measure(
    name: str, jpeg: bytes, functions: Sequence[str], sizes_mb: Sequence[int], calls: int
) -> Iterator[tuple[str, Measurement]]:
    """Yield the measurement of each function, on an embedded cloud."""
    parameters = stack_parameters(choose_model(BUNDLED), Host.LAMBDA, all_hosts=False)
    with EmbeddedCloud(ROOT / "template.yaml", parameters) as cloud:
        stack = Stack.connect(cloud.stack_name, region=cloud.region, endpoint_url=cloud.endpoint_url)
        found = {stage: one for one in cloud.functions() for stage in SUBJECTS if one.handler == handler_of(stage)}
        stages = {one.name: stage for stage, one in found.items()}
        events = {**executed(stack, stages, name, jpeg), **failed(stack, stages)}
        base = base_environment(ROOT, cloud.environment)
        for function in functions:
            event = bulk_event(stack, f"backgrounds/{name}.jpg") if function == "bulk" else fixed(events[function])
            samples: list[Sample] = []
            exhausted: list[int] = []
            for size in sizes_mb:
                if sample := sampled(found[function], event, base, size, calls):
                    samples.append(sample)
                else:
                    exhausted.append(size)
                print(f"{function} {size} MB: {sample or 'out of memory'}", file=sys.stderr, flush=True)
            yield function, proposal(function, samples, exhausted)


def proposal(function: str, samples: Sequence[Sample], exhausted: Sequence[int]) -> Measurement:
    """Return the measurement of a function, with the memory that the template should have.

    It is the largest size that costs at most 10 % more than the cheapest one, at least what the function needs, and at
    most what new accounts have.
    """
    subject = SUBJECTS[function]
    least = min(sample.gb_s for sample in samples)
    fair = [sample.memory_mb for sample in samples if sample.gb_s <= TOLERANCE * least]
    size = subject.smallest_mb if function in WAITING else min(max(fair), LARGEST_DEFAULT_MB)
    needed = size <= subject.smallest_mb
    return Measurement(
        samples=tuple(samples),
        out_of_memory_mb=tuple(exhausted),
        proposed_mb=max(size, subject.smallest_mb),
        reason=subject.needs if needed else f"fastest for at most {TOLERANCE - 1:.0%} more than the cheapest",
    )


def sampled(
    function: Function, event: Callable[[], str], base: Mapping[str, str], memory_mb: int, calls: int
) -> Sample | None:
    """Return a function's sample at a memory size; None if it runs out of memory.

    Raises:
        RuntimeError: the function fails for another reason.
    """
    resized = replace(function, memory_mb=memory_mb, timeout_s=_TIMEOUT_S, environment=(*function.environment, _XRAY))
    with LambdaCgroup(memory_mb) as group:
        began = time.monotonic()
        sandbox = Sandbox(resized, base, ROOT, lambda _line: None, visible_cpus(memory_mb))
        try:
            group.add(sandbox.group)
            while not sandbox.ready and time.monotonic() - began < _INIT_LIMIT_S:
                time.sleep(_READY_POLL_S)
            init_s = time.monotonic() - began
            seconds = [call(sandbox, event()) for _ in range(1 + calls)]
            if None in seconds:
                return None
            first_s, *warm = [second for second in seconds if second is not None]
            peak_mb = round(group.peak_bytes() / (1 << 20))
        finally:
            sandbox.close()
    return Sample(
        memory_mb=memory_mb,
        seconds=round(statistics.median(warm), 4),
        init_seconds=round(init_s, 3),
        first_seconds=round(first_s, 4),
        peak_mb=peak_mb,
    )


def call(sandbox: Sandbox, event: str) -> float | None:
    """Return the duration of a call in seconds; None if the kernel killed the process for want of memory."""
    if not sandbox.usable:
        return None
    began = time.monotonic()
    invocation = sandbox.invoke(event, None)
    if invocation.failed and "signal: killed" in invocation.payload:
        return None
    if invocation.failed:
        raise RuntimeError(f"{sandbox.function.name} failed: {invocation.payload}")
    return time.monotonic() - began


def handler_of(stage: str) -> str:
    """Return the handler of a function."""
    return f"functions.{stage}.app.handler"


def executed(stack: Stack, stages: Mapping[str, str], name: str, jpeg: bytes) -> dict[str, dict[str, Any]]:
    """Run an execution for a photograph, and return the event of each function."""
    stack.s3.put_object(Bucket=stack.outputs["UploadsBucket"], Key=f"backgrounds/{name}.jpg", Body=jpeg)
    return run(stack, stages, f"backgrounds/{name}.jpg", "SUCCEEDED")


def failed(stack: Stack, stages: Mapping[str, str]) -> dict[str, dict[str, Any]]:
    """Run an execution that fails, and return the event of the failure function."""
    stack.s3.put_object(Bucket=stack.outputs["UploadsBucket"], Key="backgrounds/no-image.jpg", Body=b"no image")
    return {"failure": run(stack, stages, "backgrounds/no-image.jpg", "FAILED")["failure"]}


def run(stack: Stack, stages: Mapping[str, str], key: str, expected: str) -> dict[str, dict[str, Any]]:
    """Run an execution for an object that starts none itself, and return the events of its functions.

    Args:
        stack: on the embedded cloud.
        stages: stage by name of its function.
        key: of the object in the bucket for uploads.
        expected: status at the end.

    Raises:
        RuntimeError: it does not end as expected.
    """
    source = {"bucket": stack.outputs["UploadsBucket"], "key": key}
    request = {"source": source, "options": {"model": BUNDLED, "precision_level": PRECISION}}
    arn = stack.stepfunctions.start_execution(
        stateMachineArn=stack.outputs["StateMachineArn"], input=json.dumps(request)
    )["executionArn"]
    while (described := stack.stepfunctions.describe_execution(executionArn=arn))["status"] == "RUNNING":
        time.sleep(0.05)
    if described["status"] != expected:
        raise RuntimeError(f"The execution ended with {described['status']}: {described.get('cause')}")
    pages = stack.stepfunctions.get_paginator("get_execution_history").paginate(executionArn=arn)
    events: dict[str, dict[str, Any]] = {}
    for event in (event for page in pages for event in page["events"]):
        details = event.get("taskScheduledEventDetails", {})
        if details.get("resourceType") == "lambda":
            parameters = json.loads(details["parameters"])
            [stage] = [stage for name, stage in stages.items() if name in parameters["FunctionName"]]
            events.setdefault(stage, parameters["Payload"])
    return events


def fixed(event: Mapping[str, Any]) -> Callable[[], str]:
    """Return a source of events that are all the same."""
    text = json.dumps(event)
    return lambda: text


def bulk_event(stack: Stack, key: str) -> Callable[[], str]:
    """Return a source of events of batches of one photograph, each of another run, which computes its result again."""

    def event() -> str:
        run_id = uuid.uuid4().hex
        run = {
            "id": f"{stack.outputs['BulkMachineArn']}:{run_id}",
            "name": run_id,
            "started_at": "2026-01-05T10:00:00.000Z",
        }
        shared = {
            "run": run,
            "bucket": stack.outputs["UploadsBucket"],
            "options": {"model": BUNDLED, "precision_level": PRECISION},
            "overwrite": True,
        }
        return json.dumps({"Items": [{"Key": key}], "BatchInput": shared, "attempt": 0})

    return event


if __name__ == "__main__":
    main()
