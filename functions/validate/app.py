"""Validate: read the request, check the picture, and lay down what all later stages work from."""

import time
from typing import Any, Literal

from pydantic import BaseModel

from core import layout
from core.errors import InvalidOptionsError, InvalidRequestError, PermanentError
from core.image import decode
from core.limits import MAX_KEY_BYTES
from core.options import Host, Options
from core.segmentation import registry
from functions.contracts import object_keys
from functions.contracts.job import Execution
from functions.runtime.config import CatalogueConfig, Names
from functions.runtime.handler import stage
from functions.runtime.store import Store, StoredFile
from functions.validate.upload import Upload, options_in, read_upload

_SECONDS_PER_DAY = 86_400


class ValidateConfig(CatalogueConfig):
    """What this stack has, and what it does unless it is told otherwise.

    Attributes:
        default_model: the model for ``auto``.
        escalation_model: what a doubtful mask of that model is tried with once more; None for nothing.
        segmentation_host: the host for ``auto``.
        segmentation_hosts: those that are deployed.
        sagemaker_mode: how the endpoint is asked.
        cache_days: how long a result is served again.
    """

    uploads_bucket: str
    default_model: str
    escalation_model: str | None = None
    segmentation_host: str
    segmentation_hosts: Names
    sagemaker_mode: Literal["realtime", "async"] = "realtime"
    cache_days: int


class ValidateRequest(BaseModel):
    """The execution's own input, and which execution it is."""

    input: dict[str, Any]
    execution: Execution


CONFIG = ValidateConfig()
STORE = Store()


@stage(ValidateRequest)
def handler(request: ValidateRequest) -> dict[str, Any]:
    """Return the job: see :class:`functions.contracts.job.Job`."""
    started = time.perf_counter()
    upload = read_upload(request.input)
    check_names(upload, CONFIG.uploads_bucket)
    file = STORE.fetch(upload.bucket, upload.key, version_id=upload.version_id, etag=upload.etag)
    requested = Options.parse({**options_in(dict(file.metadata)), **upload.options})
    options, second_model = resolve(requested, CONFIG), escalation_model(requested, CONFIG)
    background = fetch_background(options)  # ahead of the picture, so that only one of them is in memory at a time
    picture = decode.decode(file.data, at_least_px=1)  # every byte is checked at any scale
    layout.region(options.roi, picture.info.width, picture.info.height)  # which refuses one that is not within it
    cache_key = object_keys.cache_key(
        file.sha256,
        options,
        model_identity=identity_of(options.model, CONFIG),
        background_sha256=background["sha256"] if background else None,
        escalation=(second_model, identity_of(second_model, CONFIG)) if second_model else None,
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
        "options": options.model_dump(mode="json"),
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
    """Refuse what could not be read, or whose result or report could not be written.

    Raises:
        InvalidRequestError: another bucket, or a key so long that no report can be named after it.
    """
    if upload.bucket != uploads_bucket:
        raise InvalidRequestError(
            "Pictures are read from the uploads bucket only",
            field="source.bucket",
            value=upload.bucket,
            remedy=f"Copy the picture to {uploads_bucket}.",
        )
    if len(upload.key.encode()) > MAX_KEY_BYTES:
        raise InvalidRequestError(
            "The key is too long to name a result after it",
            field="source.key",
            value=upload.key,
            remedy=f"Upload under a key of at most {MAX_KEY_BYTES} bytes.",
        )


def resolve(options: Options, config: ValidateConfig) -> Options:
    """Replace ``auto`` by what this stack has.

    Raises:
        InvalidOptionsError: the model is not in the registry, or the host is not deployed.
    """
    host = config.segmentation_host if options.segmentation_host is Host.AUTO else options.segmentation_host.value
    if host not in config.segmentation_hosts:
        raise InvalidOptionsError(
            "This stack does not have that host",
            field="options.segmentation_host",
            value=host,
            remedy=f"It has: {', '.join(config.segmentation_hosts)}.",
        )
    model = config.default_model if options.model == "auto" else options.model
    registry.check_name(model, config.registry)
    return options.model_copy(update={"segmentation_host": Host(host), "model": model})


def escalation_model(requested: Options, config: ValidateConfig) -> str | None:
    """Return the model for a second attempt. Who names a model gets that model, and none but that.

    Raises:
        InvalidOptionsError: the stack's own setting names no model.
    """
    if requested.model != "auto" or config.escalation_model in (None, config.default_model):
        return None
    registry.check_name(config.escalation_model, config.registry)
    return config.escalation_model


def escalation(model: str | None, cache_key: str) -> dict[str, str] | None:
    """Return the second attempt: see :class:`functions.contracts.job.Escalation`."""
    if model is None:
        return None
    mask_key, alpha_key = object_keys.second_attempt_keys(cache_key)
    return {"model": model, "mask_key": mask_key, "alpha_key": alpha_key}


def identity_of(model: str, config: ValidateConfig) -> str | None:
    """Return what a model's masks depend on; None for a segmenter without weights."""
    return config.registry[model].identity if model in config.registry else None


def fetch_background(options: Options) -> dict[str, Any] | None:
    """Read the background picture and check it as the upload itself is checked.

    Raises:
        InvalidOptionsError: it is not there, or is no picture that can be read.
    """
    if options.background_key is None:
        return None
    try:
        file = STORE.fetch(CONFIG.uploads_bucket, options.background_key)
        decode.decode(file.data, at_least_px=1)
    except PermanentError as error:
        raise InvalidOptionsError(
            f"The background cannot be used: {error.message}",
            field="options.background_key",
            value=options.background_key,
            remedy="Name a picture that lies in the uploads bucket.",
        ) from error
    return identity(CONFIG.uploads_bucket, options.background_key, file)


def identity(bucket: str, key: str, file: StoredFile) -> dict[str, Any]:
    """Return what names exactly these bytes."""
    return {
        "bucket": bucket,
        "key": key,
        "version_id": file.version_id,
        "etag": file.etag,
        "sha256": file.sha256,
    }
