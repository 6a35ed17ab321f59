"""Sum up a bulk run, and find out what became of the images of children that crashed."""

import json
import tempfile
import time
from collections import Counter
from collections.abc import Iterator
from contextlib import ExitStack
from dataclasses import dataclass, field
from datetime import UTC, datetime
from typing import IO, TYPE_CHECKING, Any, Final

import boto3
from pydantic import BaseModel

from core.errors import BackgroundRemoverError, InvalidOptionsError, SourceNotFoundError
from core.options import Options
from functions.bulk.items import BatchInput, outcome_of, read_item
from functions.bulk.objects import BulkObjects
from functions.bulk.prepare import MOST_TOLERATED
from functions.contracts import object_keys
from functions.contracts.bulk import (
    BatchOutcome,
    BulkError,
    BulkSummary,
    Child,
    CostEstimate,
    Engine,
    ItemOutcome,
    ManifestRow,
    SummaryFiles,
    TransformReport,
    over_tolerance,
    run_prefix,
)
from functions.contracts.failure_report import FailureReport, explain, json_object
from functions.contracts.job import Execution
from functions.contracts.outcome import ObjectVersion
from functions.contracts.prices import AS_OF, express_usage, mask_usage, prices_of, standard_usage
from functions.contracts.result import Result
from functions.contracts.spreadsheet import csv_line
from functions.runtime.config import SDK, Config
from functions.runtime.outcomes import Outcomes
from functions.runtime.store import Store
from functions.runtime.subject import subject_line
from functions.validate.upload import Upload

if TYPE_CHECKING:
    from mypy_boto3_sns import SNSClient

BATCH_FAILED: Final = "BatchFailedError"
"""Error of an Express child in which every image failed."""

_COLUMNS: Final = (
    *("bucket", "key", "version_id", "status", "result_key", "score", "review", "seconds", "error", "message"),
    *("remedy", "report_key"),
)
_MILLISECONDS: Final = 1e11  # later as milliseconds than any run, and as seconds earlier


class SummaryConfig(Config):
    """Where summaries go, and what costs are computed from.

    Attributes:
        uploads_bucket: bucket of uploads.
        results_bucket: bucket of results and summaries.
        work_bucket: bucket of the Map Run's result files.
        topic_arn: SNS topic for summaries.
        aws_region: of the stack.
        bulk_memory_mb: memory of the bulk function, MiB.
        stage_memory_mb: memory of the functions of the main state machine, MiB.
    """

    uploads_bucket: str
    results_bucket: str
    work_bucket: str
    topic_arn: str
    aws_region: str
    bulk_memory_mb: int
    stage_memory_mb: int = 3008


class Plan(BaseModel):
    """The state of the run; see :meth:`functions.bulk.prepare.Preparer.prepare`."""

    run: Execution
    child: Child
    bucket: str
    prefix: str
    reader: str
    options: dict[str, Any]
    batch: int
    tolerated_failure_percentage: float
    tolerated_failure_count: int
    overwrite: bool = False
    results_prefix: str
    engine: Engine = "host"
    transform: dict[str, Any] = {}


@dataclass
class Tally:
    """Counts of a run."""

    statuses: Counter[str] = field(default_factory=Counter)
    errors: Counter[str] = field(default_factory=Counter)
    review: int = 0
    degraded: int = 0
    item_seconds: float = 0.0

    def add(self, outcome: ItemOutcome) -> None:
        """Count an image."""
        self.statuses[outcome.status] += 1
        self.review += bool(outcome.review)
        self.degraded += outcome.degraded
        self.item_seconds += outcome.seconds
        if outcome.status == "failed":
            self.errors[outcome.error or "Unknown"] += 1

    @property
    def items(self) -> int:
        """All images."""
        return self.statuses.total()

    @property
    def missing(self) -> int:
        """Images without a result."""
        return self.statuses["failed"] + self.statuses["not_done"]


