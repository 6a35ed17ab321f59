"""What the routes call, made once."""

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
from functions.shared.store import Store

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
    def connect(cls, config: ApiConfig, machine: Any = None, fetch: Fetch | None = None) -> Self:
        """Make the services of a stack.

        Args:
            config: where it is.
            machine: client of Step Functions; None for that of the environment.
            fetch: fetches what callers name by URL; None for the web.
        """
        table: Any = boto3.client("dynamodb", config=SDK)
        machine = machine or boto3.client("stepfunctions", config=SDK)
        s3: Any = boto3.client("s3", config=SDK)
        gate = Gate(
            keys_table=config.keys_table,
            usage_table=config.usage_table,
            rate_per_minute=config.rate_per_minute,
            monthly_quota=config.monthly_quota,
            dynamodb_client=table,
        )
        fetch = fetch or partial(outbound.get, policy=config.outbound, limit_bytes=MAX_BYTES, timeout_s=FETCH_S)
        jobs = Jobs(config, gate=gate, store=Store(), table=table, machine=machine, fetch=fetch)
        queue: Any = boto3.client("sqs", config=SDK)
        return cls(config, gate, jobs, Readiness(config, s3=s3, table=table, machine=machine, queue=queue))
