"""What the routes call, made once."""

from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from typing import Any, Final, Self

import boto3
from botocore.config import Config as SdkConfig

from core.limits import MAX_BYTES
from functions.api.auth import Authorizer
from functions.api.config import ApiConfig
from functions.api.jobs import Fetch, Jobs
from functions.api.readiness import Readiness
from functions.api.repository import JobRepository
from functions.runtime import safe_http
from functions.runtime.config import SDK
from functions.runtime.store import S3_SDK, Store

FETCH_S = 10.0
"""How long a picture that is named by its URL may take to come."""

PATIENCE: Final = SdkConfig(connect_timeout=2, read_timeout=5, retries={"mode": "standard", "total_max_attempts": 3})
"""How long the API bears with a call to AWS that nobody answers: less than the gateway bears with the API."""


@dataclass(frozen=True)
class Services:
    """What the routes call."""

    config: ApiConfig
    authorizer: Authorizer
    repository: JobRepository
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
        client = client or _client
        s3, table, machine = client("s3"), client("dynamodb"), client("stepfunctions")
        authorizer = Authorizer(
            keys_table=config.keys_table,
            usage_table=config.usage_table,
            rate_per_minute=config.rate_per_minute,
            monthly_quota=config.monthly_quota,
            dynamodb_client=table,
        )
        fetch = fetch or partial(safe_http.get, policy=config.outbound, limit_bytes=MAX_BYTES, timeout_s=FETCH_S)
        repository = JobRepository(config, authorizer=authorizer, table=table)
        jobs = Jobs(config, repository=repository, store=Store(s3), machine=machine, fetch=fetch)
        return cls(
            config,
            authorizer,
            repository,
            jobs,
            Readiness(config, s3=s3, table=table, machine=machine, queue=client("sqs")),
        )


def _client(service: str) -> Any:
    sdk = S3_SDK if service == "s3" else SDK
    return boto3.client(service, config=sdk.merge(PATIENCE))  # type: ignore[call-overload]
