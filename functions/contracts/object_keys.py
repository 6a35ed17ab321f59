"""S3 object keys that derive from an upload: cache entry, intermediates, result, sidecar and failure report."""

import hashlib
import json
from dataclasses import dataclass
from typing import Final

from core.limits import MAX_KEY_BYTES
from core.options import Options

PIPELINE_VERSION: Final = 3
"""Increment it with every change that produces different pixels. It invalidates all cached results."""

_WITHOUT_EFFECT_ON_PIXELS: Final = {"segmentation_host", "background_key"}


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
        "options": options.model_dump(mode="json", exclude=_WITHOUT_EFFECT_ON_PIXELS),
        "weights": model_identity,
        "background": background_sha256,
        "pipeline": PIPELINE_VERSION,
        **({"escalation": escalation} if escalation else {}),
        **({"tenant": tenant} if tenant else {}),
    }
    return hashlib.sha256(json.dumps(identity, sort_keys=True).encode()).hexdigest()


def result_keys(source_key: str, cache_key: str, options: Options) -> ResultKeys:
    """Return the keys of a job's objects, e.g. ``results/photos/a.png`` for ``photos/a.jpg``."""
    base, extension = _base(source_key), options.format.extension
    return ResultKeys(
        mask=f"work/{cache_key}/mask.png",
        alpha=f"work/{cache_key}/alpha.png",
        cached=f"cache/{cache_key}.{extension}",
        result=f"{base}.{extension}",
        sidecar=sidecar_key(source_key),
    )


def sidecar_key(source_key: str) -> str:
    """Return the key of a result's sidecar in any format, e.g. ``results/photos/a.json`` for ``photos/a.jpg``."""
    return f"{_base(source_key)}.json"


def _base(source_key: str) -> str:
    folder, slash, name = source_key.rpartition("/")
    return f"results/{folder}{slash}{name.rpartition('.')[0] or name}"


def second_attempt_keys(cache_key: str) -> tuple[str, str]:
    """Return the keys of the mask and the alpha of a second attempt, which does not overwrite the first."""
    return f"work/{cache_key}/second/mask.png", f"work/{cache_key}/second/alpha.png"


def failure_key(source_key: str | None, execution_name: str) -> str:
    """Return the key of a failure report, e.g. ``failed/photos/a.jpg.json``.

    If the source key is unknown or too long, the key contains the name of the execution instead.
    """
    named = source_key and len(source_key.encode()) <= MAX_KEY_BYTES
    return f"failed/{source_key if named else f'executions/{execution_name}'}.json"
