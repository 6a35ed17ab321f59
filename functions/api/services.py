"""The services that routes call, created once per process."""

from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from typing import Any, Final, Self

import boto3
from botocore.config import Config as SdkConfig

from core.limits import MAX_BYTES
from functions.api.auth import Authorizer
from functions.api.config import ApiConfig
from functions.api.jobs import Fetch, JobService
from functions.api.readiness import Readiness
from functions.api.repository import JobRepository
from functions.runtime import safe_http
from functions.runtime.config import SDK
from functions.runtime.edge import Edge
from functions.runtime.erasure import Erasure, Places
from functions.runtime.store import S3_SDK, Store

FETCH_TIMEOUT_S = 10.0
"""Timeout of the download of an image URL."""

SDK_TIMEOUTS: Final = SdkConfig(
    connect_timeout=2, read_timeout=5, retries={"mode": "standard", "total_max_attempts": 3}
)
"""Timeouts of AWS calls, retries included: shorter than API Gateway's timeout."""


@dataclass(frozen=True)
class Services:
    """The services that routes call."""

    config: ApiConfig
    authorizer: Authorizer
    repository: JobRepository
    jobs: JobService
    readiness: Readiness
    edge: Edge | None

    @classmethod
    def connect(
        cls, config: ApiConfig, *, client: Callable[[str], Any] | None = None, fetch: Fetch | None = None
    ) -> Self:
        """Return the services of a stack.

        Args:
            config: the stack's resources and limits.
            client: returns the AWS client of a service, e.g. ``s3``; boto3's clients if None.
            fetch: downloads image URLs; :func:`functions.runtime.safe_http.get` if None.
        """
        client = client or _client
        s3, dynamodb, stepfunctions = client("s3"), client("dynamodb"), client("stepfunctions")
        authorizer = Authorizer(
            keys_table=config.keys_table,
            usage_table=config.usage_table,
            rate_per_minute=config.rate_per_minute,
            monthly_quota=config.monthly_quota,
            dynamodb_client=dynamodb,
        )
        fetch = fetch or partial(
            safe_http.get, policy=config.outbound, limit_bytes=MAX_BYTES, timeout_s=FETCH_TIMEOUT_S
        )
        repository, store = JobRepository(config, dynamodb=dynamodb), Store(s3)
        places = Places(
            uploads_bucket=config.uploads_bucket,
            results_bucket=config.results_bucket,
            work_bucket=config.work_bucket,
            cache_table=config.cache_table,
            state_machine_arn=config.state_machine_arn,
            replica_bucket=config.results_replica_bucket,
        )
        erasure = Erasure(places, s3=s3, dynamodb=dynamodb, stepfunctions=stepfunctions)
        edge = (
            Edge(config.edge_secret_arn, config.aws_region, client("secretsmanager"))
            if config.edge_secret_arn
            else None
        )
        return cls(
            config=config,
            authorizer=authorizer,
            repository=repository,
            jobs=JobService(
                config,
                repository=repository,
                store=store,
                edge=edge,
                erasure=erasure,
                stepfunctions=stepfunctions,
                fetch=fetch,
            ),
            readiness=Readiness(config, s3=s3, dynamodb=dynamodb, stepfunctions=stepfunctions, sqs=client("sqs")),
            edge=edge,
        )


def _client(service: str) -> Any:
    sdk = S3_SDK if service == "s3" else SDK
    return boto3.client(service, config=sdk.merge(SDK_TIMEOUTS))  # type: ignore[call-overload]
