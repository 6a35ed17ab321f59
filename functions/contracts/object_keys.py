"""S3 object keys that derive from an upload: cache entry, intermediates, result, sidecar and failure report.

A result's key has the whole source key and the extension of its format, and its sidecar's key has the result's key, so
that no two sources, and no two extensions of one source, share an object.
"""

import hashlib
import json
from dataclasses import dataclass
from typing import Any, Final

from core.limits import MAX_KEY_BYTES
from core.options import Options, OutputFormat

PIPELINE_VERSION: Final = 4
"""Increment it with every change that produces different pixels. It invalidates all cached results."""

EXTENSIONS: Final = tuple(dict.fromkeys(one.extension for one in OutputFormat))
"""File name extensions of results."""

PREFIXES_WITHOUT_EXECUTION: Final = ("backgrounds/", "api/", "bulk/")
"""Uploads with these prefixes start no execution of their own."""

FOLDERS: Final = ("/", "_$folder$")
"""Ends of the keys of folders, of the S3 console and of Hadoop. They start no execution either."""

RESULTS: Final = "results/"
"""Prefix of results and their sidecars."""

FAILURES: Final = "failed/"
"""Prefix of failure reports."""

_SIDECAR: Final = ".json"

_WITHOUT_EFFECT_ON_PIXELS: Final = {"preset", "segmentation_host", "background_key"}


@dataclass(frozen=True)
class ResultKeys:
    """S3 keys of a job: ``mask``, ``alpha`` and ``cached`` in the work bucket, the others in the results bucket."""

    mask: str
    alpha: str
    cached: str
    result: str
    sidecar: str


def cache_key(
    content_sha256: str,
    options: Options,
    *,
    model_identity: str | None,
    background_sha256: str | None,
    escalation: tuple[str, str | None] | None = None,
    tenant: str | None = None,
) -> str:
    """Return the cache key, 64 hexadecimal digits. It is equal for all jobs of a tenant that produce the same result.

    Args:
        content_sha256: SHA-256 of the uploaded file.
        options: options, with ``model`` resolved to a model's name.
        model_identity: :attr:`core.segmentation.registry.Model.identity`; None for a segmenter without weights.
        background_sha256: SHA-256 of the background image; None without one.
        escalation: name and identity of the model for a second attempt; None without one.
        tenant: whose results are in the cache entry; None for uploads straight to the bucket, and if all share it.
    """
    identity = {
        "content": content_sha256,
        "options": _identity(options),
        "weights": model_identity,
        "background": background_sha256,
        "pipeline": PIPELINE_VERSION,
        **({"escalation": escalation} if escalation else {}),
        **({"tenant": tenant} if tenant else {}),
    }
    return hashlib.sha256(json.dumps(identity, sort_keys=True).encode()).hexdigest()


def _identity(options: Options) -> dict[str, Any]:
    """Return the options that decide the pixels of a result."""
    ignored = _WITHOUT_EFFECT_ON_PIXELS | (set() if options.has_outline else {"outline", "outline_color"})
    return {name: value for name, value in options.set_or_known().items() if name not in ignored}


def result_keys(source_key: str, cache_key: str, options: Options) -> ResultKeys:
    """Return the keys of a job's objects."""
    extension = options.format.extension
    result = result_key(source_key, extension)
    return ResultKeys(
        mask=f"work/{cache_key}/mask.png",
        alpha=f"work/{cache_key}/alpha.png",
        cached=f"cache/{cache_key}.{extension}",
        result=result,
        sidecar=sidecar_key(result),
    )


def starts_execution(source_key: str) -> bool:
    """Return whether the upload of an object starts an execution, as the rule ``Upload`` in template.yaml decides."""
    return not source_key.startswith(PREFIXES_WITHOUT_EXECUTION) and not source_key.endswith(FOLDERS)


def source_folder(bucket: str, uploads_bucket: str) -> str:
    """Return the prefix of the names of sources in a bucket, e.g. ``s3/photos-2024/``; empty for the uploads bucket.

    Sources in other buckets, which bulk runs can have, share no name with uploads outside ``s3/``.
    """
    return "" if bucket == uploads_bucket else f"s3/{bucket}/"


def result_key(source_key: str, extension: str) -> str:
    """Return the key of a result, e.g. ``results/photos/a.jpg.png`` for ``photos/a.jpg`` and ``png``."""
    return _derived(RESULTS, source_key, f".{extension}", reserved=len(_SIDECAR))


def background_key(source_key: str) -> str:
    """Return the key of the background that an API caller uploaded with a source."""
    return f"backgrounds/{source_key}"


def sidecar_key(result: str) -> str:
    """Return the key of the sidecar of the result with this key, e.g. ``results/photos/a.jpg.png.json``."""
    return result + _SIDECAR


def sidecar_keys(source_key: str) -> list[str]:
    """Return the keys of all sidecars that an upload can have, the last one in the naming of version 0.2."""
    return [*(sidecar_key(result_key(source_key, extension)) for extension in EXTENSIONS), old_sidecar_key(source_key)]


def old_sidecar_key(source_key: str) -> str:
    """Return the key that version 0.2 gave the sidecar, e.g. ``results/photos/a.json`` for ``photos/a.jpg``.

    Other sources share it, so the sidecar's ``source`` must be checked.
    """
    folder, slash, name = source_key.rpartition("/")
    return f"{RESULTS}{folder}{slash}{name.rpartition('.')[0] or name}{_SIDECAR}"


def second_attempt_keys(cache_key: str) -> tuple[str, str]:
    """Return the keys of the mask and the alpha of a second attempt, which does not overwrite the first."""
    return f"work/{cache_key}/second/mask.png", f"work/{cache_key}/second/alpha.png"


def failure_key(source_key: str | None, execution_name: str) -> str:
    """Return the key of a failure report, e.g. ``failed/photos/a.jpg.json``.

    If the source key is unknown, the key contains the name of the execution instead.
    """
    return _derived(FAILURES, source_key or f"executions/{execution_name}", ".json")


def _derived(prefix: str, source_key: str, suffix: str, reserved: int = 0) -> str:
    """Return ``prefix + source_key + suffix``. The end of a source key that is too long for S3 is replaced by a hash.

    ``reserved`` bytes remain for another suffix.
    """
    room = MAX_KEY_BYTES - len(prefix) - len(suffix) - reserved
    encoded = source_key.encode()
    if len(encoded) > room:
        digest = f"-{hashlib.sha256(encoded).hexdigest()}"
        source_key = encoded[: room - len(digest)].decode(errors="ignore") + digest
    return f"{prefix}{source_key}{suffix}"
