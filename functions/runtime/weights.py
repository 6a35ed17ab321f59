"""Find, download and verify the weights of segmentation networks."""

from __future__ import annotations

import hashlib
import time
from collections.abc import Callable, Generator, Mapping
from contextlib import closing
from dataclasses import dataclass, field
from functools import lru_cache
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final, TypeAlias
from urllib.parse import unquote, urlsplit

from core.errors import WeightsHashMismatchError, WeightsUnavailableError
from core.segmentation.registry import BUNDLED, CLASSICAL, MODELS, Model, network
from functions.runtime import bundled, cgroup
from functions.runtime.aws_errors import is_overload

# httpx takes a fifth of a second to import and few processes download, so functions import ``download`` when they run.
if TYPE_CHECKING:
    from functions.runtime.download import DownloadError, OpenUrl

Progress: TypeAlias = Callable[[str, int, int], None]
"""Receives the name of a model that is being downloaded, and how many bytes of how many are here."""

RELEASE: Final = "https://github.com/danielgatis/rembg/releases/download/v0.0.0"
"""Base URL of rembg's release, the default mirror."""

_MAX_AUTO_DOWNLOAD_BYTES: Final = 300_000_000
"""Largest file that :func:`best_available` downloads. An explicitly requested model may be larger."""

_CHUNK_BYTES: Final = 1 << 20
_CONNECT_S: Final = 3.0
_SILENCE_S: Final = 5.0


@dataclass(frozen=True)
class ModelSource:
    """The models of this host, and the directories and URLs of their weights.

    Attributes:
        directories: directories of ``<model>.onnx`` files; a missing file is downloaded into the last one.
        mirror: base URL that serves the release's files, https or ``s3://bucket/prefix``; None for rembg's release.
        timeout_s: limit of a download, in seconds, retries included.
        registry: the models by name, best first.
        open_url: reads a URL; None for :func:`functions.runtime.download.over_http`.
        bundled: directory of the weights that come with the installation; searched last.
    """

    directories: tuple[Path, ...]
    mirror: str | None = None
    timeout_s: float = 60.0
    registry: Mapping[str, Model] = field(default_factory=lambda: MODELS)
    open_url: OpenUrl | None = None
    bundled: Path = bundled.DIRECTORY

    def find(self, name: str) -> Path | None:
        """Return the path of a model's file, not verified; None if no directory has it."""
        paths = (directory / f"{name}.onnx" for directory in (*self.directories, self.bundled))
        return next((path for path in paths if path.exists()), None)

    def destination(self, name: str) -> Path:
        """Return the path that a model's file is downloaded to."""
        return self.directories[-1] / f"{name}.onnx"

    @property
    def base(self) -> str:
        """Base URL of all models that have no ``uri``."""
        return (self.mirror or RELEASE).rstrip("/")

    def url(self, model: Model) -> str:
        """Return the URL of a model's file."""
        return model.uri or f"{self.base}/{model.file}"

    def path(self, name: str, progress: Progress = lambda *_: None) -> Path:
        """Return the path of a model's verified file, and download the file first if it is missing.

        A file's hash is computed once per process, and again when the file changes.

        Args:
            name: of the model.
            progress: receives the progress of a download.

        Raises:
            InvalidOptionsError: the registry has no such network; ``classical`` is not one.
            WeightsHashMismatchError: the file, local or on the mirror, is not the pinned one; it is not used.
            WeightsUnavailableError: the file is missing and could not be downloaded in time, or cannot be read.
        """
        model = network(name, self.registry)
        if path := self.find(name):
            _verify(model, path)
            return path

        from functions.runtime.download import DownloadError

        try:
            return _download(model, self, self.timeout_s, progress)
        except DownloadError as error:
            raise WeightsUnavailableError(
                f"The weights could not be downloaded: {error}",
                field="options.model",
                value=model.name,
                remedy=f"Save {model.file} as {self.destination(name)}, set PBR_MODEL_MIRROR (on a stack, the "
                f"parameter ModelMirror), or use {CLASSICAL}.",
            ) from error


def candidates(source: ModelSource) -> list[Model]:
    """Return the models that :func:`best_available` tries, in order.

    These are the general models that are free for commercial use and fit into this host's memory: those whose file is
    here, if one of them is better than the bundled network; or else those of up to 300 MB that can be downloaded, and
    the bundled network after them.
    """
    memory_bytes = cgroup.memory_bytes()
    fit = [
        model
        for model in source.registry.values()
        if model.general and model.commercial_use and model.memory_bytes <= memory_bytes
    ]
    here = [model for model in fit if source.find(model.name)]
    if any(model.name != BUNDLED for model in here):
        return here
    return [model for model in fit if model.bytes <= _MAX_AUTO_DOWNLOAD_BYTES and model not in here] + here


