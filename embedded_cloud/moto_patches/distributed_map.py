"""Step Functions: Distributed Map.

moto rejects Express children, ItemBatcher, JSON Lines, WriterConfig and the paths of tolerances, ignores tolerances,
and writes empty result files. So the state is taken away from moto's grammar, kept in its Comment, and run here. Each
child is an execution of the state's ItemProcessor. Fields that AWS has and this does not support are rejected.
"""

import base64
import functools
import json
import threading
import uuid
from collections.abc import Iterator
from concurrent.futures import Future, ThreadPoolExecutor, wait
from contextlib import suppress
from dataclasses import dataclass, field
from datetime import UTC, datetime
from typing import Any

from moto.stepfunctions.models import StateMachine
from moto.stepfunctions.parser.api import ExecutionStatus, HistoryEventType, MapRunStatus
from moto.stepfunctions.parser.asl.component.common.error_name.failure_event import (
    FailureEvent,
    FailureEventException,
)
from moto.stepfunctions.parser.asl.component.common.error_name.states_error_name import StatesErrorName
from moto.stepfunctions.parser.asl.component.common.error_name.states_error_name_type import StatesErrorNameType
from moto.stepfunctions.parser.asl.component.state.exec.state_map.iteration.itemprocessor.map_run_record import (
    MapRunRecord,
)
from moto.stepfunctions.parser.asl.component.state.exec.state_map.state_map import StateMap
from moto.stepfunctions.parser.asl.eval.event.event_detail import EventDetails
from moto.stepfunctions.parser.asl.parse.asl_parser import AmazonStateLanguageParser
from moto.stepfunctions.parser.backend.execution import Execution
from moto.stepfunctions.responses import get_backend

from embedded_cloud.moto_patches.around import around
from embedded_cloud.moto_patches.host import running

MARK = "embedded-cloud:distributed-map:"
EXPRESS_S = 300
CHILDREN_AT_A_TIME = 40
"""Most children that run at a time here; AWS runs up to 10,000."""

MAX_INPUT_BYTES = 256 << 10
"""Most bytes of a child's input."""

_OF_THE_STATE = {"Type", "Retry", "Catch", "Next", "End", "ResultSelector", "ResultPath", "OutputPath", "InputPath"}
_SUPPORTED = {
    *("Comment", "ItemProcessor", "ItemReader", "ItemSelector", "ItemBatcher", "ResultWriter", "Label"),
    *("MaxConcurrency", "MaxConcurrencyPath", "ToleratedFailurePercentage", "ToleratedFailurePercentagePath"),
    *("ToleratedFailureCount", "ToleratedFailureCountPath"),
}
_RESULT_FILES = {
    "SUCCEEDED": {ExecutionStatus.SUCCEEDED},
    "FAILED": {ExecutionStatus.FAILED, ExecutionStatus.TIMED_OUT, ExecutionStatus.ABORTED},
    "PENDING": {None},
}


@around(AmazonStateLanguageParser, "parse")
def take_distributed_maps_away(original: Any, definition: str) -> Any:
    """AWS supports all of Distributed Map; moto's grammar rejects most of it."""
    with suppress(ValueError):
        definition = json.dumps(_rewritten(json.loads(definition)))
    return original(definition)


def _rewritten(node: Any) -> Any:
    if isinstance(node, list):
        return [_rewritten(item) for item in node]
    if not isinstance(node, dict):
        return node
    config = node.get("ItemProcessor", {}).get("ProcessorConfig", {}) if node.get("Type") == "Map" else {}
    if config.get("Mode") != "DISTRIBUTED":
        return {name: _rewritten(item) for name, item in node.items()}
    if unsupported := node.keys() - _OF_THE_STATE - _SUPPORTED:
        raise NotImplementedError(f"The embedded cloud does not support {', '.join(sorted(unsupported))}")
    kept = {name: value for name, value in node.items() if name in _OF_THE_STATE}
    raw = json.dumps({name: value for name, value in node.items() if name in _SUPPORTED})
    comment = MARK + base64.b64encode(raw.encode()).decode()
    return {**kept, "Comment": comment, "ItemProcessor": {"StartAt": "P", "States": {"P": {"Type": "Succeed"}}}}


