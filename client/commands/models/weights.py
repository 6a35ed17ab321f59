"""Weights of segmentation models on this machine: list them, download them, and copy them to a bucket."""

import os
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any, Final, Protocol

from client import local_models
from client.errors import UsageError, sdk_errors
from client.stack import Stack, is_local
from core.errors import BackgroundRemoverError, WeightsHashMismatchError, WeightsUnavailableError
from core.segmentation.registry import CLASSICAL, MODELS, Model, check_name, with_custom
from functions.runtime.weights import ModelSource, bucket_and_key, candidates, open_url

_FETCH_TIMEOUT_S: Final = 3600.0

# Networks with larger weights have the large backbone, which is too slow on a CPU.
_MAX_CPU_BYTES: Final = 500_000_000


class TransferListener(Protocol):
    """Receives the progress of transfers, from several threads."""

    def moved(self, name: str, count_bytes: int, of_bytes: int) -> None:
        """Handle the progress of a model's file."""

    def done(self, name: str, result: str) -> None:
        """Handle the end of a model's transfer."""

    def failed(self, name: str, error: Exception) -> None:
        """Handle the failure of a model's transfer."""


@dataclass(frozen=True)
class ModelInfo:
    """A model and its weights on this machine.

    Attributes:
        model: the model in the registry.
        path: path of its weights; None if they are not on this machine.
        verified: whether their SHA-256 is the pinned one; None if it was not checked.
        url: URL from which they are downloaded.
        default: whether an embedded cloud would use this model by default.
        included: whether these weights came with the installation.
    """

    model: Model
    path: Path | None
    verified: bool | None
    url: str
    default: bool
    included: bool = False

    @property
    def suits(self) -> str:
        """The processors that are fast enough for the model."""
        return "CPU, GPU" if self.model.bytes < _MAX_CPU_BYTES else "GPU"

    def to_json(self) -> dict[str, Any]:
        """Return the model as ``pbr models --json`` prints it."""
        return {
            **asdict(self.model),
            "suits": self.suits,
            "path": str(self.path) if self.path else None,
            "verified": self.verified,
            "url": self.url,
            "default": self.default,
        }


def model_source(
    timeout_s: float = _FETCH_TIMEOUT_S, *, directory: Path | None = None, mirror: str | None = None
) -> ModelSource:
    """Return the directories and URLs of weights, as configured by the environment unless given."""
    return ModelSource(
        directories=(directory.absolute(),) if directory else local_models.directories(),
        mirror=mirror or os.environ.get("PBR_MODEL_MIRROR") or None,
        timeout_s=timeout_s,
        registry=local_models.registry(),
        open_url=open_url,
    )


def list_models(source: ModelSource, *, verify: bool) -> list[ModelInfo]:
    """Return all models, best first.

    Args:
        source: where the weights are.
        verify: check the SHA-256 of the weights on this machine, a second or two per gigabyte.
    """
    default = next((model.name for model in candidates(source)), CLASSICAL)
    return [
        ModelInfo(
            model,
            path=source.find(model.name),
            verified=_is_pinned(model, source) if verify and source.find(model.name) else None,
            url=source.url(model),
            default=model.name == default,
            included=source.find(model.name) == source.bundled / f"{model.name}.onnx",
        )
        for model in source.registry.values()
    ]


def best_on_disk(source: ModelSource) -> str:
    """Return the default model of an embedded cloud that would start now and download nothing."""
    return next((model.name for model in candidates(source) if source.find(model.name)), CLASSICAL)


def select(names: Sequence[str], source: ModelSource, *, all_free: bool) -> list[Model]:
    """Return models by name.

    Args:
        names: names of models.
        source: has the registry.
        all_free: add all models of the project that are free for commercial use.

    Raises:
        InvalidOptionsError: if a name is unknown.
        UsageError: if no model with weights is selected.
    """
    for name in names:
        check_name(name, source.registry)
    free = [model.name for model in MODELS.values() if model.commercial_use] if all_free else []
    selected = dict.fromkeys([*names, *free])
    selected.pop(CLASSICAL, None)  # it has no weights
    if not selected:
        raise UsageError(
            "No model with weights is selected",
            field="NAMES",
            value=" ".join(names) or None,
            remedy="Pass names that pbr models lists, or --all-free.",
        )
    return [source.registry[name] for name in selected]


