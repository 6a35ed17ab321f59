"""Encode: write the result, its sidecar and the copy in the cache."""

import hashlib
import json
import time
from dataclasses import asdict
from typing import Any

from core import pipeline
from core.arrays import Rgb
from core.image.backdrop import WHITE, composed
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
from functions.runtime.config import Config
from functions.runtime.handler import stage
from functions.runtime.outcomes import Outcomes, execution_metadata
from functions.runtime.store import Store


class EncodeConfig(Config):
    """Buckets of Encode.

    Attributes:
        work_bucket: bucket of alphas and cached results.
        results_bucket: bucket of results and sidecars.
    """

    work_bucket: str
    results_bucket: str


CONFIG = EncodeConfig()
STORE = Store()
OUTCOMES = Outcomes(STORE, CONFIG.results_bucket)


@stage(RefinedJob)
def handler(job: RefinedJob) -> dict[str, Any]:
    """Return the sidecar. Once it is written the upload has a result, and earlier failure reports are deleted."""
    started = time.perf_counter()
    picture = STORE.picture(job.source)
    alpha = STORE.plane(CONFIG.work_bucket, job.attempts[job.kept].refine.alpha.key)
    encoded = pipeline.finish(picture, alpha, job.options, background(job))
    STORE.put(CONFIG.work_bucket, job.keys.cached, encoded.data, encoded.content_type)
    version_id = STORE.put(
        CONFIG.results_bucket, job.keys.result, encoded.data, encoded.content_type, execution_metadata(job.execution)
    )
    document = describe(job, encoded, version_id, time.perf_counter() - started).model_dump(mode="json")
    STORE.put(CONFIG.results_bucket, job.keys.sidecar, json.dumps(document, indent=2).encode(), "application/json")
    OUTCOMES.delete_stale_reports(ObjectVersion(**job.source.model_dump()), job.execution)
    return document


def background(job: RefinedJob) -> Rgb | None:
    """Return the background image, or None if the job has none."""
    return composed(STORE.picture(job.background), WHITE) if job.background else None


def describe(job: RefinedJob, encoded: Encoded, version_id: str | None, seconds: float) -> Result:
    """Return the sidecar of a result.

    Args:
        job: the workflow state.
        encoded: the result.
        version_id: version of the result's object.
        seconds: duration of Encode.
    """
    kept = job.attempts[job.kept]
    mask, alpha = kept.segment.mask, kept.refine.alpha
    return Result(
        execution=job.execution,
        source=job.source,
        options=job.options,
        result=ResultObject(
            bucket=CONFIG.results_bucket, key=job.keys.result, version_id=version_id, sidecar_key=job.keys.sidecar
        ),
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