@around(StateMap, "_eval_execution")
def run_distributed_maps(original: Any, self: Any, env: Any) -> None:
    """AWS runs children with tolerance, batches and result files; moto does not."""
    comment = getattr(self.comment, "comment", None) or ""
    if not comment.startswith(MARK):
        original(self, env)
    elif former := _redriven(env, self.name):
        former.redrive(env)
    else:
        MapRun(json.loads(base64.b64decode(comment.removeprefix(MARK))), env, self.name).run()


def redrive_map_runs(former: Any, env: Any, state: str) -> None:
    """Let a redriven execution, which continues at ``state``, keep its Map Runs, and redrive that of the state."""
    env.map_run_record_pool_manager = former.map_run_record_pool_manager
    env.map_run_record_pool_manager.redriven_state = state


def _redriven(env: Any, state: str) -> "MapRun | None":
    """Return the Map Run that a redrive has to continue; None if the state starts a new one."""
    pool = env.map_run_record_pool_manager
    if getattr(pool, "redriven_state", None) != state:
        return None
    pool.redriven_state = None
    former = [record.map_run for record in pool.get_all() if record.map_run.name == state]
    return former[-1] if former and former[-1].children else None


@around(MapRunRecord, "describe")
def count_redrives(original: Any, self: Any) -> Any:
    """AWS counts the redrives of a Map Run; moto does not."""
    return {**original(self), "redriveCount": self.map_run.redrives if hasattr(self, "map_run") else 0}


@dataclass
class Child:
    """A child: its input, the number of its items, and its execution once it has started."""

    given: Any
    items: int
    execution: Any = None

    @property
    def status(self) -> Any:
        """Status of the execution; None before it starts."""
        return self.execution.exec_status if self.execution else None


