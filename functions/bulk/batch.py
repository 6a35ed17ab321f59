"""The images of a batch, one after the other: an image that fails does not fail the others."""

import json
import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Final

from pydantic import BaseModel, Field

from core.errors import BackgroundRemoverError
from functions.bulk.image import ImageProcessor, Progress
from functions.bulk.items import BatchInput, named, outcome_of, read_item
from functions.contracts.bulk import BatchOutcome, ItemOutcome
from functions.contracts.errors import to_wire
from functions.contracts.failure_report import FailureReport, explain
from functions.contracts.job import Execution
from functions.contracts.outcome import ObjectVersion
from functions.runtime.handler import count, logger
from functions.validate.upload import Upload

LAST_ATTEMPT: Final = 3
"""Number of retries of a batch in the state machine, after which a transient error is an image's outcome."""

LONGEST_ITEM_S: Final = 60.0
"""Time to reserve for an image, until a longer one is met."""


class Batch(BaseModel):
    """The input of the function: a batch, and the number of earlier attempts at it."""

    items: list[dict[str, Any]] = Field(alias="Items")
    batch_input: BatchInput = Field(alias="BatchInput")
    attempt: int = 0


@dataclass(frozen=True)
class BatchProcessor:
    """Processes batches.

    Attributes:
        images: processes an image.
        budget_s: seconds after which no image may be in progress.
        clock: returns seconds.
    """

    images: ImageProcessor
    budget_s: float
    clock: Callable[[], float] = time.perf_counter

    def process(self, batch: Batch) -> BatchOutcome:
        """Return the outcomes of a batch. Images for which the time does not suffice are not done.

        The second attempt goes through the images in reverse order: if one of them crashes this process, those before
        it are done in the first attempt, and those behind it in the second.

        Raises:
            TransientError: an image failed for a reason that a retry can remove. All others have their outcome.
        """
        started, longest_s = self.clock(), LONGEST_ITEM_S
        uploads = [upload for item in batch.items if (upload := read_item(item, batch.batch_input))]
        outcomes: list[ItemOutcome] = []
        passing: BackgroundRemoverError | None = None
        for upload in reversed(uploads) if batch.attempt % 2 else uploads:
            begun = self.clock()
            if outcomes and begun - started + longest_s > self.budget_s:
                outcomes.append(named(upload, status="not_done"))
                continue
            try:
                outcomes.append(self._process(upload, batch, begun))
            except BackgroundRemoverError as error:
                passing = error
            longest_s = max(longest_s, self.clock() - begun)
        if passing:
            raise passing
        failed = sum(outcome.status == "failed" for outcome in outcomes)
        succeeded = sum(outcome.status in ("done", "cached") for outcome in outcomes)
        return BatchOutcome(items=outcomes, succeeded=succeeded, failed=failed)

    def _process(self, upload: Upload, batch: Batch, begun: float) -> ItemOutcome:
        """Return the outcome of an image.

        Raises:
            TransientError: and the batch will be retried.
        """
        run, final = batch.batch_input.run, batch.attempt >= LAST_ATTEMPT
        progress = Progress(final=final)
        try:
            shared = batch.batch_input
            processed = self.images.process(
                upload, run, progress, shared.presets, overwrite=shared.overwrite, engine=shared.engine
            )
        except BackgroundRemoverError as error:
            if error.retryable and not final:
                raise
            caught = {"Error": type(error).__name__, "Cause": to_wire(error)}
            return self._failed(upload, run, progress, caught, self.clock() - begun)
        except Exception as error:
            logger.exception("stage failed unexpectedly", extra={"source": upload.key, "stage": progress.stage})
            cause = json.dumps({"errorMessage": str(error), "errorType": type(error).__name__})
            return self._failed(
                upload, run, progress, {"Error": type(error).__name__, "Cause": cause}, self.clock() - begun
            )
        return outcome_of(upload, processed.document, run, cached=processed.cached, engine=batch.batch_input.engine)

    def _failed(
        self, upload: Upload, run: Execution, progress: Progress, caught: dict[str, str], seconds: float
    ) -> ItemOutcome:
        """Write the failure report, as RecordFailure does, and return the outcome."""
        facts = explain(caught, progress.stage)
        logger.warning("image failed", extra={"source": upload.key, "stage": progress.stage, "failure": facts})
        count("Failed", Stage=progress.stage, Error=facts["error"])
        job = progress.accepted.job if progress.accepted else {}
        source = job.get("source", {"bucket": upload.bucket, "key": upload.key, "version_id": upload.version_id})
        outcomes = self.images.outcomes(upload.bucket)
        if job:
            outcomes.delete_undescribed_results(job["keys"]["result"], job["keys"]["sidecar"], run)
        report = FailureReport(
            status="FAILED",
            stage=progress.stage,
            **facts,
            options=job.get("options", {}),
            execution=run,
            source=ObjectVersion.model_validate(source),
        )
        return named(
            upload,
            status="failed",
            seconds=round(seconds, 4),
            **{name: facts[name] for name in ("error", "message", "remedy")},
            report_key=outcomes.write_report(report),
        )
