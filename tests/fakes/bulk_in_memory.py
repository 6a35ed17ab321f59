"""In-memory fake of a stack that runs bulk runs: S3, and the state machine ``Bulk``, which does a part at each look."""

import base64
import hashlib
import io
import json
import threading
from collections import Counter
from collections.abc import Callable, Iterator
from datetime import UTC, datetime
from types import SimpleNamespace
from typing import Any

from botocore.exceptions import ClientError

from client.stack import Stack
from core.options import Options
from functions.contracts.spreadsheet import csv_line
from tests.fakes.stack_in_memory import stack

BULK = "arn:aws:states:eu-west-1:123456789012:stateMachine:bulk"
COLUMNS = (
    *("bucket", "key", "version_id", "status", "result_key", "score", "review", "seconds", "error", "message"),
    *("remedy", "report_key"),
)


class Killed(BaseException):
    """The process ends here."""


class _ExistsError(ClientError):
    pass


class _UnknownError(ClientError):
    pass


def _error(code: str, kind: type[ClientError] = ClientError) -> ClientError:
    return kind({"Error": {"Code": code, "Message": code}}, "Call")


class BulkCloud:
    """S3 and Step Functions.

    Images whose content starts with ``bad`` fail; their result is the content after ``cut``.

    Args:
        step: number of images that are processed before each DescribeExecution.

    Attributes:
        kill_at: number of the call at which the process ends; None for none.
        calls: number of calls by operation.
        default_model: model of the stack.
        prepare: returns error and cause if the first state rejects an input, else None.
    """

    exceptions = SimpleNamespace(ExecutionAlreadyExists=_ExistsError, ExecutionDoesNotExist=_UnknownError)

    def __init__(self, step: int = 3) -> None:
        self.step = step
        self.versions: dict[tuple[str, str], list[bytes]] = {}
        self.modified: dict[tuple[str, str], datetime] = {}
        self.runs: dict[str, dict[str, Any]] = {}
        self.calls: Counter[str] = Counter()
        self.kill_at: int | None = None
        self.default_model = "u2netp"
        self.prepare: Callable[[dict[str, Any]], dict[str, str] | None] = lambda _input: None
        self._lock = threading.RLock()

    def stack(self) -> Stack:
        made = stack(executions=self, buckets=self)
        made.outputs["BulkMachineArn"], made.outputs["BulkMachineAlias"] = BULK, f"{BULK}:live"
        made.parameters["DefaultModel"] = self.default_model
        return made

    def _called(self, name: str) -> None:
        with self._lock:
            self.calls[name] += 1
            if self.kill_at is not None and self.calls.total() >= self.kill_at:
                raise Killed

    # S3

    def data(self, bucket: str, key: str) -> bytes:
        return self.versions[bucket, key][-1]

    def keys(self, bucket: str, prefix: str = "") -> list[str]:
        return sorted(key for where, key in list(self.versions) if where == bucket and key.startswith(prefix))

    def _put(self, bucket: str, key: str, data: bytes) -> str:
        with self._lock:
            self.versions.setdefault((bucket, key), []).append(data)
            self.modified[bucket, key] = datetime.now(UTC)
            return str(len(self.versions[bucket, key]))

    def put_object(self, **request: Any) -> dict[str, Any]:
        self._called("put")
        data = request["Body"] if isinstance(request["Body"], bytes) else request["Body"].read()
        if "ChecksumSHA256" in request and base64.b64decode(request["ChecksumSHA256"]) != hashlib.sha256(data).digest():
            raise _error("BadDigest")
        return {"VersionId": self._put(request["Bucket"], request["Key"], data)}

    def get_object(self, **request: Any) -> dict[str, Any]:
        self._called("get")
        with self._lock:
            found = self.versions.get((request["Bucket"], request["Key"]))
            if not found:
                raise _error("NoSuchKey")
            data = found[int(request.get("VersionId", len(found))) - 1]
        return {"Body": _Body(data)}

    def head_object(self, **request: Any) -> dict[str, Any]:
        self._called("head")
        found = self.versions.get((request["Bucket"], request["Key"]))
        if not found:
            raise _error("404")
        checksum = base64.b64encode(hashlib.sha256(found[-1]).digest()).decode()
        return {"VersionId": str(len(found)), "ChecksumSHA256": checksum}

    def get_paginator(self, _operation: str) -> "BulkCloud":
        return self

    def paginate(self, **request: Any) -> Iterator[dict[str, Any]]:
        keys = self.keys(request["Bucket"], request["Prefix"])
        for start in range(0, max(len(keys), 1), 5):
            self._called("list")
            found = [
                {"Key": key, "LastModified": self.modified[request["Bucket"], key]} for key in keys[start : start + 5]
            ]
            yield {"Contents": found} if found else {}

    # Step Functions

    def start_execution(self, **request: Any) -> dict[str, Any]:
        self._called("start")
        assert request["stateMachineArn"] == f"{BULK}:live"
        if request["name"] in self.runs:
            raise _error("ExecutionAlreadyExists", _ExistsError)
        given = json.loads(request["input"])
        run = {"input": given, "status": "RUNNING", "rows": {}, "waiting": self._sources(given["source"])}
        run["startDate"] = datetime.now(UTC)
        if caught := self.prepare(given):
            run |= {"status": "FAILED", **caught}
        self.runs[request["name"]] = run
        return {}

    def describe_execution(self, **request: Any) -> dict[str, Any]:
        self._called("describe")
        name = request["executionArn"].rpartition(":")[2]
        if name not in self.runs:
            raise _error("ExecutionDoesNotExist", _UnknownError)
        run = self.runs[name]
        status = {key: run[key] for key in ("status", "error", "cause", "startDate") if key in run}
        if run["status"] == "RUNNING":
            with self._lock:
                self._work(name, run)
        return status

    def list_map_runs(self, **_request: Any) -> dict[str, Any]:
        return {"mapRuns": [{"mapRunArn": f"arn:mapRun:bulk/{label}:1"} for label in ("Masks", "Rows")]}

    def describe_map_run(self, **request: Any) -> dict[str, Any]:
        if "/Masks:" in request["mapRunArn"]:
            return {"itemCounts": {"total": 3, "succeeded": 3, "failed": 0}}
        return {"itemCounts": {"total": 3, "succeeded": 1, "failed": 0}}

    def stop(self, name: str) -> None:
        """End an execution without a summary, as StopExecution does."""
        self.runs[name] |= {"status": "ABORTED"}

    def _sources(self, source: dict[str, Any]) -> list[tuple[str, str]]:
        if "manifest" in source:
            lines = self.data(source["manifest"]["bucket"], source["manifest"]["key"]).decode().splitlines()
            rows = map(json.loads, lines)
            return [(row.get("bucket") or "uploads", row["key"]) for row in rows]
        return [(source["bucket"], key) for key in self.keys(source["bucket"], source["prefix"])]

    def _work(self, name: str, run: dict[str, Any]) -> None:
        for bucket, key in run["waiting"][: self.step]:
            run["rows"][bucket, key] = self._image(name, bucket, key)
        del run["waiting"][: self.step]
        if not run["waiting"]:
            self._summarize(name, run)
            run["status"] = "SUCCEEDED"

    def _image(self, name: str, bucket: str, key: str) -> dict[str, Any]:
        data = self.data(bucket, key)
        row = {"bucket": bucket, "key": key, "version_id": len(self.versions[bucket, key])}
        folder = "" if bucket == "uploads" else f"s3/{bucket}/"
        if data.startswith(b"bad"):
            facts = {"error": "CorruptImageError", "message": "It is damaged", "remedy": "Save it again."}
            report_key = f"failed/{folder}{key}.json"
            self._put("results", report_key, json.dumps({**facts, "execution": {"name": name}}).encode())
            return {**row, "status": "failed", "report_key": report_key, **facts}
        result_key = f"results/{folder}{key}.png"
        digest = hashlib.sha256(data).hexdigest()
        if (there := self._existing(f"{result_key}.json", row)) and not self.runs[name]["input"].get("overwrite"):
            return {**row, "status": "cached", "result_key": result_key, **there}
        quality = {"score": int(digest[:2], 16) / 255, "review": data.startswith(b"doubtful"), "reasons": []}
        if quality["review"]:
            quality["reasons"] = ["fragmented"]
        version = self._put("results", result_key, b"cut " + data)
        options = Options.parse(self.runs[name]["input"]["options"])
        sidecar = {
            "execution": {"id": name, "name": name},
            "source": {"bucket": bucket, "key": key, "sha256": digest, "version_id": str(row["version_id"])},
            "options": {**options.model_dump(mode="json"), "model": self.default_model},
            "result": {"bucket": "results", "key": result_key, "version_id": version},
            "image": {"bytes": len(b"cut " + data)},
            "quality": quality,
            "cache": {"hit": data.startswith(b"cached")},
            "timings_s": {"segment": 0.5, "encode": 0.25},
        }
        self._put("results", f"{result_key}.json", json.dumps(sidecar).encode())
        status = "cached" if sidecar["cache"]["hit"] else "done"
        found = {"score": quality["score"], "review": quality["review"], "seconds": 0.75}
        return {**row, "status": status, "result_key": result_key, **found}

    def _existing(self, key: str, row: dict[str, Any]) -> dict[str, Any] | None:
        """Return score and review of a result that was made from the same version."""
        if ("results", key) not in self.versions:
            return None
        sidecar = json.loads(self.data("results", key))
        same = sidecar["source"]["version_id"] == str(row["version_id"])
        return {name: sidecar["quality"][name] for name in ("score", "review")} if same else None

    def _summarize(self, name: str, run: dict[str, Any]) -> None:
        rows = ([row.get(column) for column in COLUMNS] for row in run["rows"].values())
        self._put("results", f"bulk/{name}/items.csv", "".join(map(csv_line, [COLUMNS, *rows])).encode())
        summary = {"run": name, "files": {"items": f"bulk/{name}/items.csv"}, "cost": {"total_usd": 0.01}}
        self._put("results", f"bulk/{name}/summary.json", json.dumps(summary).encode())


class _Body(io.BytesIO):
    def iter_lines(self) -> Iterator[bytes]:
        return (line.rstrip(b"\n") for line in self)
