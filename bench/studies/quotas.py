"""Default quotas of an AWS account per region, with their sources.

Service Quotas shows the current quotas of an account.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from enum import StrEnum
from typing import Final


class Account(StrEnum):
    """Kinds of accounts with different defaults."""

    LARGE = "us-east-1, us-west-2, eu-west-1"
    OTHER = "another region"
    NEW = "new account, eu-west-1"


@dataclass(frozen=True)
class Quota:
    """One limit.

    Attributes:
        limit: key in the result of :func:`bench.studies.demand.demand`.
        name: name in Service Quotas, or in the documentation if the limit cannot be raised.
        per_second: sustained rate by account; for "concurrency", the number of concurrent executions.
        burst: burst capacity by account.
        raised: how to raise the limit, or "no".
        source: AWS document.
        verified: True if the document confirms all figures.
    """

    limit: str
    name: str
    per_second: Mapping[Account, float]
    burst: Mapping[Account, float]
    raised: str
    source: str
    verified: bool


def _all(value: float) -> dict[Account, float]:
    return dict.fromkeys(Account, value)


def _by(large: float, other: float, new: float | None = None) -> dict[Account, float]:
    return {Account.LARGE: large, Account.OTHER: other, Account.NEW: large if new is None else new}


_S3: Final = "S3, best practices for performance"
_BY_ITSELF: Final = "automatic: S3 splits prefixes, slowly"
_STATES: Final = "Step Functions, quotas"

QUOTAS: Final = (
    Quota(
        "events",
        "EventBridge: Invocations throttle limit in transactions per second",
        _by(18_750, 750),
        _by(18_750, 750),
        "request",
        "EventBridge, quotas; lowest of the other regions; eu-west-1 not found",
        verified=False,
    ),
    Quota(
        "starts",
        "Step Functions: StartExecution throttle, bucket size and refill rate",
        _by(300, 150),
        _by(1_300, 800),
        "request",
        f"{_STATES}, an older edition",
        verified=True,
    ),
    Quota(
        "transitions",
        "Step Functions: StateTransition throttle, bucket size and refill rate",
        _by(5_000, 800),
        _by(5_000, 800),
        "request",
        f"{_STATES}; an older edition has refill rates of 1,500 and 500, and new accounts have less",
        verified=False,
    ),
    Quota(
        "descriptions",
        "Step Functions: DescribeExecution throttle, bucket size and refill rate",
        _by(15, 10),
        _by(300, 250),
        "request",
        f"{_STATES}, an older edition",
        verified=True,
    ),
    Quota(
        "callbacks",
        "Step Functions: SendTaskSuccess and SendTaskHeartbeat throttle, each",
        _by(500, 300),
        _by(3_000, 1_500),
        "request",
        _STATES,
        verified=True,
    ),
    Quota(
        "concurrency",
        "Lambda: Concurrent executions",
        _by(1_000, 1_000, 10),
        _by(1_000, 1_000, 10),
        "request",
        "Lambda, quotas; does not mention the 10 of a new account",
        verified=False,
    ),
    Quota(
        "invocations",
        "Lambda: requests per second, ten times the concurrency",
        _by(10_000, 10_000, 100),
        _by(10_000, 10_000, 100),
        "raise the concurrency",
        "Lambda, understanding scaling",
        verified=True,
    ),
    Quota(
        "new environments",
        "Lambda: concurrency scaling rate per function",
        _all(100),
        _all(1_000),
        "no",
        "Lambda, scaling behavior: 1,000 in 10 s",
        verified=True,
    ),
    *(
        Quota(
            f"{bucket} {kind}", f"S3: {what} requests, {bucket} bucket", _all(value), _all(value), _BY_ITSELF, _S3, True
        )
        for bucket in ("uploads", "work", "results")
        for kind, what, value in (("get", "GET", 5_500), ("put", "PUT", 3_500))
    ),
    Quota(
        "table reads",
        "DynamoDB: read units of a new on-demand table",
        _all(12_000),
        _all(12_000),
        "warm throughput; grows with use to 40,000, beyond that by request",
        "DynamoDB, on-demand capacity mode",
        verified=True,
    ),
    Quota(
        "table writes",
        "DynamoDB: write units of a new on-demand table",
        _all(4_000),
        _all(4_000),
        "warm throughput; grows with use to 40,000, beyond that by request",
        "DynamoDB, on-demand capacity mode",
        verified=True,
    ),
)

OTHERS: Final = (
    ("DynamoDB, one item", "3,000 reads and 1,000 writes per second", "DynamoDB, partition keys", True),
    ("SQS standard queue", "nearly unlimited; 120,000 messages in flight", "SQS, quotas", True),
    ("Fargate", "burst of 100 tasks, then 20 per second; 500 per minute and service", "ECS, throttling; quotas", True),
    ("Step Functions, open executions", "1,000,000", _STATES, True),
    ("SNS, e-mail", "10 per second and subscription; more ends the subscription", "SNS, AWS re:Post", True),
)
"""Limits that are reached later than those in QUOTAS: name, value, source, verified."""
