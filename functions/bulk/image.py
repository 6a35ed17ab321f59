"""All stages for one image in this process, with the code of the stages: the same bytes, sidecars and errors.

The image is fetched once, and neither the mask nor the alpha is written. It is decoded once at full size, and a large
JPEG once more at the reduced scale that Segment decodes: masks of the two scales differ slightly.
"""

import json
import time
from collections.abc import Mapping
from dataclasses import dataclass
from functools import cached_property
from typing import Any

from botocore.exceptions import ClientError

from core.arrays import Alpha, Mask, Picture
from core.errors import BackgroundRemoverError, PermanentError, SourceNotFoundError
from core.image import decode
from core.image.backdrop import WHITE, composed
from core.image.encode import as_stored
from core.options import Host
from core.presets import BUILT_IN, Preset
from core.segmentation.looks import complete
from core.segmentation.segment import predict
from core.segmentation.sessions import Networks
from core.types import ImageInfo
from functions.bulk.cache import Cache
from functions.bulk.config import BulkConfig
from functions.bulk.endpoint import Endpoint, EndpointError
from functions.contracts.bulk import Engine
from functions.contracts.errors import to_wire
from functions.contracts.job import Execution, Job, MaskPart, RefinedJob, SegmentedJob
from functions.contracts.masks import MASK_FACTS, MaskRequest, MaskSource, mask_key, read_facts
from functions.contracts.object_keys import result_keys
from functions.contracts.outcome import ObjectVersion
from functions.contracts.prices import bulk_image_usd
from functions.contracts.result import Result
from functions.encode.work import Delivery
from functions.metrics.publish import lambda_timings_s, publish_result
from functions.refine.work import refine
from functions.runtime.handler import count, logger
from functions.runtime.inspection import Inspector
from functions.runtime.outcomes import Outcomes, execution_metadata
from functions.runtime.reviews import Reviews
from functions.runtime.store import Store, StoredVersion
from functions.segment.work import describe, look_at, needed_px
from functions.validate.job import Accepted, Plan, Validator, check_memory, check_names, identity_of, memory_of
from functions.validate.upload import Upload


@dataclass
class Progress:
    """How far the processing of an image is.

    Attributes:
        final: whether a transient error of a second attempt is final, because nothing retries it.
        stage: the state of the state machine that does the same.
        accepted: the job, once Validate has accepted it.
    """

    final: bool = True
    stage: str = "Validate"
    accepted: Accepted | None = None


@dataclass(frozen=True)
class Processed:
    """A result: its sidecar, and whether it existed or came from the cache."""

    document: dict[str, Any]
    cached: bool


@dataclass
class Pixels:
    """The image of a job, decoded when it is needed."""

    data: bytes

    @cached_property
    def full(self) -> Picture:
        """The image at full size."""
        return decode.decode(self.data)

    def at_least(self, side_px: int) -> Picture:
        """Return the image as Segment decodes it."""
        if "full" in self.__dict__ and self.full.info.format != "jpeg":
            return self.full
        picture = decode.decode(self.data, at_least_px=side_px)
        if picture.rgb.shape[:2] == (picture.info.height, picture.info.width):
            self.__dict__["full"] = picture
        return picture


