"""Where weights come from besides the web: a bucket, or a file of this machine."""

from __future__ import annotations

from collections.abc import Generator
from contextlib import closing
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final
from urllib.parse import unquote, urlsplit

from functions.contracts.errors import is_overload

if TYPE_CHECKING:
    from functions.runtime.download import DownloadError

_CHUNK: Final = 1 << 20
_CONNECT_S: Final = 3.0
_SILENCE_S: Final = 5.0


def open_url(url: str, timeout_s: float) -> Generator[bytes, None, None]:
    """Yield what lies at ``s3://bucket/key``, ``file:///path`` or a web address.

    Raises:
        UnreachableError: nothing answers.
        TransientDownloadError: the other side is overloaded, or broke off.
        DownloadError: there is no such file, it may not be read, or the URL is of another kind.
    """
    from functions.runtime import download  # here, because httpx would cost every process a fifth of a second

    scheme = urlsplit(url).scheme
    if scheme == "s3":
        yield from _in_bucket(url, timeout_s)
    elif scheme == "file":
        yield from _on_disk(url)
    elif scheme in ("https", "http"):
        yield from download.over_http(url, timeout_s)
    else:
        raise download.DownloadError(f"{url} begins with none of https://, http://, s3:// and file://")


def bucket_and_key(url: str) -> tuple[str, str]:
    """Split ``s3://bucket/key``; the key is taken as it stands."""
    bucket, _, key = url.removeprefix("s3://").partition("/")
    return bucket, key


def _in_bucket(url: str, timeout_s: float) -> Generator[bytes, None, None]:
    import boto3
    from botocore.config import Config
    from botocore.exceptions import BotoCoreError, ClientError

    # Who fetches counts the time and tries again, so the SDK does not.
    config = Config(
        connect_timeout=min(_CONNECT_S, timeout_s),
        read_timeout=min(_SILENCE_S, timeout_s),
        retries={"mode": "standard", "total_max_attempts": 1},
    )
    bucket, key = bucket_and_key(url)
    try:
        s3: Any = boto3.client("s3", config=config)
        with closing(s3.get_object(Bucket=bucket, Key=key)["Body"]) as body:
            yield from body.iter_chunks(_CHUNK)
    except (BotoCoreError, ClientError) as error:
        raise _as_download_error(url, error) from error


def _as_download_error(url: str, error: Exception) -> DownloadError:
    from botocore import exceptions

    from functions.runtime.download import DownloadError, TransientDownloadError, UnreachableError

    match error:
        case exceptions.ClientError(response={"Error": said, "ResponseMetadata": {"HTTPStatusCode": _}} as answer):
            kind = TransientDownloadError if is_overload(answer) else DownloadError
            return kind(f"{url}: {said['Code']} {said.get('Message', '')}".rstrip())
        case exceptions.ConnectionError() | exceptions.ReadTimeoutError():
            return UnreachableError(f"{url}: {error}")
        case exceptions.HTTPClientError() | exceptions.IncompleteReadError():
            return TransientDownloadError(f"{url}: {error}")
    return DownloadError(f"{url}: {error}")


def _on_disk(url: str) -> Generator[bytes, None, None]:
    from functions.runtime.download import DownloadError

    try:
        with Path(unquote(urlsplit(url).path)).open("rb") as file:
            while chunk := file.read(_CHUNK):
                yield chunk
    except OSError as error:
        raise DownloadError(str(error)) from error
