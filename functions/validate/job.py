"""Check a request and its image, and create the workflow state."""

import time
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, ClassVar, Literal

from core import layout
from core.errors import InvalidOptionsError, InvalidRequestError, PermanentError
from core.limits import MAX_KEY_BYTES
from core.options import Host, Options
from core.presets import BUILT_IN, Preset
from core.segmentation import registry
from core.types import ImageInfo
from functions.contracts import object_keys
from functions.contracts.job import Execution
from functions.runtime.config import CatalogueConfig, Names, PresetConfig
from functions.runtime.inspection import Inspector
from functions.runtime.store import Store, StoredFile
from functions.validate.memory import FunctionMemory, check_image
from functions.validate.upload import Upload, options_in

_SECONDS_PER_DAY = 86_400


class ValidateConfig(CatalogueConfig, PresetConfig):
    """Defaults and capabilities of the stack.

    Attributes:
        uploads_bucket: the only bucket that images are read from.
        default_model: model for ``auto``.
        escalation_model: model for a second attempt if the mask of the default model is doubtful; None for none.
        segmentation_host: host for ``auto``.
        segmentation_hosts: deployed hosts.
        sagemaker_mode: how the endpoint is invoked; ``transform`` if there is only a model.
        segment_memory_mb: memory of the segment function, MiB.
        refine_memory_mb: memory of the refine function, MiB.
        encode_memory_mb: memory of the encode function, MiB.
        cache_days: lifetime of cache entries in days.
        shared_cache: whether all tenants share cache entries.
    """

    uploads_bucket: str
    default_model: str
    escalation_model: str | None = None
    segmentation_host: str
    segmentation_hosts: Names
    sagemaker_mode: Literal["realtime", "async", "transform"] = "realtime"
    segment_memory_mb: int
    refine_memory_mb: int
    encode_memory_mb: int
    cache_days: int
    shared_cache: bool = False

    memory_parameter: ClassVar[str] = "SegmentMemory"
    """Parameter of the stack that sets the memory for segmentation on Lambda."""

    def accepts(self, bucket: str) -> bool:
        """Return whether images may be in a bucket."""
        return bucket == self.uploads_bucket

    def result_name(self, upload: Upload) -> str:
        """Return the name that the keys of an upload's result derive from."""
        return upload.key

    def check_image(self, image: ImageInfo, options: Options, background: ImageInfo | None, model_bytes: int) -> None:
        """Check that the functions have the memory for an image; see :func:`functions.validate.memory.check_image`."""
        on_lambda = options.segmentation_host is Host.LAMBDA
        functions = FunctionMemory(
            segment_mb=self.segment_memory_mb if on_lambda else None,
            refine_mb=self.refine_memory_mb,
            encode_mb=self.encode_memory_mb,
        )
        check_image(image, options, background, model_bytes, functions)

    def models_to_load(self, plan: "Plan") -> tuple[str, ...]:
        """Return the models of both attempts."""
        return (plan.options.model, plan.second_model) if plan.second_model else (plan.options.model,)


@dataclass(frozen=True)
class Accepted:
    """A request whose image was accepted.

    Attributes:
        job: the :class:`functions.contracts.job.Job`, a JSON object.
        data: the image file.
        background: the file of the background image; None without one.
    """

    job: dict[str, Any]
    data: bytes
    background: bytes | None


@dataclass(frozen=True)
class Plan:
    """What is to be made of an image: the resolved options, and the model for a second attempt, None for none."""

    options: Options
    second_model: str | None