@dataclass
class MapRun:
    """A run of a Distributed Map state.

    Attributes:
        state: the state's definition.
        env: the execution of the parent.
        name: of the state.
        children: all of them, also those that have not started.
        over: whether more items failed than are tolerated.
        redrives: number of redrives.
    """

    state: dict[str, Any]
    env: Any
    name: str
    children: list[Child] = field(default_factory=list)
    over: bool = False
    redrives: int = 0
    _ending: threading.Lock = field(default_factory=threading.Lock)

    def run(self) -> None:
        """Run all children, and leave the state's result on the parent's stack."""
        self.record = self._start()
        try:
            items = list(self._items())
        except Exception as error:  # AWS names all of them so
            raise self._failure("ItemReaderFailed", f"{type(error).__name__}: {error}") from error
        self._batch(items)
        self._finish()

    def redrive(self, env: Any) -> None:
        """Run the children again that did not succeed, and leave the state's result on the parent's stack."""
        self.env, self.over, self.redrives = env, False, self.redrives + 1
        self.record.status, self.record.stop_date = MapRunStatus.RUNNING, None
        left = [child for child in self.children if child.status != ExecutionStatus.SUCCEEDED]
        for child in left:
            child.execution = None
        for counter, pending in (
            (self.record.item_counter, sum(child.items for child in left)),
            (self.record.execution_counter, len(left)),
        ):
            for name in ("aborted", "failed", "pending", "running", "timed_out", "results_written"):
                getattr(counter, name).offset(-getattr(counter, name).get())
            counter.pending.count(pending)
        details = {"mapRunArn": self.record.map_run_arn, "redriveCount": self.redrives}
        self._event("MapRunRedriven", mapRunRedrivenEventDetails=details)
        self._finish()

    def _finish(self) -> None:
        writer = self.state.get("ResultWriter")
        place = self._evaluated(writer["Parameters"]) if writer else {}
        self._run_children()
        written = self._write_results(place) if writer else None
        if not self.env.is_running():
            self.env.stack.append({})
            self.record.set_stop(MapRunStatus.ABORTED)
            return
        if self.over:
            failed, total = self.record.item_counter.failed.get(), self.record.item_counter.total.get()
            raise self._failure(
                "ExceedToleratedFailureThreshold",
                f"The specified tolerated failure threshold was exceeded: {failed} of {total} items failed",
            )
        outputs = [child.execution.output for child in self.children if child.execution]
        self.env.stack.append({"MapRunArn": self.record.map_run_arn, **written} if written else outputs)
        self._event("MapRunSucceeded")
        self.record.set_stop(MapRunStatus.SUCCEEDED)
        self.env.event_manager.add_event(
            self.env.event_history_context, HistoryEventType.MapStateSucceeded, update_source_event_id=False
        )

    def _start(self) -> Any:
        context = self.env.states.context_object.context_object_data
        record = MapRunRecord(
            context["StateMachine"]["Id"],
            context["Execution"]["Id"],
            int(self._number("MaxConcurrency", 0)),
            int(self._number("ToleratedFailureCount", 0)),
            float(self._number("ToleratedFailurePercentage", 0)),
            self.state.get("Label") or self.name.replace(" ", "")[:40],
        )
        record.map_run = self
        self.env.map_run_record_pool_manager.add(record)
        self._event("MapStateStarted", mapStateStartedEventDetails={"length": 0})
        self._event("MapRunStarted", mapRunStartedEventDetails={"mapRunArn": record.map_run_arn})
        return record

    def _number(self, name: str, default: float) -> Any:
        if path := self.state.get(f"{name}Path"):
            return self._evaluated({"value.$": path})["value"]
        return self.state.get(name, default)

    def _evaluated(self, template: Any) -> Any:
        """Return a payload template with its paths and functions evaluated, as a Pass state does."""
        _template(json.dumps(template)).eval(self.env)
        return self.env.stack.pop()

    def _s3(self) -> Any:
        return running().client("s3", self.env.aws_execution_details.role_arn)

    def _items(self) -> Iterator[Any]:
        if "ItemReader" not in self.state:
            yield from self.env.states.get_input()
            return
        reader, s3 = self.state["ItemReader"], self._s3()
        address = self._evaluated(reader["Parameters"])
        if reader["Resource"].endswith(":s3:listObjectsV2"):
            pages = s3.get_paginator("list_objects_v2").paginate(**address)
            for found in (found for page in pages for found in page.get("Contents", [])):
                yield {
                    "Etag": found["ETag"],
                    "Key": found["Key"],
                    "LastModified": int(found["LastModified"].timestamp()),
                    "Size": found["Size"],
                    "StorageClass": found.get("StorageClass", "STANDARD"),
                }
            return
        kind = reader["ReaderConfig"]["InputType"]
        if kind != "JSONL":
            raise NotImplementedError(f"The embedded cloud does not support InputType {kind}")
        for line in s3.get_object(**address)["Body"].iter_lines():
            if line.strip():
                yield json.loads(line)

    def _batch(self, items: list[Any]) -> None:
        context = self.env.states.context_object.context_object_data
        if selector := self.state.get("ItemSelector"):
            selected = []
            for index, value in enumerate(items):
                context["Map"] = {"Item": {"Index": index, "Value": value}}
                selected.append(self._evaluated(selector))
            context.pop("Map", None)
            items = selected
        if batcher := self.state.get("ItemBatcher"):
            size = batcher.get("MaxItemsPerBatch")
            if path := batcher.get("MaxItemsPerBatchPath"):
                size = self._evaluated({"size.$": path})["size"]
            shared = {"BatchInput": self._evaluated(batcher["BatchInput"])} if "BatchInput" in batcher else {}
            room = int(batcher.get("MaxInputBytesPerBatch", MAX_INPUT_BYTES)) - len(json.dumps(shared))
            for batch in _batches(items, int(size), room):
                self.children.append(Child({**shared, "Items": batch}, len(batch)))
        else:
            self.children = [Child(item, 1) for item in items]
        self.record.item_counter.total.count(len(items))
        self.record.item_counter.pending.count(len(items))
        self.record.execution_counter.total.count(len(self.children))
        self.record.execution_counter.pending.count(len(self.children))

    def _run_children(self) -> None:
        at_a_time = min(self.record.max_concurrency or CHILDREN_AT_A_TIME, CHILDREN_AT_A_TIME)
        with ThreadPoolExecutor(at_a_time, "map-run") as pool:
            left = [child for child in self.children if child.execution is None]
            waiting: set[Future[None]] = {pool.submit(self._run_child, child) for child in left}
            while waiting:
                ended, waiting = wait(waiting, timeout=0.2)
                for future in ended:
                    future.result()
                if not self.env.is_running():  # stopped or timed out
                    self._stop_children()

    def _run_child(self, child: Child) -> None:
        if self.over or not self.env.is_running():
            return
        child.execution = execution = self._execution_of(child)
        self._count(child, "pending", -1)
        self._count(child, "running", 1)
        execution.exec_worker._execution_logic()
        self._count(child, "running", -1)
        outcome = {"SUCCEEDED": "succeeded", "TIMED_OUT": "timed_out", "ABORTED": "aborted"}
        self._count(child, outcome.get(execution.status, "failed"), 1)
        if execution.status == "TIMED_OUT":
            self._count(child, "failed", 1)
        if execution.sm_type == "EXPRESS":  # AWS keeps no history of it, either
            execution.exec_worker = None
        with self._ending:
            if not self.over and self._exceeds_tolerance():
                self.over = True
                self._stop_children()

    def _execution_of(self, child: Child) -> Any:
        processor = dict(self.state["ItemProcessor"])
        kind = processor.pop("ProcessorConfig").get("ExecutionType", "STANDARD")
        limit = {"TimeoutSeconds": EXPRESS_S} if kind == "EXPRESS" else {}
        context, aws = self.env.states.context_object.context_object_data, self.env.aws_execution_details
        label = self.record.map_run_arn.rsplit("/", 1)[1].split(":")[0]
        arn, name = f"{context['StateMachine']['Id']}/{label}", str(uuid.uuid4())
        machine = StateMachine(
            arn,
            f"{context['StateMachine']['Name']}/{label}",
            json.dumps({**limit, **processor}),
            aws.role_arn,
            get_backend(aws.account, aws.region),
        )
        machine.sm_type = kind
        execution = Execution(
            name=name,
            sm_type=kind,
            role_arn=aws.role_arn,
            exec_arn=f"{arn.replace(':stateMachine:', ':execution:')}:{name}",
            account_id=aws.account,
            region_name=aws.region,
            state_machine=machine,
            start_date=datetime.now(UTC),
            cloud_watch_logging_session=None,
            activity_store={},
            input_data=json.dumps(child.given),
        )
        execution.announced = "never"  # AWS sends no events of children to the rules of their machine
        execution.exec_worker = execution._get_start_execution_worker()
        return execution

    def _count(self, child: Child, name: str, change: int) -> None:
        getattr(self.record.item_counter, name).count(change * child.items)
        getattr(self.record.execution_counter, name).count(change)

    def _exceeds_tolerance(self) -> bool:
        """Return whether a threshold that the state sets is exceeded; without any, a failure is enough."""
        failed, total = self.record.item_counter.failed.get(), self.record.item_counter.total.get()
        thresholds = [
            (("ToleratedFailureCount", "ToleratedFailureCountPath"), failed > self.record.tolerated_failure_count),
            (
                ("ToleratedFailurePercentage", "ToleratedFailurePercentagePath"),
                failed * 100 > self.record.tolerated_failure_percentage * total,
            ),
        ]
        given = [exceeded for names, exceeded in thresholds if self.state.keys() & set(names)]
        return any(given) if given else failed > 0

    def _stop_children(self) -> None:
        for child in self.children:
            if child.status == ExecutionStatus.RUNNING and child.execution.exec_worker.env:
                child.execution.stop(datetime.now(UTC), None, None)

    def _write_results(self, place: dict[str, Any]) -> dict[str, Any]:
        """Write the result files and their manifest, and return the state's ``ResultWriterDetails``."""
        writer, s3 = self.state["ResultWriter"], self._s3()
        prefix = "/".join(filter(None, [place.get("Prefix", "").strip("/"), self.record.map_run_arn.rsplit(":", 1)[1]]))
        json_lines = writer.get("WriterConfig", {}).get("OutputType") == "JSONL"
        files: dict[str, list[Any]] = {}
        for name, statuses in _RESULT_FILES.items():
            records = [self._result(child) for child in self.children if child.status in statuses]
            files[name] = []
            if records:
                lines = [json.dumps(record) for record in records]
                body = ("\n".join(lines) if json_lines else f"[{','.join(lines)}]").encode()
                key = f"{prefix}/{name}_0.{'jsonl' if json_lines else 'json'}"
                s3.put_object(Bucket=place["Bucket"], Key=key, Body=body)
                files[name].append({"Key": key, "Size": len(body)})
        for child in self.children:
            self._count(child, "results_written", 1)
        manifest = {"DestinationBucket": place["Bucket"], "MapRunArn": self.record.map_run_arn, "ResultFiles": files}
        s3.put_object(Bucket=place["Bucket"], Key=f"{prefix}/manifest.json", Body=json.dumps(manifest).encode())
        return {"ResultWriterDetails": {"Bucket": place["Bucket"], "Key": f"{prefix}/manifest.json"}}

    def _result(self, child: Child) -> dict[str, Any]:
        execution = child.execution
        if execution is None:
            return {"Input": json.dumps(child.given), "InputDetails": {"Included": True}, "Status": "PENDING"}
        outcome: dict[str, Any] = {"Output": json.dumps(execution.output), "OutputDetails": {"Included": True}}
        if execution.status != "SUCCEEDED":
            outcome = {"Error": execution.error, "Cause": execution.cause}
        return {
            "ExecutionArn": execution.exec_arn,
            "Input": json.dumps(child.given),
            "InputDetails": {"Included": True},
            "Name": execution.name,
            **{name: value for name, value in outcome.items() if value is not None},
            "StartDate": execution.start_date.isoformat(),
            "StateMachineArn": execution.state_machine.arn,
            "Status": execution.status,
            "StopDate": execution.stop_date.isoformat() if execution.stop_date else None,
        }

    def _event(self, kind: str, **details: Any) -> None:
        self.env.event_manager.add_event(
            self.env.event_history_context,
            HistoryEventType[kind],
            EventDetails(**details) if details else None,
        )

    def _failure(self, error: str, cause: str) -> FailureEventException:
        """Record the failure of the Map Run, and return the exception for the parent."""
        details: Any = {"error": f"States.{error}", "cause": cause}
        self._event("MapRunFailed", mapRunFailedEventDetails=details)
        self.record.set_stop(MapRunStatus.FAILED)
        name = StatesErrorName(StatesErrorNameType.from_name(f"States.{error}"))
        event = EventDetails(taskFailedEventDetails=details)
        return FailureEventException(FailureEvent(self.env, name, HistoryEventType.TaskFailed, event))


def _batches(items: list[Any], size: int, room: int) -> Iterator[list[Any]]:
    """Yield batches of at most ``size`` items and ``room`` bytes; an item that is larger is a batch of its own."""
    batch: list[Any] = []
    free = room
    for item in items:
        needed = len(json.dumps(item)) + 1
        if batch and (len(batch) == size or needed > free):
            yield batch
            batch, free = [], room
        batch.append(item)
        free -= needed
    if batch:
        yield batch


@functools.lru_cache(maxsize=256)
def _template(text: str) -> Any:
    """Return moto's component for a payload template."""
    state = {"Type": "Pass", "Parameters": json.loads(text), "End": True}
    program, _ = AmazonStateLanguageParser.parse(json.dumps({"StartAt": "P", "States": {"P": state}}))
    return program.states.states["P"].parameters
