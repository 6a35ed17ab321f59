"""Reviews of doubtful cut-outs: one item in the table of reviews for each cut-out, without boto3.

The pipeline opens a review with one ``UpdateItem``, however often it delivers the cut-out; only the client changes it
afterwards. A cut-out is what a cache key stands for, so that results from the cache share the decision about it.
"""

import json
from collections.abc import Iterable, Mapping
from datetime import UTC, datetime
from typing import Any, Final, Literal, TypeAlias

from functions.contracts.dynamodb import to_item

State: TypeAlias = Literal["open", "retrying", "decided"]

INDEX: Final = "by_queue"
"""Index with the reviews of a state: open ones by score, the worst first; the others by time."""

WEB_FOLDER: Final = "web/"
"""Prefix of uploads of the web page; the next part of the key is their owner, the only one to see them."""

API_FOLDER: Final = "api/"
"""Prefix of uploads of API callers, who get ``quality`` with their result and decide themselves."""

MAX_NAMES: Final = 100
"""Most sources of a review; each makes the item larger, which has at most 400 KB."""

_FACTS: Final = ("execution", "source", "options", "result", "image", "cache")


def folder_of(source_key: str) -> str:
    """Return the prefix of the keys that only their owner may see, e.g. ``web/1f3a/``; empty for all others."""
    folder, slash, _ = source_key.removeprefix(WEB_FOLDER).partition("/")
    return f"{WEB_FOLDER}{folder}/" if source_key.startswith(WEB_FOLDER) and slash else ""


def queue(state: State, folder: str = "") -> str:
    """Return the partition of the index that has the reviews of a state.

    Args:
        state: their state.
        folder: of an owner; empty for reviews that everyone may see.
    """
    return f"{state} {folder}".rstrip()


def rank(moment_or_score: str | float, review_id: str) -> str:
    """Return the sort key of a review within its queue, which no other review has."""
    return f"{moment_or_score if isinstance(moment_or_score, str) else format(moment_or_score, '.3f')} {review_id}"


def review_id(cut_out: str, folder: str) -> str:
    """Return the ID of the review of a cut-out: an owner's uploads are reviewed apart from those of others."""
    return f"{cut_out} {folder}".rstrip()


def name_of(bucket: str, key: str) -> str:
    """Return a source as an element of the item's set ``names``."""
    return json.dumps([bucket, key])


def is_doubtful(document: Mapping[str, Any]) -> bool:
    """Return whether the pipeline opens a review for a result."""
    return bool(document["quality"]["review"]) and not str(document["source"]["key"]).startswith(API_FOLDER)


def opening(
    document: Mapping[str, Any],
    now: datetime,
    *,
    retry_of: str | None = None,
    others: Iterable[tuple[str, str]] = (),
) -> dict[str, Any]:
    """Return the arguments of the ``UpdateItem`` that opens the review of a result, without the table.

    If the cut-out has a review, whether open or decided, only the name of the source is added to it. The condition
    fails if the review has :data:`MAX_NAMES` names already.

    Args:
        document: the sidecar.
        now: current time.
        retry_of: ID of the review whose retry made the result; None if no person asked for it.
        others: bucket and key of further sources with this cut-out.
    """
    source, quality, folder = document["source"], document["quality"], folder_of(document["source"]["key"])
    cut_out, name = document["cache"]["key"], name_of(source["bucket"], source["key"])
    identity = review_id(cut_out, folder)
    values = {
        "queue": queue("open", folder),
        "rank": rank(quality["score"], identity),
        "cut_out": cut_out,
        "opened_at": now.astimezone(UTC).isoformat(timespec="seconds"),
        "source_key": source["key"],
        "model": document["model"]["name"],
        "reasons": list(quality["reasons"]),
        "score": str(quality["score"]),
        "facts": json.dumps({name: document[name] for name in _FACTS}),
        "revision": 0,
        **({"retry_of": retry_of} if retry_of else {}),
    }
    return {
        "Key": {"review_id": {"S": identity}},
        "UpdateExpression": f"SET {', '.join(f'#{name} = if_not_exists(#{name}, :{name})' for name in values)} "
        "ADD #names :names",
        "ConditionExpression": "attribute_not_exists(#names) OR size(#names) < :most OR contains(#names, :name)",
        "ExpressionAttributeNames": {f"#{name}": name for name in (*values, "names")},
        "ExpressionAttributeValues": {
            **{f":{name}": value for name, value in to_item(values).items()},
            ":name": {"S": name},
            ":names": {"SS": sorted({name, *(name_of(*other) for other in others)})},
            ":most": {"N": str(MAX_NAMES)},
        },
    }
