"""What is done about a failure: a report, a message to the topic, and words for the console."""

import json
from typing import TYPE_CHECKING, Any, Final

import boto3

from functions.contracts.failure_report import explain, options_of, source_of
from functions.contracts.job import Execution
from functions.runtime.config import SDK, Config
from functions.runtime.outcomes import ObjectVersion, Outcomes
from functions.runtime.store import Store

if TYPE_CHECKING:
    from mypy_boto3_sns import SNSClient

_MAX_SUBJECT_CHARS: Final = 100


class FailureConfig(Config):
    """Where reports go and who is told."""

    results_bucket: str
    topic_arn: str


class Recorder:
    """Records failures.

    Args:
        config: where to.
        store: S3; None for that of the environment.
        topic: SNS; None for that of the environment.
    """

    def __init__(self, config: FailureConfig, *, store: Store | None = None, topic: "SNSClient | None" = None) -> None:
        self._config = config
        self._outcomes = Outcomes(store or Store(), config.results_bucket)
        self._topic = topic or boto3.client("sns", config=SDK)

    def record(self, state: dict[str, Any], execution: Execution, stage: str, caught: dict[str, str]) -> dict[str, Any]:
        """Report a failure, unless the upload has a result: of another execution, or of this one before it failed.

        The topic is told, but not of an execution that was to make once more what lies there.

        Args:
            state: the job when the stage gave up; of what never became one, ``input`` is that of the execution.
            execution: whose it is.
            stage: the state of the machine that gave up.
            caught: its ``{"Error", "Cause"}``.

        Returns:
            stage, error and cause, as the machine's Failed state shows them; the report's key, None without report; and
            as ``facts`` what is told to who ordered the job.
        """
        given = state.get("input", state)
        subject, failure = ObjectVersion.model_validate(source_of(given)), explain(caught)
        validated = {} if "input" in state else options_of(state)  # others may be too long for a message
        facts = {"status": "FAILED", "stage": stage, **failure, "options": validated}
        report_key = self._outcomes.report(subject, execution, facts)
        standing = None if report_key else self._outcomes.result_of(subject)
        if standing is None or not standing.options.items() >= options_of(given).items():
            message = json.dumps({**facts, "execution": execution.model_dump(), "source": subject.model_dump()})
            self._topic.publish(TopicArn=self._config.topic_arn, Subject=headline(subject, stage), Message=message)
        if report_key:
            place = f"Report: s3://{self._config.results_bucket}/{report_key}"
        else:
            place = "The upload has its result, which stands, and gets no report"
        return {
            "stage": stage,
            "error": failure["error"],
            "cause": f"{stage}: {failure['message']}. {failure['remedy']} {place}",
            "report_key": report_key,
            "facts": {"stage": stage, **failure},
        }

    def delete_undescribed_results(self, state: dict[str, Any], execution: Execution) -> None:
        """Take away a result that its execution did not come to describe. It must not be at work any more.

        Args:
            state: of a job, or of what never became one.
            execution: which was to make it.
        """
        if "keys" not in state:
            return
        standing = self._outcomes.result_of(ObjectVersion.model_validate(source_of(state)))
        if standing is None or standing.execution.id != execution.id:
            self._outcomes.delete_undescribed_results(state["keys"]["result"], execution)


def headline(subject: ObjectVersion, stage: str) -> str:
    """Return a subject that SNS accepts: printable ASCII, at most 100 characters."""
    text = f"Background removal failed in {stage}: {subject.key or 'unknown source'}"
    printable = "".join(character if " " <= character <= "~" else "?" for character in text)
    return printable[:_MAX_SUBJECT_CHARS]
