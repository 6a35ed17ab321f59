"""Configuration of the API."""

from functions.runtime.config import CatalogueConfig, Names
from functions.runtime.edge import EdgeConfig
from functions.runtime.url_policy import UrlConfig


class ApiConfig(CatalogueConfig, UrlConfig, EdgeConfig):
    """Resources and limits of the API.

    Attributes:
        segmentation_queue_url: the ECS worker's queue; ``GET /ready`` checks that it exists.
        state_machine_alias: ARN of the alias that starts executions.
        answer_within_s: how long a request waits for its result. API Gateway's timeout is 30 s from the same moment;
            the rest is for reading and sending the result.
        results_replica_bucket: bucket to which S3 replicates results; empty without one.
        job_days: how long the API keeps a job and its images.
        cors_origins: web origins that may call the API; none if empty.
        rate_per_minute: requests per minute of callers without a limit of their own.
        monthly_quota: credits per month of callers without a quota of their own.
        jobs_in_flight: most jobs of a caller that have not ended.
    """

    uploads_bucket: str
    results_bucket: str
    work_bucket: str
    cache_table: str
    state_machine_alias: str
    segmentation_queue_url: str
    keys_table: str
    usage_table: str
    jobs_table: str
    answer_within_s: float = 26.0
    job_days: int
    cors_origins: Names = ()
    rate_per_minute: int
    monthly_quota: int
    jobs_in_flight: int
    results_replica_bucket: str = ""

    @property
    def state_machine_arn(self) -> str:
        """ARN of the state machine."""
        return self.state_machine_alias.rpartition(":")[0]
