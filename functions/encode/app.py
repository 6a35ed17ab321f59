"""Encode: the result, its sidecar, and the copy that the cache serves."""

import hashlib
import json
import time
from dataclasses import asdict
from typing import Any

from core import pipeline
from core.image.encode import Encoded
from core.types import Rgb
from functions.contracts.job import RefinedJob
from functions.runtime.config import Config
from functions.runtime.handler import stage
from functions.runtime.outcomes import ObjectVersion, Outcomes, execution_metadata
from functions.runtime.store import Store


class EncodeConfig(Config):
    """Where alphas come from, and where results and their cached copies go."""

    work_bucket: str
    results_bucket: str


CONFIG = EncodeConfig()
STORE = Store()
OUTCOMES = Outcomes(STORE, CONFIG.results_bucket)


@stage(RefinedJob)
def handler(job: RefinedJob) -> dict[str, Any]:
    """Return the result's sidecar. From its writing on the upload has its result, and no failure any more."""
    started = time.perf_counter()
    picture = STORE.picture(job.source)
    alpha = STORE.plane(CONFIG.work_bucket, job.attempts[job.kept].refine.alpha.key)
    encoded = pipeline.finish(picture, alpha, job.options, background(job))
    STORE.put(CONFIG.work_bucket, job.keys.cached, encoded.data, encoded.content_type)
    version_id = STORE.put(
        CONFIG.results_bucket, job.keys.result, encoded.data, encoded.content_type, execution_metadata(job.execution)
    )
    document = describe(job, encoded, version_id, time.perf_counter() - started)
    STORE.put(CONFIG.results_bucket, job.keys.sidecar, json.dumps(document, indent=2).encode(), "application/json")
    OUTCOMES.delete_stale_reports(ObjectVersion(**job.source.model_dump()), job.execution)
    return document


def background(job: RefinedJob) -> Rgb | None:
    """Read the picture that the subject is put on, if one was asked for."""
    return STORE.picture(job.background).rgb if job.background else None


def describe(job: RefinedJob, encoded: Encoded, version_id: str | None, seconds: float) -> dict[str, Any]:
    """Put together all that the stages found out."""
    kept = job.attempts[job.kept]
    mask, alpha = kept.segment.mask, kept.refine.alpha
    return {
        "execution": job.execution.model_dump(),
        "source": job.source.model_dump(),
        "options": job.options.model_dump(mode="json"),
        "result": {
            "bucket": CONFIG.results_bucket,
            "key": job.keys.result,
            "version_id": version_id,
            "sidecar_key": job.keys.sidecar,
        },
        "image": {
            "format": encoded.format,
            "content_type": encoded.content_type,
            "width": encoded.width,
            "height": encoded.height,
            "bytes": len(encoded.data),
            "sha256": hashlib.sha256(encoded.data).hexdigest(),
            "foreground": encoded.foreground and asdict(encoded.foreground),
        },
        "model": {"name": mask.model, "weights_sha256": mask.weights_sha256, "host": mask.host},
        "degraded": mask.host != job.host,
        "escalation": describe_escalation(job),
        "quality": alpha.quality,
        "refinement": alpha.report,
        "timings_s": {
            **job.timings_s,
            "segment": mask.seconds,
            "refine": alpha.seconds,
            **({"escalation": job.other.seconds} if job.other else {}),
            "encode": round(seconds, 4),
        },
        "cache": {"key": job.cache_key, "hit": False},
        "warnings": [
            *job.warnings,
            *mask.warnings,
            *alpha.report.get("warnings", []),
            *(f"{job.model} was tried and failed: {state}, {error['Error']}" for state, error in job.degraded.items()),
        ],
    }


def describe_escalation(job: RefinedJob) -> dict[str, Any] | None:
    """Tell of the second attempt, if there was one: its model, who won by which score, and what ended it."""
    if job.first is None:
        return None
    failed = [{"stage": state, "error": caught["Error"]} for state, caught in job.degraded.items()]
    return {
        "model": job.model,
        "kept": job.kept,
        "score": {name: attempt.score for name, attempt in job.attempts.items()},
        "error": failed[0] if failed else None,
    }
