"""Validate: check the request and the image, and create the workflow state."""

import os
import time
from functools import cached_property
from typing import Any, Literal

from pydantic import BaseModel

from core import layout
from core.errors import InvalidOptionsError, InvalidRequestError, PermanentError
from core.limits import MAX_KEY_BYTES
from core.options import Host, Options, read_presets
from core.presets import BUILT_IN, Preset
from core.segmentation import registry
from core.types import ImageInfo
from functions.contracts import object_keys
from functions.contracts.job import Execution
from functions.runtime.config import CatalogueConfig, Names
from functions.runtime.handler import stage
from functions.runtime.inspection import Inspector
from functions.runtime.store import Store, StoredFile
from functions.validate.memory import FunctionMemory, check_image
from functions.validate.upload import Upload, options_in, read_upload

_SECONDS_PER_DAY = 86_400


class ValidateConfig(CatalogueConfig):
    """Defaults and capabilities of the stack.

    Attributes:
        uploads_bucket: the only bucket that images are read from.
        default_model: model for ``auto``.
        escalation_model: model for a second attempt if the mask of the default model is doubtful; None for none.
        segmentation_host: host for ``auto``.
        segmentation_hosts: deployed hosts.
        sagemaker_mode: how the endpoint is invoked.
        segment_memory_mb: memory of the segment function, MiB.
        refine_memory_mb: memory of the refine function, MiB.
        encode_memory_mb: memory of the encode function, MiB.
        cache_days: lifetime of cache entries in days.
        shared_cache: whether all tenants share cache entries.
        pbr_presets: presets of the stack; format in docs/how-to/presets.md.
    """

    uploads_bucket: str
    default_model: str
    escalation_model: str | None = None
    segmentation_host: str
    segmentation_hosts: Names
    sagemaker_mode: Literal["realtime", "async"] = "realtime"
    segment_memory_mb: int
    refine_memory_mb: int
    encode_memory_mb: int
    cache_days: int
    shared_cache: bool = False
    pbr_presets: str = ""

    @cached_property
    def presets(self) -> dict[str, Preset]:
        """Presets by name. Not needed by requests without one, so that an invalid parameter fails no others."""
        return read_presets(self.pbr_presets)

    def functions(self, options: Options) -> FunctionMemory:
        """Return the memory of the functions that process a job with these resolved options."""
        on_lambda = options.segmentation_host is Host.LAMBDA
        return FunctionMemory(
            segment_mb=self.segment_memory_mb if on_lambda else None,
            refine_mb=self.refine_memory_mb,
            encode_mb=self.encode_memory_mb,
        )


class ValidateRequest(BaseModel):
    """The execution and its input."""

    input: dict[str, Any]
    execution: Execution


CONFIG = ValidateConfig()
STORE = Store()
INSPECTOR = Inspector()
if "AWS_LAMBDA_RUNTIME_API" in os.environ:  # the init phase is shorter if both processes import at the same time
    INSPECTOR.start()


@stage(ValidateRequest)
def handler(request: ValidateRequest) -> dict[str, Any]:
    """Return the :class:`functions.contracts.job.Job`."""
    started = time.perf_counter()
    upload = read_upload(request.input)
    check_names(upload, CONFIG.uploads_bucket)
    file = STORE.fetch(upload.bucket, upload.key, version_id=upload.version_id, etag=upload.etag)
    given = {**options_in(dict(file.metadata)), **upload.options}
    requested = Options.parse(given, CONFIG.presets if given.get("preset") else BUILT_IN)
    options = resolve(requested, CONFIG)
    second_model = escalation_model(requested, options.segmentation_host, CONFIG)
    background, behind = fetch_background(options)  # before the image, so that only one of them is in memory
    picture = INSPECTOR.inspect(file.data)
    model_bytes = max(memory_of(model, CONFIG) for model in (options.model, second_model) if model)
    check_image(picture.info, options, behind, model_bytes, CONFIG.functions(options))
    layout.region(options.roi, picture.info.width, picture.info.height)  # fails if it exceeds the image
    cache_key = object_keys.cache_key(
        file.sha256,
        options,
        model_identity=identity_of(options.model, CONFIG),
        background_sha256=background["sha256"] if background else None,
        escalation=(second_model, identity_of(second_model, CONFIG)) if second_model else None,
        tenant=None if CONFIG.shared_cache else upload.tenant,
    )
    return {
        "execution": request.execution.model_dump(),
        "source": {
            **identity(upload.bucket, upload.key, file),
            "bytes": picture.info.bytes,
            "format": picture.info.format,
            "width": picture.info.width,
            "height": picture.info.height,
        },
        "options": options.set_or_known(),
        "content_type": options.format.content_type,
        "host": options.segmentation_host.value,
        "sagemaker_mode": CONFIG.sagemaker_mode,
        "escalation": escalation(second_model, cache_key),
        "background": background,
        "cache_key": cache_key,
        "cache_expires_at": str(int(time.time()) + CONFIG.cache_days * _SECONDS_PER_DAY),
        "keys": vars(object_keys.result_keys(upload.key, cache_key, options)),
        "timings_s": {"validate": round(time.perf_counter() - started, 4)},
        "warnings": list(picture.warnings),
    }