class Summarizer:
    """Sums up runs.

    Args:
        config: where summaries go.
        store: S3.
        objects: S3, for large objects.
        topic: SNS client; None creates one from the environment.
    """

    def __init__(
        self, config: SummaryConfig, store: Store, objects: BulkObjects, *, topic: "SNSClient | None" = None
    ) -> None:
        self._config, self._store, self._objects = config, store, objects
        self._topic = topic or boto3.client("sns", config=SDK)

    def summarize(self, plan: Plan, failed: dict[str, str] | None) -> BulkSummary:
        """Write the files of a run, publish its summary, and return it.

        Args:
            plan: the state of the run.
            failed: ``{"Error", "Cause"}`` of its Map state; None if it succeeded.
        """
        prefix, tally = run_prefix(plan.run.name), Tally()
        with ExitStack() as stack:
            rows: IO[bytes] = stack.enter_context(tempfile.TemporaryFile())
            missing: IO[bytes] = stack.enter_context(tempfile.TemporaryFile())
            rows.write(csv_line(_COLUMNS).encode())
            for outcome in self.outcomes(plan):
                tally.add(outcome)
                facts = outcome.model_dump()
                rows.write(csv_line(facts[name] for name in _COLUMNS).encode())
                if outcome.status in ("failed", "not_done"):
                    missing.write(_manifest_line(outcome))
            self._upload(rows, f"{prefix}items.csv", "text/csv")
            failed_key = f"{prefix}failed.jsonl" if tally.missing else None
            if failed_key:
                self._upload(missing, failed_key, "application/x-ndjson")
        files = SummaryFiles(summary=f"{prefix}summary.json", items=f"{prefix}items.csv", failed=failed_key)
        summary = self._compose(plan, tally, files, failed)
        text = summary.model_dump_json(indent=2)
        self._store.put(self._config.results_bucket, files.summary, text.encode(), "application/json")
        self._topic.publish(TopicArn=self._config.topic_arn, Subject=headline(summary), Message=text)
        return summary

    def outcomes(self, plan: Plan) -> Iterator[ItemOutcome]:
        """Yield the outcome of each image of the run."""
        for record in self._objects.records(self._config.work_bucket, f"{plan.results_prefix}/"):
            given, output = json.loads(record["Input"]), record.get("Output", "")
            if record["Status"] == "SUCCEEDED" and plan.child == "express":
                yield from BatchOutcome.model_validate_json(output).items
            elif record["Status"] == "SUCCEEDED":
                yield self._of_sidecar(plan, given, json.loads(output))
            else:
                items = given["Items"] if plan.child == "express" else [given]
                shared = BatchInput(run=plan.run, options=plan.options, bucket=plan.bucket)
                for upload in filter(None, (read_item(item, shared) for item in items)):
                    yield self._reconciled(plan, upload, record)

    def _of_sidecar(self, plan: Plan, given: dict[str, Any], document: dict[str, Any]) -> ItemOutcome:
        upload = Upload.model_validate(given)
        outcome = outcome_of(upload, document, Execution.model_validate(document["execution"]), cached=False)
        return outcome

    def _reconciled(self, plan: Plan, upload: Upload, record: dict[str, Any]) -> ItemOutcome:
        """Return the outcome of an image of a child without output: its result, its report, or the child's error."""
        named = {"bucket": upload.bucket, "key": upload.key, "version_id": upload.version_id, "options": upload.options}
        if record["Status"] == "PENDING":  # no need to look: there may be a million of them
            return ItemOutcome(**named, status="not_done")
        folder = object_keys.source_folder(upload.bucket, self._config.uploads_bucket)
        outcomes = Outcomes(self._store, self._config.results_bucket, folder)
        caught = {"Error": record.get("Error") or f"Execution{record['Status']}", "Cause": record.get("Cause") or ""}
        inner = json_object(caught["Cause"]) if plan.child == "standard" else {}
        owner = inner.get("ExecutionArn", plan.run.id)
        result = self._result(folder, upload)
        if result and (not plan.overwrite or result["execution"]["id"] == plan.run.id):
            return outcome_of(upload, result, plan.run, cached=True, engine=plan.engine)
        if report := self._report(folder, upload, owner):
            report_key: str | None = object_keys.failure_key(folder + upload.key, "")
            facts: dict[str, Any] = report.model_dump(include={"error", "message", "remedy"})
            return ItemOutcome(**named, status="failed", report_key=report_key, **facts)
        if record["Status"] == "ABORTED":
            return ItemOutcome(**named, status="not_done")
        if "Error" in inner:
            caught = {"Error": str(inner["Error"]), "Cause": str(inner.get("Cause", ""))}
        facts = explain(caught, "Bulk")
        report_key = outcomes.write_report(
            FailureReport(
                status="FAILED",
                stage="Bulk",
                **facts,
                options={},
                execution=plan.run,
                source=ObjectVersion(bucket=upload.bucket, key=upload.key, version_id=upload.version_id),
            )
        )
        shown = {name: facts[name] for name in ("error", "message", "remedy")}
        return ItemOutcome(**named, status="failed", report_key=report_key, **shown)

    def _result(self, folder: str, upload: Upload) -> dict[str, Any] | None:
        """Return the sidecar of the upload's result with its options, which this run or an earlier one wrote."""
        try:
            options = Options.parse_explicit(upload.options)
        except InvalidOptionsError:
            return None
        given = options.model_dump(mode="json", include=set(upload.options))
        version = upload.version_id or self._newest(upload)
        for key in object_keys.sidecar_keys(folder + upload.key):
            try:
                document: dict[str, Any] = json.loads(self._store.fetch(self._config.results_bucket, key).data)
                result = Result.model_validate(document)
            except (SourceNotFoundError, ValueError):
                continue
            source = result.source
            same = (source.bucket, source.key, source.version_id) == (upload.bucket, upload.key, version)
            if same and document["options"].items() >= given.items():
                return document
        return None

    def _newest(self, upload: Upload) -> str | None:
        try:
            found = self._store.newest(upload.bucket, upload.key)
        except BackgroundRemoverError:
            return None
        return found.version_id if found else None

    def _report(self, folder: str, upload: Upload, owner: str) -> FailureReport | None:
        """Return the failure report of an image that an execution wrote."""
        key = object_keys.failure_key(folder + upload.key, "")
        try:
            report = FailureReport.model_validate_json(self._store.fetch(self._config.results_bucket, key).data)
        except (SourceNotFoundError, ValueError):
            return None
        return report if report.execution.id == owner else None

    def _upload(self, file: IO[bytes], key: str, content_type: str) -> None:
        file.seek(0)
        self._objects.upload(self._config.results_bucket, key, file, content_type)

    def _compose(self, plan: Plan, tally: Tally, files: SummaryFiles, failed: dict[str, str] | None) -> BulkSummary:
        error = self._error(plan, tally, failed)
        started, transform = datetime.fromisoformat(plan.run.started_at), transform_report(plan.transform)
        return BulkSummary(
            run=plan.run.name,
            execution=plan.run,
            status="FAILED" if error else "SUCCEEDED",
            child=plan.child,
            items=tally.items,
            done=tally.statuses["done"],
            cached=tally.statuses["cached"],
            failed=tally.statuses["failed"],
            not_done=tally.statuses["not_done"],
            review=tally.review,
            degraded=tally.degraded,
            engine=plan.engine,
            transform=transform,
            errors=dict(tally.errors.most_common()),
            seconds=round(max(0.0, time.time() - started.astimezone(UTC).timestamp()), 1),
            item_seconds=round(tally.item_seconds, 1),
            cost=self._cost(plan, tally, transform),
            files=files,
            error=error,
        )

    def _error(self, plan: Plan, tally: Tally, failed: dict[str, str] | None) -> BulkError | None:
        """Return why the run failed, or None."""
        count = plan.tolerated_failure_count if plan.tolerated_failure_count < MOST_TOLERATED else None
        if over_tolerance(tally.missing, tally.items, plan.tolerated_failure_percentage, count):
            return BulkError(
                error="ToleranceExceededError",
                message=f"{tally.missing} of {tally.items} images failed or were not done, more than are tolerated",
                remedy="Correct what failed.jsonl lists, and start a run with it as manifest.",
            )
        if failed:
            facts = explain(failed, "Map")
            return BulkError(**{name: facts[name] for name in ("error", "message", "remedy")})
        if not tally.items:
            return BulkError(
                error="NoItemsError",
                message=f"There is no image below s3://{plan.bucket}/{plan.prefix}",
                remedy="Check bucket and prefix. Prefixes are case-sensitive and have no leading slash.",
            )
        return None

    def _cost(self, plan: Plan, tally: Tally, transform: TransformReport | None) -> CostEstimate:
        region, prices = prices_of(self._config.aws_region)
        if plan.child == "express":
            usage = express_usage(
                tally.items, tally.statuses["cached"], plan.batch, tally.item_seconds, self._config.bulk_memory_mb
            )
        else:
            usage = standard_usage(tally.items, tally.item_seconds, self._config.stage_memory_mb)
        if plan.engine == "batch-transform":
            usage += mask_usage(tally.items, tally.items - tally.statuses["cached"])
        parts = [round(part(prices), 4) for part in (usage.orchestration_usd, usage.compute_usd, usage.requests_usd)]
        hours = transform.instances * transform.seconds / 3600 if transform else 0.0
        parts.append(round(hours * prices.instance_h.get(transform.instance_type, 0.0), 4) if transform else 0.0)
        return CostEstimate(
            region=region,
            prices_as_of=AS_OF,
            orchestration_usd=parts[0],
            compute_usd=parts[1],
            requests_usd=parts[2],
            transform_usd=parts[3],
            total_usd=round(sum(parts), 4),
        )


