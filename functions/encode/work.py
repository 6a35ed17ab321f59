"""The work of Encode: write the result, its sidecar and the copy in the cache."""

import hashlib
import json
import time
from dataclasses import asdict, dataclass
from typing import Any

from core import pipeline
from core.arrays import Alpha, Picture, Rgb
from core.image.encode import Encoded
from functions.contracts.job import RefinedJob
from functions.contracts.outcome import ObjectVersion
from functions.contracts.result import (
    AttemptError,
    CacheReport,
    EscalationSummary,
    Foreground,
    QualityReport,
    RefinementReport,
    Result,
    ResultImage,
    ResultObject,
    SegmentationModel,
)
from functions.runtime.outcomes import Outcomes, execution_metadata


@dataclass(frozen=True)
class Delivery:
    """Where results go.

    Attributes:
        outcomes: the results bucket.
        work_bucket: bucket of cached results.
    """

    outcomes: Outcomes
    work_bucket: str

    def deliver(
        self, job: RefinedJob, picture: Picture, alpha: Alpha, background: Rgb | None, started: float
    ) -> dict[str, Any]:
        """Encode the result, write it, its cached copy and its sidecar, and return the sidecar.

        Once the sidecar is written the upload has a result, and earlier failure reports are deleted.

        Args:
            job: the workflow state.
            picture: the image at full size.
            alpha: of the attempt that is kept, as :meth:`functions.runtime.store.Store.plane` reads it.
            background: the background image, or None.
            started: ``perf_counter`` at the start of the stage.
        """
        store, bucket = self.outcomes.store, self.outcomes.bucket
        encoded = pipeline.finish(picture, alpha, job.options, background)
        store.put(self.work_bucket, job.keys.cached, encoded.data, encoded.content_type)
        version_id = store.put(
            bucket, job.keys.result, encoded.data, encoded.content_type, execution_metadata(job.execution)
        )
        result = describe(job, encoded, bucket, version_id, time.perf_counter() - started)
        document = result.model_dump(mode="json")
        store.put(bucket, job.keys.sidecar, json.dumps(document, indent=2).encode(), "application/json")
        self.outcomes.delete_stale_reports(ObjectVersion(**job.source.model_dump()), job.execution)
        return document


def describe(job: RefinedJob, encoded: Encoded, bucket: str, version_id: str | None, seconds: float) -> Result:
    """Return the sidecar of a result.

    Args:
        job: the workflow state.
        encoded: the result.
        bucket: bucket of the result.
        version_id: version of the result's object.
        seconds: duration of Encode.
    """
    kept = job.attempts[job.kept]
    mask, alpha = kept.segment.mask, kept.refine.alpha
    return Result(
        execution=job.execution,
        source=job.source,
        options=job.options,
        result=ResultObject(bucket=bucket, key=job.keys.result, version_id=version_id, sidecar_key=job.keys.sidecar),
        image=describe_image(encoded),
        model=SegmentationModel(
            name=mask.model,
            weights_sha256=mask.weights_sha256,
            host=mask.host,
            looks=list(mask.looks),
            rejected_looks=list(mask.rejected_looks),
        ),
        degraded=mask.host != job.host,
        escalation=describe_escalation(job),
        quality=QualityReport.model_validate(alpha.quality),
        refinement=RefinementReport.model_validate(alpha.report),
        timings_s={
            **job.timings_s,
            "segment": mask.seconds,
            "refine": alpha.seconds,
            **({"escalation": job.other.seconds} if job.other else {}),
            "encode": round(seconds, 4),
        },
        cache=CacheReport(key=job.cache_key, hit=False),
        warnings=[
            *job.warnings,
            *mask.warnings,
            *alpha.report.get("warnings", []),
            *encoded.warnings,
            *(
                f"The second attempt on {job.model} failed in {state}: {caught['Error']}"
                for state, caught in job.degraded.items()
            ),
        ],
    )


def describe_image(encoded: Encoded) -> ResultImage:
    """Return the sidecar's description of the encoded result."""
    return ResultImage(
        format=encoded.format,
        content_type=encoded.content_type,
        width=encoded.width,
        height=encoded.height,
        bytes=len(encoded.data),
        sha256=hashlib.sha256(encoded.data).hexdigest(),
        foreground=Foreground(**asdict(encoded.foreground)) if encoded.foreground else None,
    )


def describe_escalation(job: RefinedJob) -> EscalationSummary | None:
    """Return the sidecar's description of the second attempt, or None if there was none."""
    if job.first is None:
        return None
    errors = [AttemptError(stage=state, error=caught["Error"]) for state, caught in job.degraded.items()]
    return EscalationSummary(
        model=job.model,
        kept=job.kept,
        score={name: attempt.score for name, attempt in job.attempts.items()},
        error=errors[0] if errors else None,
    )