@dataclass(frozen=True)
class Validator:
    """Creates jobs from uploads.

    Attributes:
        config: defaults and capabilities of the stack.
        store: S3.
        inspector: decodes untrusted images.
    """

    config: ValidateConfig
    store: Store
    inspector: Inspector

    def accept(self, upload: Upload, execution: Execution, presets: Mapping[str, Preset] | None = None) -> Accepted:
        """Fetch an upload's image, check it, and return its job.

        Args:
            upload: the image and its options.
            execution: the execution.
            presets: presets by name; None for those of the configuration.

        Raises:
            PermanentError, TransientError: one of the leaf classes of the image, its options or S3.
        """
        started = time.perf_counter()
        check_names(upload, self.config)
        file = self.store.fetch(upload.bucket, upload.key, version_id=upload.version_id, etag=upload.etag)
        plan = self.plan(upload, file.metadata, presets)
        options = plan.options
        # Before the image, so that only one of them is being decoded.
        backdrop = fetch_background(options, self.config.uploads_bucket, self.store, self.inspector)
        picture = self.inspector.inspect(file.data)
        self.config.check_image(
            picture.info,
            options,
            backdrop.info if backdrop else None,
            max((memory_of(model, self.config) for model in self.config.models_to_load(plan)), default=0),
        )
        layout.region(options.roi, picture.info.width, picture.info.height)  # fails if it exceeds the image
        cache_key = self.cache_key(plan, file.sha256, backdrop.file.sha256 if backdrop else None, upload.tenant)
        job = {
            "execution": execution.model_dump(),
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
            "sagemaker_mode": self.config.sagemaker_mode,
            "escalation": escalation(plan.second_model, cache_key),
            "background": backdrop and identity(self.config.uploads_bucket, str(options.background_key), backdrop.file),
            "cache_key": cache_key,
            "cache_expires_at": str(int(time.time()) + self.config.cache_days * _SECONDS_PER_DAY),
            "keys": vars(object_keys.result_keys(self.config.result_name(upload), cache_key, options)),
            "timings_s": {"validate": round(time.perf_counter() - started, 4)},
            "warnings": list(picture.warnings),
        }
        return Accepted(job, file.data, backdrop.file.data if backdrop else None)

    def plan(self, upload: Upload, metadata: Mapping[str, str], presets: Mapping[str, Preset] | None = None) -> Plan:
        """Return what is to be made of an upload with this user metadata; for ``presets`` see :meth:`accept`.

        Raises:
            InvalidOptionsError: an option is invalid, or the stack cannot honor it.
        """
        given = {**options_in(dict(metadata)), **upload.options}
        requested = Options.parse(given, (presets or self.config.presets) if given.get("preset") else BUILT_IN)
        options = resolve(requested, self.config)
        return Plan(options, escalation_model(requested, options.segmentation_host, self.config))

    def cache_key(self, plan: Plan, content_sha256: str, background_sha256: str | None, tenant: str | None) -> str:
        """Return the cache key of an image; see :func:`functions.contracts.object_keys.cache_key`."""
        second = plan.second_model
        return object_keys.cache_key(
            content_sha256,
            plan.options,
            model_identity=identity_of(plan.options.model, self.config),
            background_sha256=background_sha256,
            escalation=(second, identity_of(second, self.config)) if second else None,
            tenant=None if self.config.shared_cache else tenant,
        )


def check_names(upload: Upload, config: ValidateConfig) -> None:
    """Check the bucket and the key of an upload.

    Raises:
        InvalidRequestError: images may not be in the bucket, or the key is longer than S3 accepts.
    """
    if not config.accepts(upload.bucket):
        raise InvalidRequestError(
            "The bucket is not the uploads bucket",
            field="source.bucket",
            value=upload.bucket,
            remedy=f"Copy the image to {config.uploads_bucket}.",
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
            remedy="Request a smaller model or another segmentation host, or deploy with a larger "
            f"{config.memory_parameter}.",
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


@dataclass(frozen=True)
class Background:
    """A background image: its file and its facts."""

    file: StoredFile
    info: ImageInfo


def fetch_background(options: Options, bucket: str, store: Store, inspector: Inspector) -> Background | None:
    """Fetch and check the background image; return None if the options name none.

    Raises:
        InvalidOptionsError: the background image does not exist or cannot be decoded.
    """
    if options.background_key is None:
        return None
    try:
        file = store.fetch(bucket, options.background_key)
        info = inspector.inspect(file.data).info
    except PermanentError as error:
        raise InvalidOptionsError(
            f"The background image cannot be used: {error.message}",
            field="options.background_key",
            value=options.background_key,
            remedy="Use the key of an image in the uploads bucket.",
        ) from error
    return Background(file, info)


def identity(bucket: str, key: str, file: StoredFile) -> dict[str, Any]:
    """Return the fields of a :class:`functions.contracts.job.StoredObject`."""
    return {
        "bucket": bucket,
        "key": key,
        "version_id": file.version_id,
        "etag": file.etag,
        "sha256": file.sha256,
    }
