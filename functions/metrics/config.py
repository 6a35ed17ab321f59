"""Configuration of PublishMetrics."""

from typing import Any

from functions.contracts.prices import execution_usd
from functions.metrics.publish import lambda_timings_s
from functions.runtime.config import Config


class MetricsConfig(Config):
    """What PublishMetrics writes to, and what an execution costs.

    Attributes:
        results_bucket: bucket of failure reports.
        reviews_table: table of reviews.
        aws_region: set by Lambda.
        validate_memory_mb, segment_memory_mb, refine_memory_mb, encode_memory_mb: memory of the functions, MB.
    """

    results_bucket: str
    reviews_table: str
    aws_region: str
    validate_memory_mb: int
    segment_memory_mb: int
    refine_memory_mb: int
    encode_memory_mb: int

    def usd_of(self, document: dict[str, Any]) -> float:
        """Return the cost in US dollars of the execution that delivered a result, from its sidecar."""
        memory_mb = {
            "validate": self.validate_memory_mb,
            "segment": self.segment_memory_mb,
            "escalation": self.segment_memory_mb,
            "refine": self.refine_memory_mb,
            "encode": self.encode_memory_mb,
        }
        return execution_usd(lambda_timings_s(document), memory_mb, self.aws_region, cached=document["cache"]["hit"])