def check_names(upload: Upload, uploads_bucket: str) -> None:
    """Check the bucket and the key of an upload.

    Raises:
        InvalidRequestError: the bucket is not the uploads bucket, or the key is longer than S3 accepts.
    """
    if upload.bucket != uploads_bucket:
        raise InvalidRequestError(
            "The bucket is not the uploads bucket",
            field="source.bucket",
            value=upload.bucket,
            remedy=f"Copy the image to {uploads_bucket}.",
        )
    if len(upload.key.encode()) > MAX_KEY_BYTES:
        raise InvalidRequestError(
            "The object key is too long",
            field="source.key",
            value=upload.key,
            remedy=f"Use a key of at most {MAX_KEY_BYTES} bytes.",
        )


def resolve(options: Options, config: ValidateConfig) -> Options:
    """Return the options with ``auto`` replaced by the stack's model and host.

    Raises:
        InvalidOptionsError: the model is unknown or too large for the host, or the host is not deployed.
    """
    host = config.segmentation_host if options.segmentation_host is Host.AUTO else options.segmentation_host.value
    if host not in config.segmentation_hosts:
        raise InvalidOptionsError(
            "The segmentation host is not deployed",
            field="options.segmentation_host",
            value=host,
            remedy=f"Deployed hosts: {', '.join(config.segmentation_hosts)}.",
        )
    model = config.default_model if options.model == "auto" else options.model
    check_memory(model, Host(host), config)
    return options.model_copy(update={"segmentation_host": Host(host), "model": model})


def check_memory(model: str, host: Host, config: ValidateConfig) -> None:
    """Check that the model exists and that the host has the memory that it needs.

    Raises:
        InvalidOptionsError: the model is unknown, or the host is Lambda and its function has less memory.
    """
    registry.check_name(model, config.registry)
    needed_bytes = memory_of(model, config)
    if host is Host.LAMBDA and needed_bytes > config.segment_memory_mb << 20:
        raise InvalidOptionsError(
            f"The model needs {needed_bytes / 1e9:g} GB of memory; segmentation has {config.segment_memory_mb} MB",
            field="options.model",
            value=model,
            remedy="Request a smaller model or another segmentation host, or deploy with a larger SegmentMemory.",
        )


def escalation_model(requested: Options, host: Host, config: ValidateConfig) -> str | None:
    """Return the model for a second attempt, or None. An explicitly requested model is never escalated.

    Raises:
        InvalidOptionsError: the escalation model of the stack is unknown, or too large for the host.
    """
    if requested.model != "auto" or config.escalation_model in (None, config.default_model):
        return None
    check_memory(config.escalation_model, host, config)
    return config.escalation_model


def escalation(model: str | None, cache_key: str) -> dict[str, str] | None:
    """Return the :class:`functions.contracts.job.Escalation` to a model."""
    if model is None:
        return None
    mask_key, alpha_key = object_keys.second_attempt_keys(cache_key)
    return {"model": model, "mask_key": mask_key, "alpha_key": alpha_key}


def memory_of(model: str, config: ValidateConfig) -> int:
    """Return the memory of a model in bytes; 0 if it is unknown or the model has no weights."""
    return config.registry[model].memory_bytes if model in config.registry else 0


def identity_of(model: str, config: ValidateConfig) -> str | None:
    """Return the identity of a model's weights, or None for a segmenter without weights."""
    return config.registry[model].identity if model in config.registry else None


def fetch_background(options: Options) -> tuple[dict[str, Any], ImageInfo] | tuple[None, None]:
    """Check the background image, and return its identity and its facts; None without one.

    Raises:
        InvalidOptionsError: the background image does not exist or cannot be decoded.
    """
    if options.background_key is None:
        return None, None
    try:
        file = STORE.fetch(CONFIG.uploads_bucket, options.background_key)
        info = INSPECTOR.inspect(file.data).info
    except PermanentError as error:
        raise InvalidOptionsError(
            f"The background image cannot be used: {error.message}",
            field="options.background_key",
            value=options.background_key,
            remedy="Use the key of an image in the uploads bucket.",
        ) from error
    return identity(CONFIG.uploads_bucket, options.background_key, file), info


def identity(bucket: str, key: str, file: StoredFile) -> dict[str, Any]:
    """Return the fields of a :class:`functions.contracts.job.StoredObject`."""
    return {
        "bucket": bucket,
        "key": key,
        "version_id": file.version_id,
        "etag": file.etag,
        "sha256": file.sha256,
    }
