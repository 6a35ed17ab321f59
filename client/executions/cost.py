"""What an execution cost at list prices, estimated from its history."""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Final, Protocol

from client.executions.steps import Attempt, Step
from client.monthly_cost import memory_of
from client.stack import NOMINAL_MEMORY_MB, Stack
from functions.contracts.prices import AS_OF, Line, Usage, prices_of

MEMORY_MB: Final[Mapping[str, int | str]] = {
    "Validate": 2048,
    "SegmentOnLambda": "SegmentMemory",
    "Refine": "RefineMemory",
    "Encode": "EncodeMemory",
    "RecordFailure": 512,
    "PublishMetrics": 512,
}
"""Memory of the function that a state calls in MB, or the stack's parameter with it."""

_PARAMETERS: Final = {"segment": "SegmentMemory", "refine": "RefineMemory", "encode": "EncodeMemory"}

_FUNCTIONS: Final = ("validate", "segment", "refine", "encode", "failure", "metrics")

_DEFAULT_MB: Final = 512

_NEVER_RAN: Final = ("Lambda.ResourceNotFoundException", "Lambda.TooManyRequestsException")
"""Errors of calls that Lambda rejects. It neither bills nor reports them."""

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
_DYNAMODB_WRITES: Final = {
    "ClaimWork": 1,
    "ServeCached": _SIDECAR_KB - 1,  # ClaimWork met a finished item: a refused write is billed by the item's size
    "TakeOverClaim": 1,
    "SaveCache": _SIDECAR_KB,
    "ReleaseClaim": 1,
}
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

    @property
    def init_ms(self) -> float | None:
        """Part of the billed time in which the function started; None if it was running already."""


@dataclass(frozen=True)
class Cost:
    """Estimated cost of an execution in US dollars.

    Attributes:
        usage: what it used.
        region: Region of the prices.
        as_of: date of the prices.
        orchestration: Step Functions.
        compute: Lambda, starts included.
        starts: part of it that starts of functions cost; 0 unless ``is_billed``.
        requests: S3 and DynamoDB.
        left_out: what the estimate does not contain.
        reported: number of calls that Lambda has reported.
        is_billed: whether all calls are reported, so that durations and memory are those that Lambda bills. Otherwise
            they are those of the history, which include the time that Step Functions takes for a call, and of the
            stack's parameters.
        default_mb: on an embedded cloud, the template's default memory of the functions that have only a nominal one;
            their calls are priced with it.
    """

    usage: Usage
    region: str
    as_of: str
    orchestration: float
    compute: float
    requests: float
    left_out: tuple[str, ...]
    starts: float = 0.0
    reported: int = 0
    is_billed: bool = False
    default_mb: Mapping[str, int] = field(default_factory=dict)

    @property
    def total(self) -> float:
        """The sum."""
        return self.orchestration + self.compute + self.requests

    def lines(self) -> list[Line]:
        """Return the bill; starts of functions have a line of their own."""
        _, prices = prices_of(self.region)
        starts = Line("Lambda", "GB-seconds of starts", self.starts / prices.lambda_gb_s, prices.lambda_gb_s)
        lines = []
        for line in self.usage.lines(prices):
            if line.item == "GB-seconds":
                lines += [replace(line, quantity=line.quantity - starts.quantity), starts]
            else:
                lines.append(line)
        return [line for line in lines if line.quantity]


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
    default_mb = _default_mb(stack)
    sizes = {parameter: str(default_mb[name]) for name, parameter in _PARAMETERS.items() if name in default_mb}
    usage = sum((_usage(step, {**stack.parameters, **sizes}) for step in steps), Usage())
    calls = [report for report in reports if report.function in _FUNCTIONS]
    is_billed, starts_gb_s = bool(calls) and len(calls) >= usage.lambda_requests, 0.0
    if is_billed:
        gb = [default_mb.get(call.function, call.memory_mb) / 1024 for call in calls]
        gb_s = sum(call.billed_ms / 1000 * one for call, one in zip(calls, gb, strict=True))
        starts_gb_s = sum((call.init_ms or 0.0) / 1000 * one for call, one in zip(calls, gb, strict=True))
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
        starts=starts_gb_s * prices.lambda_gb_s,
        reported=len(calls),
        is_billed=is_billed,
        default_mb=default_mb,
    )


def _default_mb(stack: Stack) -> dict[str, int]:
    """Return the template's default memory of the functions whose memory is only nominal; none on AWS."""
    if stack.endpoint_url is None:
        return {}
    defaults, nominal = memory_of({}), str(NOMINAL_MEMORY_MB)
    return {name: defaults[name] for name, one in _PARAMETERS.items() if stack.parameters.get(one) == nominal}


def _usage(step: Step, parameters: Mapping[str, str]) -> Usage:
    attempts = max(1, len(step.attempts))
    ran = [one for one in step.attempts if not _was_rejected(one)] if step.resource == "lambda:invoke" else []
    writes, reads = _S3.get(step.name, (0, 0))
    return Usage(
        transitions=attempts,
        lambda_requests=len(ran),
        lambda_gb_s=sum(one.seconds for one in ran) * _memory_mb(step.name, parameters) / 1024,
        s3_writes=writes * attempts,
        s3_reads=reads * attempts,
        dynamodb_writes=_DYNAMODB_WRITES.get(step.name, 0) * attempts,
        dynamodb_reads=_DYNAMODB_READS.get(step.name, 0) * attempts,
    )


def _was_rejected(attempt: Attempt) -> bool:
    return attempt.error.startswith(_NEVER_RAN)


def _memory_mb(state: str, parameters: Mapping[str, str]) -> int:
    memory = MEMORY_MB.get(state, _DEFAULT_MB)
    return memory if isinstance(memory, int) else int(parameters.get(memory, _DEFAULT_MB))