def transform_report(state: dict[str, Any]) -> TransformReport | None:
    """Return the report of a transform job; None if there was none.

    Args:
        state: ``transform`` in the state of the run, with ``job``, a description of the job, or ``failed``.
    """
    failed = state.get("failed", {})
    job = state.get("job") or json_object(failed.get("Cause", ""))
    if not job and not failed:
        return None
    status = job.get("TransformJobStatus") or ("TimedOut" if failed.get("Error") == "States.Timeout" else "Failed")
    began, ended = (_seconds(job.get(name)) for name in ("TransformStartTime", "TransformEndTime"))
    return TransformReport(
        job=job.get("TransformJobName") or state["job_name"],
        status=status,
        reason=None if status == "Completed" else job.get("FailureReason") or None,
        instance_type=state["resources"]["InstanceType"],
        instances=state["found"]["InstanceCount"],
        seconds=round(max(0.0, ended - began), 1) if began and ended else 0.0,
    )


def _seconds(value: Any) -> float:
    """Return a time as Step Functions writes it, milliseconds, seconds or ISO 8601, in seconds; 0 without one."""
    if isinstance(value, str):
        return datetime.fromisoformat(value).timestamp()
    return float(value or 0) / (1000 if (value or 0) > _MILLISECONDS else 1)


def headline(summary: BulkSummary) -> str:
    """Return the subject of the message about a run."""
    done = summary.done + summary.cached
    return subject_line(f"Bulk run {summary.status.lower()}: {done} of {summary.items} done, {summary.run}")


def _manifest_line(outcome: ItemOutcome) -> bytes:
    """Return the row of a manifest that repeats an image."""
    row = ManifestRow(bucket=outcome.bucket, key=outcome.key, version_id=outcome.version_id, options=outcome.options)
    return row.model_dump_json(exclude_none=True).encode() + b"\n"