class ImageProcessor:
    """Processes images as the state machine does.

    Args:
        config: defaults and capabilities of the stack.
        store: S3.
        cache: the result cache.
        networks: segmentation in this process.
        inspector: decodes untrusted images.
        reviews: the table of reviews.
        endpoint: segmentation of jobs for SageMaker; None without one.
    """

    def __init__(
        self,
        config: BulkConfig,
        store: Store,
        cache: Cache,
        networks: Networks,
        inspector: Inspector,
        reviews: Reviews,
        endpoint: Endpoint | None = None,
    ) -> None:
        self._config, self._store, self._cache, self._networks = config, store, cache, networks
        self._reviews = reviews
        self._endpoint = endpoint
        self._validators: dict[Engine, Validator] = {
            "host": Validator(config, store, inspector),
            "batch-transform": Validator(config.after_transform(), store, inspector),
        }

    def outcomes(self, bucket: str) -> Outcomes:
        """Return results and failure reports of the images in a bucket."""
        return Outcomes(self._store, self._config.results_bucket, self._config.folder_of(bucket))

    def process(
        self,
        upload: Upload,
        execution: Execution,
        progress: Progress,
        presets: Mapping[str, Preset] = BUILT_IN,
        *,
        overwrite: bool = False,
        engine: Engine = "host",
    ) -> Processed:
        """Return the result of an image: the existing one, the cached one, or a new one.

        Args:
            upload: the image and its options.
            execution: the bulk run.
            progress: is updated, for the failure report.
            presets: presets by name.
            overwrite: compute the result again unless this run did.
            engine: what segments the image; the masks of a transform job have been made.

        Raises:
            BackgroundRemoverError: the error of the stage in ``progress``.
        """
        document = self.existing(upload, presets, engine)
        if document and (not overwrite or document["execution"]["id"] == execution.id):
            return Processed(document, cached=True)
        progress.accepted = accepted = self._validators[engine].accept(upload, execution, presets)
        progress.stage = "ServeCached"
        job = Job.model_validate(accepted.job)
        if not overwrite and (document := self._serve_cached(job, accepted.job)):
            self._publish(document, engine)
            return Processed(document, cached=True)
        document = self._compute(job, accepted, progress, engine)
        self._save(job, document)
        self._publish(document, engine)
        return Processed(document, cached=False)

    def existing(
        self, upload: Upload, presets: Mapping[str, Preset] = BUILT_IN, engine: Engine = "host"
    ) -> dict[str, Any] | None:
        """Return the sidecar of the upload's result, if a new one would be the same; it is not rewritten.

        Cache keys are equal exactly if the results are. That of a job with a background depends on its content, so
        such a job is not looked up here.

        Raises:
            InvalidRequestError: images may not be in the bucket, or the key is longer than S3 accepts.
            InvalidOptionsError: an option is invalid, or the stack cannot honor it.
            TransientError, StorageDeniedError: S3 is unavailable or denies access.
        """
        planned = self._planned(upload, presets, engine)
        return self._sidecar(upload, *planned) if planned else None

    def mask_request(
        self, upload: Upload, presets: Mapping[str, Preset] = BUILT_IN, *, overwrite: bool = False
    ) -> MaskRequest | None:
        """Return the request for the mask that a transform job is to make.

        None if the image has its mask; if it has its result or a cache entry, unless with ``overwrite``; and if it asks
        for another host, does not exist or is refused, which is reported when it is processed. Masks and cache entries
        are known of images that were uploaded with their SHA-256; the container looks for the masks of others.

        Raises:
            TransientError: S3 or DynamoDB is unavailable.
        """
        try:
            planned = self._planned(upload, presets, "batch-transform", checksum=True)
            if planned is None or (not overwrite and self._sidecar(upload, *planned)):
                return None
        except PermanentError:
            return None
        version, plan = planned
        if plan.options.segmentation_host is not Host.SAGEMAKER:
            return None
        if version.sha256 and self._is_segmented(version.sha256, plan, upload.tenant, cached=not overwrite):
            return None
        source = MaskSource(bucket=upload.bucket, key=upload.key, version_id=version.version_id, etag=version.etag)
        identity = identity_of(plan.options.model, self._config)
        return MaskRequest(mask_of=source, options=plan.options, model_identity=identity)

    def _is_segmented(self, content_sha256: str, plan: Plan, tenant: str | None, *, cached: bool) -> bool:
        """Return whether there is a mask of an image or, with ``cached``, a cache entry."""
        if cached and plan.options.background_key is None:
            key = self._validators["host"].cache_key(plan, content_sha256, None, tenant)
            if self._cache.find(key):
                return True
        key = mask_key(content_sha256, plan.options, identity_of(plan.options.model, self._config))
        return self._store.newest(self._config.work_bucket, key) is not None

    def _planned(
        self, upload: Upload, presets: Mapping[str, Preset], engine: Engine, *, checksum: bool = False
    ) -> tuple[StoredVersion, Plan] | None:
        """Return the version of an image, and what is to be made of it; None if it does not exist."""
        check_names(upload, self._config)
        version = self._store.newest(upload.bucket, upload.key, upload.version_id, checksum=checksum)
        if version is None:
            return None
        return version, self._validators[engine].plan(upload, version.metadata, presets)

    def _sidecar(self, upload: Upload, version: StoredVersion, plan: Plan) -> dict[str, Any] | None:
        """Return the sidecar of a result that was made of this version as planned."""
        if plan.options.background_key is not None:
            return None
        key = result_keys(self._config.result_name(upload), "", plan.options).sidecar
        try:
            document: dict[str, Any] = json.loads(self._store.fetch(self._config.results_bucket, key).data)
            result = Result.model_validate(document)
        except (SourceNotFoundError, ValueError):
            return None
        source = result.source
        same = (source.bucket, source.key, source.etag) == (upload.bucket, upload.key, version.etag)
        if not same or source.version_id != version.version_id:
            return None
        expected = self._validators["host"].cache_key(plan, source.sha256, None, upload.tenant)
        return document if result.cache.key == expected else None

    def _serve_cached(self, job: Job, state: dict[str, Any]) -> dict[str, Any] | None:
        """Copy the cached result; return its sidecar, or None if there is no entry or no copy."""
        cached = self._cache.find(job.cache_key)
        if cached is None:
            return None
        bucket = self._config.results_bucket
        try:
            version_id = self._store.copy(
                (self._config.work_bucket, job.keys.cached),
                bucket,
                job.keys.result,
                state["content_type"],
                execution_metadata(job.execution),
            )
        except SourceNotFoundError:  # the copy expired before its entry
            return None
        document = {
            **cached,
            **{name: state[name] for name in ("execution", "source", "options", "timings_s")},
            "result": {
                "bucket": bucket,
                "key": job.keys.result,
                "version_id": version_id,
                "sidecar_key": job.keys.sidecar,
            },
            "degraded": False,
            "cache": {"key": job.cache_key, "hit": True},
        }
        self._store.put(bucket, job.keys.sidecar, json.dumps(document, indent=2).encode(), "application/json")
        self.outcomes(job.source.bucket).delete_stale_reports(ObjectVersion(**job.source.model_dump()), job.execution)
        return document

    def _save(self, job: Job, document: dict[str, Any]) -> None:
        """Save the cache entry. The result is delivered, so that an error does not fail the image."""
        try:
            self._cache.save(job, document)
        except (BackgroundRemoverError, ClientError) as error:
            logger.error("degraded", extra={"state": "SaveCache", "caught": str(error)})
            count("Degraded", Stage="SaveCache")

    def _publish(self, document: dict[str, Any], engine: Engine) -> None:
        """Publish the metrics of a new result, and open its review if it is doubtful."""
        # This process waits for an endpoint, but not for a transform job.
        timings_s = lambda_timings_s(document) if engine == "batch-transform" else document["timings_s"]
        memory_mb, region = self._config.bulk_memory_mb, self._config.aws_region
        publish_result(document, bulk_image_usd(timings_s, memory_mb, region, cached=document["cache"]["hit"]))
        self._reviews.open(document)

    def _compute(self, job: Job, accepted: Accepted, progress: Progress, engine: Engine) -> dict[str, Any]:
        pixels, state = Pixels(accepted.data), dict(accepted.job)
        parts, alpha = self._attempt(state, pixels, progress, engine)
        alphas = {"first": alpha}
        if job.escalation and parts["refine"]["alpha"]["quality"]["review"]:
            state["first"] = parts
            try:
                parts, alphas["second"] = self._attempt(state, pixels, progress, "host")
            except BackgroundRemoverError as error:
                if error.retryable and not progress.final:
                    raise
                state["degraded"] = {progress.stage: {"Error": type(error).__name__, "Cause": to_wire(error)}}
        progress.stage, started = "Encode", time.perf_counter()
        refined = RefinedJob.model_validate({**state, **parts})
        background = composed(decode.decode(accepted.background), WHITE) if accepted.background else None
        delivery = Delivery(self.outcomes(job.source.bucket), self._config.work_bucket)
        return delivery.deliver(refined, pixels.full, alphas[refined.kept], background, started)

    def _attempt(
        self, state: dict[str, Any], pixels: Pixels, progress: Progress, engine: Engine
    ) -> tuple[dict[str, Any], Alpha]:
        """Segment and refine; return ``segment`` and ``refine`` of the workflow state, and the alpha.

        A failure of the endpoint or of the transform job is recorded in the state's ``fallback``.
        """
        mask, part = (self._mask_of_transform(state, progress) if engine == "batch-transform" else None) or (
            self._segment(state, pixels, progress)
        )
        progress.stage, started = "Refine", time.perf_counter()
        segmented = SegmentedJob.model_validate({**state, "segment": {"mask": part}})
        alpha, refined = refine(segmented, pixels.full, mask, started)
        return {"segment": {"mask": part}, "refine": {"alpha": refined}}, as_stored(alpha)

    def _mask_of_transform(self, state: dict[str, Any], progress: Progress) -> tuple[Mask, dict[str, Any]] | None:
        """Return the mask that the transform job made, and its facts; None if Lambda is to segment.

        Raises:
            PermanentError: there is no mask, and Lambda has not the memory that the model needs.
        """
        job = Job.model_validate(state)
        if job.host != "sagemaker":
            return None
        progress.stage = "SegmentOnBatchTransform"
        key = mask_key(job.source.sha256, job.options, identity_of(job.model, self._config))
        try:
            file = self._store.fetch(self._config.work_bucket, key)
        except SourceNotFoundError:
            pass
        else:
            if part := read_facts(file.metadata.get(MASK_FACTS)):
                return decode.decode_plane(file.data), part.model_dump(mode="json")
        cause = "The transform job made no mask of this image"
        state["fallback"] = {progress.stage: {"Error": "MaskNotFoundError", "Cause": cause}}
        try:
            self._check_lambda(job)
        except PermanentError as error:
            message = f"{cause}, and Lambda cannot segment it: {error.message}"
            raise type(error)(message, field=error.field, value=error.value, remedy=error.remedy) from None
        return None

    def _check_lambda(self, job: Job) -> None:
        """Check that this function has the memory to segment an image."""
        check_memory(job.model, Host.LAMBDA, self._config)
        source = job.source
        info = ImageInfo(width=source.width, height=source.height, format=source.format, bytes=source.bytes)
        self._config.check_image(info, job.options, None, memory_of(job.model, self._config))

    def _segment(self, state: dict[str, Any], pixels: Pixels, progress: Progress) -> tuple[Mask, dict[str, Any]]:
        job = Job.model_validate(state)
        if job.host == "sagemaker" and self._endpoint and not job.fallback:
            progress.stage = "SegmentOnSageMaker"
            try:
                part: MaskPart = self._endpoint.segment(job)
                return self._store.plane(self._config.work_bucket, part.key), part.model_dump(mode="json")
            except EndpointError as error:
                state["fallback"] = {progress.stage: error.caught}
                job = Job.model_validate(state)
        progress.stage, started = "SegmentOnLambda", time.perf_counter()
        registry = self._networks.source.registry
        look = look_at(pixels.at_least(needed_px(job, registry)), job, registry)
        segmentation = complete(look, lambda prepared: predict([prepared], self._networks)[0])
        part_of_state = describe(job, segmentation, host="lambda", seconds=time.perf_counter() - started)
        return as_stored(segmentation.mask), part_of_state
