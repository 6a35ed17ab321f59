"""Injects the faults of a plan into the requests and invocations of the embedded cloud.

A request belongs to the upload whose key it contains, else to the content whose cache key it contains. Each fault
counts the attempts on its own subject only, so that nothing depends on what happens to others meanwhile.
"""

import json
import re
import threading
from collections import Counter, defaultdict
from collections.abc import Callable, Mapping, Sequence
from typing import Any

from embedded_cloud.cloud import EmbeddedCloud
from embedded_cloud.faults import ErrorResponse, InvocationFault, Request
from functions.contracts.failure_report import source_of
from tests.conftest import client
from tests.resilience.chaos.plan import Fault, Plan, share

KEY = re.compile(r"chaos/\d{5}")
CACHE_KEY = re.compile(r'"cache_key": ?"([0-9a-f]{64})"')
DUPLICATE_WITHIN_S = 4.0


class FaultInjector:
    """The faults of a plan, and a count of those that occurred.

    Attributes:
        injected: how often, by subject (an upload's key without its ending, or a cache key) and fault.
    """

    def __init__(self, plan: Plan, seed: int) -> None:
        self._seed = seed
        self._faults: dict[str, list[Fault]] = defaultdict(list)
        for subject, fault in dict.fromkeys(pair for upload in plan.uploads for pair in upload.faults):
            self._faults[subject].append(fault)
        self.injected: Counter[tuple[str, Fault]] = Counter()
        self._attempts: Counter[tuple[str, Fault]] = Counter()
        self._timers: list[threading.Timer] = []
        self._lock = threading.Lock()
        self._cloud: EmbeddedCloud | None = None

    def attach(self, cloud: EmbeddedCloud) -> None:
        """Start to inject faults into a deployed cloud."""
        self._s3, self._sfn = (client(name, cloud.endpoint_url, cloud.region) for name in ("s3", "stepfunctions"))
        self._cloud = cloud

    @property
    def pending(self) -> bool:
        """Whether a duplicate event is still to be sent."""
        return any(timer.is_alive() for timer in self._timers)

    def request(self, request: Request) -> ErrorResponse | None:
        """See :class:`embedded_cloud.faults.FaultPlan`."""
        where, subject = _place(request)
        fault = self._due(where, [subject], lambda fault: fault.code or fault.kind == "worker kill")
        if fault is None or self._cloud is None:
            return None
        if fault.kind == "worker kill":
            self._cloud.kill_tasks()
            return ErrorResponse(500, "InternalError")  # the caller is killed
        return ErrorResponse({"s3": 503, "lambda": 429}.get(request.service, 400), fault.code)

    def invocation(self, function: str, event: str) -> InvocationFault | None:
        """See :class:`embedded_cloud.faults.FaultPlan`."""
        fault = self._due(_stage(function), _subjects(event), lambda fault: not fault.code)
        if fault is None:
            return None
        if fault.ending:
            return InvocationFault(fault.ending, fault.answered)
        self._act(fault, json.loads(event))
        return None

    def _due(self, where: str, subjects: Sequence[str], fits: Callable[[Fault], object]) -> Fault | None:
        """Return the fault to inject into this attempt, and count it."""
        for subject in subjects:
            for fault in self._faults.get(subject, ()):
                if fault.where == where and fits(fault):
                    with self._lock:
                        self._attempts[subject, fault] += 1
                        attempt = self._attempts[subject, fault] - fault.after
                        if 0 < attempt <= fault.times:
                            self.injected[subject, fault] += 1
                            return fault
        return None

    def _act(self, fault: Fault, event: Mapping[str, Any]) -> None:
        if fault.kind == "deleted":
            source = source_of(event.get("input") or event.get("state") or event)
            self._s3.delete_object(Bucket=source["bucket"], Key=source["key"], VersionId=source["version_id"])
        elif fault.kind == "stopped":
            self._sfn.stop_execution(executionArn=event["execution"]["id"])
        elif fault.kind == "duplicate event" and self._cloud:
            again = {"stateMachineArn": self._cloud.outputs["StateMachineArn"], "input": json.dumps(event["input"])}
            after_s = DUPLICATE_WITHIN_S * share(self._seed, source_of(event["input"])["key"], "again")
            timer = threading.Timer(after_s, self._sfn.start_execution, kwargs=again)
            self._timers.append(timer)
            timer.start()


def _subjects(text: str) -> list[str]:
    """Return the upload and the content that a function's event names."""
    return [*KEY.findall(text)[:1], *CACHE_KEY.findall(text)[:1]]


def _stage(function: str) -> str:
    stage = re.search(r"(\w+)Function", function)
    return stage[1] if stage else ""


def _place(request: Request) -> tuple[str, str]:
    """Return the place of a request, as faults name it, and its subject; both empty if no fault applies."""
    if request.service == "s3":
        return _object(request)
    if request.service == "dynamodb":
        return _item(request)
    if request.service == "lambda" and request.path.endswith("/invocations"):
        return _stage(request.path), "".join(_subjects(request.body.decode())[:1])
    return "", ""


def _object(request: Request) -> tuple[str, str]:
    folder, _, rest = request.path[1:].partition("/")[2].partition("/")
    match request.method, folder:
        case "GET", "chaos":
            return "upload", f"{folder}/{rest}".removesuffix(".png")
        case "PUT", "work":
            cache_key, _, name = rest.partition("/")
            return name.removesuffix(".png"), cache_key
        case "PUT", "cache":
            return "copy", rest.partition(".")[0]
        case "PUT", "results":
            return "sidecar" if rest.endswith(".json") else "result", rest.partition(".")[0]
        case "PUT", "failed":
            return "report", rest.removesuffix(".png.json")
    return "", ""


def _item(request: Request) -> tuple[str, str]:
    call = json.loads(request.body)
    cache_key = call.get("Key", {}).get("cache_key", {}).get("S", "")
    if request.operation == "GetItem":
        return "LookUpCache", cache_key
    if request.operation == "UpdateItem":
        return "SaveCache" if ":done" in call["ExpressionAttributeValues"] else "ClaimWork", cache_key
    return "", ""
