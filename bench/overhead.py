"""What the orchestration adds: an execution's time, less the time that its stages' work took.

Runs warm executions one after another on the embedded cloud, and once the same pictures through core.pipeline in one
process. Run it with ``make bench``.
"""

import json
import statistics
import time
from pathlib import Path
from typing import Any

import boto3
from skimage import data as photographs

from core.encode import encode
from core.models import ModelSource
from core.options import Options
from core.pipeline import remove_background
from local.cloud import EmbeddedCloud

ROOT = Path(__file__).parent.parent
ROUNDS = 9


def main() -> None:
    """Print medians as JSON."""
    import numpy as np

    pictures = []
    for seed in range(ROUNDS + 1):
        rgb = photographs.coffee().copy()
        rgb[0, 0] = seed  # another content, so that the cache does not answer
        pictures.append(encode(rgb, np.ones(rgb.shape[:2], np.float32), Options()).data)
    options = Options(model="classical")
    in_process = [timed(lambda p=p: remove_background(p, options, weights=ModelSource(Path()))) for p in pictures[1:]]
    with EmbeddedCloud(ROOT / "template.yaml", {"DefaultModel": "classical"}) as cloud:
        runs = [execute(cloud, number, picture) for number, picture in enumerate(pictures)][1:]  # the first is cold
    total = statistics.median(run["total_s"] for run in runs)
    work = statistics.median(run["work_s"] for run in runs)
    report = {
        "rounds": ROUNDS,
        "execution_s": round(total, 3),
        "work_of_its_stages_s": round(work, 3),
        "overhead_s": round(statistics.median(run["total_s"] - run["work_s"] for run in runs), 3),
        "one_process_s": round(statistics.median(in_process), 3),
        "execution_to_one_process": round(total / statistics.median(in_process), 2),
    }
    print(json.dumps(report, indent=2))


def timed(call: Any) -> float:
    """Return how long a call takes."""
    started = time.perf_counter()
    call()
    return time.perf_counter() - started


def execute(cloud: EmbeddedCloud, number: int, picture: bytes) -> dict[str, float]:
    """Run one execution and return its time and that of its stages."""

    def client(service: str) -> Any:
        return boto3.client(
            service,  # type: ignore[call-overload]
            region_name=cloud.region,
            endpoint_url=cloud.endpoint_url,
            aws_access_key_id="local",
            aws_secret_access_key="local",
        )

    sfn, bucket, key = client("stepfunctions"), cloud.outputs["UploadsBucket"], f"{number}.png"
    client("s3").put_object(Bucket=bucket, Key=f"backgrounds/{key}", Body=picture)  # a prefix that starts nothing
    arn = sfn.start_execution(
        stateMachineArn=cloud.outputs["StateMachineArn"],
        input=json.dumps({"source": {"bucket": bucket, "key": f"backgrounds/{key}"}}),
    )["executionArn"]
    while (described := sfn.describe_execution(executionArn=arn))["status"] == "RUNNING":
        time.sleep(0.02)
    if described["status"] != "SUCCEEDED":
        raise RuntimeError(described.get("cause"))
    work = sum(json.loads(described["output"])["timings_s"].values())
    return {"total_s": (described["stopDate"] - described["startDate"]).total_seconds(), "work_s": work}


if __name__ == "__main__":
    main()
