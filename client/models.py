"""Segmentation models as a user has them: which there are, where their weights lie, and how to get them."""

import os
from collections.abc import Callable, Generator, Sequence
from contextlib import closing
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final, Protocol

import boto3
import platformdirs
from boto3.exceptions import Boto3Error
from botocore.exceptions import BotoCoreError, ClientError

from client.errors import UsageError
from core.errors import BackgroundRemoverError, WeightsHashMismatchError
from core.segmentation.registry import CLASSICAL, MODELS, Model, check_name, with_custom
from functions.runtime.weights import ModelSource, bucket_and_key, candidates, open_url

if TYPE_CHECKING:
    from functions.runtime.download import OpenUrl

APP: Final = "precision-background-remover"

_FETCH_S: Final = 3600.0

# The networks with a gigabyte of weights have the large backbone, which takes a multiple of the small one's work.
_SMALL_BYTES: Final = 500_000_000


class Screen(Protocol):
    """Who is told how fetching goes; called from several threads."""

    def moved(self, name: str, count_bytes: int, of_bytes: int) -> None:
        """Tell how much of a model has come, or gone."""

    def done(self, name: str, what: str) -> None:
        """Tell that a model is where it was wanted."""

    def failed(self, name: str, error: Exception) -> None:
        """Tell that it is not."""


@dataclass(frozen=True)
class Entry:
    """A model as it stands on this machine.

    Attributes:
        model: what is known of it.
        path: where its weights lie; None if they are not here.
        verified: whether they are the pinned ones; None if nobody looked.
        url: where they come from.
        default: whether an embedded cloud that starts here and now takes this one.
    """

    model: Model
    path: Path | None
    verified: bool | None
    url: str
    default: bool

    @property
    def suits(self) -> str:
        """What it is fast enough on."""
        return "CPU, GPU" if self.model.bytes < _SMALL_BYTES else "GPU"

    def facts(self) -> dict[str, Any]:
        """Return all of it as JSON has it."""
        return {
            **asdict(self.model),
            "suits": self.suits,
            "path": str(self.path) if self.path else None,
            "verified": self.verified,
            "url": self.url,
            "default": self.default,
        }


def registry() -> dict[str, Model]:
    """Return the models by name, with those of PBR_CUSTOM_MODELS.

    Raises:
        InvalidOptionsError: PBR_CUSTOM_MODELS is not as docs/how-to/models.md has it.
    """
    return with_custom(os.environ.get("PBR_CUSTOM_MODELS", ""))


def directories() -> tuple[Path, ...]:
    """Return where weights lie on this machine: PBR_MODEL_DIR, or the user's cache."""
    given = [Path(name).absolute() for name in os.environ.get("PBR_MODEL_DIR", "").split(os.pathsep) if name]
    return tuple(given) or (platformdirs.user_cache_path(APP) / "models",)


def source(timeout_s: float = _FETCH_S, *, directory: Path | None = None, mirror: str | None = None) -> ModelSource:
    """Return where this machine's weights lie and come from; by default as its environment has it."""
    return ModelSource(
        directories=(directory.absolute(),) if directory else directories(),
        mirror=mirror or os.environ.get("PBR_MODEL_MIRROR") or None,
        timeout_s=timeout_s,
        registry=registry(),
        open_url=open_url,
    )


def entries(where: ModelSource, *, verify: bool) -> list[Entry]:
    """Return every model, best first; ``verify`` reads each file that is here, a second or two per gigabyte."""
    default = next((model.name for model in candidates(where)), CLASSICAL)
    return [
        Entry(
            model,
            path=where.find(model.name),
            verified=_is_pinned(model, where) if verify and where.find(model.name) else None,
            url=where.url(model),
            default=model.name == default,
        )
        for model in where.registry.values()
    ]


def chosen(names: Sequence[str], where: ModelSource, *, all_free: bool) -> list[Model]:
    """Return the models that are meant.

    Args:
        names: of models.
        where: has the registry.
        all_free: also all of the registry's own that are free for commercial use.

    Raises:
        InvalidOptionsError: a name is none.
        UsageError: none is meant.
    """
    for name in names:
        check_name(name, where.registry)
    free = [model.name for model in MODELS.values() if model.commercial_use] if all_free else []
    meant = dict.fromkeys([*names, *free])
    meant.pop(CLASSICAL, None)  # it has no weights
    if not meant:
        raise UsageError(
            "No model with weights is named",
            field="NAMES",
            value=" ".join(names) or None,
            remedy="Name some, as pbr models lists them, or give --all-free.",
        )
    return [where.registry[name] for name in meant]


def fetch(wanted: Sequence[Model], where: ModelSource, screen: Screen, *, bucket: str | None = None) -> bool:
    """Have the verified weights of models here, and in a bucket if one is named; one's failure stops no other.

    Args:
        wanted: the models.
        where: where they lie or come from.
        screen: is told of each.
        bucket: ``s3://bucket/prefix``, which can then serve as a mirror.

    Returns:
        Whether all are there.
    """
    complete = True
    for model in wanted:
        try:
            screen.done(model.name, _fetch(model, where, screen, bucket))
        except (BackgroundRemoverError, Boto3Error, BotoCoreError, ClientError, OSError) as error:
            screen.failed(model.name, error)
            complete = False
    return complete


def _fetch(model: Model, where: ModelSource, screen: Screen, bucket: str | None) -> str:
    """Have one model where it is wanted, and say in words where that is."""

    def moved(count_bytes: int) -> None:
        screen.moved(model.name, count_bytes, model.bytes)

    was_here = where.find(model.name) is not None
    path = replace(where, open_url=_counted(where.open_url or open_url, moved)).path(model.name)
    if bucket:
        url = replace(where, mirror=bucket).url(replace(model, uri=None))
        return f"{'uploaded to' if _upload(path, url, model, moved) else 'is at'} {url}"
    return f"{'is at' if was_here else 'fetched to'} {path}, verified"


def _counted(opened: "OpenUrl", moved: Callable[[int], None]) -> "OpenUrl":
    def counted(url: str, timeout_s: float) -> Generator[bytes, None, None]:
        count = 0
        with closing(opened(url, timeout_s)) as chunks:
            for chunk in chunks:
                count += len(chunk)
                moved(count)
                yield chunk

    return counted


def _upload(path: Path, url: str, model: Model, moved: Callable[[int], None]) -> bool:
    """Put a verified file into a bucket, unless a call like this one has put it there already."""
    s3: Any = boto3.client("s3")
    bucket, key = bucket_and_key(url)
    metadata = {"sha256": model.sha256}
    try:
        there = s3.head_object(Bucket=bucket, Key=key)
    except ClientError as error:
        if error.response["Error"]["Code"] != "404":
            raise
    else:
        if (there["ContentLength"], there["Metadata"]) == (path.stat().st_size, metadata):
            return False
    count = 0

    def sent(more: int) -> None:
        nonlocal count
        count += more
        moved(count)

    s3.upload_file(str(path), bucket, key, ExtraArgs={"Metadata": metadata}, Callback=sent)
    return True


def _is_pinned(model: Model, where: ModelSource) -> bool:
    try:
        where.path(model.name)
    except WeightsHashMismatchError:
        return False
    return True
