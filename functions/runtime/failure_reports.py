"""Failure reporting for RecordFailure and Reconcile: the report, the SNS message and the cause text."""

import json
from typing import TYPE_CHECKING, Any

import boto3

from functions.contracts.failure_report import FailureReport, explain, options_of, source_of
from functions.contracts.job import Execution
from functions.contracts.outcome import ObjectVersion
from functions.runtime.config import SDK, Config
from functions.runtime.outcomes import Outcomes
from functions.runtime.store import Store
from functions.runtime.subject import subject_line

if TYPE_CHECKING:
    from mypy_boto3_sns import SNSClient


class FailureConfig(Config):
    """Where failures are reported.

    Attributes:
        uploads_bucket: the bucket of all uploads that can have results.
        results_bucket: bucket of the failure reports.
        topic_arn: SNS topic for failures.
    """

    uploads_bucket: str
    results_bucket: str
    topic_arn: str


class FailureReporter:
    """Writes failure reports and publishes failures.

    Args:
        config: where failures are reported.
        store: S3; None creates a store from the environment.
        topic: SNS client; None creates one from the environment.
    """

    def __init__(self, config: FailureConfig, *, store: Store | None = None, topic: "SNSClient | None" = None) -> None:
        self._config = config
        self._outcomes = Outcomes(store or Store(), config.results_bucket)
        self._topic = topic or boto3.client("sns", config=SDK)

    def record(self, state: dict[str, Any], execution: Execution, stage: str, caught: dict[str, str]) -> dict[str, Any]:
        """Write a failure report, unless the upload has a result, and publish the failure.

        The failure is not published if the execution would only have repeated an existing result.

        Args:
            state: the workflow state when the stage failed; before Validate has finished, the execution's input is in
                ``input``.
            execution: the execution that failed.
            stage: the state that failed.
            caught: its ``{"Error", "Cause"}``.

        Returns:
            ``stage``, ``error`` and ``cause`` for the Fail state; ``report_key``, None without a report; and ``facts``
            for the webhook.
        """
        given = state.get("input", state)
        failure = explain(caught, stage)
        report = FailureReport(
            status="FAILED",
            stage=stage,
            **failure,
            options={} if "input" in state else options_of(state),  # unvalidated options can exceed a message's size
            execution=execution,
            source=ObjectVersion.model_validate(source_of(given)),
        )
        report_key = self._outcomes.write_report(report, is_own=report.source.bucket == self._config.uploads_bucket)
        if report_key or not self._has_result(report.source, options_of(given)):
            self._publish(report)
        if report_key:
            location = f"Report: s3://{self._config.results_bucket}/{report_key}"
        else:
            location = "The upload already has a result, so no report was written"
        return {
            "stage": stage,
            "error": failure["error"],
            "cause": f"{stage}: {failure['message']}. {failure['remedy']} {location}",
            "report_key": report_key,
            "facts": {"stage": stage, **failure},
        }

    def _has_result(self, source: ObjectVersion, options: dict[str, Any]) -> bool:
        return any(result.options.items() >= options.items() for result in self._outcomes.results_of(source))

    def _publish(self, report: FailureReport) -> None:
        subject = headline(report.source, report.stage)
        self._topic.publish(TopicArn=self._config.topic_arn, Subject=subject, Message=json.dumps(report.model_dump()))

    def delete_undescribed_results(self, state: dict[str, Any], execution: Execution) -> None:
        """Delete results that a stopped or failed execution wrote without a sidecar.

        Args:
            state: the workflow state; without ``keys`` there is nothing to delete.
            execution: the execution, which must no longer be running.
        """
        if "keys" in state:
            keys = state["keys"]
            self._outcomes.delete_undescribed_results(keys["result"], keys["sidecar"], execution)


def headline(source: ObjectVersion, stage: str) -> str:
    """Return the subject of the message about a failure."""
    return subject_line(f"Background removal failed in {stage}: {source.key or 'unknown source'}")
