"""What is done about a failure: a report, a message to the topic, and words for the console."""

import json
from typing import TYPE_CHECKING, Any, Final

import boto3

from functions.failure.report import explain, source_of
from functions.shared.config import SDK, Config
from functions.shared.job import Execution
from functions.shared.outcome import Outcomes, Subject
from functions.shared.store import Store

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

        Args:
            state: the state when the stage gave up, or the execution's own input.
            execution: whose it is.
            stage: the state of the machine that gave up.
            caught: its ``{"Error", "Cause"}``.

        Returns:
            stage, error and cause, as the machine's Failed state shows them, and the report's key, None without report.
        """
        subject, failure = Subject.model_validate(source_of(state)), explain(caught)
        facts = {
            "status": "FAILED",
            "stage": stage,
            **failure,
            "options": state.get("options", {}),
            "execution": execution.model_dump(),
        }
        report_key = self._outcomes.report(subject, execution.name, facts)
        if report_key:
            message = json.dumps({**facts, "source": subject.model_dump()})
            self._topic.publish(TopicArn=self._config.topic_arn, Subject=headline(subject, stage), Message=message)
            place = f"Report: s3://{self._config.results_bucket}/{report_key}"
        else:
            place = "The upload has its result, which stands, and gets no report"
        return {
            "stage": stage,
            "error": failure["error"],
            "cause": f"{stage}: {failure['message']}. {failure['remedy']} {place}",
            "report_key": report_key,
        }

    def take_back_result(self, state: dict[str, Any], execution: Execution) -> None:
        """Take away a result that no sidecar describes. Whoever wrote it must not be at work any more.

        Args:
            state: of a job, or of what never became one.
            execution: which was to make it.
        """
        subject = Subject.model_validate(source_of(state))
        if "keys" in state and self._outcomes.result_of(subject) is None:
            self._outcomes.take_back_result(state["keys"]["result"], execution.name)


def headline(subject: Subject, stage: str) -> str:
    """Return a subject that SNS accepts: printable ASCII, at most 100 characters."""
    text = f"Background removal failed in {stage}: {subject.key or 'unknown source'}"
    printable = "".join(character if " " <= character <= "~" else "?" for character in text)
    return printable[:_MAX_SUBJECT_CHARS]
