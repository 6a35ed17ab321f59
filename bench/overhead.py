"""Measure the overhead of the orchestration: the time of an execution minus the time of its stages.

Runs warm executions one at a time on the embedded cloud, and the same pictures through core.pipeline in one process.
Usage: ``make bench``.
"""

import json
import statistics
import time
from pathlib import Path

import numpy as np
from skimage import data as photographs

from client.stack import Stack
from core.image.encode import encode
from core.options import Options
from core.pipeline import remove_background
from core.segmentation.sessions import Networks
from embedded_cloud.cloud import EmbeddedCloud
from functions.runtime.weights import ModelSource

ROOT = Path(__file__).parent.parent
ROUNDS = 9


def main() -> None:
    """Print medians in seconds as JSON."""
    pictures = [photograph(number) for number in range(ROUNDS + 1)]
    in_process = [process(picture) for picture in pictures][1:]
    with EmbeddedCloud(ROOT / "template.yaml", {"DefaultModel": "classical"}) as cloud:
        stack = Stack.connect(cloud.stack_name, region=cloud.region, endpoint_url=cloud.endpoint_url)
        runs = [execute(stack, number, picture) for number, picture in enumerate(pictures)][1:]  # the first is cold
    totals, work = ([run[part] for run in runs] for part in (0, 1))
    report = {
        "rounds": ROUNDS,
        "execution": round(statistics.median(totals), 3),
        "stages": round(statistics.median(work), 3),
        "overhead": round(statistics.median(total - own for total, own in runs), 3),
        "one_process": round(statistics.median(in_process), 3),
        "execution_to_one_process": round(statistics.median(totals) / statistics.median(in_process), 2),
    }
    print(json.dumps(report, indent=2))


def photograph(number: int) -> bytes:
    """Return a 600 x 400 photograph. Each number gives different bytes, which avoids cache hits."""
    rgb = photographs.coffee().copy()
    rgb[0, 0] = number
    return encode(rgb, np.ones(rgb.shape[:2], np.float32), Options()).data


def process(picture: bytes) -> float:
    """Return the seconds that all stages take in this process."""
    started = time.perf_counter()
    remove_background(picture, Options(model="classical"), networks=Networks(ModelSource(()), threads=1))
    return time.perf_counter() - started


def execute(stack: Stack, number: int, picture: bytes) -> tuple[float, float]:
    """Return the seconds of an execution, and those of its stages."""
    # Uploads under this prefix start no execution.
    source = {"bucket": stack.outputs["UploadsBucket"], "key": f"backgrounds/{number}.png"}
    stack.s3.put_object(Bucket=source["bucket"], Key=source["key"], Body=picture)
    arn = stack.stepfunctions.start_execution(
        stateMachineArn=stack.outputs["StateMachineAlias"], input=json.dumps({"source": source})
    )["executionArn"]
    while (described := stack.stepfunctions.describe_execution(executionArn=arn))["status"] == "RUNNING":
        time.sleep(0.02)
    if described["status"] != "SUCCEEDED":
        raise RuntimeError(described["cause"])
    total = (described["stopDate"] - described["startDate"]).total_seconds()
    return total, sum(json.loads(described["output"])["timings_s"].values())


if __name__ == "__main__":
    main()
