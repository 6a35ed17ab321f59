"""Configuration of the API."""

from functions.runtime.config import CatalogueConfig, Names
from functions.runtime.url_policy import UrlConfig


class ApiConfig(CatalogueConfig, UrlConfig):
    """What the API works on, and its limits.

    Attributes:
        segmentation_queue_url: what the ECS worker reads; ``GET /ready`` looks whether it is there.
        answer_within_s: how long a request waits for its result. API Gateway waits 30 s from the same moment on, and
            by then the result has to be read and sent.
        job_days: how long a job of the API, its pictures included, is kept.
        cors_origins: the web origins whose pages may call the API; none if empty.
        rate_per_minute: how many requests a minute a caller has that has no limit of its own.
        monthly_quota: how many pictures a month a caller has that has no quota of its own.
    """

    uploads_bucket: str
    results_bucket: str
    state_machine_arn: str
    segmentation_queue_url: str
    keys_table: str
    usage_table: str
    jobs_table: str
    answer_within_s: float = 26.0
    job_days: int
    cors_origins: Names = ()
    rate_per_minute: int
    monthly_quota: int
