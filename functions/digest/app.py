"""Digest: publish what has failed since the last digest, as one message for people."""

import os
from datetime import UTC, datetime, timedelta
from typing import Any, Final

import boto3
from botocore.config import Config as SdkConfig
from pydantic import BaseModel, Field

from functions.contracts import review
from functions.digest import alarms
from functions.digest.message import Digest
from functions.digest.reports import THREADS, read
from functions.digest.window import last_end, save
from functions.runtime.config import SDK, Config
from functions.runtime.handler import stage
from functions.runtime.store import S3_SDK, Store

FIRST_WINDOW: Final = timedelta(days=1)
_MAX_REVIEWS: Final = 1000
_LONGEST: Final = timedelta(days=59)
"""GetMetricStatistics returns 1,440 values at most."""

MIN_AGE_S: Final = 60
"""Younger reports are left for the next digest: S3's clock may differ from this one."""


class DigestConfig(Config):
    """What Digest reads, and where it publishes.

    Attributes:
        stack_name: name of the main stack.
        results_bucket: bucket of the failure reports.
        work_bucket: bucket of the end of the last digest.
        reviews_table: table of reviews.
        topic_arn: SNS topic for people.
        powertools_metrics_namespace: namespace of the stack's metrics.
    """

    stack_name: str
    results_bucket: str
    work_bucket: str
    reviews_table: str
    topic_arn: str
    powertools_metrics_namespace: str


class DigestRequest(BaseModel):
    """The event of the schedule, which has no such field, or a request of an operator.

    Attributes:
        min_age_s: least age of the reports, seconds.
    """

    min_age_s: int = Field(default=MIN_AGE_S, ge=0)


CONFIG = DigestConfig()
STORE = Store(boto3.client("s3", config=S3_SDK.merge(SdkConfig(max_pool_connections=THREADS))))
SNS = boto3.client("sns", config=SDK)
CLOUDWATCH = boto3.client("cloudwatch", config=SDK)
DYNAMODB = boto3.client("dynamodb", config=SDK)


@stage(DigestRequest)
def handler(request: DigestRequest) -> dict[str, Any]:
    """Publish the digest, unless there is nothing to report, and return what was counted."""
    now = datetime.now(UTC).replace(microsecond=0)  # S3 dates objects in whole seconds, rounded down
    until = now - timedelta(seconds=request.min_age_s)
    since = last_end(STORE, CONFIG.work_bucket) or until - FIRST_WINDOW
    reviews = waiting_reviews()
    digest = Digest(
        stack=CONFIG.stack_name,
        place=place(),
        region=os.environ["AWS_REGION"],
        results_bucket=CONFIG.results_bucket,
        since=since,
        until=until,
        failures=read(STORE, CONFIG.results_bucket, since, until),
        lost_uploads=lost_uploads(since, until),
        reviews=reviews,
        more_reviews=reviews >= _MAX_REVIEWS,
        alarms=alarms.active(CLOUDWATCH, CONFIG.stack_name),
    )
    if digest.is_needed:
        SNS.publish(TopicArn=CONFIG.topic_arn, Subject=digest.subject, Message=digest.text)
    save(STORE, CONFIG.work_bucket, until)
    counts = {"failed": digest.failures.count, "lost_uploads": digest.lost_uploads, "reviews": reviews}
    return {"published": digest.is_needed, **counts, "alarms": len(digest.alarms)}


def place() -> str:
    """Return the options of ``pbr`` that name the stack. An embedded cloud needs none."""
    if "AWS_ENDPOINT_URL" in os.environ:
        return ""
    return f" --stack {CONFIG.stack_name} --region {os.environ['AWS_REGION']}"


def lost_uploads(since: datetime, until: datetime) -> int:
    """Return how many uploads the sweep has started in a window of time."""
    points = CLOUDWATCH.get_metric_statistics(
        Namespace=CONFIG.powertools_metrics_namespace,
        MetricName="LostUploads",
        StartTime=max(since, until - _LONGEST),
        EndTime=until,
        Period=3600,
        Statistics=["Sum"],
    )["Datapoints"]
    return round(sum(float(point["Sum"]) for point in points))


def waiting_reviews() -> int:
    """Return how many results wait for review, up to :data:`_MAX_REVIEWS`; those of web users are theirs."""
    count: int = 0
    pages = DYNAMODB.get_paginator("query").paginate(
        TableName=CONFIG.reviews_table,
        IndexName=review.INDEX,
        KeyConditionExpression="#queue = :open",
        ExpressionAttributeNames={"#queue": "queue"},
        ExpressionAttributeValues={":open": {"S": review.queue("open")}},
        Select="COUNT",
    )
    for page in pages:
        count += page["Count"]
        if count >= _MAX_REVIEWS:
            return _MAX_REVIEWS
    return count
