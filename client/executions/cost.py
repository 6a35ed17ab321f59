"""What an execution cost at list prices, estimated from its history."""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Final, Protocol

from client.executions.steps import Step
from client.stack import Stack
from functions.contracts.prices import AS_OF, Usage, prices_of

MEMORY_MB: Final[Mapping[str, int | str]] = {
    "Validate": 2048,
    "SegmentOnLambda": "SegmentMemory",
    "Refine": "RefineMemory",
    "Encode": "EncodeMemory",
    "RecordFailure": 512,
    "PublishMetrics": 512,
}
"""Memory of the function that a state calls in MB, or the stack's parameter with it."""

_FUNCTIONS: Final = ("validate", "segment", "refine", "encode", "failure", "metrics")

_DEFAULT_MB: Final = 512

_SIDECAR_KB: Final = 3

# Writes and reads of S3: masks, alphas, results, the cached copy, sidecars and reports; and what functions read.
_S3: Final = {
    "Validate": (0, 1),
    "SegmentOnLambda": (1, 1),
    "SegmentOnEcs": (1, 1),
    "SegmentOnSageMaker": (1, 1),
    "AwaitMask": (2, 2),
    "FindRequest": (0, 1),
    "Refine": (1, 2),
    "Encode": (3, 3),
    "ServeCached": (1, 1),  # the read is of PublishMetrics, which looks for an earlier failure report after a hit
    "SaveSidecar": (1, 0),
    "RecordFailure": (1, 1),
}
_DYNAMODB_WRITES: Final = {"ClaimWork": 1, "TakeOverClaim": 1, "SaveCache": _SIDECAR_KB, "ReleaseClaim": 1}
_DYNAMODB_READS: Final = {"LookUpCache": 1}

_HOSTS: Final = {
    "SegmentOnEcs": "the ECS tasks of the worker",
    "SegmentOnSageMaker": "the SageMaker endpoint",
    "SegmentOnSageMakerAsync": "the SageMaker endpoint",
}


class BilledCall(Protocol):
    """What Lambda reports about the call of a function; see :class:`client.logs.Report`."""

    @property
    def function(self) -> str:
        """Service name of the function, e.g. ``segment``."""

    @property
    def billed_ms(self) -> float:
        """Time that is billed."""

    @property
    def memory_mb(self) -> int:
        """Configured memory."""


@dataclass(frozen=True)
class Cost:
    """Estimated cost of an execution in US dollars.

    Attributes:
        usage: what it used.
        region: Region of the prices.
        as_of: date of the prices.
        orchestration: Step Functions.
        compute: Lambda.
        requests: S3 and DynamoDB.
        left_out: what the estimate does not contain.
        is_billed: whether durations and memory are those that Lambda bills. Otherwise they are those of the history,
            which include the time that Step Functions takes for a call, and of the stack's parameters.
    """

    usage: Usage
    region: str
    as_of: str
    orchestration: float
    compute: float
    requests: float
    left_out: tuple[str, ...]
    is_billed: bool = False

    @property
    def total(self) -> float:
        """The sum."""
        return self.orchestration + self.compute + self.requests


def cost_of(stack: Stack, steps: Sequence[Step], reports: Iterable[BilledCall] = ()) -> Cost:
    """Return what an execution has cost so far.

    Transitions and function calls are counted. Calls of S3 and DynamoDB are those of each state without retries inside
    functions.

    Args:
        stack: the stack that ran it; its parameters have the memory of functions.
        steps: its steps.
        reports: what Lambda reports about its calls. Unless all calls are reported, the durations of the history are
            used: CloudWatch returns a line some seconds after the call.
    """
    region, prices = prices_of(stack.region)
    usage = sum((_usage(step, stack.parameters) for step in steps), Usage())
    calls = [report for report in reports if report.function in _FUNCTIONS]
    is_billed = bool(calls) and len(calls) >= usage.lambda_requests
    if is_billed:
        gb_s = sum(call.billed_ms / 1000 * call.memory_mb / 1024 for call in calls)
        usage = replace(usage, lambda_requests=len(calls), lambda_gb_s=gb_s)
    hosts = dict.fromkeys(_HOSTS[step.name] for step in steps if step.name in _HOSTS)
    return Cost(
        usage=usage,
        region=region,
        as_of=AS_OF,
        orchestration=usage.orchestration_usd(prices),
        compute=usage.compute_usd(prices),
        requests=usage.requests_usd(prices),
        left_out=(*hosts, "logs and metrics", "events and queues", "storage", "data transfer"),
        is_billed=is_billed,
    )


def _usage(step: Step, parameters: Mapping[str, str]) -> Usage:
    attempts = max(1, len(step.attempts))
    calls = len(step.attempts) if step.resource == "lambda:invoke" else 0
    seconds = sum(attempt.seconds for attempt in step.attempts) if calls else 0.0
    writes, reads = _S3.get(step.name, (0, 0))
    return Usage(
        transitions=attempts,
        lambda_requests=calls,
        lambda_gb_s=seconds * _memory_mb(step.name, parameters) / 1024,
        s3_writes=writes * attempts,
        s3_reads=reads * attempts,
        dynamodb_writes=_DYNAMODB_WRITES.get(step.name, 0) * attempts,
        dynamodb_reads=_DYNAMODB_READS.get(step.name, 0) * attempts,
    )


def _memory_mb(state: str, parameters: Mapping[str, str]) -> int:
    memory = MEMORY_MB.get(state, _DEFAULT_MB)
    return memory if isinstance(memory, int) else int(parameters.get(memory, _DEFAULT_MB))
