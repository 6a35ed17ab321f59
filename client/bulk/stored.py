"""Images that are in S3 already: their names in the folder of the results, and where their results appear."""

import csv
import json
import os.path
from collections.abc import Iterator
from typing import Any, Final

from client.errors import client_error
from client.stack import Stack
from functions.contracts.object_keys import source_folder

RESULTS: Final = "results/"


def names(source: dict[str, Any], suffix: str | None, bucket: str, key: str, uploads_bucket: str) -> dict[str, str]:
    """Return ``path``, which no other object has, and ``target`` of the item of an object.

    Args:
        source: ``source`` of the run's input.
        suffix: end of the names of results; None to append the format's extension to the name of the image.
        bucket: of the object.
        key: of the object.
        uploads_bucket: of the stack.
    """
    prefix = (source.get("prefix") or "").rpartition("/")[0]
    path = key.removeprefix(f"{prefix}/" if prefix else "")
    if "prefix" not in source and bucket != uploads_bucket:
        path = f"{bucket}/{path}"
    target = _relative(path)
    stem = target.rpartition(".")[0] or target
    return {"path": path, "target": target if suffix is None else stem + suffix}


def result_prefixes(stack: Stack, source: dict[str, Any]) -> list[str]:
    """Return prefixes in the results bucket that all results of a run's images have.

    Empty if the caller may not read the manifest, or if it is invalid: then results are found by the run's summary.
    """
    uploads = stack.outputs["UploadsBucket"]
    if source.get("bucket"):
        return [f"{RESULTS}{source_folder(source['bucket'], uploads)}{source['prefix']}"]
    starts: dict[str, str] = {}
    try:
        for bucket, key in _listed(stack, source, uploads):
            starts[bucket] = os.path.commonprefix([starts.get(bucket, key), key])  # noqa: RUF071 - S3 has no folders
    except (ValueError, KeyError, TypeError, AttributeError, csv.Error, client_error()):
        return []
    return [f"{RESULTS}{source_folder(bucket, uploads)}{start}" for bucket, start in starts.items()]


def _listed(stack: Stack, source: dict[str, Any], uploads: str) -> Iterator[tuple[str, str]]:
    """Yield bucket and key of each row of a manifest; of an inventory, the bucket and an empty key."""
    address = source.get("manifest") or source["inventory"]
    body = stack.s3.get_object(Bucket=address["bucket"], Key=address["key"])["Body"]
    if "inventory" in source:
        yield json.loads(body.read())["sourceBucket"].rpartition(":")[2], ""
        return
    lines = (line.decode("utf-8-sig") + "\n" for line in body.iter_lines())
    is_json = address["key"].lower().endswith(".jsonl")
    for row in map(json.loads, filter(str.strip, lines)) if is_json else csv.DictReader(lines):
        yield row.get("bucket") or uploads, row["key"]


def _relative(key: str) -> str:
    """Return an object key as a relative path that stays below its folder."""
    parts = [part.replace("\0", "_") for part in key.split("/") if part not in ("", ".", "..")]
    return "/".join(parts) or "object"
