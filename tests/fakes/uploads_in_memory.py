"""Versioned buckets with times, and executions, as far as the sweep and the digest call them."""

import io
import json
from collections import Counter
from datetime import datetime
from typing import Any

from tests.fakes.s3_in_memory import refusal

MACHINE = "arn:aws:states:eu-west-1:123456789012:stateMachine:pbr"


class VersionedS3:
    """Versioned buckets.

    Attributes:
        versions: bucket, key, version ID, time and content in the order of the calls; a content of None is a deletion.
        listed: number of pages that were listed by bucket.
        page_size: most versions of a page.
        max_pages: most pages to list of a bucket.
        multipart: keys of multipart uploads.
    """

    def __init__(self, page_size: int = 1000) -> None:
        self.versions: list[tuple[str, str, str, datetime, bytes | None]] = []
        self.listed: Counter[str] = Counter()
        self.page_size = page_size
        self.max_pages = 1000
        self.multipart: set[str] = set()

    def put(self, bucket: str, key: str, at: datetime, content: Any = b"") -> str:
        data = content if isinstance(content, bytes) or content is None else json.dumps(content).encode()
        self.versions.append((bucket, key, f"v{len(self.versions):04}", at, data))
        return self.versions[-1][2]

    def delete(self, bucket: str, key: str, at: datetime) -> None:
        self.put(bucket, key, at, None)

    def get_object(self, **request: Any) -> dict[str, Any]:
        found = [one for one in self.versions if one[:2] == (request["Bucket"], request["Key"])]
        if not found or found[-1][4] is None:
            raise refusal("NoSuchKey", 404)
        data = found[-1][4]
        facts = {"VersionId": found[-1][2], "ETag": "none", "Metadata": {}}
        return {**facts, "ContentLength": len(data), "Body": io.BytesIO(data)}

    def put_object(self, **request: Any) -> dict[str, Any]:
        return {"VersionId": self.put(request["Bucket"], request["Key"], datetime.max, request["Body"])}

    def list_object_versions(self, **request: Any) -> dict[str, Any]:
        self.listed[request["Bucket"]] += 1
        assert self.listed[request["Bucket"]] <= self.max_pages
        after = request.get("KeyMarker", ""), request.get("VersionIdMarker", "~")
        listed = [one for one in self.versions if one[0] == request["Bucket"]]
        newest = {one[1]: one[2] for one in listed}
        listed.sort(key=lambda one: one[3], reverse=True)  # of a key, the newest version comes first
        listed.sort(key=lambda one: one[1])
        start = next((n + 1 for n, one in enumerate(listed) if (one[1], one[2]) == after), None)
        if start is None:
            start = sum(one[1] <= after[0] for one in listed) if after[0] else 0
        matching = [one for one in listed[start:] if one[1].startswith(request.get("Prefix", ""))]
        page, rest = matching[: self.page_size], matching[self.page_size :]
        etags = {key: f'"{"0" * 32}{"-2" if key in self.multipart else ""}"' for _, key, *_ in page}
        facts = [
            {"Key": key, "VersionId": name, "LastModified": at, "ETag": etags[key], "IsLatest": newest[key] == name}
            for _, key, name, at, _ in page
        ]
        kinds = [one[4] is None for one in page]
        answer: dict[str, Any] = {
            "Versions": [fact for fact, deleted in zip(facts, kinds, strict=True) if not deleted],
            "DeleteMarkers": [fact for fact, deleted in zip(facts, kinds, strict=True) if deleted],
            "IsTruncated": bool(rest),
        }
        if rest:
            answer |= {"NextKeyMarker": page[-1][1], "NextVersionIdMarker": page[-1][2]}
        return answer

    def get_paginator(self, operation: str) -> "VersionedS3":
        assert operation == "list_object_versions"
        return self

    def paginate(self, **request: Any) -> list[dict[str, Any]]:
        return [self.list_object_versions(**request)]


class NoSuchExecutionError(Exception):
    pass


class NameIsTakenError(Exception):
    pass


class StateMachine:
    """Executions of the main state machine.

    Attributes:
        executions: descriptions by ARN.
        started: descriptions of the executions that ``start_execution`` made.
        most_starts: number of starts after which Step Functions throttles.
        is_hidden: whether executions cannot be described.
    """

    exceptions = type(
        "Exceptions",
        (),
        {"ExecutionDoesNotExist": NoSuchExecutionError, "ExecutionAlreadyExists": NameIsTakenError},
    )

    def __init__(self, now: datetime) -> None:
        self.now = now
        self.executions: dict[str, dict[str, Any]] = {}
        self.started: list[dict[str, Any]] = []
        self.most_starts, self.is_hidden = 1000, False

    def add(self, name: str, execution_input: Any) -> dict[str, Any]:
        arn = _arn(name)
        facts = {"name": name, "status": "RUNNING", "startDate": self.now, "input": json.dumps(execution_input)}
        self.executions[arn] = {"executionArn": arn, **facts}
        return self.executions[arn]

    def start_execution(self, **request: Any) -> None:
        assert request["stateMachineArn"] == f"{MACHINE}:live"
        if (arn := _arn(request["name"])) in self.executions and self.executions[arn]["status"] != "RUNNING":
            raise NameIsTakenError
        if len(self.started) >= self.most_starts:
            raise refusal("ThrottlingException", 400)
        self.started.append(self.add(request["name"], json.loads(request["input"])))

    def describe_execution(self, **request: Any) -> dict[str, Any]:
        if self.is_hidden or request["executionArn"] not in self.executions:
            raise NoSuchExecutionError
        return self.executions[request["executionArn"]]

    def list_executions(self, **request: Any) -> dict[str, Any]:
        assert request["stateMachineArn"] == MACHINE
        found = [one for one in self.executions.values() if one["status"] == request["statusFilter"]]
        more = {"nextToken": "more"} if len(found) > request["maxResults"] else {}
        return {"executions": found[: request["maxResults"]], **more}


def _arn(name: str) -> str:
    return f"{MACHINE.replace('stateMachine', 'execution')}:{name}"
