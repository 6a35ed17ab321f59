"""S3 object keys that derive from an upload: cache entry, intermediates, result, sidecar and failure report."""

import hashlib
import json
from dataclasses import dataclass
from typing import Final

from core.limits import MAX_KEY_BYTES
from core.options import Options

PIPELINE_VERSION: Final = 2
"""Raised by every change that makes other pixels of the same input: it retires all cached results."""

_NOT_SEEN_IN_THE_PIXELS: Final = {"segmentation_host", "background_key"}


@dataclass(frozen=True)
class ResultKeys:
    """S3 keys of one job: ``mask``, ``alpha`` and ``cached`` in the work bucket, the others in the results bucket."""

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
) -> str:
    """Return the name of all work that is the same work: 64 hexadecimal digits.

    Args:
        content_sha256: of the uploaded bytes, not of their name.
        options: with ``model`` resolved to a real model's name.
        model_identity: :attr:`core.segmentation.registry.Model.identity`; None for a segmenter without weights.
        background_sha256: of the background picture's bytes, whatever its key; None without one.
        escalation: name and identity of the model that a doubtful mask is tried with once more; None if a job
            has one attempt.
    """
    identity = {
        "content": content_sha256,
        "options": options.model_dump(mode="json", exclude=_NOT_SEEN_IN_THE_PIXELS),
        "weights": model_identity,
        "background": background_sha256,
        "pipeline": PIPELINE_VERSION,
        **({"escalation": escalation} if escalation else {}),
    }
    return hashlib.sha256(json.dumps(identity, sort_keys=True).encode()).hexdigest()


def result_keys(source_key: str, cache_key: str, options: Options) -> ResultKeys:
    """Return where the job's files go: ``photos/a.jpg`` becomes ``results/photos/a.png`` with a ``.json`` beside it."""
    base, extension = _base(source_key), options.format.extension
    return ResultKeys(
        mask=f"work/{cache_key}/mask.png",
        alpha=f"work/{cache_key}/alpha.png",
        cached=f"cache/{cache_key}.{extension}",
        result=f"{base}.{extension}",
        sidecar=sidecar_key(source_key),
    )


def sidecar_key(source_key: str) -> str:
    """Return where a result's facts go, whatever its format: ``photos/a.jpg`` becomes ``results/photos/a.json``."""
    return f"{_base(source_key)}.json"


def _base(source_key: str) -> str:
    folder, slash, name = source_key.rpartition("/")
    return f"results/{folder}{slash}{name.rpartition('.')[0] or name}"


def second_attempt_keys(cache_key: str) -> tuple[str, str]:
    """Return where the mask and the alpha of a second attempt go: beside those of the first, which may be kept."""
    return f"work/{cache_key}/second/mask.png", f"work/{cache_key}/second/alpha.png"


def failure_key(source_key: str | None, execution_name: str) -> str:
    """Return where the report of a failure goes: ``failed/photos/a.jpg.json``.

    It is named after its execution where no picture is known, or where the picture's key is too long.
    """
    named = source_key and len(source_key.encode()) <= MAX_KEY_BYTES
    return f"failed/{source_key if named else f'executions/{execution_name}'}.json"
