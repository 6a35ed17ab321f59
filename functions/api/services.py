"""What the routes call, made once."""

from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from typing import Any, Self

import boto3

from core import outbound
from core.limits import MAX_BYTES
from functions.api.auth import Gate
from functions.api.config import ApiConfig
from functions.api.jobs import Fetch, Jobs
from functions.api.readiness import Readiness
from functions.shared.config import SDK
from functions.shared.store import S3_SDK, Store

FETCH_S = 10.0
"""How long a picture that is named by its URL may take to come."""


@dataclass(frozen=True)
class Services:
    """What the routes call."""

    config: ApiConfig
    gate: Gate
    jobs: Jobs
    readiness: Readiness

    @classmethod
    def connect(
        cls, config: ApiConfig, *, client: Callable[[str], Any] | None = None, fetch: Fetch | None = None
    ) -> Self:
        """Make the services of a stack.

        Args:
            config: where it is.
            client: called with a service's name, returns its client; None for boto3's own.
            fetch: fetches what callers name by URL; None for the web.
        """
        client = client or (lambda service: boto3.client(service, config=S3_SDK if service == "s3" else SDK))
        s3, table, machine = client("s3"), client("dynamodb"), client("stepfunctions")
        gate = Gate(
            keys_table=config.keys_table,
            usage_table=config.usage_table,
            rate_per_minute=config.rate_per_minute,
            monthly_quota=config.monthly_quota,
            dynamodb_client=table,
        )
        fetch = fetch or partial(outbound.get, policy=config.outbound, limit_bytes=MAX_BYTES, timeout_s=FETCH_S)
        jobs = Jobs(config, gate=gate, store=Store(s3), table=table, machine=machine, fetch=fetch)
        return cls(config, gate, jobs, Readiness(config, s3=s3, table=table, machine=machine, queue=client("sqs")))