def fetch(
    models: Sequence[Model], source: ModelSource, listener: TransferListener, *, bucket: str | None = None
) -> bool:
    """Download and verify the weights of models. The failure of one does not stop the others.

    Args:
        models: the models.
        source: where the weights are, or are downloaded from.
        listener: receives the progress.
        bucket: ``s3://bucket/prefix`` to copy the weights to; it can then serve as a mirror.

    Returns:
        Whether all weights are available.
    """
    from boto3.exceptions import Boto3Error

    complete = True
    for model in models:
        try:
            listener.done(model.name, _fetch(model, source, listener, bucket))
        except (BackgroundRemoverError, Boto3Error, *sdk_errors(), OSError) as error:
            listener.failed(model.name, error)
            complete = False
    return complete


def obtain(model: Model, source: ModelSource, listener: TransferListener) -> None:
    """Download the weights of a model that was requested, unless they are on this machine.

    Raises:
        WeightsUnavailableError: they cannot be downloaded; the remedy lists the models that are here.
        WeightsHashMismatchError: the file at the URL is not the pinned one.
    """
    if source.find(model.name):
        return
    try:
        listener.done(model.name, _fetch(model, source, listener, bucket=None))
    except WeightsUnavailableError as error:
        here = [name for name in source.registry if source.find(name)] + [CLASSICAL]
        raise WeightsUnavailableError(
            f"The weights cannot be downloaded from {source.url(model)}: {error.__cause__ or error.message}",
            field="--model",
            value=model.name,
            remedy=f"Run pbr models fetch {model.name} where the network allows it, set PBR_MODEL_MIRROR or "
            f"PBR_MODEL_DIR, or use a model that is on this machine: --model {' or '.join(here)}.",
        ) from error


def source_of(stack: Stack | None) -> ModelSource | None:
    """Return where an embedded cloud finds weights; None if the stack does not use files on this machine.

    Args:
        stack: the stack; None for a cloud that is about to start.
    """
    if stack is None:
        return model_source()
    parameters = stack.parameters
    if not is_local(stack.endpoint_url) or not parameters.get("ModelDirectory") or parameters.get("ModelBucket"):
        return None
    return replace(
        model_source(mirror=os.environ.get("PBR_MODEL_MIRROR") or parameters.get("ModelMirror")),
        directories=tuple(Path(name) for name in parameters["ModelDirectory"].split(os.pathsep)),
        registry=with_custom(parameters.get("CustomModels", "")),
    )


def _fetch(model: Model, source: ModelSource, listener: TransferListener, bucket: str | None) -> str:
    """Download one model, copy it to the bucket, and return a message with its place."""

    def moved(count_bytes: int) -> None:
        listener.moved(model.name, count_bytes, model.bytes)

    was_here = source.find(model.name) is not None
    path = source.path(model.name, listener.moved)
    if bucket:
        url = replace(source, mirror=bucket).url(replace(model, uri=None))
        return f"{'uploaded to' if _upload(path, url, model, moved) else 'is at'} {url}"
    return f"{'is at' if was_here else 'fetched to'} {path}, verified"


def _upload(path: Path, url: str, model: Model, moved: Callable[[int], None]) -> bool:
    """Upload a verified file; return False if the bucket already has it."""
    import boto3
    from botocore.exceptions import ClientError

    s3: Any = boto3.client("s3")
    bucket, key = bucket_and_key(url)
    metadata = {"sha256": model.sha256}
    try:
        existing = s3.head_object(Bucket=bucket, Key=key)
    except ClientError as error:
        if error.response["Error"]["Code"] != "404":
            raise
    else:
        if (existing["ContentLength"], existing["Metadata"]) == (path.stat().st_size, metadata):
            return False
    count = 0

    def sent(more: int) -> None:
        nonlocal count
        count += more
        moved(count)

    s3.upload_file(str(path), bucket, key, ExtraArgs={"Metadata": metadata}, Callback=sent)
    return True


def _is_pinned(model: Model, source: ModelSource) -> bool:
    try:
        source.path(model.name)
    except WeightsHashMismatchError:
        return False
    return True