def best_available(source: ModelSource, progress: Progress = lambda *_: None, *, download: bool = True) -> str:
    """Return the name of the best of :func:`candidates` whose weights are here or can be downloaded.

    All downloads share ``source.timeout_s``. After the first one that cannot reach the mirror, none is tried.

    Args:
        source: where the weights are, or are downloaded from.
        progress: receives the progress of downloads.
        download: whether missing weights may be downloaded.

    Returns:
        The model's name; ``classical`` if there are no weights.

    Raises:
        WeightsHashMismatchError: a local file is not the pinned one.
    """
    deadline = time.monotonic() + source.timeout_s
    for model in candidates(source):
        if path := source.find(model.name):
            _verify(model, path)
            return model.name
        if not download:
            continue

        from functions.runtime.download import DownloadError, UnreachableError

        try:
            _download(model, source, max(deadline - time.monotonic(), 0.0), progress)
        except UnreachableError:
            download = False
        except (DownloadError, WeightsHashMismatchError):
            continue
        else:
            return model.name
    return CLASSICAL


def _verify(model: Model, path: Path) -> None:
    try:
        stat = path.stat()
        found = _sha256(path, stat.st_mtime_ns, stat.st_size)
    except OSError as error:
        raise WeightsUnavailableError(
            f"The weights cannot be read: {error}",
            field="options.model",
            value=model.name,
            remedy=f"Let this process read {path}.",
        ) from error
    if found != model.sha256:
        raise _mismatch(model, str(path), found, "Delete the file; the correct one is then downloaded.")


@lru_cache(maxsize=32)
def _sha256(path: Path, mtime_ns: int, size: int) -> str:
    """Return a file's hash; time and size are part of the cache's key, so that a changed file is hashed again."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def _download(model: Model, source: ModelSource, timeout_s: float, progress: Progress) -> Path:
    """Download and verify a model's file; return its path."""
    from functions.runtime import download

    url, path = source.url(model), source.destination(model.name)
    open_url = source.open_url or download.over_http
    try:
        download.fetch(
            url,
            path,
            sha256=model.sha256,
            size_bytes=model.bytes,
            timeout_s=timeout_s,
            open_url=open_url,
            moved=lambda count: progress(model.name, count, model.bytes),
        )
    except download.TamperedError as error:
        raise _mismatch(model, url, error.found, "Put the pinned file there.") from error
    return path


def _mismatch(model: Model, place: str, found: str, remedy: str) -> WeightsHashMismatchError:
    return WeightsHashMismatchError(
        f"The weights of {model.name} at {place} have SHA-256 {found}, not {model.sha256}",
        field="options.model",
        value=model.name,
        remedy=remedy,
    )


def open_url(url: str, timeout_s: float, start: int = 0) -> Generator[bytes, None, None]:
    """Yield the content of ``s3://bucket/key``, ``file:///path`` or a web address, from byte ``start`` on.

    Raises:
        UnreachableError: the server does not answer.
        TransientDownloadError: the server is overloaded, or closed the connection early.
        DownloadError: the file does not exist, access is denied, or the URL has another scheme.
    """
    from functions.runtime import download

    scheme = urlsplit(url).scheme
    if scheme == "s3":
        yield from _read_object(url, timeout_s, start)
    elif scheme == "file":
        yield from _read_file(url, start)
    elif scheme in ("https", "http"):
        yield from download.over_http(url, timeout_s, start)
    else:
        raise download.DownloadError(f"{url} begins with none of https://, http://, s3:// and file://")


def bucket_and_key(url: str) -> tuple[str, str]:
    """Return the bucket and the key of ``s3://bucket/key``; the key is not decoded."""
    bucket, _, key = url.removeprefix("s3://").partition("/")
    return bucket, key


def _read_object(url: str, timeout_s: float, start: int) -> Generator[bytes, None, None]:
    import boto3
    from botocore.config import Config
    from botocore.exceptions import BotoCoreError, ClientError

    # download.fetch retries within its own time limit, so the SDK does not.
    config = Config(
        connect_timeout=min(_CONNECT_S, timeout_s),
        read_timeout=min(_SILENCE_S, timeout_s),
        retries={"mode": "standard", "total_max_attempts": 1},
    )
    bucket, key = bucket_and_key(url)
    part = {"Range": f"bytes={start}-"} if start else {}
    try:
        s3: Any = boto3.client("s3", config=config)
        with closing(s3.get_object(Bucket=bucket, Key=key, **part)["Body"]) as body:
            yield from body.iter_chunks(_CHUNK_BYTES)
    except (BotoCoreError, ClientError) as error:
        raise _as_download_error(url, error) from error


def _as_download_error(url: str, error: Exception) -> DownloadError:
    from botocore import exceptions

    from functions.runtime.download import DownloadError, TransientDownloadError, UnreachableError

    match error:
        case exceptions.ClientError(response={"Error": detail, "ResponseMetadata": {"HTTPStatusCode": _}} as response):
            kind = TransientDownloadError if is_overload(response) else DownloadError
            return kind(f"{url}: {detail['Code']} {detail.get('Message', '')}".rstrip())
        case exceptions.ConnectionError() | exceptions.ReadTimeoutError():
            return UnreachableError(f"{url}: {error}")
        case exceptions.HTTPClientError() | exceptions.IncompleteReadError():
            return TransientDownloadError(f"{url}: {error}")
    return DownloadError(f"{url}: {error}")


def _read_file(url: str, start: int) -> Generator[bytes, None, None]:
    from functions.runtime.download import DownloadError

    try:
        with Path(unquote(urlsplit(url).path)).open("rb") as file:
            file.seek(start)
            while chunk := file.read(_CHUNK_BYTES):
                yield chunk
    except OSError as error:
        raise DownloadError(str(error)) from error
