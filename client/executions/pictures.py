"""The pictures that the stages of an execution read and wrote, as objects in S3."""

from collections.abc import Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from typing import Any, Final, Literal

from client.errors import client_error
from client.stack import Stack
from functions.contracts.failure_report import source_of
from functions.contracts.object_keys import second_attempt_keys

Kind = Literal["source", "mask", "alpha", "result"]

MASKS_KEPT_DAYS: Final = 2
"""Days after which the work bucket deletes masks and alphas."""

_THREADS: Final = 8
_ABSENT: Final = ("404", "400", "403", "405", "NoSuchKey", "NoSuchVersion", "MethodNotAllowed")


@dataclass(frozen=True)
class StagePicture:
    """A picture of a stage.

    Attributes:
        kind: what it is.
        bucket: its bucket.
        key: its key.
        version_id: its version; None for the newest one.
        width: in pixels; None if unknown.
        height: in pixels; None if unknown.
        attempt: ``first`` or ``second``; None if the execution made one attempt.
        facts: what made it, in words.
    """

    kind: Kind
    bucket: str
    key: str
    version_id: str | None = None
    width: int | None = None
    height: int | None = None
    attempt: Literal["first", "second"] | None = None
    facts: str = ""

    @property
    def size(self) -> str:
        """Width and height in words; empty if unknown."""
        return f"{self.width:,} x {self.height:,} px" if self.width and self.height else ""


def pictures_of(
    stack: Stack, given: Any, state: Mapping[str, Any], output: Mapping[str, Any] | None
) -> list[StagePicture]:
    """Return the pictures of an execution, in the order of its stages.

    Args:
        stack: the stack that ran it.
        given: its input.
        state: its newest workflow state; empty if Validate has not ended or failed.
        output: its output; None if it has not succeeded.
    """
    origin = source_of(state or given)
    pictures = []
    if origin["bucket"] and origin["key"]:
        found = state.get("source", {})
        facts = f"{found['format']}, {found['bytes'] / 1000:,.0f} kB" if found else _size_of_event(given)
        pictures.append(
            StagePicture(
                "source",
                origin["bucket"],
                origin["key"],
                origin["version_id"],
                found.get("width"),
                found.get("height"),
                facts=facts,
            )
        )
    pictures += _attempts(stack, state, output)
    if output:
        result, image = output["result"], output["image"]
        facts = f"{image['format']}, {image['bytes'] / 1000:,.0f} kB"
        size = (image["width"], image["height"])
        pictures.append(
            StagePicture("result", result["bucket"], result["key"], result.get("version_id"), *size, facts=facts)
        )
    return pictures


def _size_of_event(given: Any) -> str:
    """Return the size of an upload from the event of S3; empty if the input is another one."""
    try:
        return f"{given['detail']['object']['size'] / 1000:,.0f} kB"
    except (KeyError, TypeError):
        return ""


def missing(stack: Stack, pictures: Sequence[StagePicture]) -> set[StagePicture]:
    """Return the pictures that do not exist any more."""
    if not pictures:
        return set()
    with ThreadPoolExecutor(_THREADS) as pool:
        exist = list(pool.map(lambda one: _exists(stack, one), pictures))
    return {one for one, exists in zip(pictures, exist, strict=True) if not exists}


def computed_by(state: Mapping[str, Any]) -> str | None:
    """Return the ARN of the execution whose result was copied from the cache; None if none was."""
    item = state.get("cache", {}).get("Item", {}) if "hit" in state else {}
    arn: str | None = item.get("owner", {}).get("S")
    return arn


def _attempts(stack: Stack, state: Mapping[str, Any], output: Mapping[str, Any] | None) -> list[StagePicture]:
    """Return the masks and alphas of each attempt."""
    if "hit" in state:
        return _of_cache(stack, state, output or {})
    stages = [state["first"]] if "first" in state else []
    if not stages or _key(state, "segment", "mask") != _key(stages[0], "segment", "mask"):
        stages.append(state)
    pictures = []
    for number, stage in enumerate(stages):
        attempt: Any = None if "first" not in state else ("first", "second")[number]
        bucket, source = stack.outputs["WorkBucket"], state.get("source", {})
        if mask := stage.get("segment", {}).get("mask"):
            facts = f"{mask['model']} on {mask['host']}"
            size = (mask["width"], mask["height"])
            pictures.append(StagePicture("mask", bucket, mask["key"], None, *size, attempt=attempt, facts=facts))
        if (alpha := stage.get("refine", {}).get("alpha")) and _is_of(alpha, attempt, state):
            facts = f"quality {alpha['quality']['score']:.2f}"
            size = (source["width"], source["height"])
            pictures.append(StagePicture("alpha", bucket, alpha["key"], None, *size, attempt=attempt, facts=facts))
    return pictures


def _is_of(alpha: Mapping[str, Any], attempt: str | None, state: Mapping[str, Any]) -> bool:
    """Return whether an alpha is of this attempt: until the second one is refined, the state has the first one's."""
    return attempt != "second" or alpha["key"] != _key(state["first"], "refine", "alpha")


def _of_cache(stack: Stack, state: Mapping[str, Any], output: Mapping[str, Any]) -> list[StagePicture]:
    """Return the mask and the alpha of the execution that computed a cached result. Their keys are the same."""
    mask, alpha = state["keys"]["mask"], state["keys"]["alpha"]
    if (output.get("escalation") or {}).get("kept") == "second":
        mask, alpha = second_attempt_keys(state["cache_key"])
    bucket, source, facts = stack.outputs["WorkBucket"], state["source"], "of the execution that computed the result"
    return [
        StagePicture("mask", bucket, mask, facts=facts),
        StagePicture("alpha", bucket, alpha, None, source["width"], source["height"], facts=facts),
    ]


def _key(stage: Mapping[str, Any], part: str, name: str) -> str | None:
    key: str | None = stage.get(part, {}).get(name, {}).get("key")
    return key


def _exists(stack: Stack, picture: StagePicture) -> bool:
    version = {"VersionId": picture.version_id} if picture.version_id else {}
    try:
        stack.s3.head_object(Bucket=picture.bucket, Key=picture.key, **version)  # type: ignore[arg-type]
    except client_error() as error:
        if error.response["Error"]["Code"] not in _ABSENT:  # type: ignore[attr-defined]
            raise
        return False
    return True
