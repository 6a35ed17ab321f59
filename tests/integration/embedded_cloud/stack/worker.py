"""An ECS container that records its start and SIGTERM, and exits on request."""

import os
import signal
import sys
import time
from types import FrameType

import boto3
from botocore.exceptions import ClientError

bucket, s3 = os.environ["BUCKET"], boto3.client("s3")


def note(what: str) -> None:
    s3.put_object(Bucket=bucket, Key=f"worker/{os.getpid()}/{what}")


def drain(_number: int, _frame: FrameType | None) -> None:
    note("drained")
    sys.exit(0)


signal.signal(signal.SIGTERM, drain)
print("the worker is up")
note("started")
while True:
    time.sleep(0.05)
    try:
        s3.head_object(Bucket=bucket, Key="worker/die")
    except ClientError:
        continue
    s3.delete_object(Bucket=bucket, Key="worker/die")
    os._exit(9)
